"""The chunk size of a download: large for fast clients, small for slow ones.

A chunk may be in memory twice until the operating system has accepted it: here and in the buffer of
the socket. So the chunk size determines the memory of a download. Chunks of 1 MiB take half the CPU
time of chunks of 256 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from trove_async.models import KiB, MiB

SMALL = 256 * KiB
LARGE = 1 * MiB

PROVEN_BYTES = 4 * MiB
"""Bytes after which a client counts as fast. The kernel alone buffers this much of a body (Linux,
tcp(7), "tcp_wmem"), even if the client reads nothing."""

PROMPT_SECONDS = 0.1
"""Maximum seconds in which a fast client receives a chunk: 10 MB/s for a large one."""


@dataclass(slots=True)
class Pace:
    """The size of the next chunk, based on how fast the client received the earlier ones."""

    _prompt_bytes: int = 0

    @property
    def size(self) -> int:
        """The size of the next chunk in bytes."""
        return LARGE if self._prompt_bytes >= PROVEN_BYTES else SMALL

    def record(self, size: int, seconds: float) -> None:
        """Record that the client received a chunk of `size` bytes in `seconds`."""
        self._prompt_bytes = self._prompt_bytes + size if seconds <= PROMPT_SECONDS else 0
