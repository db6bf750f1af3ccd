"""Time limits of many calls under one timer.

A timer for each call (`asyncio.timeout`) costs 8 µs, a tenth of a small request. Most calls end long
before their limit, so one timer is set for the limit that is nearest when it is set, and looks then
at who is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from trove_async.errors import TimedOutError

T = TypeVar("T")


class Deadlines:
    """The time limits of one store's calls. Used on one event loop."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, seconds: float, what: str, work: Awaitable[T]) -> T:
        """Return what `work` returns, or cancel it after `seconds` and raise TimedOutError.

        Args:
            seconds: How long it may take.
            what: What did not happen, for the message.
            work: What to await; it may turn the cancel into an error of its own, which passes.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - coroutines are run by tasks
        limit = _Limit(loop.time() + seconds, task)
        self._limits.add(limit)
        if self._timer is None or limit.when < self._timer.when():
            self._set_timer(loop, limit.when)
        before = task.cancelling()
        try:
            result = await work
        except asyncio.CancelledError:
            # Ours, unless somebody else asked for one as well.
            if limit.passed and task.uncancel() <= before:
                raise TimedOutError(f"{what} within {seconds:g} s") from None
            raise
        except BaseException:
            if limit.passed:
                task.uncancel()
            raise
        else:
            if limit.passed:  # it came to its end all the same
                task.uncancel()
            return result
        finally:
            self._limits.discard(limit)

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self.close()
        self._timer = loop.call_at(when, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for limit in [one for one in self._limits if one.when <= now and not one.passed]:
            limit.passed = True
            limit.task.cancel()
        rest = [one.when for one in self._limits if not one.passed]
        if rest:
            self._set_timer(loop, min(rest))


class _Limit:
    """When a call must be over, whose it is, and whether it was told so."""

    __slots__ = ("passed", "task", "when")

    def __init__(self, when: float, task: asyncio.Task[object]) -> None:
        self.when = when
        self.task = task
        self.passed = False


async def within(seconds: float, what: str, work: Awaitable[T]) -> T:
    """Do what `Deadlines.within` does, for a call that is rare: with a timer of its own."""
    deadlines = Deadlines()
    try:
        return await deadlines.within(seconds, what, work)
    finally:
        deadlines.close()
