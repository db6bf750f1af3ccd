"""Time for other tasks during a long transfer that never waits."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

TURN_SECONDS: Final = 0.002
"""Seconds after which other tasks run. A turn costs 20 µs."""


class Turns:
    """The turns of other tasks during the transfer of one body.

    A body in memory or in the page cache, sent to a destination that is as fast, never waits. Without
    turns, no other task would run before its end. The caller asks before each piece of work::

        if turns.is_due:
            await turns.give()
    """

    __slots__ = ("_due_at",)

    def __init__(self) -> None:
        self._due_at = monotonic() + TURN_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether the transfer has used its time since the last turn, or has waited in between."""
        return monotonic() >= self._due_at

    async def give(self) -> None:
        """Let all tasks that are ready run once."""
        await asyncio.sleep(0)
        self._due_at = monotonic() + TURN_SECONDS
