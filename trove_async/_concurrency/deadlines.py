"""Time limits of many calls, enforced by one timer.

A timer for each call (`asyncio.timeout`) costs 8 µs, a tenth of a small request, and most calls end
long before their limit. So there is one timer, set for the earliest limit. When it fires, it cancels
the calls that are overdue, and is set for the earliest of the remaining limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from trove_async.errors import TimedOutError

from .cancellation import OwnCancel

T = TypeVar("T")


class Deadlines:
    """The time limits of one store's calls. All methods must be called on the same event loop."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, seconds: float, message: str, work: Awaitable[T]) -> T:
        """Return the result of `work`, or cancel it after `seconds` seconds.

        Args:
            seconds: The time limit.
            message: The start of the error's message, for example ``"no response arrived"``.
            work: The awaitable. If it converts the CancelledError to a different error, that error is
                raised.

        Raises:
            TimedOutError: The work was cancelled at the limit.
        """
        loop = asyncio.get_running_loop()
        limit = _Limit(loop.time() + seconds)
        self._limits.add(limit)
        if self._timer is None or limit.when < self._timer.when():
            self._set_timer(loop, limit.when)
        try:
            result = await work
        except asyncio.CancelledError:
            if limit.revoke():
                raise TimedOutError(f"{message} within {seconds:g} s") from None
            raise
        except BaseException:
            limit.revoke()
            raise
        else:
            limit.revoke()  # the work may have completed in spite of a cancel
            return result
        finally:
            self._limits.discard(limit)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self.close()
        self._timer = loop.call_at(when, self._cancel_overdue, loop)

    def _cancel_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        # This only cancels the calls. They remove their limits from `_limits` when they end.
        self._timer = None
        now = loop.time()
        for limit in self._limits:
            if limit.when <= now:
                limit.request()
        remaining = [limit.when for limit in self._limits if not limit.requested]
        if remaining:
            self._set_timer(loop, min(remaining))


class _Limit(OwnCancel):
    """The time limit of one call, and the cancel that enforces it."""

    __slots__ = ("when",)

    def __init__(self, when: float) -> None:
        super().__init__()
        self.when = when


async def within(seconds: float, message: str, work: Awaitable[T]) -> T:
    """Apply `Deadlines.within` to a single call, with a timer of its own."""
    deadlines = Deadlines()
    try:
        return await deadlines.within(seconds, message, work)
    finally:
        deadlines.close()
