"""The counters of a `ReadThrough`, and the readers of responses that it passes through."""

from __future__ import annotations

from enum import Enum
from typing import cast

from trove_async.driver import DriverReader, ReadsInto, saves_copy


class BlockSource(Enum):
    """Where a reader got bytes of a block from."""

    CACHE = "cache"
    OWN_FILL = "own fill"  # a request to the origin that this reader made
    OTHER_FILL = "other fill"  # one that another reader made


class Counters:
    """The counters of one open layer. See `CacheStatistics` for what they count."""

    __slots__ = ("bypasses", "bytes_from_cache", "bytes_from_origin", "hits", "misses", "shared")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.shared = 0
        self.bypasses = 0
        self.bytes_from_cache = 0
        self.bytes_from_origin = 0

    def count_block(self, source: BlockSource) -> None:
        """Count a block of which a reader gets bytes."""
        if source is BlockSource.CACHE:
            self.hits += 1
        elif source is BlockSource.OWN_FILL:
            self.misses += 1
        else:
            self.shared += 1


class _PassedReader:
    """A reader of the origin that is passed through. Its bytes are counted."""

    __slots__ = ("_counters", "_reader", "info", "range")

    def __init__(self, reader: DriverReader, counters: Counters) -> None:
        self._reader = reader
        self._counters = counters
        self.info = reader.info
        self.range = reader.range

    async def read(self, size: int) -> bytes:
        """Return the next bytes. See `DriverReader.read`."""
        data = await self._reader.read(size)
        self._counters.bytes_from_origin += len(data)
        return data


class _PassedReadIntoReader(_PassedReader):
    """The same for a reader that can receive into memory of its caller."""

    __slots__ = ()

    @property
    def reads_into(self) -> bool:
        """Whether `readinto` saves a copy. See `saves_copy`."""
        return saves_copy(self._reader)

    async def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into the buffer. See `ReadsInto.readinto`."""
        count = await cast("ReadsInto", self._reader).readinto(buffer)
        self._counters.bytes_from_origin += count
        return count


def counted(reader: DriverReader, counters: Counters) -> DriverReader:
    """Return a reader of the same body that counts its bytes."""
    kind = _PassedReadIntoReader if isinstance(reader, ReadsInto) else _PassedReader
    return kind(reader, counters)
