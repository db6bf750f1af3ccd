"""Fills: requests to the origin of `ReadThrough` whose bodies are cut into blocks and stored in the cache.

A fill belongs to the layer and not to the reader that started it, so other readers can share it, and it completes
its block if that reader is cancelled. Readers take the bytes as they arrive. A fill is at most one block
ahead of its readers.

The bytes of a block are received into memory that is leased from the store's pool, and stay there until the block
is stored. Without free memory there is no fill, and the reader uses the response by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from trove_async._checksums import running_crc32c
from trove_async._concurrency import OwnedTask, OwnedTasks, Turns
from trove_async._views import take
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
from trove_async.pool import SLOT, BufferPool, Lease

from .responses import Response, replaced_error
from .versions import Name, Observation, Version, Versions


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

    Its bytes are in slots of the store's pool. They stay leased while a call may still read or write them, even if
    the block was given up.

    Attributes:
        version: The version that it belongs to.
        number: The position of the block in the object.
        start: The offset of its first byte.
        size: Its bytes.
        received: The bytes that have arrived.
        crc32c: Their checksum.
        fill: The fill that receives it.
        error: Why it will not be completed; None if it was or may be.
        is_dropped: Whether readers can no longer take its bytes.
    """

    __slots__ = (
        "_is_done",
        "_lease",
        "_readers",
        "_slots",
        "_uses",
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
        self._slots: Sequence[memoryview] = ()
        self._uses = 0
        self._readers = 0
        self._is_done = False
        self._waiter: asyncio.Future[None] | None = None

    # -- memory ----------------------------------------------------------------------------------

    def lease(self, pool: BufferPool) -> bool:
        """Lease memory. Return False if none is free, or a transfer waits for some."""
        self._lease = pool.try_lease(self.size, self._revoke)
        self._slots = () if self._lease is None else self._lease.views
        return self._lease is not None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the memory leased during a call that reads or writes it."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._release()

    def _release(self) -> None:
        if self.is_dropped and not self._uses and self._lease is not None:
            lease, self._lease, self._slots = self._lease, None, ()
            lease.release()

    def _revoke(self) -> bool:
        """Give up the memory for a transfer that waits for it. Return whether it was released."""
        if not self._is_done and self.received < self.size:
            self.error = RevokedError("the memory of a cache fill was needed for a transfer")
            self.drop()
            self.fill.cancel()  # its request may be writing to the memory
        elif self._is_done:
            self.drop()
        return self._lease is None

    # -- bytes -----------------------------------------------------------------------------------

    @property
    def views(self) -> list[memoryview]:
        """The bytes, once all have arrived."""
        return take(self._slots, self.size)

    @property
    def unfilled(self) -> memoryview:
        """The memory for the next bytes. Not empty before all have arrived."""
        index, offset = divmod(self.received, SLOT)
        return self._slots[index][offset : offset + self.size - self.received]

    def append(self, count: int) -> None:
        """Record that bytes were written to the start of `unfilled`."""
        self.crc32c = running_crc32c([self.unfilled[:count]], self.crc32c)
        self.received += count
        self._wake()

    def take(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes at a position of the object; ``b""`` if they are not there."""
        index, offset = divmod(position - self.start, SLOT)
        available = self.received - (position - self.start)
        if self.is_dropped or available <= 0:
            return b""
        return bytes(self._slots[index][offset : offset + min(size, available)])

    async def wait(self) -> None:
        """Wait until more bytes have arrived, or the block was given up."""
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._waiter])

    # -- readers ---------------------------------------------------------------------------------

    @property
    def can_be_dropped(self) -> bool:
        """Whether only slow readers still need it. They can read from the cache or from the origin."""
        return self._is_done and not self.is_dropped

    def attach(self) -> None:
        """Count a reader that takes bytes of this block."""
        self._readers += 1

    def detach(self) -> None:
        """Stop counting a reader."""
        self._readers -= 1
        self.drop_if_unneeded()

    def done(self) -> None:
        """Record that the block was stored, or cannot be. Readers that are near may still take its bytes."""
        self._is_done = True
        self.drop_if_unneeded()

    def drop_if_unneeded(self) -> None:
        """Drop it if it was stored, and no reader is in it or about to reach it."""
        if self._is_done and not self._readers and not self.fill.is_near(self):
            self.drop()

    def fail(self, error: BaseException) -> None:
        """Give the block up."""
        self.error = error
        self.drop()

    def drop(self) -> None:
        """Let no reader take its bytes any more, and release the memory. Idempotent."""
        self.is_dropped = True
        self.fill.core.forget_filling(self)
        self._wake()
        self._release()

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
        task: The task that runs it.
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
        self.task: OwnedTask[None] | None = None
        self._end = end
        self._block: FilledBlock | None = None  # the block that is being received
        self._stored: list[FilledBlock] = []  # and not dropped yet
        self._response: Response | None = None
        self._waiter: asyncio.Future[None] | None = None  # of readers for the next block
        self._demand: asyncio.Future[None] | None = None  # of the fill for its readers

    def cancel(self) -> None:
        """Cancel the request, without waiting for its end."""
        if self.task is not None and not self.core.tasks.closed:
            self.core.tasks.start(self.task.aclose())

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

    def is_near(self, block: FilledBlock) -> bool:
        """Return whether one of its readers is about to reach a block."""
        near, end = block.start - self.core.block_size, block.start + block.size
        return any(
            reader.end is None or (near <= reader.position < end and reader.end > block.start)
            for reader in self.readers
        )

    def notify(self) -> None:
        """Let the fill see the positions of its readers."""
        for block in self._stored:
            block.drop_if_unneeded()
        self._stored = [block for block in self._stored if not block.is_dropped]
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
            self._stored.append(block)
            core.start_storing(block)
            # 3. Go on if a reader wants the next block, and no other fill was started for it.
            if not await self._is_next_wanted() or core.find_fill(version, self.upcoming, self):
                return

    async def _receive(self, block: FilledBlock, reader: DriverReader) -> None:
        turns = Turns()
        readinto = getattr(reader, "readinto", None)  # optional, see `ReadsInto`
        with block.use():
            while block.received < block.size and not block.is_dropped:
                buffer = block.unfilled
                if readinto is None:
                    data = await reader.read(len(buffer))
                    count = len(data)
                    buffer[:count] = data
                else:
                    count = await readinto(buffer)
                if not count:
                    missing = block.size - block.received
                    raise UnavailableError(f"the body ended {missing} bytes early")
                self.core.bytes_from_origin += count
                block.append(count)
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
