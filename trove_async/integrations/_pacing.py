"""The piece size of a download: large for fast clients, small for slow ones.

Until the client has taken a piece, it is in memory twice: here and in the buffer of the socket. The
piece size thus determines the memory of a download. Pieces of 1 MiB take half the CPU of pieces of
256 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from trove_async.models import KiB, MiB

SMALL = 256 * KiB
LARGE = 1 * MiB

PROVEN = 4 * MiB
"""Bytes after which a client counts as fast. The buffers of the kernel alone take this much of a
body (Linux, tcp(7), "tcp_wmem"), whatever the client reads."""

PROMPT = 0.1
"""Maximum seconds in which a fast client takes a piece: 10 MB/s for a large one."""


@dataclass(slots=True)
class Pace:
    """The size of the next piece, based on how fast the client took the earlier ones."""

    _prompt_bytes: int = 0

    @property
    def size(self) -> int:
        """The size of the next piece in bytes."""
        return LARGE if self._prompt_bytes >= PROVEN else SMALL

    def record(self, size: int, seconds: float) -> None:
        """Record that the client took a piece of `size` bytes in `seconds`."""
        self._prompt_bytes = self._prompt_bytes + size if seconds <= PROMPT else 0
