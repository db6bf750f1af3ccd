"""Hops from the event loop to a thread and back: one for each call, and never left running.

A thread cannot be interrupted, so a call that is cancelled first takes its work back if it has not
begun, else tells it to stop (`Stop`), and then waits until it has: only then are the views it reads
and the files it holds nobody's.

There are threads of our own rather than an executor's because the hop is most of what a small call
costs: without an executor's future and its condition it takes two thirds of the CPU time. And brief
work (a small put: a dozen system calls of a few microseconds) shares a *lane*: one thread does what
has queued up, and reports it together. With a thread for each, they and the loop hand the
interpreter's lock to and fro at every system call, and many at once are slower than one at a time.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Generic, ParamSpec, TypeVar

from trove_async._concurrency import wait_until_done
from trove_async.errors import ClosedError

P = ParamSpec("P")
T = TypeVar("T")


_LOOK = 0.005
"""Seconds between two looks at a busy lane. What was done meanwhile is reported, together: the fewer
times loop and thread compete for the interpreter, the faster both. When nothing was done, the lane's
thread is taken to wait for a disk, and is helped by another; one that only waits for a busy loop is
not, since the interpreter's switch interval is as long."""


_HELP = 0.05
"""Seconds that a helper stays in a lane where it is not alone."""


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
    """The threads of one driver. Made, used and closed on one event loop.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open = True
        self._lane: deque[_Job[object]] = deque()
        self._lane_lock = threading.Lock()
        self._lane_threads = 0
        self._lane_done = 0
        self._lane_told: deque[Callable[[], None]] = deque()
        self._look: asyncio.TimerHandle | None = None
        self._serving = count
        self._last: _Job[object] | None = None
        # Daemons: a program that forgets to close its store still ends. What a thread is torn
        # away from then is what a kill leaves, too.
        self._threads = [
            threading.Thread(target=self._serve, name=f"trove-local-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

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
        job = _Job(self._loop, work)
        if brief and len(self._threads) > 1:
            self._put_in_lane(job)
        else:
            self.put(job.run)
        try:
            return await job.result
        except asyncio.CancelledError:
            if not job.take():
                if stop is not None:
                    stop.asked = True
                await job.end()
                if undo is not None:
                    for outcome in job.outcomes:
                        await self._undo(undo, outcome)
            raise

    async def _undo(self, undo: Callable[[T], object], outcome: T) -> None:
        with suppress(asyncio.CancelledError):  # a second one: the first is about to be raised
            await self.finish(lambda: undo(outcome))

    async def finish(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, cancelled or not: a cancel is raised when it is done."""
        job = _Job(self._loop, work)
        self.put(job.run)
        return await wait_until_done(job.result)

    async def aclose(self, last: Callable[[], object] = lambda: None) -> None:
        """End the threads once they have done all that they were given. Idempotent.

        Args:
            last: What is to be done when no thread works any more, in the last one to end: it
                closes what the others' work needs.
        """
        if self._look is not None:
            self._look.cancel()
        if self._last is None:
            self._open = False
            self._last = _Job(self._loop, last)
            for _ in self._threads:
                self._queue.put(None)
        try:
            await wait_until_done(self._last.result)
        finally:
            for thread in self._threads:
                thread.join()

    def put(self, work: Callable[[], None]) -> None:
        """Let a thread call `work`, which raises nothing.

        Raises:
            ClosedError: The driver was closed.
        """
        if not self._open:
            raise ClosedError("this driver is closed")
        self._queue.put(work)

    def _put_in_lane(self, job: _Job[T]) -> None:
        with self._lane_lock:
            if not self._lane_threads:
                self.put(self._drain_lane)
                self._lane_threads = 1
            self._lane.append(job)  # type: ignore[arg-type] # what it returns is nothing to us
        if self._look is None:
            self._look = self._loop.call_later(_LOOK, self._look_at_lane, self._lane_done)

    def _drain_lane(self, until: float = math.inf) -> None:
        while True:
            with self._lane_lock:
                # A helper leaves when its time is over: by then the one that it helps is back, or
                # the next look sends another.
                leaves = self._lane_threads > 1 and time.monotonic() > until
                job = None if leaves or not self._lane else self._lane.popleft()
                if job is None:
                    self._lane_threads -= 1
                    break
            job.run(self._lane_told.append)
            del job
            self._lane_done += 1
        _tell(self._loop, self._report)

    def _look_at_lane(self, done: int) -> None:
        self._look = None
        self._report()
        with self._lane_lock:
            if not self._lane_threads:
                return
            # One thread always stays out: a lane may never be empty, and others want theirs, too.
            spare = len(self._threads) - 1 - self._lane_threads
            if self._lane and self._lane_done == done and spare > 0 and self._open:
                self.put(partial(self._drain_lane, time.monotonic() + _HELP))
                self._lane_threads += 1
        self._look = self._loop.call_later(_LOOK, self._look_at_lane, self._lane_done)

    def _report(self) -> None:
        while self._lane_told:
            self._lane_told.popleft()()

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # not kept, with all that it holds, until there is more to do
        with self._lane_lock:
            self._serving -= 1
            last = None if self._serving else self._last
        if last is not None:
            last.run()


class _Job(Generic[T]):
    """One piece of work: begun by a thread or taken back, whichever is first."""

    __slots__ = ("_late", "_loop", "_over", "_token", "_work", "outcomes", "result")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> None:
        self._loop = loop
        self._work = work
        self._token = [None]
        self._over = False
        self.outcomes: list[T] = []
        self._late: asyncio.Future[None] | None = None
        self.result: asyncio.Future[T] = loop.create_future()

    def take(self) -> bool:
        """Take it, to do it or not; False if that has happened. From any thread."""
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def run(self, tell: Callable[[Callable[[], None]], None] | None = None) -> None:
        """Do it, in a thread, and have the loop call what tells of it."""
        if not self.take():
            return
        try:
            outcome = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            ended = partial(self._fail, error)
        else:
            ended = partial(self._succeed, outcome)
        if tell is None:
            _tell(self._loop, ended)
        else:
            tell(ended)

    async def end(self) -> None:
        """Return when the thread has ended it, though nobody takes its result any more."""
        if not self._over:
            self._late = self._loop.create_future()
            with suppress(asyncio.CancelledError):  # a second one: the first is about to be raised
                await wait_until_done(self._late)
        if self.result.done() and not self.result.cancelled():
            self.result.exception()  # seen: the cancellation is what the caller hears of

    def _succeed(self, outcome: T) -> None:
        if not self.result.done():
            self.result.set_result(outcome)
        self.outcomes.append(outcome)
        self._end()

    def _fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)
        self._end()

    def _end(self) -> None:
        self._over = True
        if self._late is not None:
            self._late.set_result(None)


class Lane(Executor):
    """The threads as one aiofiles handle sees them, that knows what is still under way for it.

    A cancel ends aiofiles' coroutine, and would leave a thread to write into the reader's buffer.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._job: Future[object] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a thread call `fn`."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        self._threads.put(work)
        self._job = future  # type: ignore[assignment] # what it returns is nothing to us
        return future

    async def quiet(self) -> None:
        """Return when no thread works for the handle any more."""
        if self._job is not None and not self._job.cancel():
            with suppress(OSError):
                await wait_until_done(asyncio.wrap_future(self._job))


def _tell(
    loop: asyncio.AbstractEventLoop, what: Callable[P, None], *args: P.args, **_: P.kwargs
) -> None:
    """Have the loop call `what`; nobody is there to hear of it where the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *args)
