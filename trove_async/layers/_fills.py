"""Fills: requests to the origin of `ReadThrough` whose bodies are cut into blocks and stored in the cache.

A fill belongs to the layer and not to the reader that started it, so other readers can share it, and it completes
its block if that reader is cancelled. Readers take the bytes as they arrive. A fill is at most one block
ahead of its readers.

The chunks of a block are kept as they were received until the block is stored. A lease of the store's pool
accounts for them. Without free memory there is no fill, and the reader uses the response by itself.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from trove_async._checksums import running_crc32c
from trove_async._concurrency import OwnedTasks, Turns
from trove_async.driver import AsyncDriver, DriverReader
from trove_async.errors import (
    ClosedError,
    NotFoundError,
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnavailableError,
)
from trove_async.models import ByteRange, ObjectInfo
from trove_async.options import GetOptions
from trove_async.pool import BufferPool, Lease

from ._block_store import PIECE
from ._responses import Response, replaced_error
from ._versions import Name, Observation, Version, Versions


class RevokedError(UnavailableError):
    """A fill gave up its memory. Its readers continue without it."""


class FillReader(Protocol):
    """A reader that takes blocks from fills."""

    @property
    def position(self) -> int:
        """The offset of the next byte that it needs."""
        ...

    @property
    def end(self) -> int | None:
        """The end of its range; None if that is not known yet."""
        ...

    def join(self, fill: Fill) -> None:
        """Record the fill that knows this reader, to leave it in the end."""
        ...

    def take_over(self, response: Response, position: int) -> None:
        """Read from the response, which is at a position not after the reader's, and close it."""
        ...


class FillCore(Protocol):
    """What fills need of the layer (`ReadCore`, which documents it)."""

    origin: AsyncDriver
    versions: Versions
    tasks: OwnedTasks
    block_size: int
    filling: dict[tuple[str, int], FilledBlock]
    fills: set[Fill]
    bytes_from_origin: int
    clock: Callable[[], float]

    def version_of(
        self, name: Name, info: ObjectInfo, requested_at: float, *, is_whole: bool
    ) -> Version: ...

    def lease(self, block: FilledBlock) -> bool: ...

    def has_block(self, version: Version, number: int) -> bool: ...

    def find_fill(
        self, version: Version, number: int, other_than: Fill | None = None
    ) -> Fill | None: ...

    def start_storing(self, block: FilledBlock) -> None: ...

    def forget_filling(self, block: FilledBlock) -> None: ...


class FilledBlock:
    """A block that is being received, and then stored.

    Attributes:
        version: The version that it belongs to.
        number: The position of the block in the object.
        start: The offset of its first byte.
        size: Its bytes.
        received: The bytes that have arrived.
        fill: The fill that receives it.
        error: Why it will not be completed; None if it was or may be.
        is_dropped: Whether its chunks are gone.
    """

    __slots__ = (
        "_chunks",
        "_is_done",
        "_lease",
        "_offsets",
        "_readers",
        "_waiter",
        "crc32c",
        "error",
        "fill",
        "is_dropped",
        "number",
        "received",
        "size",
        "start",
        "version",
    )

    def __init__(self, fill: Fill, version: Version, number: int) -> None:
        block_size = fill.core.block_size
        self.fill = fill
        self.version = version
        self.number = number
        self.start = number * block_size
        self.size = min(block_size, version.info.stored_size - self.start)
        self.received = 0
        self.crc32c = 0
        self.error: BaseException | None = None
        self.is_dropped = False
        self._lease: Lease | None = None
        self._chunks: list[bytes] = []
        self._offsets: list[int] = []
        self._readers = 0
        self._is_done = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def views(self) -> list[memoryview]:
        """The chunks."""
        return [memoryview(chunk) for chunk in self._chunks]

    @property
    def can_be_dropped(self) -> bool:
        """Whether only slow readers still need it. They can read from the cache or from the origin."""
        return self._is_done and not self.is_dropped

    def append(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._offsets.append(self.received)
        self._chunks.append(data)
        self.crc32c = running_crc32c([data], self.crc32c)
        self.received += len(data)
        self._wake()

    def take(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes at a position of the object; ``b""`` if they are not there."""
        offset = position - self.start
        if self.is_dropped or offset >= self.received:
            return b""
        index = bisect_right(self._offsets, offset) - 1
        chunk, begin = self._chunks[index], offset - self._offsets[index]
        return chunk if not begin and len(chunk) <= size else chunk[begin : begin + size]

    async def wait(self) -> None:
        """Wait until more bytes have arrived, or the block was given up."""
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._waiter])

    def attach(self) -> None:
        """Count a reader that takes bytes of this block."""
        self._readers += 1

    def detach(self) -> None:
        """Stop counting a reader."""
        self._readers -= 1
        if self._is_done and not self._readers:
            self.drop()

    def done(self) -> None:
        """Record that the block was stored, or cannot be. Readers that have begun may still finish it."""
        self._is_done = True
        if not self._readers:
            self.drop()

    def fail(self, error: BaseException) -> None:
        """Give the block up."""
        self.error = error
        self.drop()

    def drop(self) -> None:
        """Drop the chunks and release the memory. Idempotent."""
        self.is_dropped = True
        self._chunks, self._offsets = [], []
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        self._wake()

    def lease(self, pool: BufferPool) -> bool:
        """Lease memory for the chunks. Return False if none is free, or a transfer waits for some."""
        self._lease = pool.try_lease(self.size, self._revoke)
        return self._lease is not None

    def _revoke(self) -> bool:
        """Give up the memory for a transfer that waits for it. Return False while the block is stored."""
        if self.received == self.size and not self._is_done:
            return False
        if not self._is_done:
            self.error = RevokedError("the memory of a cache fill was needed for a transfer")
        self.drop()
        return True

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.set_result(None)


class Fill:
    """One request to the origin, and the blocks that it fills.

    Args:
        core: The state of the layer.
        name: The object.
        first: The number of the first block.
        end: The number after the last block; None: the last block of the object.
        reader: The reader that needs the first block.
        version: The version to read. None: the current one, which `opened` then returns.

    Attributes:
        starter: The reader that the request was sent for.
        upcoming: The number of the next block that was not begun.
        opened: The version, once the response has begun.
        observation: Set if the version was not known.
    """

    def __init__(  # noqa: PLR0917 - all are required
        self,
        core: FillCore,
        name: Name,
        first: int,
        end: int | None,
        reader: FillReader,
        version: Version | None,
        observation: Observation | None = None,
    ) -> None:
        self.core = core
        self.name = name
        self.upcoming = first
        self.version = version
        self.observation = observation
        self.opened: asyncio.Future[Version] = asyncio.get_running_loop().create_future()
        self.starter = reader
        self.readers = {reader}
        reader.join(self)
        self.has_ended = False
        self._end = end
        self._block: FilledBlock | None = None  # the block that is being received
        self._response: Response | None = None
        self._waiter: asyncio.Future[None] | None = None  # of readers for the next block
        self._demand: asyncio.Future[None] | None = None  # of the fill for its readers

    def will_fill(self, number: int) -> bool:
        """Return whether it will fill a block next, if a reader wants it."""
        return (
            not self.has_ended
            and number == self.upcoming
            and (self._end is None or number < self._end)
        )

    def want(self, reader: FillReader) -> None:
        """Record that a reader needs the blocks up to its end."""
        self.readers.add(reader)
        self.notify()

    def leave(self, reader: FillReader) -> None:
        """Record that a reader needs no more blocks of this fill."""
        self.readers.discard(reader)
        self.notify()

    def notify(self) -> None:
        """Let the fill see the positions of its readers."""
        demand, self._demand = self._demand, None
        if demand is not None:
            demand.set_result(None)

    async def wait(self) -> None:
        """Wait until it begins another block, or ends."""
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._waiter])

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send the request and fill the blocks."""
        error: BaseException = ClosedError("the layer was closed")
        try:
            version = await self._open()
            await self._fill_blocks(version)
        except TroveError as failure:
            error = failure
        except Exception as failure:
            error = failure
            raise
        finally:
            self._end_with(error)
            response, self._response = self._response, None
            if response is not None:
                await response.aclose()

    async def _open(self) -> Version:
        core, known = self.core, self.version
        bucket, key = self.name
        started = core.clock()
        options = self._options()
        context = core.origin.get(bucket, key, options)
        try:
            reader = await context.__aenter__()
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            if known is None:
                raise
            raise replaced_error() from error
        self._response = Response(context, reader)
        is_whole = reader.range == (0, reader.info.stored_size)
        if known is not None:
            first = self.upcoming * core.block_size
            if reader.info.etag != known.info.etag or reader.range[0] != first:
                raise replaced_error()
        version = known or core.version_of(self.name, reader.info, started, is_whole=is_whole)
        if self._end is None:
            self._end = -(-reader.range[1] // core.block_size)
        self.version = version
        if self.observation is not None:
            core.versions.end(self.name, self.observation, version)
        self.opened.set_result(version)
        return version

    def _options(self) -> GetOptions:
        block_size = self.core.block_size
        start = self.upcoming * block_size
        end = None if self._end is None else self._end * block_size
        version = self.version
        if version is not None and end is not None:
            end = min(end, version.info.stored_size)
        is_whole = not start and end in {None, version and version.info.stored_size}
        condition = version is not None and self.core.origin.capabilities.get_conditions
        return GetOptions(
            range=None if is_whole else ByteRange(start, end),
            if_match=version.info.etag if version is not None and condition else None,
        )

    async def _fill_blocks(self, version: Version) -> None:
        core, response = self.core, self._response
        assert response is not None and self._end is not None  # noqa: S101, PT018 - set by `_open`
        if not version.is_cacheable:
            return
        while self.upcoming < self._end and not core.has_block(version, self.upcoming):
            # 1. Lease memory. Without any, the reader that is here takes the response.
            block = FilledBlock(self, version, self.upcoming)
            while not core.lease(block):
                if self._hand_over(response) or not await self._is_next_wanted(wait=True):
                    return
            # 2. Receive it, and let a task store it.
            self._block = core.filling[version.block_id, block.number] = block
            self.upcoming += 1
            self._wake_readers()
            await self._receive(block, response.reader)
            if block.is_dropped or core.tasks.closed:
                return
            self._block = None
            core.start_storing(block)
            # 3. Go on if a reader wants the next block, and no other fill was started for it.
            if not await self._is_next_wanted() or core.find_fill(version, self.upcoming, self):
                return

    async def _receive(self, block: FilledBlock, reader: DriverReader) -> None:
        turns = Turns()
        while block.received < block.size and not block.is_dropped:
            data = await reader.read(min(PIECE, block.size - block.received))
            if not data:
                raise UnavailableError(f"the body ended {block.size - block.received} bytes early")
            if not block.is_dropped:  # its memory may have been revoked meanwhile
                self.core.bytes_from_origin += len(data)
                block.append(data)
            if turns.is_due:
                await turns.give()

    async def _is_next_wanted(self, *, wait: bool = False) -> bool:
        """Wait until a reader is in the last block or behind it. Return False if none needs more.

        With `wait`, wait at least once.
        """
        assert self._end is not None  # noqa: S101 - set by `_open`
        if self.upcoming >= self._end:
            return False
        start = self.upcoming * self.core.block_size
        near = start - self.core.block_size
        while readers := [
            reader for reader in self.readers if reader.end is None or reader.end > start
        ]:
            is_near = any(reader.end is not None and reader.position >= near for reader in readers)
            if is_near and not wait:
                return True
            wait = False
            self._demand = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._demand])
        return False

    def _hand_over(self, response: Response) -> bool:
        """Give the response to a reader that needs the next block. Return whether there is one."""
        start = self.upcoming * self.core.block_size
        for reader in self.readers:
            if reader.end is not None and start <= reader.position < start + self.core.block_size:
                self._response = None
                reader.take_over(response, start)
                return True
        return False

    def _end_with(self, error: BaseException) -> None:
        """Wake all readers. Those that wait for a block of this fill get the error, if there is one."""
        self.has_ended = True
        self.core.fills.discard(self)
        block, self._block = self._block, None
        if block is not None:
            self.core.forget_filling(block)
            if not block.is_dropped:
                block.fail(error)
        if self.observation is not None and self.version is None:
            self.core.versions.end(self.name, self.observation, None)
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # retrieved, even if no reader waits for it any more
        self._wake_readers()

    def _wake_readers(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.set_result(None)
