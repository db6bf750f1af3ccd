"""Pulls bodies through what looks at them, or changes them, on their way.

Today that is hashing. This is the seam where middleware will sit: whatever transforms a body stands
between its source and the upload engine, and between a download and its reader, as an `Intake` does.
Work of more than a quarter of a mebibyte a step would move to a thread here; CRC-32C runs at 20 GB/s,
so a hop would cost four times what it saves.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

import crc32c

from trove_async._views import BytesLike
from trove_async.errors import IntegrityError
from trove_async.models import ObjectInfo

from .body_file import BodyFile
from .sources import Replayable, Source

CRC32C = "crc32c"
"""The kind of checksum that we compute ourselves: S3, GCS and the embedded drivers all keep it."""


class Crc32c:
    """A running CRC-32C (RFC 9260, appendix A)."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: BytesLike) -> None:
        """Go on over `data`."""
        self._value = crc32c.crc32c(data, self._value)

    def digest(self) -> str:
        """Return it in base64 of its four big-endian bytes."""
        return base64.b64encode(self._value.to_bytes(4, "big")).decode("ascii")


def crc32c_of(views: Iterable[BytesLike]) -> str:
    """Return the CRC-32C of the views' concatenation."""
    crc = Crc32c()
    for view in views:
        crc.update(view)
    return crc.digest()


def compare(ours: Mapping[str, str], theirs: Mapping[str, str], what: str) -> None:
    """Raise IntegrityError if two sets of checksums disagree on a kind that both have."""
    for kind in ours.keys() & theirs.keys():
        if ours[kind] != theirs[kind]:
            raise IntegrityError(f"{what}: {kind} is {theirs[kind]}, and should be {ours[kind]}")


def compare_stored(sent: Mapping[str, str], size: int, info: ObjectInfo) -> None:
    """Raise IntegrityError if the backend reports to have stored something else than was sent."""
    if info.stored_size != size:
        raise IntegrityError(f"{size} bytes were sent and {info.stored_size} were stored")
    compare(sent, info.checksums, "what was stored is not what was sent")


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
