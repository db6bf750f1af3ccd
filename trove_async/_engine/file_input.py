"""The file of a path as the input of a stage, read by the threads that encode it."""

from __future__ import annotations

from collections.abc import Sequence

from trove_async._concurrency import in_thread
from trove_async._views import BytesLike

from .body_file import BodyFile
from .intake import Intake


class FileInput:
    """A file that worker threads read while they encode it.

    If the event loop awaited each block from a thread, a block of 1 MiB would cost twice as much CPU time as
    copying it, and a block of 64 KiB ten times as much.

    Args:
        file: The file.
        intake: Counts the bytes.
    """

    __slots__ = ("_file", "_intake")

    def __init__(self, file: BodyFile, intake: Intake) -> None:
        self._file = file
        self._intake = intake

    @property
    def remaining(self) -> int:
        """The number of bytes not read or reserved yet."""
        return self._file.size - self._intake.byte_count

    def reserve(self, size: int) -> int:
        """Return the offset of the next `size` bytes. The caller reads them in a thread."""
        return self._intake.skip(size)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`. Blocks.

        Raises:
            IntegrityError: The file has become shorter.
        """
        self._file.fill(offset, view)

    async def ready(self) -> bool:
        """Return whether bytes remain."""
        return self.remaining > 0

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, or ``b""`` at the end."""
        piece = memoryview(bytearray(min(limit, self.remaining)))
        await self.fill([piece])
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill the first view, as far as bytes remain."""
        view = views[0][: self.remaining]
        if view:
            await in_thread(self.read, self.reserve(len(view)), view)
        return len(view)
