"""Objects in this process's memory: for tests, for caches, and as the shortest full driver."""

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

_LONG = 256 * KiB
"""Bytes from which copying lets the loop's other tasks go first: nothing here ever waits, so a
transfer between memory and memory would starve them all."""


class MemoryDriver:
    """A backend in memory. What it holds lives as long as the driver, however often it is opened.

    It never waits and copies every byte once; an object of several parts is kept as those parts.

    Args:
        parallel_parts: Parts of one upload that the store may send at once.
        max_connections: Readers, and likewise writers, that the store may have open at once, as
            though there were a network in between; None: any number.
    """

    def __init__(self, *, parallel_parts: int = 4, max_connections: int | None = None) -> None:
        check_counts(parallel_parts=parallel_parts)
        if max_connections is not None:
            check_counts(max_connections=max_connections)
        self._buckets: dict[str, _Bucket] = {}
        # Unlike a checksum, a number never comes twice: an etag tells one write from the next.
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
        """``"memory"``."""
        return "memory"

    @property
    def capabilities(self) -> Capabilities:
        """All that a driver can have, but presigned URLs and versions."""
        return self._capabilities

    async def open(self, context: DriverContext) -> None:
        """Note the backend's name: there is nothing to connect to."""
        self._backend = context.backend

    async def aclose(self) -> None:
        """Do nothing: the objects stay for the next `open`."""

    async def ping(self) -> None:
        """Return: memory always answers."""

    def place(self, bucket: str, key: str) -> tuple[object, str, str]:
        """Return this driver and the names, which nothing here folds or rewrites."""
        return self, bucket, key

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store a copy of the views. See `AsyncDriver.put`; atomic, for nothing is awaited."""
        body = b"".join(views)
        if len(body) >= _LONG:
            await asyncio.sleep(0)
        return self._store(bucket, key, (body,) if body else (), running_crc32c([body]), options)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body as it is now, whatever is put over it later."""
        return _Reader(self, bucket, key, options)

    async def head(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,  # noqa: ARG002 - the capabilities say there are none
    ) -> ObjectInfo:
        """Return the object's facts. See `AsyncDriver.head`."""
        return self._object(bucket, key).info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Forget the object; readers that are open keep its body. See `AsyncDriver.delete`."""
        home = self._bucket(bucket)
        held = home.objects.get(key)
        _check_match(options.if_match, held, bucket, key)
        if held is not None:
            home.remove(key)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket, in order. See `AsyncDriver.list_page`."""
        await asyncio.sleep(0)
        return paginate(bucket, options, self._bucket(bucket).seek, _facts)

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket. See `AsyncDriver.create_bucket`."""
        if bucket in self._buckets:
            raise BucketExistsError("the bucket exists", bucket=bucket)
        self._buckets[bucket] = _Bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Forget the empty bucket. See `AsyncDriver.delete_bucket`."""
        objects = len(self._bucket(bucket).objects)
        if objects:
            raise BucketNotEmptyError(f"the bucket has {objects} objects", bucket=bucket)
        del self._buckets[bucket]

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's name and age. See `AsyncDriver.head_bucket`."""
        return self._bucket(bucket).info

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return all buckets, sorted by name."""
        return [self._buckets[name].info for name in sorted(self._buckets)]

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload, whose parts are forgotten if it is left uncommitted."""
        return _Upload(self, bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Let a second object share the first one's body. See `Copying.copy`."""
        held = self._source(src_bucket, src_key, options)
        if held.info.etag != options.source.etag:
            raise ObjectChangedError(
                "the source was replaced before it was copied", bucket=src_bucket, key=src_key
            )
        return self._store(dst_bucket, dst_key, held.chunks, held.checksum, options.put)

    def _source(self, bucket: str, key: str, _options: CopyOptions) -> _Object:
        return self._object(bucket, key)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Forget many objects. See `BulkDeleting.delete_many`."""
        home = self._bucket(bucket)
        for key in keys:
            if key in home.objects:
                home.remove(key)
        return [DeleteResult(key=key) for key in keys]

    def _bucket(self, bucket: str) -> _Bucket:
        try:
            return self._buckets[bucket]
        except KeyError:
            raise BucketNotFoundError(
                "no such bucket: create_bucket makes it", bucket=bucket
            ) from None

    def _object(self, bucket: str, key: str) -> _Object:
        try:
            return self._bucket(bucket).objects[key]
        except KeyError:
            raise ObjectNotFoundError("no such object", bucket=bucket, key=key) from None

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        """Make the object, if its conditions hold: the one place where objects come to be."""
        home = self._bucket(bucket)
        held = home.objects.get(key)
        if options.if_none_match is not None and held is not None:
            raise ObjectExistsError("the object exists", bucket=bucket, key=key)
        _check_match(options.if_match, held, bucket, key)
        crc = crc32c_text(checksum)
        compare_announced(options.checksums, crc)
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
            checksums={CRC32C: crc},
            backend=self._backend,
            write_id=options.write_id,
        )
        home.add(key, _Object(info, chunks, checksum))
        return info


def _check_match(etag: str | None, held: _Object | None, bucket: str, key: str) -> None:
    if etag is not None and (held is None or held.info.etag != etag):
        there = "no object" if held is None else "another version"
        raise PreconditionFailedError(f"if_match: {there} is there", bucket=bucket, key=key)


class _Object(NamedTuple):
    info: ObjectInfo
    chunks: tuple[bytes, ...]
    checksum: int


def _facts(_key: str, held: _Object) -> ObjectInfo:
    return held.info


class _Bucket:
    """Objects by key, and their keys in order: put in order only when a listing asks.

    The order of code points is the bytewise order of UTF-8.
    """

    __slots__ = ("_added", "_keys", "_removed", "info", "objects")

    FEW = 16
    """New keys up to which inserting each (a memmove) beats sorting anew (a pass over all)."""

    def __init__(self, name: str) -> None:
        self.info = BucketInfo(name=name, created=datetime.now(UTC))
        self.objects: dict[str, _Object] = {}
        self._keys: list[str] = []
        self._added: set[str] = set()
        self._removed: set[str] = set()  # still among the keys: `seek` skips them

    def add(self, key: str, held: _Object) -> None:
        if key not in self.objects:
            if key in self._removed:
                self._removed.remove(key)
            else:
                self._added.add(key)
        self.objects[key] = held

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
            held = objects.get(keys[index])
            if held is not None:
                yield keys[index], held

    def _sort(self) -> None:
        if len(self._removed) * 2 > len(self._keys):
            self._keys = [key for key in self._keys if key not in self._removed]
            self._removed.clear()
        if len(self._added) <= self.FEW:
            for key in self._added:
                insort(self._keys, key)
        else:
            self._keys.extend(self._added)
            self._keys.sort()
        self._added.clear()


class _Reader:
    """One get: its context manager and its reader."""

    __slots__ = (
        "_bucket",
        "_chunks",
        "_driver",
        "_key",
        "_left",
        "_next",
        "_options",
        "_skip",
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
        held = self._driver._object(self._bucket, self._key)  # noqa: SLF001 - its own room
        self.info = info = held.info
        _check_match(options.if_match, held, self._bucket, self._key)
        if options.if_none_match is not None and options.if_none_match == info.etag:
            raise PreconditionFailedError(
                "if_none_match: this version is there", bucket=self._bucket, key=self._key
            )
        self.range = (0, info.size) if options.range is None else options.range.resolve(info.size)
        start, end = self.range
        self._left = end - start
        self._chunks: tuple[bytes, ...] | None = held.chunks
        self._next = 0  # the chunk that the next byte is in, and how many before it there
        self._skip = start
        while self._left and self._skip >= len(held.chunks[self._next]):
            self._skip -= len(held.chunks[self._next])
            self._next += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._chunks = None

    async def read(self, size: int) -> bytes:
        """Return a slice of one chunk, or all of it without a copy. See `DriverReader.read`."""
        wanted = min(size, self._left)
        if wanted >= _LONG:
            await asyncio.sleep(0)
        chunk, start, end = self._advance(wanted)
        return chunk[start:end]

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from one chunk. See `ReadsInto.readinto`."""
        wanted = min(len(buffer), self._left)
        if wanted >= _LONG:
            await asyncio.sleep(0)
        chunk, start, end = self._advance(wanted)
        buffer[: end - start] = memoryview(chunk)[start:end]
        return end - start

    def _advance(self, size: int) -> tuple[bytes, int, int]:
        """Return where the next up to `size` bytes lie, and go past them."""
        if self._chunks is None:
            raise ClosedError("the reader is closed", bucket=self._bucket, key=self._key)
        if size == 0:
            return b"", 0, 0
        chunk, start = self._chunks[self._next], self._skip
        end = min(start + size, len(chunk))
        self._left -= end - start
        if end == len(chunk):
            self._next, self._skip = self._next + 1, 0
        else:
            self._skip = end
        return chunk, start, end


class _Upload:
    """One upload: its context manager and itself."""

    __slots__ = ("_bucket", "_driver", "_info", "_key", "_options", "_parts")

    def __init__(self, driver: MemoryDriver, bucket: str, key: str, options: PutOptions) -> None:
        self._driver = driver
        self._bucket = bucket
        self._key = key
        self._options = options
        self._parts: dict[int, tuple[Part, bytes]] = {}
        self._info: ObjectInfo | None = None

    async def __aenter__(self) -> Self:
        self._driver._bucket(self._bucket)  # noqa: SLF001 - its own room
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._parts.clear()

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Keep a copy of the part until the commit. See `Upload.send`."""
        body = b"".join(views)
        if len(body) >= _LONG:
            await asyncio.sleep(0)
        self._parts[part.number] = part, body

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Make the object of the parts, without joining them. See `Upload.commit`."""
        if self._info is not None:
            return self._info
        chunks: list[bytes] = []
        size = checksum = 0
        for number in sorted(self._parts):
            part, body = self._parts[number]
            if part.offset != size:
                raise IntegrityError(
                    f"the parts have no byte {size}", bucket=self._bucket, key=self._key
                )
            size += len(body)
            checksum = running_crc32c([body], checksum)
            chunks.append(body)
            if len(body) >= _LONG:
                await asyncio.sleep(0)
        options = replace(self._options, checksums={**self._options.checksums, **checksums})
        self._info = self._driver._store(  # noqa: SLF001 - its own room
            self._bucket, self._key, tuple(filter(None, chunks)), checksum, options
        )
        return self._info
