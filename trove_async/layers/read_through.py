"""`ReadThrough`: a cache in front of a driver."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Final, Literal, Self, cast
from urllib.parse import urlsplit

from trove_async._concurrency import Deadlines
from trove_async._settings import check_counts, check_numbers
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    DriverContext,
    DriverReader,
    PartSource,
    StreamedUpload,
    Upload,
)
from trove_async.errors import ClosedError, ConfigError
from trove_async.models import DeleteResult, MiB, ObjectInfo
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions
from trove_async.pool import SLOT, BufferPool

from ._cache.block_store import BUCKET, BlockStore
from ._cache.calls import CacheCalls, SharedTasks
from ._cache.core import CacheStatistics, ReadCore
from ._cache.ledger import LEDGER
from ._cache.reader import CachedGet
from ._cache.versions import Name, Observation, Version, Write
from ._cache.written import WrittenParts, cache_body
from ._forwarding import Forwarding
from ._urls import as_driver

_logger = logging.getLogger("trove_async")

_CLOSE_SECONDS: Final = 2.0
"""Seconds that the end of all tasks may take, and leaving a cache that other processes share."""


_EXCLUSIVE: Final[set[Hashable]] = set()
"""The places of the open caches of this process that cannot be shared."""


class ReadThrough(Forwarding):
    """Keeps blocks of the objects of a driver in a cache, and reads them from there.

    Reads, writes, listings and everything else have the results of the origin. Only get and head may be answered
    without it:

    * For `revalidate` seconds after the origin has confirmed the current version of an object, get and head
      send it no request for what the cache has. After that, a head request confirms the version again.
      So a change by another writer is seen `revalidate` seconds later at the latest. A write through this
      layer is seen at once.
    * A body is of one version. If a block is missing and the version was replaced, the read raises
      ObjectChangedError.
    * Gets with a condition or a version_id, and objects without an etag, are not cached.

    The cache only makes reads faster. If it fails, is full, or does not respond within `cache_timeout`, reads use
    the origin, and the cache is left alone for some seconds.

    What is in the cache stays for the next process. A block is verified when a process first reads it if another
    process wrote it, whenever its etag in the cache has changed, and whenever it is read whole. So bytes of a disk
    that change without a new etag, and so without a new modification time, are not noticed by reads of parts of
    a block, as parts have no checksums. If a read finds a block damaged after bytes of it were handed out, it raises
    IntegrityError, and the next read gets the block from the origin.

    If the driver of the cache honours the conditions of a put, several processes may use one cache at the same time:
    all their blocks together stay within `max_bytes`. If they differ in it, the smallest one holds for all as long as
    its layer is open, once the others have noticed: before they store their next block, after at most 5 seconds.
    Otherwise each process needs a cache of its own, and a second layer over one in the same process is refused.

    Args:
        origin: The driver, or its URL.
        cache: The driver that holds the blocks, or its URL. It needs a bucket named ``trove-cache``, which is
            created. A `LocalDriver` should have ``fsync=False``, which is the default of a URL here: a
            cache need not survive a power failure, and damaged blocks are found.
        max_bytes: The maximum size of the cache. It is never exceeded, also while blocks are written. Lower it, and
            the next process deletes what is above.
        block_size: Bytes of a block, which is what is requested from the origin. At most half of the
            memory of the store's pool.
        revalidate: Seconds for which a version counts as current. 0: each get and head asks the origin.
        write: ``"around"``: writes are not cached. ``"through"``: the body of a put, and of an upload if there
            is free memory for it, is stored in the cache as well. If the origin is a service, the first read
            then sends a head request, and none for the body.
        cache_timeout: Seconds after which a call to the cache is given up.

    Raises:
        ConfigError: A value is out of range, or a URL is invalid. When a store opens: a block does not fit
            the pool, origin and cache are one place, or the cache is in use and cannot be shared.
        TypeError: An argument has the wrong type.

    Example:
        >>> from trove_async.drivers import MemoryDriver
        >>> layer = ReadThrough(MemoryDriver(), cache=MemoryDriver(), max_bytes=64 * MiB)
        >>> layer.statistics().hits
        0
    """

    def __init__(
        self,
        origin: AsyncDriver | str,
        cache: AsyncDriver | str,
        *,
        max_bytes: int,
        block_size: int = 4 * MiB,
        revalidate: float = 60.0,
        write: Literal["around", "through"] = "around",
        cache_timeout: float = 2.0,
    ) -> None:
        check_counts(max_bytes=max_bytes, block_size=block_size)
        check_numbers(revalidate=revalidate, cache_timeout=cache_timeout)
        if revalidate < 0:
            raise ConfigError(f"revalidate must not be negative, got {revalidate}")
        if cache_timeout <= 0:
            raise ConfigError(f"cache_timeout must be positive, got {cache_timeout}")
        if not isinstance(write, str):
            raise TypeError(f"write must be a str, got {type(write).__name__}")
        if write not in {"around", "through"}:
            raise ConfigError(f"write must be 'around' or 'through', got {write!r}")
        super().__init__("ReadThrough", as_driver(origin), _cache_driver(cache))
        if self.inner[0] is self.inner[1]:
            raise ConfigError("origin and cache must be different drivers")
        self._max_bytes = max_bytes
        self._block_size = block_size
        self._revalidate = float(revalidate)
        self._writes_through = write == "through"
        self._cache_timeout = float(cache_timeout)
        self._tasks: SharedTasks | None = None
        self._deadlines: Deadlines | None = None
        self._core: ReadCore | None = None
        self._claimed: Hashable = None  # the place of a cache that nothing else may use
        self._statistics = CacheStatistics(max_bytes=max_bytes)  # while the layer is closed

    def __repr__(self) -> str:
        if not hasattr(self, "_statistics"):
            return "<ReadThrough, not initialised>"  # its constructor raised
        origin, cache = self.inner
        return f"ReadThrough({origin!r}, cache={cache!r}, max_bytes={self._max_bytes})"

    def statistics(self) -> CacheStatistics:
        """Return the counters since the layer was opened. After it was closed: the last ones."""
        return self._statistics if self._core is None else self._core.statistics()

    async def wait_until_ready(self) -> None:
        """Wait until the index of the cache was built or could not be built. Reads need not wait for it."""
        await self._open_core.store.wait_until_indexed()

    async def open(self, context: DriverContext) -> None:
        """Open both drivers, and begin to list the cache.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
            ConfigError: A block does not fit the pool, origin and cache are one place, or another layer of this process
                uses the cache and it cannot be shared.
        """
        await super().open(context)
        _check_memory(context.pool, self._block_size)
        origin, cache = self._attachment.drivers
        self._tasks, self._deadlines = SharedTasks(), Deadlines()
        calls = CacheCalls(self._tasks, self._deadlines, self._cache_timeout)
        store = BlockStore(cache, self._max_bytes, calls, self._tasks)
        self._claim(origin, cache, is_shareable=store.is_shareable)
        self._core = ReadCore(
            origin,
            store,
            context.pool,
            self._tasks,
            block_size=self._block_size,
            revalidate=self._revalidate,
        )
        store.start_indexing()

    async def aclose(self) -> None:
        """Cancel what runs in the background, and leave the cache as it is. Idempotent.

        A call that hangs in a thread, such as on a network file system that does not respond, cannot be
        cancelled. After two seconds, `aclose` logs a warning and leaves such a call, which keeps its memory until it
        ends. But a store that closes then closes the drivers of origin and cache, and a `LocalDriver` waits for
        its threads, without a deadline.
        """
        tasks, deadlines, core = self._tasks, self._deadlines, self._core
        try:
            # While a call is left, this process may still store a block, so it stays in the ledger.
            has_ended = tasks is None or await tasks.aclose_within(_CLOSE_SECONDS)
            if core is not None:
                self._statistics = core.statistics()
                has_ended = has_ended and await core.aclose(_CLOSE_SECONDS)
            if not has_ended:
                _logger.warning(
                    "ReadThrough was closed while a call of a driver was hanging: %r", self
                )
        finally:
            if deadlines is not None:
                deadlines.close()
            self._tasks = self._deadlines = self._core = None
            if self._claimed is not None:
                _EXCLUSIVE.discard(self._claimed)
                self._claimed = None
            await super().aclose()

    def _claim(self, origin: AsyncDriver, cache: AsyncDriver, *, is_shareable: bool) -> None:
        """Check that nothing else in this process uses the place of the cache."""
        place = cache.place(BUCKET, LEDGER)
        if place == origin.place(BUCKET, LEDGER):
            raise ConfigError(
                "origin and cache must be different places: use another directory or service"
            )
        if is_shareable:
            return
        if place in _EXCLUSIVE:
            raise ConfigError(
                "the cache is used by another open ReadThrough, and cannot be shared because its driver does not"
                " honour the conditions of a put: use another cache"
            )
        _EXCLUSIVE.add(place)
        self._claimed = place

    @property
    def _open_core(self) -> ReadCore:
        if self._core is None:
            raise ClosedError("the layer is not open: use it through a store")
        return self._core

    # -- reads -----------------------------------------------------------------------------------

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body. See `AsyncDriver.get`."""
        return CachedGet(self._open_core, bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info. See `AsyncDriver.head`."""
        core = self._open_core
        if version_id is not None:
            return await core.origin.head(bucket, key, version_id)
        version = core.current((bucket, key), whole=True)
        if version is None or not version.describes_tags:
            version = await core.head((bucket, key))
        return version.info

    # -- writes ----------------------------------------------------------------------------------

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object at the origin, and its blocks in the cache. See `AsyncDriver.put`."""
        core, name = self._open_core, (bucket, key)
        requested_at = core.clock()
        with _WritesInFlight(core, bucket, key) as writes:
            info = await super().put(bucket, key, views, options)
        if self._writes_through and not core.tasks.closed:
            parts = WrittenParts(core.pool)
            parts.add_body(views, self._block_size)
            # The response of a service may lack what a get returns, such as the exact date.
            is_known = writes.is_certain and core.origin.capabilities.embedded
            observation = core.versions.observe(name)  # before any other write of it can begin
            work = _cache_parts(
                core, name, info, parts, requested_at, observation, is_known=is_known
            )
            with suppress(ClosedError):
                await core.tasks.start(work).result()
        return info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object at the origin. See `AsyncDriver.delete`."""
        with _WritesInFlight(self._open_core, bucket, key):
            await super().delete(bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy within the origin. See `Copying.copy`."""
        with _WritesInFlight(self._open_core, dst_bucket, dst_key):
            return await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys at the origin. See `BulkDeleting.delete_many`."""
        with _WritesInFlight(self._open_core, bucket, *keys):
            return await cast("BulkDeleting", self._driver).delete_many(bucket, keys)

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket at the origin. See `AsyncDriver.create_bucket`."""
        self._open_core.versions.forget_bucket(bucket)
        await super().create_bucket(bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket at the origin. See `AsyncDriver.delete_bucket`."""
        core = self._open_core
        core.versions.forget_bucket(bucket)
        try:
            await super().delete_bucket(bucket)
        finally:
            core.versions.forget_bucket(bucket)

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload to the origin. See `Uploading.upload`."""
        core = self._open_core
        parts = WrittenParts(core.pool) if self._writes_through else None
        return _Upload(core, bucket, key, super().upload(bucket, key, options), parts)


def _cache_driver(cache: AsyncDriver | str) -> AsyncDriver:
    if isinstance(cache, str) and urlsplit(cache).scheme == "file" and "fsync=" not in cache:
        # Writing a block durably takes longer than requesting it again.
        cache = f"{cache}{'&' if '?' in cache else '?'}fsync=false"
    return as_driver(cache)


def _check_memory(pool: BufferPool, block_size: int) -> None:
    limit = max(pool.max_bytes // 2, SLOT)
    if block_size > limit:
        raise ConfigError(
            f"block_size must be at most half of the pool, {limit} bytes, got {block_size}: lower it, or"
            " raise max_bytes of the store's pool"
        )


class _WritesInFlight:
    """A context in which objects are written: what is read meanwhile may be the version before.

    Attributes:
        is_certain: Whether no other write of these objects was in flight, so that this one is the latest. Known on
            leaving.
    """

    __slots__ = ("_names", "_versions", "_writes", "is_certain")

    def __init__(self, core: ReadCore, bucket: str, *keys: str) -> None:
        self._versions = core.versions
        self._names = {(bucket, key) for key in keys}
        self._writes: dict[Name, Write] = {}
        self.is_certain = False

    def __enter__(self) -> Self:
        self._writes = {name: self._versions.begin_write(name) for name in self._names}
        return self

    def __exit__(self, *_: object) -> None:
        for name, write in self._writes.items():
            self._versions.end_write(name, write)
        self.is_certain = not any(write.is_contended for write in self._writes.values())


class _Upload:
    """One upload to the origin. It is also its context manager."""

    __slots__ = ("_bucket", "_context", "_core", "_key", "_parts", "_upload")

    def __init__(
        self,
        core: ReadCore,
        bucket: str,
        key: str,
        context: AbstractAsyncContextManager[Upload],
        parts: WrittenParts | None,
    ) -> None:
        self._parts = parts  # to be cached
        self._core = core
        self._bucket = bucket
        self._key = key
        self._context = context

    async def __aenter__(self) -> Upload:
        self._upload = await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._context.__aexit__(kind, error, traceback)
        finally:
            if self._parts is not None:
                self._parts.close()
            # The outcome of a commit that failed may have become known only now.
            self._core.versions.forget((self._bucket, self._key))

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send the part to the origin. See `Upload.send`."""
        await self._upload.send(part, views)
        if self._parts is not None:
            self._parts.add(part.offset, views)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Send the part to the origin. See `StreamedUpload.send_stream`."""
        await cast("StreamedUpload", self._upload).send_stream(part, source)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Commit at the origin. See `Upload.commit`."""
        requested_at = self._core.clock()
        with _WritesInFlight(self._core, self._bucket, self._key):
            info = await self._upload.commit(checksums)
        parts, self._parts = self._parts, None
        if parts is not None:
            if self._core.tasks.closed:
                parts.close()
            else:
                name = self._bucket, self._key
                observation = self._core.versions.observe(name)
                work = _cache_parts(
                    self._core, name, info, parts, requested_at, observation, is_known=False
                )
                self._core.tasks.start(work)
        return info


async def _cache_parts(  # noqa: PLR0917 - all are required
    core: ReadCore,
    name: Name,
    info: ObjectInfo,
    parts: WrittenParts,
    requested_at: float,
    observation: Observation,
    *,
    is_known: bool,
) -> None:
    """Store what was written in the cache, and remember the version if it is known to be the latest."""
    version: Version | None = None
    try:
        version = await cache_body(core, name, info, parts.use(), requested_at)
    finally:
        parts.close()
        core.versions.end(name, observation, version if is_known else None)
