"""Fills: requests to the origin of `ReadThrough` whose bodies are cut into blocks and stored in the cache.

A fill belongs to the layer and not to the reader that started it, so other readers can share it, and it completes
its block if that reader is cancelled. Readers take the bytes as they arrive. A fill is at most one block
ahead of its readers.

The bytes of a block are received into memory that is leased from the store's pool, and stay there until the block
is stored. Without free memory there is no fill, and the reader uses the response by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from trove_async._concurrency import OwnedTask, OwnedTasks, Turns
from trove_async.driver import AsyncDriver, DriverReader
from trove_async.errors import (
    ClosedError,
    NotFoundError,
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnavailableError,
)
from trove_async.models import ByteRange, KiB, ObjectInfo
from trove_async.options import GetOptions

from .counters import Counters
from .received_block import ReceivedBlock, Waiters
from .responses import Response, replaced_error
from .versions import Name, Observation, Version, Versions

_LEAST_PIECE: Final = 64 * KiB
"""Minimum size of the pieces in which a block is received after its first one."""


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

    @property
    def requested_end(self) -> int | None:
        """The end of its range as far as it is known without the size of the object; None if it is not."""
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
    counters: Counters
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


class FilledBlock(ReceivedBlock):
    """A block that is being received, and then stored.

    Attributes:
        version: The version that it belongs to.
        number: The position of the block in the object.
        fill: The fill that receives it.
    """

    __slots__ = ("_readers", "fill", "number", "version")

    def __init__(self, fill: Fill, version: Version, number: int) -> None:
        block_size = fill.core.block_size
        start = number * block_size
        super().__init__(start, min(block_size, version.info.stored_size - start))
        self.fill = fill
        self.version = version
        self.number = number
        self._readers = 0

    @property
    def can_be_dropped(self) -> bool:
        """Whether only slow readers still need it. They can read from the cache or from the origin."""
        return self.is_done and not self.is_dropped

    def attach(self) -> None:
        """Count a reader that takes bytes of this block."""
        self._readers += 1

    def detach(self) -> None:
        """Stop counting a reader."""
        self._readers -= 1
        self.drop_if_unneeded()

    def done(self) -> None:
        """Record that the block was stored, or cannot be. Readers that are near may still take its bytes."""
        self.is_done = True
        self.drop_if_unneeded()

    def drop_if_unneeded(self) -> None:
        """Drop it if it was stored, and no reader is in it or about to reach it."""
        if self.is_done and not self._readers and not self.fill.is_near(self):
            self.drop()

    def fail(self, error: BaseException) -> None:
        """Give the block up."""
        self.error = error
        self.drop()

    def cancel_request(self) -> None:
        """Cancel its fill. See `ReceivedBlock.cancel_request`."""
        self.fill.cancel()

    def drop(self) -> None:
        """Let no reader join it. See `ReceivedBlock.drop`."""
        self.fill.core.forget_filling(self)
        super().drop()


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
        self._waiters = Waiters()  # readers, for the next block
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
        await self._waiters.wait()

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
                if self._hand_over(response) or not self._readers_of_next():
                    return
                await self._wait_for_readers()
                if not await self._wait_until_next_is_needed():
                    return
            # 2. Receive it, and let a task store it.
            self._block = core.filling[version.block_id, block.number] = block
            self.upcoming += 1
            self._waiters.wake()
            await self._receive(block, response.reader)
            if block.is_dropped or core.tasks.closed:
                return
            self._block = None
            self._stored.append(block)
            core.start_storing(block)
            # 3. Go on if a reader wants the next block, and no other fill was started for it.
            if not await self._wait_until_next_is_needed() or core.find_fill(
                version, self.upcoming, self
            ):
                return

    async def _receive(self, block: FilledBlock, reader: DriverReader) -> None:
        turns = Turns()
        readinto = getattr(reader, "readinto", None)  # optional, see `ReadsInto`
        with block.use():
            while block.received < block.size and not block.is_dropped:
                buffer = self._next_buffer(block)
                if readinto is None:
                    data = await reader.read(len(buffer))
                    count = len(data)
                    buffer[:count] = data
                else:
                    count = await readinto(buffer)
                if not count:
                    missing = block.size - block.received
                    raise UnavailableError(f"the body ended {missing} bytes early")
                self.core.counters.bytes_from_origin += count
                block.append(count)
                if turns.is_due:
                    await turns.give()

    def _next_buffer(self, block: FilledBlock) -> memoryview:
        """Return the memory for the next bytes. It ends where the next range of a reader ends.

        A reader of a small range gets it at once, and not only when 1 MiB has arrived.
        """
        buffer, position = block.unfilled, block.start + block.received
        # Many readers with different ranges must not make many small pieces.
        least = position + (_LEAST_PIECE if block.received else 1)
        nearest = position + len(buffer)
        for reader in self.readers:
            end = reader.requested_end if reader.end is None else reader.end
            if end is not None and position < end:
                nearest = min(nearest, max(end, least))
        return buffer[: nearest - position]

    async def _wait_until_next_is_needed(self) -> bool:
        """Wait until a reader is in the last block or behind it. Return False if none needs a further one."""
        while readers := self._readers_of_next():
            near = (self.upcoming - 1) * self.core.block_size
            if any(reader.end is not None and reader.position >= near for reader in readers):
                return True
            await self._wait_for_readers()
        return False

    def _readers_of_next(self) -> list[FillReader]:
        """Return the readers that need bytes of the next block or behind it."""
        assert self._end is not None  # noqa: S101 - set by `_open`
        if self.upcoming >= self._end:
            return []
        start = self.upcoming * self.core.block_size
        return [reader for reader in self.readers if reader.end is None or reader.end > start]

    async def _wait_for_readers(self) -> None:
        """Wait until a reader moves, comes or leaves."""
        self._demand = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._demand])

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
        self._waiters.wake()
