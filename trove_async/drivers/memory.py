"""A driver that stores objects in this process's memory.

It is meant for tests and caches, and is the shortest complete driver.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

from trove_async._checksums import CRC32C, compare_announced, crc32c_text, running_crc32c
from trove_async._settings import check_counts
from trove_async.driver import Capabilities, DriverContext, DriverReader, Upload
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ClosedError,
    IntegrityError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from trove_async.models import BucketInfo, DeleteResult, KiB, ObjectInfo
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PutOptions,
)
from trove_async.paging import paginate

_YIELD_SIZE = 256 * KiB
"""A call that copies or hashes at least this many bytes also yields to other tasks. No call here waits for
I/O, so a transfer between two memory backends would otherwise starve all other tasks."""


class MemoryDriver:
    """A backend in memory. Objects exist as long as the driver, even if it is closed and reopened.

    A put copies each byte once. An object that was uploaded in parts is stored as these parts.

    Args:
        parallel_parts: Maximum number of concurrent parts of one upload.
        max_connections: Simulates the connection limit of a network service. It applies separately
            to open readers, concurrent writes and other concurrent calls. None: no limit.
    """

    def __init__(self, *, parallel_parts: int = 4, max_connections: int | None = None) -> None:
        check_counts(parallel_parts=parallel_parts)
        if max_connections is not None:
            check_counts(max_connections=max_connections)
        self._buckets: dict[str, _Bucket] = {}
        # Each write gets a new etag, even if the bytes are the same. Each etag contains `_token`,
        # which is random, so that two drivers hardly ever create the same etag.
        self._writes = count(1)
        self._token = secrets.token_hex(4)
        self._backend = ""
        self._capabilities = Capabilities(
            put_if_none_match=True,
            put_if_match=True,
            get_conditions=True,
            delete_if_match=True,
            ranges=True,
            checksums=frozenset({"crc32c"}),
            metadata=True,
            headers=True,
            expires=True,
            tags=True,
            storage_class=True,
            upload=True,
            parallel_parts=parallel_parts,
            uneven_parts=True,
            server_copy=True,
            bulk_delete=1000,
            private_namespace=True,
            embedded=True,
            max_reads=max_connections,
            max_writes=max_connections,
            max_requests=max_connections,
        )

    def __repr__(self) -> str:
        return f"<MemoryDriver of {len(getattr(self, '_buckets', ()))} buckets>"

    @property
    def name(self) -> str:
        """The name of the driver."""
        return "memory"

    @property
    def capabilities(self) -> Capabilities:
        """The features and limits of the driver."""
        return self._capabilities

    async def open(self, context: DriverContext) -> None:
        """Store the backend's name. There is no connection."""
        self._backend = context.backend

    async def aclose(self) -> None:
        """Do nothing: the objects stay for the next `open`."""

    async def ping(self) -> None:
        """Do nothing: memory is always available."""

    def place(self, bucket: str, key: str) -> tuple[object, str, str]:
        """Return this driver, the bucket and the key."""
        return self, bucket, key

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store a copy of the views atomically. See `AsyncDriver.put`."""
        body = b"".join(views)
        if len(body) >= _YIELD_SIZE:
            await asyncio.sleep(0)
        return self._store(bucket, key, (body,) if body else (), running_crc32c([body]), options)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the current body of the object. Later puts do not affect it."""
        return _Reader(self, bucket, key, options)

    async def head(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,  # noqa: ARG002 - versions are not among the capabilities
    ) -> ObjectInfo:
        """Return the object's info. See `AsyncDriver.head`."""
        return self._object(bucket, key).info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. Open readers keep its body. See `AsyncDriver.delete`."""
        contents = self._bucket(bucket)
        current = contents.objects.get(key)
        _check_match(options.if_match, current, bucket, key)
        if current is not None:
            contents.remove(key)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket, in order. See `AsyncDriver.list_page`."""
        await asyncio.sleep(0)  # a listing of many pages must not starve other tasks
        return paginate(bucket, options, self._bucket(bucket).seek, _info)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket. See `AsyncDriver.create_bucket`."""
        if bucket in self._buckets:
            raise BucketExistsError("the bucket exists", bucket=bucket)
        self._buckets[bucket] = _Bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket if it is empty. See `AsyncDriver.delete_bucket`."""
        objects = len(self._bucket(bucket).objects)
        if objects:
            raise BucketNotEmptyError(f"the bucket has {objects} objects", bucket=bucket)
        del self._buckets[bucket]

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's name and creation time. See `AsyncDriver.head_bucket`."""
        return self._bucket(bucket).info

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return all buckets, sorted by name."""
        return [self._buckets[name].info for name in sorted(self._buckets)]

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload. Without a commit, its parts are discarded."""
        return _Upload(self, bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Create an object that shares the source's body. See `Copying.copy`."""
        source = self._source(src_bucket, src_key, options)
        if source.info.etag != options.source.etag:
            raise ObjectChangedError(
                "the source was replaced before it was copied: retry",
                bucket=src_bucket,
                key=src_key,
            )
        return self._store(dst_bucket, dst_key, source.chunks, source.checksum, options.put)

    def _source(self, bucket: str, key: str, _options: CopyOptions) -> _Object:
        """Return the source of a copy. A subclass with versions overrides this."""
        return self._object(bucket, key)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete many objects. See `BulkDeleting.delete_many`."""
        contents = self._bucket(bucket)
        for key in keys:
            if key in contents.objects:
                contents.remove(key)
        return [DeleteResult(key=key) for key in keys]

    def _bucket(self, bucket: str) -> _Bucket:
        try:
            return self._buckets[bucket]
        except KeyError:
            raise BucketNotFoundError(
                "the bucket does not exist: create it with create_bucket", bucket=bucket
            ) from None

    def _object(self, bucket: str, key: str) -> _Object:
        try:
            return self._bucket(bucket).objects[key]
        except KeyError:
            raise ObjectNotFoundError("the object does not exist", bucket=bucket, key=key) from None

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        """Create the object if the conditions hold. Every put, commit and copy calls this.

        There is no await between the check and the write, so both together are atomic.
        """
        # 1. Check the conditions and the checksum.
        contents = self._bucket(bucket)
        current = contents.objects.get(key)
        if options.if_none_match is not None and current is not None:
            raise ObjectExistsError("if_none_match: the object exists", bucket=bucket, key=key)
        _check_match(options.if_match, current, bucket, key)
        crc32c = crc32c_text(checksum)
        compare_announced(options.checksums, crc32c)
        # 2. Create the object.
        info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=sum(map(len, chunks)),
            etag=f"{self._token}-{next(self._writes):x}",
            last_modified=datetime.now(UTC),
            content_type=options.content_type,
            metadata=dict(options.metadata),
            tags=dict(options.tags),
            storage_class=options.storage_class,
            cache_control=options.cache_control,
            content_disposition=options.content_disposition,
            content_encoding=options.content_encoding,
            content_language=options.content_language,
            expires=options.expires,
            checksums={CRC32C: crc32c},
            backend=self._backend,
            write_id=options.write_id,
        )
        contents.add(key, _Object(info, chunks, checksum))
        return info


def _check_match(etag: str | None, current: _Object | None, bucket: str, key: str) -> None:
    if etag is not None and (current is None or current.info.etag != etag):
        state = (
            "object does not exist" if current is None else "current version has a different etag"
        )
        raise PreconditionFailedError(f"if_match: the {state}", bucket=bucket, key=key)


class _Object(NamedTuple):
    """A stored object. No chunk is empty."""

    info: ObjectInfo
    chunks: tuple[bytes, ...]
    checksum: int


def _info(_key: str, stored: _Object) -> ObjectInfo:
    return stored.info


class _Bucket:
    """Objects by key, and a list of their keys, which is sorted only when the bucket is listed.

    Sorting strings by code points gives the bytewise order of UTF-8.
    """

    __slots__ = ("_added", "_keys", "_removed", "info", "objects")

    MAX_INSERTIONS = 16
    """Maximum number of new keys to insert one by one. Each insertion moves the keys behind it. For more
    keys, sorting the whole list is faster."""

    def __init__(self, name: str) -> None:
        self.info = BucketInfo(name=name, created=datetime.now(UTC))
        self.objects: dict[str, _Object] = {}
        self._keys: list[str] = []
        self._added: set[str] = set()
        self._removed: set[str] = set()  # these keys are still in `_keys`; `seek` skips them

    def add(self, key: str, stored: _Object) -> None:
        if key not in self.objects:
            if key in self._removed:
                self._removed.remove(key)
            else:
                self._added.add(key)
        self.objects[key] = stored

    def remove(self, key: str) -> None:
        del self.objects[key]
        if key in self._added:
            self._added.remove(key)
        else:
            self._removed.add(key)

    def seek(self, start: str) -> Iterator[tuple[str, _Object]]:
        self._sort()
        keys, objects = self._keys, self.objects
        for index in range(bisect_left(keys, start), len(keys)):
            stored = objects.get(keys[index])
            if stored is not None:
                yield keys[index], stored

    def _sort(self) -> None:
        # 1. Drop removed keys. Doing so only when they are the majority keeps deletions cheap.
        if len(self._removed) * 2 > len(self._keys):
            self._keys = [key for key in self._keys if key not in self._removed]
            self._removed.clear()
        # 2. Add new keys.
        if len(self._added) <= self.MAX_INSERTIONS:
            for key in self._added:
                insort(self._keys, key)
        else:
            self._keys.extend(self._added)
            self._keys.sort()
        self._added.clear()


class _Reader:
    """The reader of one get, and its context manager."""

    __slots__ = (
        "_bucket",
        "_chunk_index",
        "_chunk_offset",
        "_chunks",
        "_driver",
        "_key",
        "_options",
        "_remaining",
        "info",
        "range",
    )

    def __init__(self, driver: MemoryDriver, bucket: str, key: str, options: GetOptions) -> None:
        self._driver = driver
        self._bucket = bucket
        self._key = key
        self._options = options

    async def __aenter__(self) -> Self:
        options = self._options
        stored = self._driver._object(self._bucket, self._key)  # noqa: SLF001 - same module
        # 1. Check the conditions.
        self.info = info = stored.info
        _check_match(options.if_match, stored, self._bucket, self._key)
        if options.if_none_match is not None and options.if_none_match == info.etag:
            raise PreconditionFailedError(
                "if_none_match: the current version has this etag",
                bucket=self._bucket,
                key=self._key,
            )
        # 2. Find the first byte of the range: the index of its chunk, and its offset in the chunk.
        self.range = (0, info.size) if options.range is None else options.range.resolve(info.size)
        start, end = self.range
        self._remaining = end - start
        self._chunks: tuple[bytes, ...] | None = stored.chunks
        self._chunk_index, self._chunk_offset = 0, start
        while self._remaining and self._chunk_offset >= len(stored.chunks[self._chunk_index]):
            self._chunk_offset -= len(stored.chunks[self._chunk_index])
            self._chunk_index += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._chunks = None

    async def read(self, size: int) -> bytes:
        """Return a slice of one chunk, or the whole chunk without a copy. See `DriverReader.read`."""
        size = min(size, self._remaining)
        if size >= _YIELD_SIZE:
            await asyncio.sleep(0)
        chunk, start, end = self._advance(size)
        return chunk[start:end]

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from one chunk. See `ReadsInto.readinto`."""
        size = min(len(buffer), self._remaining)
        if size >= _YIELD_SIZE:
            await asyncio.sleep(0)
        chunk, start, end = self._advance(size)
        buffer[: end - start] = memoryview(chunk)[start:end]
        return end - start

    def _advance(self, size: int) -> tuple[bytes, int, int]:
        """Advance by up to `size` bytes. Return the chunk with these bytes, and their range in it."""
        if self._chunks is None:
            raise ClosedError("the reader is closed", bucket=self._bucket, key=self._key)
        if size == 0:
            return b"", 0, 0
        chunk, start = self._chunks[self._chunk_index], self._chunk_offset
        end = min(start + size, len(chunk))
        self._remaining -= end - start
        if end == len(chunk):
            self._chunk_index, self._chunk_offset = self._chunk_index + 1, 0
        else:
            self._chunk_offset = end
        return chunk, start, end


class _Upload:
    """One upload and its context manager."""

    __slots__ = ("_bucket", "_driver", "_info", "_key", "_options", "_parts")

    def __init__(self, driver: MemoryDriver, bucket: str, key: str, options: PutOptions) -> None:
        self._driver = driver
        self._bucket = bucket
        self._key = key
        self._options = options
        self._parts: dict[int, tuple[Part, bytes]] = {}
        self._info: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        self._driver._bucket(self._bucket)  # noqa: SLF001 - same module
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._parts.clear()

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Keep a copy of the part for the commit. See `Upload.send`."""
        body = b"".join(views)
        if len(body) >= _YIELD_SIZE:
            await asyncio.sleep(0)
        self._parts[part.number] = part, body

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Create the object from the parts, without joining them. See `Upload.commit`."""
        if self._info is not None:
            return self._info
        # 1. Check that each part starts where the last one ended, and compute their combined checksum.
        chunks: list[bytes] = []
        size = checksum = 0
        for number in sorted(self._parts):
            part, body = self._parts[number]
            if part.offset != size:
                raise IntegrityError(
                    f"a part must start at offset {size}, got {part.offset}",
                    bucket=self._bucket,
                    key=self._key,
                )
            size += len(body)
            checksum = running_crc32c([body], checksum)
            chunks.append(body)
            if len(body) >= _YIELD_SIZE:
                await asyncio.sleep(0)
        # 2. Create the object.
        options = replace(self._options, checksums={**self._options.checksums, **checksums})
        self._info = self._driver._store(  # noqa: SLF001 - same module
            self._bucket, self._key, tuple(filter(None, chunks)), checksum, options
        )
        return self._info
