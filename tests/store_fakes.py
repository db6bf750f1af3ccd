"""Drivers for the tests of the store: in memory, watched, interfered with, or out of order."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trove_async import ObjectInfo, Prefix, RetryPolicy, Trove
from trove_async.drivers.memory import MemoryDriver
from trove_async.options import Page, PutOptions
from trove_async.paging import common_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from trove_async.driver import AsyncDriver, DriverContext, DriverReader, Upload
    from trove_async.models import BucketInfo, DeleteResult
    from trove_async.options import CopyOptions, DeleteOptions, GetOptions, ListOptions

ONCE = RetryPolicy(attempts=1)


class Fake(MemoryDriver):
    """Memory that tells what was called, and lets a test act, or fail, just before a call.

    Args:
        capabilities: Fields of `Capabilities` that differ from memory's.

    Attributes:
        calls: The names of the driver's methods, as they were called.
        before: By such a name: called, and awaited, before the method does its work.
        pages: The options of every page that was asked for.
    """

    def __init__(self, **capabilities: Any) -> None:
        super().__init__()
        self._capabilities = replace(self._capabilities, **capabilities)
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.pages: list[ListOptions] = []

    def fail(self, method: str, error: Exception, *, after: int = 0) -> None:
        """Let every call of the method but the first so many raise the error."""
        left = after

        async def fail() -> None:
            nonlocal left
            if left == 0:
                raise error
            left -= 1

        self.before[method] = fail

    def holds(self, bucket: str) -> list[str]:
        """Return the keys that the bucket has."""
        return sorted(self._buckets[bucket].objects) if bucket in self._buckets else []

    def spoil(self, bucket: str, key: str, body: bytes) -> None:
        """Change an object's bytes behind the back of its checksum."""
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(chunks=(body,))

    async def _called(self, method: str) -> None:
        self.calls.append(method)
        if method in self.before:
            await self.before[method]()

    async def open(self, context: DriverContext) -> None:
        await self._called("open")
        await super().open(context)

    async def aclose(self) -> None:
        await self._called("aclose")

    async def ping(self) -> None:
        await self._called("ping")

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        await self._called("put")
        return await super().put(bucket, key, views, options)

    @asynccontextmanager
    async def _get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        await self._called("get")
        async with super().get(bucket, key, options) as reader:
            yield reader

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        return self._get(bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        await self._called("head")
        return await super().head(bucket, key, version_id)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await self._called("delete")
        await super().delete(bucket, key, options)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        self.pages.append(options)
        await self._called("list_page")
        return await super().list_page(bucket, options)

    async def create_bucket(self, bucket: str) -> None:
        await self._called("create_bucket")
        await super().create_bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        await self._called("delete_bucket")
        await super().delete_bucket(bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        await self._called("head_bucket")
        return await super().head_bucket(bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        await self._called("list_buckets")
        return await super().list_buckets()

    @asynccontextmanager
    async def _uploading(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        await self._called("upload")
        async with super().upload(bucket, key, options) as upload:
            yield upload

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        return self._uploading(bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        await self._called("copy")
        return await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        await self._called("delete_many")
        return await super().delete_many(bucket, keys)


class Unordered(Fake):
    """Memory that lists in an order of its own, its tokens being numbers of entries."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(ordered=False, **capabilities)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        self.pages.append(options)
        await self._called("list_page")
        everything: dict[str, ObjectInfo | Prefix] = {}
        for key, held in self._bucket(bucket).objects.items():
            if key.startswith(options.prefix) and key > (options.start_after or ""):
                common = common_prefix(key, options)
                if common is None:
                    everything[key] = held.info
                else:
                    everything[common] = Prefix(bucket=bucket, prefix=common)
        keys = sorted(everything, key=lambda key: hashlib.sha256(key.encode()).digest())
        start = int(options.token or 0)
        end = start + options.limit
        return Page(
            entries=[everything[key] for key in keys[start:end]],
            token=str(end) if end < len(keys) else None,
        )


class Sparse(Fake):
    """Memory whose pages tell names, sizes and dates only, as S3's do."""

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        return replace(page, entries=[self._sparse(entry) for entry in page.entries])

    def _sparse(self, entry: ObjectInfo | Prefix) -> ObjectInfo | Prefix:
        if isinstance(entry, Prefix):
            return entry
        return ObjectInfo(
            bucket=entry.bucket,
            key=entry.key,
            size=entry.size,
            etag=entry.etag,
            last_modified=entry.last_modified,
            complete=False,
        )


def store_of(default: AsyncDriver | None = None, **arguments: Any) -> Trove:
    """Return a store that tries everything once."""
    return Trove(default or Fake(), **{"retry": ONCE, **arguments})


async def fill(driver: AsyncDriver, bucket: str, *keys: str) -> None:
    """Put objects on a driver itself, past any store, each with its key as its body."""
    if bucket not in [info.name for info in await driver.list_buckets()]:
        await driver.create_bucket(bucket)
    for key in keys:
        await driver.put(bucket, key, [memoryview(key.encode())], PutOptions())
