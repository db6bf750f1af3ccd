"""Limits on the rate of a job."""

from __future__ import annotations

import asyncio
from typing import Final

import anyio

_BURST_SECONDS: Final = 0.1
"""A limiter that was not used may grant the amount of this many seconds at once."""


class RateLimit:
    """A token bucket on the event loop's clock.

    Callers are served in order. An amount larger than the bucket is granted, and delays the callers after it.

    Args:
        per_second: The units a second. None: no limit.
    """

    __slots__ = ("_free_at", "_returned", "_seconds_each", "_turn")

    def __init__(self, per_second: float | None) -> None:
        self._seconds_each = None if per_second is None else 1 / per_second
        self._free_at = float("-inf")
        self._turn = anyio.Lock()
        self._returned = anyio.Event()

    async def acquire(self, amount: float) -> None:
        """Wait until `amount` units may be used. After a cancel none of them count as used."""
        if self._seconds_each is None or not amount:
            return
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while self._free_at > clock():
                self._returned = anyio.Event()
                with anyio.CancelScope(deadline=self._free_at):
                    await self._returned.wait()
            start = max(self._free_at, clock() - _BURST_SECONDS)
            self._free_at = start + amount * self._seconds_each

    def give_back(self, amount: float) -> None:
        """Return units that were acquired and not used. A waiting caller may then go on earlier."""
        if self._seconds_each is not None and amount > 0:
            self._free_at -= amount * self._seconds_each
            self._returned.set()
