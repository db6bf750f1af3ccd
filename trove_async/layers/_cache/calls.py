"""Calls to the cache of `ReadThrough`, which must not delay a read: a deadline, and pauses after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from trove_async._concurrency import Deadlines, OwnedTask, OwnedTasks, speculative, within
from trove_async.errors import ClosedError, TimedOutError

T = TypeVar("T")

PAUSE_SECONDS: Final = 5.0
"""Seconds without calls after a call failed."""


class SharedTasks(OwnedTasks):
    """The tasks of one layer. Several readers may need what they do, so none of their requests is `speculative`.

    A speculative request fails if it would have to wait. A second request of `Hedged` may start a fill
    that other readers then join, or a call to the cache, whose failure would start a pause.
    """

    def start(self, work: Coroutine[Any, Any, T]) -> OwnedTask[T]:
        """Start a task. See `OwnedTasks.start`."""
        token = speculative.set(False)  # a task keeps the context of its start
        try:
            return super().start(work)
        finally:
            speculative.reset(token)

    async def aclose_within(self, seconds: float) -> bool:
        """Cancel all tasks, and wait for their end up to a deadline. Return whether all have ended.

        A task whose call hangs in a thread ends with the thread. Until then it keeps its memory leased.
        """
        self.closed = True
        closing = [OwnedTask(task.aclose()) for task in list(self._running)]
        return await _end_within(closing, seconds)


async def end_within(work: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Run a call up to a deadline. Return whether it has ended. Its failure is ignored."""
    task = OwnedTask(work)
    try:
        return await _end_within([task], seconds)
    finally:
        task.cancel()


async def _end_within(tasks: Sequence[OwnedTask[Any]], seconds: float) -> bool:
    with suppress(TimedOutError):
        await within(seconds, "the tasks have not ended", _wait_for(tasks))
    return all(task.done for task in tasks)


async def _wait_for(tasks: Sequence[OwnedTask[Any]]) -> None:
    for task in tasks:
        with suppress(Exception):
            await task.result()


class Pause:
    """Whether calls of one kind are made. After a failure there are none for `PAUSE_SECONDS`.

    The first call after the pause is a probe: until it succeeds, there are no others.

    Attributes:
        failures: The number of failures so far.
    """

    __slots__ = ("_until", "failures")

    def __init__(self) -> None:
        self._until: float | None = None
        self.failures = 0

    @property
    def is_over(self) -> bool:
        """Whether a call may be made now."""
        return self._until is None or asyncio.get_running_loop().time() >= self._until

    def begin_call(self) -> None:
        """Record that a call is made. After a pause, it is the probe, and others wait for its result."""
        if self._until is not None:
            self._until = asyncio.get_running_loop().time() + PAUSE_SECONDS

    def succeeded(self) -> None:
        """Record that a call succeeded."""
        self._until = None

    def failed(self) -> None:
        """Record that a call failed or took too long."""
        self.failures += 1
        self._until = asyncio.get_running_loop().time() + PAUSE_SECONDS


class CacheCalls:
    """Runs calls to the cache, each within a deadline.

    Each call runs in a task of its own. A call that hangs in a thread cannot be cancelled, and a reader must
    not wait for it. Such a task ends when its thread does.

    Args:
        tasks: The layer's tasks.
        deadlines: Enforces the deadlines.
        seconds: The deadline of one call.

    Attributes:
        hanging: The number of calls that were given up and have not ended.
    """

    def __init__(self, tasks: OwnedTasks, deadlines: Deadlines, seconds: float) -> None:
        self._tasks = tasks
        self._deadlines = deadlines
        self._seconds = seconds
        self.hanging = 0

    async def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Return the result of a call.

        Raises:
            TimedOutError: It took longer than the deadline.
            ClosedError: The layer is closed.
        """
        if self._tasks.closed:
            work.close()
            raise ClosedError("the layer is closed")
        task = self._tasks.start(work)
        try:
            return await self._deadlines.within(
                seconds or self._seconds, "the cache did not respond", task.result()
            )
        finally:
            if not task.done and not self._tasks.closed:
                self.hanging += 1
                task.when_done(self._count_end)
                self._tasks.start(task.aclose())  # cancels it, and waits in place of the caller

    def start(self, work: Coroutine[Any, Any, T], seconds: float) -> OwnedTask[T]:
        """Start a call, whose result is that of `run`.

        Raises:
            ClosedError: The layer is closed.
        """
        if self._tasks.closed:
            work.close()
            raise ClosedError("the layer is closed")
        return self._tasks.start(self.run(work, seconds))

    def _count_end(self) -> None:
        self.hanging -= 1

    async def run_last(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Return the result of a call while the layer is being closed, when no more tasks may be started.

        Raises:
            TimedOutError: As `run`. A call that hangs in a thread is waited for: use `end_within` around it.
        """
        return await self._deadlines.within(
            seconds or self._seconds, "the cache did not respond", work
        )
