"""The cache of `ReadThrough`: reads, stores and evicts blocks within a limit, and never raises.

Everything in the cache is one bucket of a driver: the blocks, and the ledger if several processes may share the
cache (`ledger`). The index of the blocks is rebuilt from a listing. Until that is done, nothing is stored.

The limit holds at every moment: a block is deleted, and the deletion awaited, before another one is written in its
place. A block whose write or deletion failed may exist, so it counts until it is deleted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from trove_async._checksums import running_crc32c
from trove_async._concurrency import OwnedTask, OwnedTasks
from trove_async.driver import AsyncDriver, ReadsNow
from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    NotFoundError,
    StorageFullError,
    TroveError,
)
from trove_async.models import ByteRange, MiB
from trove_async.options import DeleteOptions, GetOptions, PutOptions

from .blocks import Block, BlockIndex
from .calls import CacheCalls, Pause
from .ledger import Ledger, LostMembershipError
from .listing import Listing, list_blocks
from .versions import Version

BUCKET: Final = "trove-cache"
"""The bucket of the cache driver that has all blocks."""

PIECE: Final = MiB
"""Maximum size of one read from the cache."""

_READ_ATTEMPTS: Final = 3
"""Maximum number of times that a block is verified for one read, if it changes again and again."""

_FULL_SECONDS: Final = 60.0
"""Seconds for which the blocks stay below the size at which the disk was full, although more is allowed."""


class BlockStore:
    """The blocks of one layer.

    Args:
        cache: The open driver of the cache.
        max_bytes: The maximum size of all blocks.
        calls: Runs the calls to the driver.
        tasks: The layer's tasks.

    Attributes:
        index: The blocks that are known to exist.
        evictions: The number of blocks evicted so far.
        is_ready: Whether the index is complete.
        is_shareable: Whether other layers and processes may use the same cache.
    """

    def __init__(
        self, cache: AsyncDriver, max_bytes: int, calls: CacheCalls, tasks: OwnedTasks
    ) -> None:
        self._cache = cache
        self._read_now = cache.read_now if isinstance(cache, ReadsNow) else None
        self._calls = calls
        self._tasks = tasks
        self.max_bytes = max_bytes
        self.index = BlockIndex()
        self.evictions = 0
        self.is_ready = False
        self._reads = Pause()
        self._writes = Pause()
        self._clock = asyncio.get_running_loop().time
        self._space, self._space_until = 0, -math.inf  # the size that filled the disk
        self._indexing: OwnedTask[None] | None = None
        self._room = asyncio.Lock()  # held while blocks are evicted, until the new one counts
        self._doubtful: dict[str, int] = {}  # names and sizes of blocks that may exist
        capabilities = cache.capabilities
        is_shareable = capabilities.put_if_match and capabilities.put_if_none_match
        self._ledger = Ledger(cache, BUCKET, max_bytes, calls) if is_shareable else None
        self.is_shareable = self._ledger is not None
        self._owner = "0" if self._ledger is None else self._ledger.member

    # -- state -----------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """The number of failed calls to the cache."""
        return self._reads.failures + self._writes.failures

    @property
    def allowance(self) -> int:
        """Bytes that this process may store."""
        return self.max_bytes if self._ledger is None else self._ledger.allowance

    def find(self, version: Version, number: int) -> Block | None:
        """Return a block that can be read now; None if there is none, or the cache is failing."""
        block = self.index.find(version.block_id, number)
        is_usable = self._reads.is_over and not self._calls.hanging
        return block if block is not None and is_usable else None

    def accepts(self, size: int) -> bool:
        """Return whether a block of this size may be stored, as far as is known now."""
        if not self.is_ready:
            self.start_indexing()
            return False
        ledger = self._ledger
        if size > self._limit and (ledger is None or not ledger.is_due):
            return False
        is_usable = self._writes.is_over and self._reads.is_over and not self._calls.hanging
        return size <= self.max_bytes and is_usable

    @property
    def _limit(self) -> int:
        """The maximum size of the owned blocks now."""
        is_full = self._clock() < self._space_until
        return min(self.allowance, self._space) if is_full else self.allowance

    # -- opening and closing ---------------------------------------------------------------------

    def start_indexing(self) -> None:
        """Start to build the index in the background, unless this is done, under way or paused."""
        running = self._indexing is not None and not self._indexing.done
        if not (self.is_ready or running or self._tasks.closed) and self._writes.is_over:
            self._writes.begin_call()
            self._indexing = self._tasks.start(self._build_index())

    async def wait_until_indexed(self) -> None:
        """Wait until the index is complete, or could not be built."""
        self.start_indexing()
        if self._indexing is not None:
            with suppress(TroveError):
                await self._indexing.result()

    async def aclose(self) -> None:
        """Leave the ledger. The layer's tasks must have ended."""
        if self._ledger is not None and self.is_ready:
            await self._ledger.leave()
        self.is_ready = False

    async def _build_index(self) -> None:
        try:
            with suppress(BucketExistsError):
                await self._calls.run(self._cache.create_bucket(BUCKET))
            found = await self._list()
            if self._ledger is not None:
                # The ledger may be gone, and blocks of earlier ids of this process may still be on their way.
                await self._join(self._ledger, frozenset(found.owners) | self._ledger.owners)
        except Exception:  # noqa: BLE001 - reads go to the origin, and it is tried again later
            self._writes.failed()
            return
        self._writes.succeeded()
        await self.index.clear()  # it is built again if the bucket was removed
        await self._add_to_index(found)
        async with self._room:
            for name, size in list(self._doubtful.items()):
                await self._delete(name, size)
            await self._make_room(0)
        self.is_ready = True

    def _check_bucket(self, error: Exception) -> None:
        """If the bucket was removed, let it be created and the index be built again, after the pause if there is one."""
        if isinstance(error, BucketNotFoundError):
            self.is_ready = False
            self.start_indexing()

    async def _join(self, ledger: Ledger, listed: frozenset[str]) -> None:
        await ledger.join(listed)
        self._owner = ledger.member

    async def _list(self, prefix: str = "") -> Listing:
        return await list_blocks(self._cache, BUCKET, prefix, self._calls)

    async def _add_to_index(self, listing: Listing) -> None:
        # The owned blocks first, and the most of them: the index adopts those without a copy.
        owners = sorted(
            listing.owners.items(), key=lambda item: (not self._is_own(item[0]), -item[1].size)
        )
        for owner, blocks in owners:
            await self.index.add_listed(blocks, is_owned=self._is_own(owner))
        for name, size in listing.unusable:  # they count until they are deleted
            if self._is_own(name.partition("/")[0]):
                self._doubtful[name] = size
                self.index.used += size

    def _is_own(self, owner: str) -> bool:
        return self._ledger is None or owner in self._ledger.owners

    # -- reading ---------------------------------------------------------------------------------

    def read_now(self, block: Block, start: int, end: int) -> bytes | None:
        """Return some bytes of a verified block if that does not wait, else None."""
        if self._read_now is None or not block.is_verified:
            return None
        data = self._read_now(BUCKET, block.name, start, end, block.etag)
        if data is None or len(data) != end - start or not _is_plausible(block, data):
            return None
        block.hit(start, end)
        return data

    async def read(self, block: Block, start: int, end: int) -> bytes | None:
        """Return some bytes of a block, at most `PIECE`; None if the cache does not have them after all."""
        for _ in range(_READ_ATTEMPTS):
            # 1. Verify it if it is unknown, or has changed since it was verified.
            if not block.is_verified and not await self._verify(block):
                return None
            # 2. Read. The etag tells whether these are bytes of what was verified.
            response = await self._read(block, start, end)
            if response is None:
                return None
            data, etag = response
            if etag != block.etag:
                block.is_verified = False
            elif not _is_plausible(block, data):
                break
            else:
                block.hit(start, end)
                return data
        await self.discard(block)
        return None

    async def _read(self, block: Block, start: int, end: int) -> tuple[bytes, str | None] | None:
        """Return some bytes of a block, and the etag of what they were read from."""
        if not self._reads.is_over:
            return None
        self._reads.begin_call()
        try:
            data, etag = await self._calls.run(_read_all(self._cache, block.name, start, end))
        except (
            NotFoundError
        ) as error:  # another process has evicted it, or the directory was removed
            self._reads.succeeded()
            self.index.remove(block)
            self._check_bucket(error)
            return None
        except Exception:  # noqa: BLE001 - the origin is read instead
            self._reads.failed()
            return None
        self._reads.succeeded()
        if len(data) != end - start:
            await self.discard(block)
            return None
        return data, etag

    async def _verify(self, block: Block) -> bool:
        """Verify a block that another process wrote, or that has changed. Delete it if it is damaged."""
        crc32c = 0
        etags: set[str | None] = set()
        for start in range(0, block.size, PIECE):
            response = await self._read(block, start, min(start + PIECE, block.size))
            if response is None:
                return False
            crc32c = running_crc32c([response[0]], crc32c)
            etags.add(response[1])
        if crc32c != block.crc32c or len(etags) > 1:
            await self.discard(block)
            return False
        block.is_verified, block.etag = True, etags.pop() if etags else None
        return True

    def discard_version(self, version: Version, numbers: Iterable[int]) -> None:
        """Remove blocks of a version whose bytes proved to be wrong, and start to delete them."""
        found = (self.index.find(version.block_id, number) for number in numbers)
        blocks = [block for block in found if block is not None]
        for block in blocks:
            self._forget(block)
        if blocks and not self._tasks.closed:
            self._tasks.start(self._delete_doubtful())

    async def _delete_doubtful(self) -> None:
        async with self._room:
            for name, size in list(self._doubtful.items()):
                if not await self._delete(name, size):
                    break

    async def discard(self, block: Block) -> None:
        """Delete a damaged block."""
        if self._forget(block):
            await self._delete(block.name, block.size)

    def _forget(self, block: Block) -> bool:
        """Let no reader find a block. Return whether it is to be deleted: it counts until then."""
        is_owned = self.index.is_owned(block)
        self.index.remove(block)
        block.is_verified = False  # a reader may have found it already
        if is_owned:
            self.index.used += block.size
            self._doubtful[block.name] = block.size
        return is_owned

    # -- storing ---------------------------------------------------------------------------------

    async def store(
        self,
        version: Version,
        number: int,
        views: Sequence[memoryview],
        crc32c: int,
        use: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> bool:
        """Store a block, and evict others for it. Return whether it was stored.

        Args:
            version: The version that the block belongs to.
            number: The position of the block.
            views: Its bytes.
            crc32c: Their checksum.
            use: Entered while the driver may read the views, which may be longer than this call.
        """
        size = sum(map(len, views))
        if not self.accepts(size):
            return False
        # 1. Make room. The bytes of the new block count from the moment that they fit.
        async with self._room:
            ledger = self._ledger
            is_renewed = ledger is None or not ledger.is_due or await self._renew(ledger)
            if not (is_renewed and await self._make_room(size)):
                return False
            self.index.used += size
        # 2. Write it.
        block = Block.of(self._owner, version, number, size, crc32c)
        options = PutOptions(size=size)
        self._writes.begin_call()
        try:
            block.etag = await self._calls.run(self._put(block.name, views, options, use))
        except Exception as error:  # noqa: BLE001 - nothing is stored for a while
            self._writes.failed()
            self._check_bucket(error)
            await self._delete(block.name, size)  # it may have been written
            if isinstance(error, StorageFullError):
                self._space, self._space_until = self.index.used, self._clock() + _FULL_SECONDS
            return False
        self._writes.succeeded()
        # Without an etag, nothing would tell that it was changed before its first read.
        block.is_verified = block.etag is not None
        self.index.add_owned(block, is_counted=True)
        return True

    async def _put(
        self,
        name: str,
        views: Sequence[memoryview],
        options: PutOptions,
        use: Callable[[], AbstractContextManager[None]],
    ) -> str | None:
        with use():
            return (await self._cache.put(BUCKET, name, views, options)).etag

    async def _make_room(self, size: int) -> bool:
        """Evict until `size` more bytes are allowed. Return whether they are."""
        while self.index.used + size > self._limit:
            # 1. First what should not exist, then the next victims.
            if self._doubtful:
                name, doubtful = next(iter(self._doubtful.items()))
                if not await self._delete(name, doubtful):
                    return False
                continue
            victim = self.index.take_victim()
            if victim is None:
                return False  # the rest is being written or deleted
            self.evictions += 1
            if not await self._delete(victim.name, victim.size):
                return False
        return True

    async def _delete(self, name: str, size: int) -> bool:
        """Delete a block, whose bytes then no longer count. Return whether that is certain."""
        self._doubtful[name] = size
        try:
            await self._calls.run(self._cache.delete(BUCKET, name, DeleteOptions()))
        except Exception:  # noqa: BLE001 - nothing is stored for a while
            self._writes.failed()
            return False
        # The pause after a failed put goes on: a full disk can delete.
        if self._doubtful.pop(name, None) is not None:  # else a concurrent call has deleted it
            self.index.used -= size
        return True

    async def _renew(self, ledger: Ledger) -> bool:
        """Renew the membership in the ledger. Without that, nothing may be stored."""
        try:
            try:
                renewal = await ledger.renew(lambda: self._make_room(0))
            except LostMembershipError:
                await self._join_again(ledger)
                return True
            for owner in renewal.adopted:
                self.index.drop_owner(owner)
                await self._add_to_index(await self._list(f"{owner}/"))
            ledger.allowance = renewal.allowance
        except Exception as error:  # noqa: BLE001 - it is tried again before the next block
            self._writes.failed()
            self._check_bucket(error)
            return False
        return True

    async def _join_again(self, ledger: Ledger) -> None:
        """Join again under a new id, after this process was taken for dead or the ledger was damaged."""
        # 1. Blocks of the earlier ids that no other process has adopted stay those of this one.
        earlier = ledger.owners
        await self._join(ledger, earlier)
        # 2. The others no longer count here. They can be read until their new owner evicts them.
        adopted_by_others = earlier - ledger.owners
        self.index.disown(adopted_by_others)
        for name, size in list(self._doubtful.items()):
            if name.partition("/")[0] in adopted_by_others:
                del self._doubtful[name]
                self.index.used -= size


async def _read_all(
    cache: AsyncDriver, name: str, start: int, end: int
) -> tuple[bytes, str | None]:
    async with cache.get(BUCKET, name, GetOptions(range=ByteRange(start, end))) as reader:
        pieces = []
        remaining = end - start
        while remaining and (data := await reader.read(remaining)):
            pieces.append(data)
            remaining -= len(data)
        etag = reader.info.etag
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), etag


def _is_plausible(block: Block, data: bytes) -> bool:
    """Return False if these bytes are the whole block, and do not have its checksum."""
    return len(data) < block.size or running_crc32c([data]) == block.crc32c
