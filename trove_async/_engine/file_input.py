"""The file of a path as the input of a stage, read in threads right before it is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trove_async._concurrency import in_thread
from trove_async._views import BytesLike, take
from trove_async.models import KiB

from .body_file import IOV_MAX, BodyFile
from .intake import Intake

_READ: Final = 256 * KiB
"""Bytes to read at a time for small blocks."""


class FileInput:
    """A file whose blocks threads read and encode, without the event loop in between.

    If the event loop awaited each block from a thread, a block of 1 MiB would cost twice as much CPU time as
    copying it, and a block of 64 KiB ten times as much. Small blocks are read ahead instead.

    Args:
        file: The file.
        intake: Counts the bytes.
    """

    __slots__ = ("_buffered", "_file", "_intake", "_offset")

    def __init__(self, file: BodyFile, intake: Intake) -> None:
        self._file = file
        self._intake = intake
        self._offset = 0  # of the next byte to read
        self._buffered = memoryview(b"")

    @property
    def remaining(self) -> int:
        """The number of bytes not returned or reserved yet."""
        return self._file.size - self._offset + len(self._buffered)

    def reserve(self, size: int) -> int:
        """Return the offset of the next `size` bytes. The caller reads them in a thread."""
        offset = self._offset - len(self._buffered)
        self._buffered = memoryview(b"")
        self._offset = offset + size
        self._intake.count(size)
        return offset

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill all views with the bytes at `offset`. Blocks.

        Raises:
            IntegrityError: The file has fewer bytes than its size.
        """
        self._file.fill(offset, views)

    async def ready(self) -> bool:
        """Return whether bytes remain."""
        return self.remaining > 0

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, or ``b""`` at the end."""
        if not self._buffered:
            await self._load()
        piece, rest = self._buffered[:limit], self._buffered[limit:]
        self._buffered = rest or memoryview(b"")
        self._intake.count(len(piece))
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill `views` in part or in full. Return the number of bytes, 0 at the end."""
        if not self._buffered and len(views[0]) >= _READ:
            views = take(views, self.remaining)[:IOV_MAX]
            size = sum(map(len, views))
            if size:
                await in_thread(self._file.fill, self.reserve(size), views)
            return size
        piece = await self.take(len(views[0]))
        views[0][: len(piece)] = piece
        return len(piece)

    async def _load(self) -> None:
        size = min(_READ, self.remaining)
        if size:
            buffer = memoryview(bytearray(size))
            await in_thread(self._file.fill, self._offset, [buffer])
            self._offset += size
            self._buffered = buffer
