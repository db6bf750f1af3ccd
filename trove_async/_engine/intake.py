"""Pulls bodies through what looks at them, or changes them, on their way.

Today that is hashing. This is the seam where middleware will sit: whatever transforms a body stands
between its source and the upload engine, and between a download and its reader, as an `Intake` does.
Work of more than a quarter of a mebibyte a step would move to a thread here; CRC-32C runs at 20 GB/s,
so a hop would cost four times what it saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trove_async._checksums import CRC32C, Crc32c
from trove_async._views import BytesLike
from trove_async.errors import IntegrityError

from .body_file import BodyFile
from .sources import Replayable, Source


class Intake:
    """A body on its way into an upload: counted, hashed, and held to the size that was promised.

    Args:
        source: Where it comes from.
        size: The size that its user promised, if so.
    """

    def __init__(self, source: Source, size: int | None) -> None:
        self._source = source
        self._size = size
        self._crc = Crc32c()
        self.taken = 0

    @property
    def size(self) -> int | None:
        """All its bytes, where known: before `ready` only what was promised."""
        return self._size

    async def file(self) -> BodyFile | None:
        """Return the file that the body is, of the size promised, to be read elsewhere; None: none."""
        file = await self._source.file() if isinstance(self._source, Replayable) else None
        if file is not None and self._size not in {None, file.size}:
            raise IntegrityError(f"the body has {file.size} bytes, not {self._size} as promised")
        return file

    async def ready(self) -> bool:
        """Wait until there is a byte to take; False at the end, which must be where promised."""
        more = await self._source.ready()
        if self._size is None and not self.taken:
            self._size = self._source.size
        if self._size is not None and more != (self.taken < self._size):
            has = f"more than {self.taken}" if more else f"only {self.taken}"
            raise IntegrityError(f"the body has {has} bytes, not {self._size} as promised")
        return more

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, ``b""`` at the end."""
        piece = await self._source.take(limit)
        self._crc.update(piece)
        self._count(len(piece))
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill some of `views` from the start; return how many bytes, 0 at the end."""
        count = await self._source.fill(views)
        self._count(count)
        left = count
        for view in views:
            if left <= 0:
                break
            self._crc.update(view[:left])
            left -= len(view)
        return count

    def _count(self, size: int) -> None:
        self.taken += size
        if self._size is not None and self.taken > self._size:
            raise IntegrityError(f"the body has more than the {self._size} bytes promised")

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of what was taken so far, by kind."""
        return {CRC32C: self._crc.digest()}
