"""Hops from the event loop to a thread and back, never left running.

A thread cannot be interrupted, so a call that is cancelled first takes its work back if it has not
begun, else tells it to stop (`Stop`), and then waits until it has: only then are the views it reads
and the files it holds nobody's.

Brief work (a small put: a dozen system calls of a few microseconds) shares a *lane*: one thread does
what has queued up and reports it together. With a thread for each, they and the loop hand the
interpreter's lock to and fro at every system call, and many at once are slower than one at a time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from trove_async._concurrency import settled
from trove_async.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_STUCK = 0.002
"""Seconds after which a lane's thread is taken to wait for a disk, and is helped by another."""

_TOGETHER = 32
"""Results reported at once at the most: the fewer times loop and thread compete, the faster both."""


class Stopped(Exception):  # noqa: N818 - it is a signal, heard by nobody but the thread's caller
    """The call for which a thread works was cancelled."""


class Stop:
    """Tells a thread that the call it works for was cancelled."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise `Stopped` if so: called wherever nothing is half done."""
        if self.asked:
            raise Stopped


class Threads:
    """The threads of one driver.

    Args:
        count: How many there may be.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="trove-local")
        self._lane = _Lane(self._executor, count)

    async def run(
        self,
        work: Callable[[], T],
        *,
        stop: Stop | None = None,
        undo: Callable[[T], object] | None = None,
        brief: bool = False,
    ) -> T:
        """Do `work` in a thread. After a cancel it has ended, or has never begun.

        Args:
            work: What to do.
            stop: What it looks at to hear of a cancel.
            undo: What becomes of a result that nobody is there any more to take.
            brief: Whether it takes some microseconds, if all goes well.
        """
        if brief:
            return await self._briefly(work, stop)
        job = self._submit(work)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                if stop is not None:
                    stop.asked = True
                await _ended(job, undo)
            raise

    async def _briefly(self, work: Callable[[], T], stop: Stop | None) -> T:
        job = _Job(work)
        try:
            self._lane.submit(job)
        except RuntimeError as error:  # how an executor says that it was shut down
            raise ClosedError("this driver is closed") from error
        try:
            await job.reported
        except asyncio.CancelledError:
            if not self._lane.take_back(job):
                if stop is not None:
                    stop.asked = True
                await job.ended()
            raise
        return job.result()

    async def finish(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, cancelled or not: a cancel is raised when it is done."""
        return await settled(asyncio.wrap_future(self._submit(work)))

    async def aclose(self) -> None:
        """Wait for the threads to end."""
        with ThreadPoolExecutor(1) as closer:
            await settled(asyncio.wrap_future(closer.submit(self._executor.shutdown)))

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand work to a thread, as an executor does."""
        return self._executor.submit(work, *args, **kwargs)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._executor.submit(work)
        except RuntimeError as error:  # how an executor says that it was shut down
            raise ClosedError("this driver is closed") from error


class _Job(Generic[T]):
    """Brief work, and what came of it. `reported` is the loop's, the rest is the thread's first."""

    __slots__ = ("_error", "_result", "_work", "reported")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._result: T | None = None
        self.reported: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def do(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error

    def report(self) -> None:
        if not self.reported.done():
            self.reported.set_result(None)

    async def ended(self) -> None:
        """Return once the thread is done with it, after `reported` was cancelled with its task."""
        self.reported = asyncio.get_running_loop().create_future()
        try:
            await settled(self.reported)
        except asyncio.CancelledError:
            return  # a second one: the first is about to be raised

    def result(self) -> T:
        if self._error is not None:
            error, self._error = self._error, None  # no cycle through its traceback
            raise error
        return self._result  # type: ignore[return-value] # set, or there was an error


class _Lane:
    """A queue of brief work, done by one thread for as long as that is quick.

    Args:
        executor: Whose threads do it.
        count: How many of them may, where a disk makes them wait.
    """

    def __init__(self, executor: ThreadPoolExecutor, count: int) -> None:
        self._executor = executor
        self._count = count
        self._queue: deque[_Job[object]] = deque()
        self._done: deque[_Job[object]] = deque()
        self._lock = threading.Lock()
        self._workers = 0
        self._begun = 0.0
        self._woken = False

    def submit(self, job: _Job[T]) -> None:
        """Queue a job; called on the loop."""
        with self._lock:
            self._queue.append(job)  # type: ignore[arg-type] # what it returns is nothing to us
            stuck = time.monotonic() - self._begun > _STUCK
            if self._workers and not (stuck and self._workers < self._count):
                return
            self._workers += 1
        try:
            self._executor.submit(self._drain, asyncio.get_running_loop())
        except RuntimeError:
            self._workers -= 1
            self.take_back(job)
            raise

    def take_back(self, job: _Job[T]) -> bool:
        """Take a job out of the queue; False if it was begun, or done."""
        try:
            self._queue.remove(job)  # type: ignore[arg-type] # likewise
        except ValueError:
            return False
        return True

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._workers -= 1
                    return
                job = self._queue.popleft()
                self._begun = time.monotonic()
            job.do()
            self._done.append(job)
            del job
            late = time.monotonic() - self._begun > _STUCK
            if not self._woken and (late or not self._queue or len(self._done) >= _TOGETHER):
                self._woken = True
                loop.call_soon_threadsafe(self._report)

    def _report(self) -> None:
        self._woken = False
        while self._done:
            self._done.popleft().report()


async def _ended(job: Future[T], undo: Callable[[T], object] | None) -> None:
    try:
        await settled(asyncio.wrap_future(job))
    except asyncio.CancelledError:
        pass  # a second one: the first is about to be raised
    except Exception:  # noqa: BLE001 - nobody is there any more to hear of it
        return
    if undo is not None and job.exception() is None:
        undo(job.result())
