"""How much of a body is pulled at a time: large pieces for who takes them, small ones for who does not.

Each piece is in memory once here and once in its socket's buffer, until the client has taken it, so
pieces are what a download costs. Pieces of 1 MiB take half the CPU of pieces of 256 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from trove_async.models import KiB, MiB

SMALL = 256 * KiB
LARGE = 1 * MiB

PROVEN = 4 * MiB
"""Bytes after which a client counts as fast: the kernel's buffers alone swallow as much of a body
(Linux, tcp(7), "tcp_wmem"), and tell nothing of who is to read it."""

PROMPT = 0.1
"""Seconds in which it has to take a piece: 10 MB/s of a large one."""


@dataclass(slots=True)
class Pace:
    """The size of the next piece, from how the ones before it were taken."""

    _prompt_bytes: int = 0

    @property
    def size(self) -> int:
        """The bytes to pull next."""
        return LARGE if self._prompt_bytes >= PROVEN else SMALL

    def record(self, size: int, seconds: float) -> None:
        """Note that a piece was taken, and how long we waited for that."""
        self._prompt_bytes = self._prompt_bytes + size if seconds <= PROMPT else 0
