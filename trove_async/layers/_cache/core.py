"""The state that all readers and fills of one `ReadThrough` share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from trove_async._concurrency import OwnedTasks
from trove_async.driver import AsyncDriver
from trove_async.errors import ClosedError, TroveError
from trove_async.models import ObjectInfo
from trove_async.pool import BufferPool

from .block_store import BlockStore
from .calls import end_within
from .counters import Counters
from .fills import Fill, FilledBlock, FillReader
from .responses import fresh
from .versions import Name, Observation, Version, Versions, block_id_of, object_id_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """The counters of a `ReadThrough` since it was opened, and the state of its cache.

    Attributes:
        hits: Blocks of which a reader got bytes from the cache. A block may also count as a miss or as shared, if the
            reader got others of its bytes from the origin.
        misses: Blocks that a reader made the origin send.
        shared: Blocks that a reader took from a request that another one had made.
        bypasses: Gets of which some bytes were read from the origin without the cache: with a condition or a version_id, of
            objects without an etag, or while the cache was not ready, was failing, or had no memory.
        bytes_from_cache: Bytes that readers got from the cache.
        bytes_from_origin: Bytes of bodies that the origin sent, including those of bypasses.
        evictions: Blocks deleted to make room.
        failures: Calls to the cache that failed or took too long.
        blocks: Blocks that this process has in the cache.
        stored_bytes: Their bytes.
        max_bytes: The limit of the cache.
        allowance: The part of it that this process may use. It is less while other processes share the cache.
        is_ready: Whether the index of the cache is complete. Nothing is stored before that.
    """

    hits: int = 0
    misses: int = 0
    shared: int = 0
    bypasses: int = 0
    bytes_from_cache: int = 0
    bytes_from_origin: int = 0
    evictions: int = 0
    failures: int = 0
    blocks: int = 0
    stored_bytes: int = 0
    max_bytes: int = 0
    allowance: int = 0
    is_ready: bool = False


class _Lookup:
    """A request for the current version of an object, which several readers may share.

    Attributes:
        observation: The request.
        version: Its result.
        started_at: When it was sent, on the clock of the event loop. Its result may be as old as that.
    """

    __slots__ = ("observation", "started_at", "version")

    def __init__(
        self, observation: Observation, version: asyncio.Future[Version], started_at: float
    ) -> None:
        self.observation = observation
        self.version = version
        self.started_at = started_at


class ReadCore:
    """Versions, blocks and fills of one open layer.

    Args:
        origin: The open driver of the origin.
        store: The blocks in the cache.
        pool: The store's memory.
        tasks: The layer's tasks.
        block_size: Bytes of a block.
        revalidate: Seconds for which a version counts as current.

    Attributes:
        counters: What readers and fills have done.
        filling: The blocks that are being received or stored.
        fills: The fills that have not ended.
    """

    def __init__(
        self,
        origin: AsyncDriver,
        store: BlockStore,
        pool: BufferPool,
        tasks: OwnedTasks,
        *,
        block_size: int,
        revalidate: float,
    ) -> None:
        self.origin = origin
        self.store = store
        self.pool = pool
        self.tasks = tasks
        self.block_size = block_size
        self.revalidate = revalidate
        self.clock = asyncio.get_running_loop().time
        self.versions = Versions()
        self.filling: dict[tuple[str, int], FilledBlock] = {}
        self.fills: set[Fill] = set()
        self._lookups: dict[Name, _Lookup] = {}
        self._lingering: dict[FilledBlock, None] = {}  # kept for slow readers, oldest first
        capabilities = origin.capabilities
        self._gets_have_checksums = not capabilities.checksums or capabilities.embedded
        self._gets_have_tags = not capabilities.tags or capabilities.embedded
        self.counters = Counters()

    async def aclose(self, seconds: float) -> bool:
        """Leave the cache, once all tasks have ended. Return False if it has not responded within a deadline."""
        self.versions.clear()
        return await end_within(self.store.aclose(), seconds)

    def statistics(self) -> CacheStatistics:
        """Return the current counters."""
        store, counters = self.store, self.counters
        return CacheStatistics(
            hits=counters.hits,
            misses=counters.misses,
            shared=counters.shared,
            bypasses=counters.bypasses,
            bytes_from_cache=counters.bytes_from_cache,
            bytes_from_origin=counters.bytes_from_origin,
            evictions=store.evictions,
            failures=store.failures,
            blocks=store.index.owned_count,
            stored_bytes=store.index.stored_bytes,
            max_bytes=store.max_bytes,
            allowance=store.allowance,
            is_ready=store.is_ready,
        )

    # -- versions --------------------------------------------------------------------------------

    def version_of(
        self, name: Name, info: ObjectInfo, requested_at: float, *, is_whole: bool
    ) -> Version:
        """Return the version that the response to a get describes."""
        place = self.origin.place(*name)
        return Version(
            info,
            requested_at,
            object_id=object_id_of(place),
            block_id=block_id_of(place, info, self.block_size),
            describes_body=is_whole or self._gets_have_checksums,
            describes_tags=self._gets_have_tags,
        )

    def current(self, name: Name, *, whole: bool = False) -> Version | None:
        """Return the version of an object if it was confirmed within `revalidate` seconds, else None.

        Args:
            name: The object.
            whole: Whether its recorded checksums are needed.
        """
        version = self.versions.get(name)
        if version is None or self.clock() - version.confirmed_at >= self.revalidate:
            return None
        return None if whole and not version.describes_body else version

    def can_look_up(self, name: Name) -> bool:
        """Return whether a get of an object whose version must be requested may use the cache."""
        store = self.store
        if not store.is_ready:
            store.start_indexing()
            return False
        return self._is_known(name) or (store.accepts(1) and self.can_lease())

    def _is_known(self, name: Name) -> bool:
        """Return whether the version or blocks of the object are known, so that a get may be a waste."""
        return self.versions.get(name) is not None or self.store.index.has_blocks_of(
            object_id_of(self.origin.place(*name))
        )

    async def head(self, name: Name) -> Version:
        """Request the current version, with its metadata, from the origin."""
        requested_at = self.clock()
        observation = self.versions.observe(name)
        version = None
        try:
            info = await self.origin.head(*name)
            version = self.version_of(name, info, requested_at, is_whole=True)
            version.describes_tags = True
        finally:
            self.versions.end(name, observation, version)
        return version

    async def look_up(
        self, name: Name, reader: FillReader, first: int | None, end: int | None
    ) -> Version:
        """Return the current version. Concurrent readers of one object share the request.

        A reader shares one only if it was sent less than `revalidate` seconds ago.

        If nothing is known of the object, the request is a get that fills the blocks that the reader needs.
        Otherwise it is a head: its response tells the metadata as well, which a service may change
        without a new etag, and a response "not modified" would not.

        Args:
            name: The object.
            reader: The reader.
            first: The first block that it needs; None: unknown.
            end: The number after the last one; None: up to the end of the object.
        """
        lookup = self._lookups.get(name)
        if lookup is None or not self._can_join(lookup):
            lookup = self._start_lookup(name, reader, first, end)
        if not lookup.version.done():
            await asyncio.wait([lookup.version])
        error = lookup.version.exception()
        if error is not None:
            raise fresh(error)
        return lookup.version.result()

    def _can_join(self, lookup: _Lookup) -> bool:
        """Return whether a get that begins now may use the result of a lookup."""
        # One that has ended may be older than a write that has ended since.
        is_current = not (lookup.observation.is_outdated or lookup.version.done())
        return is_current and self.clock() - lookup.started_at < self.revalidate

    def _start_lookup(
        self, name: Name, reader: FillReader, first: int | None, end: int | None
    ) -> _Lookup:
        self.check_open()
        observation, started_at = self.versions.observe(name), self.clock()
        is_requested = (
            name in self._lookups
        )  # too early for this reader, but it may fill the blocks
        if self._is_known(name) or is_requested or first is None or not self.can_lease():
            version: asyncio.Future[Version] = asyncio.get_running_loop().create_future()
            lookup = _Lookup(observation, version, started_at)
            self.tasks.start(self._look_up_by_head(name, lookup))
        else:
            fill = Fill(self, name, first, end, reader, None, observation)
            lookup = _Lookup(observation, fill.opened, started_at)
            self.start(fill)
        self._lookups[name] = lookup
        lookup.version.add_done_callback(lambda _: self._end_lookup(name, lookup))
        return lookup

    def _end_lookup(self, name: Name, lookup: _Lookup) -> None:
        if self._lookups.get(name) is lookup:
            del self._lookups[name]

    async def _look_up_by_head(self, name: Name, lookup: _Lookup) -> None:
        version: Version | None = None
        error: BaseException = ClosedError("the layer was closed")
        requested_at = self.clock()
        try:
            info = await self.origin.head(*name)
            version = self.version_of(name, info, requested_at, is_whole=True)
            version.describes_tags = True
        except TroveError as failure:
            error = failure
        except Exception as failure:
            error = failure
            raise
        finally:
            self.versions.end(name, lookup.observation, version)
            if version is None:
                lookup.version.set_exception(error)
                lookup.version.exception()  # retrieved, even if no reader waits for it any more
            else:
                lookup.version.set_result(version)

    # -- fills -----------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise ClosedError if the layer is closed."""
        if self.tasks.closed:
            raise ClosedError("the layer or its store was closed")

    def can_lease(self) -> bool:
        """Return whether there is memory for a block now."""
        lease = self.pool.try_lease(self.block_size, lambda: False)
        if lease is None and self._drop_lingering():
            lease = self.pool.try_lease(self.block_size, lambda: False)
        if lease is not None:
            lease.release()
        return lease is not None

    def lease(self, block: FilledBlock) -> bool:
        """Lease memory for a block. Return False if there is none."""
        return block.lease(self.pool) or (self._drop_lingering() and block.lease(self.pool))

    def _drop_lingering(self) -> bool:
        """Drop the blocks that are kept only for slow readers. Return whether there were any."""
        lingering = list(self._lingering)
        self._lingering.clear()
        for block in lingering:
            block.drop()
        return bool(lingering)

    def start(self, fill: Fill) -> None:
        """Start the task of a fill."""
        self.fills.add(fill)
        fill.task = self.tasks.start(fill.run())

    def find_fill(
        self, version: Version, number: int, other_than: Fill | None = None
    ) -> Fill | None:
        """Return a fill that will fill a block of a version next."""
        for fill in self.fills:
            known = fill.version
            if (
                known is not None
                and known.block_id == version.block_id
                and fill.will_fill(number)
                and fill is not other_than
            ):
                return fill
        return None

    def has_block(self, version: Version, number: int) -> bool:
        """Return whether a block is in the cache or on its way to it."""
        return (
            self.find_filling(version, number) is not None
            or self.store.find(version, number) is not None
        )

    def find_filling(self, version: Version, number: int) -> FilledBlock | None:
        """Return a block that is being received or stored, unless it was given up."""
        block = self.filling.get((version.block_id, number))
        return None if block is None or block.is_dropped else block

    def start_storing(self, block: FilledBlock) -> None:
        """Store a block that was received, in a task."""
        self.tasks.start(self._store(block))

    async def _store(self, block: FilledBlock) -> None:
        try:
            with block.use():
                await self.store.store(
                    block.version, block.number, block.views, block.crc32c, block.use
                )
        finally:
            block.done()
            if block.can_be_dropped:
                self._lingering = {other: None for other in self._lingering if other.can_be_dropped}
                self._lingering[block] = None

    def forget_filling(self, block: FilledBlock) -> None:
        """Let no more readers join a block, which was dropped."""
        key = block.version.block_id, block.number
        if self.filling.get(key) is block:
            del self.filling[key]
