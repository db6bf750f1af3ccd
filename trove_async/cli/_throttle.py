"""A layer that limits the bytes a second, for ``--limit-rate``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from trove_async.driver import AsyncDriver, Capabilities, DriverReader, Upload
from trove_async.jobs._limits import RateLimit
from trove_async.layers._forwarding import Forwarding
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions, Part, PutOptions


class Throttled(Forwarding):
    """Delays bodies in both directions, so that they do not exceed a rate. Copies on a server are not delayed.

    Args:
        driver: The driver.
        rate: The limit, which several drivers may share.
    """

    def __init__(self, driver: AsyncDriver, rate: RateLimit) -> None:
        super().__init__("Throttled", driver)
        self._rate = rate

    @property
    def capabilities(self) -> Capabilities:
        """Those of the driver. Parts are held in memory, where they are counted."""
        return replace(super().capabilities, streamed_parts=False)

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object once its bytes may be sent."""
        await self._rate.acquire(sum(map(len, views)))
        return await super().put(bucket, key, views, options)

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        """Open an upload whose parts are delayed."""
        async with super().upload(bucket, key, options) as upload:
            yield _Upload(upload, self._rate)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open a body whose chunks are delayed."""
        return self._delayed(super().get(bucket, key, options))

    @asynccontextmanager
    async def _delayed(
        self, opening: AbstractAsyncContextManager[DriverReader]
    ) -> AsyncIterator[DriverReader]:
        async with opening as reader:
            yield _Reader(reader, self._rate)


class _Upload:
    def __init__(self, upload: Upload, rate: RateLimit) -> None:
        self._upload = upload
        self._rate = rate

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        await self._rate.acquire(sum(map(len, views)))
        await self._upload.send(part, views)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        return await self._upload.commit(checksums)


class _Reader:
    def __init__(self, reader: DriverReader, rate: RateLimit) -> None:
        self._reader = reader
        self._rate = rate

    @property
    def info(self) -> ObjectInfo:
        return self._reader.info

    @property
    def range(self) -> tuple[int, int]:
        return self._reader.range

    async def read(self, size: int) -> bytes:
        data = await self._reader.read(size)
        await self._rate.acquire(len(data))
        return data
