"""Time for other tasks during a long transfer that never waits."""

from __future__ import annotations

import asyncio
from typing import Final

TURN_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a body after which other tasks run. Copying, hashing and encrypting them takes 1 to 2 ms, and a
turn 20 µs."""


class Turns:
    """The turns of other tasks during the transfer of one body.

    A body in memory or in the page cache, sent to a destination that is as fast, never waits. Without
    turns, no other task would run before its end. The caller compares the position itself, because that
    costs small bodies less than a call::

        if position >= turns.due_at:
            await turns.give(position)

    Args:
        position: The position at which the transfer starts.

    Attributes:
        due_at: The position at which the next turn is due.
    """

    __slots__ = ("due_at",)

    def __init__(self, position: int = 0) -> None:
        self.due_at = position + TURN_BYTES

    async def give(self, position: int) -> None:
        """Let all tasks that are ready run once.

        Args:
            position: The current position.
        """
        self.due_at = position + TURN_BYTES
        await asyncio.sleep(0)
