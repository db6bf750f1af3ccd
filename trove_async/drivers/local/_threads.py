"""Calls from the event loop to worker threads, each of which ends before its caller continues.

A thread cannot be interrupted. A cancelled call is withdrawn if it has not started. Otherwise the
call sets a `CancelFlag` and waits for the thread to end: only then are the views that the thread
reads and the files that it holds safe to reuse.

The threads are our own because the hop is most of the cost of a small call: without an executor's
future and condition it takes two thirds of the CPU time. Brief work (a small put: a dozen system
calls of a few microseconds) shares a *lane*: one thread runs all the queued jobs and reports their
results together. With one thread for each job, the threads and the loop exchange the GIL at every
system call, and concurrent jobs are slower than sequential ones.
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


_LANE_POLL = 0.005
"""Seconds between two polls of a busy lane. Results are reported together: the less often loop and
thread compete for the GIL, the faster both are. If no job has ended since the last poll, the lane's
thread probably waits for a disk, and a second thread helps. A thread that only waits for a busy loop
gets no helper: the interpreter's switch interval is as long."""


_HELPER_TIME = 0.05
"""Seconds after which a helper leaves a lane that another thread serves."""


class CallCancelled(Exception):  # noqa: N818 - a signal, not an error
    """The call that a thread works for was cancelled."""


class CancelFlag:
    """A flag that asks a thread to stop, because its call was cancelled."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise `CallCancelled` if the call was cancelled. For points where no change is half made."""
        if self.requested:
            raise CallCancelled


class Threads:
    """The worker threads of one driver. Created, used and closed on one event loop.

    Args:
        count: Number of threads.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open = True
        self._lane: deque[_Job[object]] = deque()
        self._lane_lock = threading.Lock()
        self._lane_threads = 0
        self._lane_done = 0
        self._lane_callbacks: deque[Callable[[], None]] = deque()
        self._poll: asyncio.TimerHandle | None = None
        self._running = count
        self._final_job: _Job[object] | None = None
        # Daemons, so that a program that does not close its store still ends. That leaves no more
        # behind than a kill does.
        self._threads = [
            threading.Thread(target=self._run_thread, name=f"trove-local-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self,
        work: Callable[[], T],
        *,
        cancel: CancelFlag | None = None,
        undo: Callable[[T], object] | None = None,
        brief: bool = False,
    ) -> T:
        """Run `work` in a thread. After a cancel it has ended or never started.

        Args:
            work: The function to run.
            cancel: The flag that is set on a cancel.
            undo: Called with the result if the caller was cancelled.
            brief: Whether `work` usually takes microseconds, and so may share the lane.
        """
        job = _Job(self._loop, work)
        if brief and len(self._threads) > 1:
            self._put_in_lane(job)
        else:
            self.put(job.run)
        try:
            return await job.result
        except asyncio.CancelledError:
            if not job.claim():
                if cancel is not None:
                    cancel.requested = True
                await job.wait_finished()
                if undo is not None:
                    for outcome in job.outcomes:
                        await self._undo(undo, outcome)
            raise

    async def _undo(self, undo: Callable[[T], object], outcome: T) -> None:
        with suppress(asyncio.CancelledError):  # a second one: the first is about to be raised
            await self.finish(lambda: undo(outcome))

    async def finish(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread to its end. A cancel is raised afterwards."""
        job = _Job(self._loop, work)
        self.put(job.run)
        return await wait_until_done(job.result)

    async def aclose(self, last: Callable[[], object] = lambda: None) -> None:
        """End the threads once all queued work is done. Idempotent.

        Args:
            last: Called in the last thread, after all other work. It closes shared files.
        """
        if self._poll is not None:
            self._poll.cancel()
        if self._final_job is None:
            self._open = False
            self._final_job = _Job(self._loop, last)
            for _ in self._threads:
                self._queue.put(None)
        try:
            await wait_until_done(self._final_job.result)
        finally:
            for thread in self._threads:
                thread.join()

    def put(self, work: Callable[[], None]) -> None:
        """Queue `work`, which must not raise, for a thread.

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
            self._lane.append(job)  # type: ignore[arg-type] # its result type does not matter here
        if self._poll is None:
            self._poll = self._loop.call_later(_LANE_POLL, self._poll_lane, self._lane_done)

    def _drain_lane(self, until: float = math.inf) -> None:
        while True:
            with self._lane_lock:
                # A helper leaves after its time. By then the other thread is back, or the next
                # poll adds another helper.
                leaves = self._lane_threads > 1 and time.monotonic() > until
                job = None if leaves or not self._lane else self._lane.popleft()
                if job is None:
                    self._lane_threads -= 1
                    break
            job.run(self._lane_callbacks.append)
            del job
            self._lane_done += 1
        _call_soon(self._loop, self._run_callbacks)

    def _poll_lane(self, done: int) -> None:
        self._poll = None
        self._run_callbacks()
        with self._lane_lock:
            if not self._lane_threads:
                return
            # One thread is kept free for other work: a lane may never run empty.
            spare = len(self._threads) - 1 - self._lane_threads
            if self._lane and self._lane_done == done and spare > 0 and self._open:
                self.put(partial(self._drain_lane, time.monotonic() + _HELPER_TIME))
                self._lane_threads += 1
        self._poll = self._loop.call_later(_LANE_POLL, self._poll_lane, self._lane_done)

    def _run_callbacks(self) -> None:
        while self._lane_callbacks:
            self._lane_callbacks.popleft()()

    def _run_thread(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # free its memory before the wait for more work
        with self._lane_lock:
            self._running -= 1
            last = None if self._running else self._final_job
        if last is not None:
            last.run()


class _Job(Generic[T]):
    """One call, either started by a thread or withdrawn."""

    __slots__ = ("_finished", "_loop", "_unclaimed", "_waiter", "_work", "outcomes", "result")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> None:
        self._loop = loop
        self._work = work
        self._unclaimed = [None]
        self._finished = False
        self.outcomes: list[T] = []
        self._waiter: asyncio.Future[None] | None = None
        self.result: asyncio.Future[T] = loop.create_future()

    def claim(self) -> bool:
        """Claim the job, to run or withdraw it. Return False if it was claimed before. Thread-safe."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def run(self, report: Callable[[Callable[[], None]], None] | None = None) -> None:
        """Run the job in a thread and report the result to the event loop."""
        if not self.claim():
            return
        try:
            outcome = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            callback = partial(self._fail, error)
        else:
            callback = partial(self._succeed, outcome)
        if report is None:
            _call_soon(self._loop, callback)
        else:
            report(callback)

    async def wait_finished(self) -> None:
        """Wait until the thread has run the job. The result is discarded."""
        if not self._finished:
            self._waiter = self._loop.create_future()
            with suppress(asyncio.CancelledError):  # a second one: the first is about to be raised
                await wait_until_done(self._waiter)
        if self.result.done() and not self.result.cancelled():
            self.result.exception()  # retrieved: the caller gets the CancelledError

    def _succeed(self, outcome: T) -> None:
        if not self.result.done():
            self.result.set_result(outcome)
        self.outcomes.append(outcome)
        self._finish()

    def _fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        if self._waiter is not None:
            self._waiter.set_result(None)


class FileExecutor(Executor):
    """An executor for one aiofiles handle, which can wait for the handle's last call.

    A cancel ends aiofiles' coroutine while the thread may still write into the reader's buffer.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._job: Future[object] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread."""
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
        self._job = future  # type: ignore[assignment] # its result type does not matter here
        return future

    async def wait_idle(self) -> None:
        """Wait until no thread works for the handle."""
        if self._job is not None and not self._job.cancel():
            with suppress(OSError):
                await wait_until_done(asyncio.wrap_future(self._job))


def _call_soon(
    loop: asyncio.AbstractEventLoop, what: Callable[P, None], *args: P.args, **_: P.kwargs
) -> None:
    """Call `what` on the event loop. Do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what, *args)
