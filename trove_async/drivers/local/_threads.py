"""Worker threads for blocking calls. A call returns only once its work has ended, even if cancelled.

A thread cannot be interrupted. A cancelled call is withdrawn if it has not started. Otherwise the call
sets a `CancelFlag` and waits until the thread has finished. Only then can the views that the thread reads
and the files that it uses be released.

The driver starts its own threads and uses no ThreadPoolExecutor, because the hop to a thread is most of
the cost of a small call. An empty hop takes 139 µs of CPU time. Through an executor, with its future and
condition, it takes 227 µs.

Brief work (a small put makes a dozen system calls of a few microseconds) shares a *lane*: one thread runs
all queued jobs and reports their results together. With one thread for each job, the threads and the event
loop pass the GIL around at every system call, and concurrent jobs are slower than sequential ones.
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

from trove_async._concurrency import run_cleanup, wait_until_done
from trove_async.errors import ClosedError, TimedOutError

P = ParamSpec("P")
T = TypeVar("T")

_LANE_POLL = 0.005
"""Seconds between two polls of a busy lane. A poll delivers the results of all finished jobs: the less
often the event loop and the lane's thread compete for the GIL, the faster both are. If no job has finished
since the last poll, the lane's thread probably waits for a disk, and another thread also
runs jobs of the lane, as a *helper*. The interval is also the interpreter's default switch interval, so a
thread that only waits for the GIL gets no helper."""

CLOSE_SECONDS = 30.0
"""Seconds that a close waits for calls in progress. A file system on a network may never answer one."""

_HELPER_TIME = 0.05
"""Seconds after which a helper leaves a lane that a different thread still serves."""


class CallCancelled(Exception):  # noqa: N818 - a signal, not an error
    """Raised in a thread if the call that it works for was cancelled."""


class CancelFlag:
    """A flag that asks a thread to stop, because its call was cancelled."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise `CallCancelled` if the call was cancelled. Only check where no change is half made."""
        if self.requested:
            raise CallCancelled


class Threads:
    """The worker threads of one driver. Created, used and closed on one event loop.

    Args:
        count: Number of threads.

    Attributes:
        loop: The event loop.
    """

    def __init__(self, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open = True
        self._lane: deque[_Job[object]] = deque()
        self._lane_lock = threading.Lock()
        self._lane_threads = 0
        self._lane_finished_count = 0
        self._lane_callbacks: deque[Callable[[], None]] = deque()
        self._poll: asyncio.TimerHandle | None = None
        self._running_threads = count
        self._final_job: _Job[object] | None = None
        # With daemon threads, a program that never closes its store can still exit. The files are then
        # in the same state as after a kill.
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
        """Run `work` in a thread. If the caller is cancelled, wait for `work`, or never start it.

        Args:
            work: The function to run.
            cancel: The flag to set if the caller is cancelled.
            undo: Called in a thread with the result of `work`, if the caller was cancelled.
            brief: Whether `work` usually takes microseconds, so that it can share the lane.
        """
        # 1. Queue the work and wait for its result.
        job = _Job(self.loop, work)
        if brief and len(self._threads) > 1:
            self._put_in_lane(job)
        else:
            self.put(job.run)
        try:
            return await job.result
        except asyncio.CancelledError:
            # 2. After a cancel, withdraw the work. If it has started, wait for its end and undo it.
            if not job.claim():
                if cancel is not None:
                    cancel.requested = True
                await job.wait_finished()
                if undo is not None:
                    for outcome in job.outcomes:
                        await self._undo(undo, outcome)
            raise

    async def _undo(self, undo: Callable[[T], object], outcome: T) -> None:
        with suppress(asyncio.CancelledError):  # a second cancel: `run` re-raises the first
            await self.finish(lambda: undo(outcome))

    async def finish(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, and wait for its end even if the caller is cancelled."""
        job = _Job(self.loop, work)
        self.put(job.run)
        return await wait_until_done(job.result)

    async def aclose(self, final_work: Callable[[], object] | None = None) -> None:
        """Run all queued work, then end the threads, even if cancelled. Idempotent.

        Args:
            final_work: Called in the last thread, after all other work. It closes shared files. None: nothing.

        Raises:
            TimedOutError: A thread is still in a call. It ends once the call returns.
        """
        if self._poll is not None:
            self._poll.cancel()
        if self._final_job is None:
            self._open = False
            self._final_job = _Job(self.loop, final_work or (lambda: None))
            for _ in self._threads:
                self._queue.put(None)
        result = self._final_job.result
        try:
            await wait_for_close(result)
            result.result()
        finally:
            # The last thread has run the final job, so all threads are about to end.
            if result.done():
                for thread in self._threads:
                    thread.join()

    def put(self, work: Callable[[], None]) -> None:
        """Queue `work` for a thread. `work` must not raise.

        Raises:
            ClosedError: The driver is closed.
        """
        if not self._open:
            raise ClosedError("the driver is closed: create a new one")
        self._queue.put(work)

    def _put_in_lane(self, job: _Job[T]) -> None:
        with self._lane_lock:
            if not self._lane_threads:
                self.put(self._drain_lane)
                self._lane_threads = 1
            self._lane.append(job)  # type: ignore[arg-type] # its result type does not matter here
        if self._poll is None:
            self._poll = self.loop.call_later(
                _LANE_POLL, self._poll_lane, self._lane_finished_count
            )

    def _drain_lane(self, leave_at: float = math.inf) -> None:
        """Run the jobs of the lane in this thread until the lane is empty.

        Args:
            leave_at: The monotonic time at which this thread leaves, if it is a helper.
        """
        while True:
            with self._lane_lock:
                # A helper leaves after a while. If the other thread is still waiting, the next poll
                # adds a new helper.
                must_leave = self._lane_threads > 1 and time.monotonic() > leave_at
                job = None if must_leave or not self._lane else self._lane.popleft()
                if job is None:
                    self._lane_threads -= 1
                    break
            job.run(self._lane_callbacks.append)
            del job  # free its memory before the next one
            # Two threads may lose an increment. Polls only check whether the count has changed.
            self._lane_finished_count += 1
        _call_soon(self.loop, self._run_callbacks)

    def _poll_lane(self, finished_before: int) -> None:
        """Deliver results, and add a thread to the lane if no job has finished since the last poll."""
        self._poll = None
        self._run_callbacks()
        with self._lane_lock:
            if not self._lane_threads:
                return
            # One thread stays free for other work, because a busy lane may never become empty.
            spare = len(self._threads) - 1 - self._lane_threads
            is_stuck = self._lane_finished_count == finished_before
            if self._lane and is_stuck and spare > 0 and self._open:
                self.put(partial(self._drain_lane, time.monotonic() + _HELPER_TIME))
                self._lane_threads += 1
        self._poll = self.loop.call_later(_LANE_POLL, self._poll_lane, self._lane_finished_count)

    def _run_callbacks(self) -> None:
        while self._lane_callbacks:
            self._lane_callbacks.popleft()()

    def _run_thread(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # free its memory before the wait for more work
        with self._lane_lock:
            self._running_threads -= 1
            final_job = None if self._running_threads else self._final_job
        if final_job is not None:
            final_job.run()


class _Job(Generic[T]):
    """One call. Either a thread starts it, or its caller withdraws it."""

    __slots__ = ("_finished", "_loop", "_unclaimed", "_waiter", "_work", "outcomes", "result")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> None:
        self._loop = loop
        self._work = work
        self._unclaimed = [None]  # emptied by the first claim: `list.pop` is atomic
        self._finished = False
        self.outcomes: list[T] = []  # the result of the work, if it succeeded
        self._waiter: asyncio.Future[None] | None = None
        self.result: asyncio.Future[T] = loop.create_future()

    def claim(self) -> bool:
        """Claim the job to run or withdraw it. Return False if it was claimed before. Thread-safe."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def run(self, report: Callable[[Callable[[], None]], None] | None = None) -> None:
        """Run the job in a thread.

        Args:
            report: Called with a callback that sets the result and must run on the event loop. By
                default, the callback is scheduled immediately.
        """
        if not self.claim():
            return
        try:
            outcome = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            callback = partial(self._fail, error)
        else:
            callback = partial(self._succeed, outcome)
        if report is None:
            _call_soon(self._loop, callback)
        else:
            report(callback)

    async def wait_finished(self) -> None:
        """Wait until the thread has run the job. An exception of the job is discarded."""
        if not self._finished:
            self._waiter = self._loop.create_future()
            with suppress(asyncio.CancelledError):  # a second cancel: `run` re-raises the first
                await wait_until_done(self._waiter)
        if self.result.done() and not self.result.cancelled():
            # Without this, asyncio logs an exception that was never retrieved.
            self.result.exception()

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
    """An executor for one aiofiles handle. It can wait until the handle's last call has ended.

    This is needed after a cancel: the coroutine of aiofiles ends while the thread still reads.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._last_call: Future[object] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        self._threads.put(work)
        self._last_call = future  # type: ignore[assignment] # its result type does not matter here
        return future

    async def wait_idle(self) -> None:
        """Wait until no thread uses the handle."""
        if self._last_call is not None and not self._last_call.cancel():
            with suppress(OSError):
                await wait_until_done(asyncio.wrap_future(self._last_call))


async def wait_for_close(work: asyncio.Future[T]) -> None:
    """Wait for the end of work in threads, for up to `CLOSE_SECONDS` seconds, even if cancelled.

    Raises:
        TimedOutError: The work has not ended.
    """
    if work.done():
        return
    try:
        await run_cleanup(asyncio.wait([work]), CLOSE_SECONDS)
    except TimedOutError as error:
        raise TimedOutError(
            f"the file system has not answered a call for {CLOSE_SECONDS:g} s; the driver is closed, and its"
            " threads and files are released once it answers"
        ) from error


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Schedule a callback on the event loop. Do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
