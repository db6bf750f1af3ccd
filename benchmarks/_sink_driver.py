"""A driver that drops the bodies of puts, and serves the last one if it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from trove_async import BucketInfo, ObjectInfo, ObjectNotFoundError
from trove_async.driver import Capabilities, DriverContext, DriverReader, Upload
from trove_async.options import DeleteOptions, GetOptions, ListOptions, Page, Part, PutOptions

_DATE = datetime(2026, 1, 1, tzinfo=UTC)


class SinkDriver:
    """An AsyncDriver that stores nothing, so that only the library's own work is measured.

    Args:
        keep: Whether to keep the last body, so that it can be read.
    """

    name = "sink"
    capabilities = Capabilities(
        metadata=True,
        headers=True,
        ranges=True,
        get_conditions=True,
        upload=True,
        parallel_parts=4,
        embedded=True,
    )

    def __init__(self, *, keep: bool = False) -> None:
        self.requests = 0
        self.bytes_read = 0
        self.body = memoryview(b"")
        self._keep = keep
        self._parts: dict[int, bytes] = {}
        self._info: ObjectInfo | None = None

    async def open(self, context: DriverContext) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    def place(self, bucket: str, key: str) -> Hashable:
        return bucket, key

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return self._store(bucket, key, [bytes(view) for view in views], views, options)

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        self._parts.clear()
        yield _SinkUpload(self, bucket, key, options)

    def keep_part(self, part: Part, views: Sequence[memoryview]) -> None:
        """Keep the bytes of a part, if bodies are kept."""
        if self._keep:
            self._parts[part.number] = b"".join(views)

    def commit(self, bucket: str, key: str, size: int, options: PutOptions) -> ObjectInfo:
        """Describe an object that was uploaded in parts."""
        if self._keep:
            self.body = memoryview(b"".join(self._parts[number] for number in sorted(self._parts)))
            self._parts.clear()
        return self._describe(bucket, key, size, options)

    def _store(
        self,
        bucket: str,
        key: str,
        pieces: Sequence[bytes],
        views: Sequence[memoryview],
        options: PutOptions,
    ) -> ObjectInfo:
        if self._keep:
            self.body = memoryview(b"".join(pieces))
        return self._describe(bucket, key, sum(map(len, views)), options)

    def _describe(self, bucket: str, key: str, size: int, options: PutOptions) -> ObjectInfo:
        self._info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=size,
            etag="etag",
            last_modified=_DATE,
            metadata=options.metadata,
        )
        return self._info

    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        info = await self.head(bucket, key)
        self.requests += 1
        span = (0, info.size) if options.range is None else options.range.resolve(info.size)
        yield _SinkReader(self, info, span)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        if self._info is None:
            raise ObjectNotFoundError("nothing was put", bucket=bucket, key=key)
        return self._info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        self._info = None

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        return Page(entries=[])

    async def create_bucket(self, bucket: str) -> None:
        pass

    async def delete_bucket(self, bucket: str) -> None:
        pass

    async def head_bucket(self, bucket: str) -> BucketInfo:
        return BucketInfo(name=bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        return []


class _SinkUpload:
    def __init__(self, driver: SinkDriver, bucket: str, key: str, options: PutOptions) -> None:
        self._driver = driver
        self._bucket = bucket
        self._key = key
        self._options = options
        self._size = 0

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        self._size += part.size
        self._driver.keep_part(part, views)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        return self._driver.commit(self._bucket, self._key, self._size, self._options)


class _SinkReader:
    def __init__(self, driver: SinkDriver, info: ObjectInfo, span: tuple[int, int]) -> None:
        self.info = info
        self.range = span
        self._driver = driver
        self._position = span[0]

    async def read(self, size: int) -> bytes:
        end = min(self._position + size, self.range[1])
        data = bytes(self._driver.body[self._position : end])
        self._driver.bytes_read += len(data)
        self._position = end
        return data
