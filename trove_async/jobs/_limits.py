"""Limits on the rate of a job."""

from __future__ import annotations

import asyncio
from typing import Final

_BURST_SECONDS: Final = 0.1
"""A limiter that was not used may grant the amount of this many seconds at once."""


class RateLimit:
    """A token bucket on the event loop's clock.

    Callers are served in order. An amount larger than the bucket is granted, and delays the callers after it.

    Args:
        per_second: The units a second. None: no limit.
    """

    __slots__ = ("_free_at", "_seconds_each")

    def __init__(self, per_second: float | None) -> None:
        self._seconds_each = None if per_second is None else 1 / per_second
        self._free_at = float("-inf")

    async def acquire(self, amount: float) -> None:
        """Wait until `amount` units may be used. After a cancel they count as used."""
        if self._seconds_each is None:
            return
        now = asyncio.get_running_loop().time()
        start = max(self._free_at, now - _BURST_SECONDS)
        self._free_at = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)
