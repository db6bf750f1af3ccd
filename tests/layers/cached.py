"""A `ReadThrough` whose origin counts and whose cache checks its limit, for tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.fakes import Fake
from trove_async.drivers import MemoryDriver
from trove_async.layers import ReadThrough
from trove_async.models import KiB
from trove_async.testing import opened
from trove_async.testing._harness import write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trove_async.driver import AsyncDriver, DriverReader
    from trove_async.models import ObjectInfo
    from trove_async.options import DeleteOptions, GetOptions, PutOptions
    from trove_async.pool import BufferPool

BLOCK = 64 * KiB


class Origin(Fake):
    """A fake with the requests and the options of its gets.

    Attributes:
        gets: The options of all gets.
        received: Bytes of bodies that were read.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.gets: list[GetOptions] = []
        self.received = 0

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        self.gets.append(options)
        return self._counted(super().get(bucket, key, options))

    @asynccontextmanager
    async def _counted(self, context: Any) -> AsyncIterator[DriverReader]:
        async with context as reader:
            read = reader.read

            async def counted(size: int) -> bytes:
                data: bytes = await read(size)
                self.received += len(data)
                return data

            yield _Reader(reader.info, reader.range, counted)

    @property
    def requests(self) -> list[str]:
        """The operations since `reset`, without the steps of bodies."""
        return [call.operation for call in self.calls if call.operation in _REQUESTS]

    def reset(self) -> None:
        """Count from zero."""
        self.calls.clear()
        self.gets.clear()
        self.received = 0


_REQUESTS = {"get", "head", "put", "delete", "list_page", "copy", "delete_many", "upload"}


class _Reader:
    def __init__(self, info: ObjectInfo, span: tuple[int, int], read: Any) -> None:
        self.info = info
        self.range = span
        self.read = read


class Cache(Fake):
    """A fake that records the maximum size of its objects, including those that are being put.

    Attributes:
        limit: The limit that `cached` checks in the end; None: `max_bytes`.
        peak: The maximum so far.
        puts: The keys of all puts.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.limit: int | None = None
        self.peak = 0
        self.puts: list[str] = []
        self._writing = 0

    @property
    def stored(self) -> int:
        """Bytes of all objects."""
        return sum(
            stored.info.size
            for bucket in self._buckets.values()
            for stored in bucket.objects.values()
        )

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        self.puts.append(key)
        size = sum(map(len, views))
        self._writing += size
        try:
            self.peak = max(self.peak, self.stored + self._writing)
            return await super().put(bucket, key, views, options)
        finally:
            self._writing -= size

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await super().delete(bucket, key, options)

    @property
    def blocks(self) -> list[str]:
        """The keys of all blocks."""
        return [key for key in self.stored_keys("trove-cache") if "/" in key]


class Setup:
    """An open layer and its two drivers."""

    def __init__(self, layer: ReadThrough, origin: Origin, cache: Cache) -> None:
        self.layer = layer
        self.origin = origin
        self.cache = cache

    async def put(self, key: str, body: bytes) -> None:
        """Put an object through the layer, and count from zero."""
        await write(self.layer, "bucket", key, body)
        self.origin.reset()

    async def replace(self, key: str, body: bytes) -> None:
        """Put an object at the origin, behind the layer's back, and count from zero."""
        await write(self.origin, "bucket", key, body)
        self.origin.reset()

    async def settle(self) -> None:
        """Wait until nothing runs in the background."""
        await settle(self.layer)


async def settle(layer: ReadThrough) -> None:
    """Wait until no fill and no write to the cache is in flight."""
    core = layer._open_core
    while core.tasks._running:
        await asyncio.sleep(0)


@asynccontextmanager
async def cached(
    origin: Origin | None = None,
    cache: Cache | None = None,
    *,
    pool: BufferPool | None = None,
    ready: bool = True,
    **settings: Any,
) -> AsyncIterator[Setup]:
    """Open a layer over an origin with the bucket ``bucket``, and wait until its index is complete."""
    origin, cache = origin or Origin(), cache or Cache()
    settings = {"max_bytes": 64 * BLOCK, "block_size": BLOCK, **settings}
    cache.limit = settings["max_bytes"] if cache.limit is None else cache.limit
    layer = ReadThrough(origin, cache, **settings)
    async with opened(layer, pool=pool):
        if "bucket" not in origin._buckets:
            await origin.create_bucket("bucket")
        if ready:
            await layer.wait_until_ready()
        origin.reset()
        yield Setup(layer, origin, cache)
    # Not in `Cache.put`: the layer ignores what it raises.
    assert cache.peak <= cache.limit


def memory() -> AsyncDriver:
    """Return a layer on two memory drivers, for the suites."""
    return ReadThrough(MemoryDriver(), MemoryDriver(), max_bytes=64 * BLOCK, block_size=BLOCK)
