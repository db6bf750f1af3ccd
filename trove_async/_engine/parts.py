"""Splits a body into parts, and holds the bytes of each part until the part is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Literal, Protocol, Self

from trove_async._checksums import CRC32C, Crc32c, crc32c_text, hash_crc32c
from trove_async._views import drop, take
from trove_async.driver import Capabilities, Upload
from trove_async.errors import NotSupportedError
from trove_async.models import KiB
from trove_async.options import Part
from trove_async.pool import SLOT, BufferPool, Lease, SpillFile

from .backends import Backend
from .intake import Intake

SPILL_PIECE = 64 * KiB
"""Maximum number of bytes pulled at a time into a spill file. Each piece costs one thread hop."""

_RESERVES_SHARE = 2
"""The beginnings of parts use at most this fraction of the spill files. Otherwise they could fill them, and
no part could be completed in a file while the memory is held by slow sources."""


def part_size(size: int | None, capabilities: Capabilities, pool: BufferPool) -> int:
    """Return the part size: the pool's, unless the backend or the body needs a different one.

    Args:
        size: The size of the body, if known.
        capabilities: The backend's limits.
        pool: The pool, with the preferred part size.

    Raises:
        NotSupportedError: The backend cannot store a body of that size.
    """
    if size is not None and size > capabilities.max_object:
        raise NotSupportedError(
            f"an object on this backend must have at most {capabilities.max_object} bytes, got {size}"
        )
    needed = 0 if size is None else -(-size // capabilities.max_parts)
    multiple = capabilities.part_multiple
    preferred = min(pool.part_size, capabilities.max_part) // multiple * multiple
    min_size = max(capabilities.min_part, needed, 1)
    part = max(preferred, -(-min_size // multiple) * multiple)
    if part > capabilities.max_part:
        raise NotSupportedError(
            f"an object on this backend must fit in {capabilities.max_parts} parts of"
            f" {capabilities.max_part} bytes, got {size} bytes"
        )
    return part


def max_held_part(pool: BufferPool) -> int:
    """Return the largest size of a held part, so that two of them always fit in the pool."""
    return pool.max_bytes // 2


class HeldPart:
    """A part whose bytes are held in a lease, in a spill file, or in memory that others own.

    Args:
        part: The part.
        views: Its bytes, unless they are in a file.
        lease: The lease that is released with the part.
        spill: The file that is closed with the part.
        spill_permits: Limits the files that are read at a time.
        on_close: Called once the bytes are no longer used.
    """

    def __init__(
        self,
        part: Part,
        views: Sequence[memoryview],
        *,
        lease: Lease | None = None,
        spill: SpillFile | None = None,
        spill_permits: AbstractAsyncContextManager[object] | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        self.part = part
        self._on_close = on_close
        self._views = views
        self._lease = lease
        self._spill = spill
        self._spill_permits = spill_permits

    async def send(self, upload: Upload, report_sent: ReportSent) -> None:
        """Send the part. See `SendablePart.send`."""
        async with self.loaded() as views:
            await upload.send(self.part, views)
        report_sent(self.part.size)

    @asynccontextmanager
    async def loaded(self) -> AsyncIterator[Sequence[memoryview]]:
        """Yield the part's bytes. A spill file is read into memory while a spill permit is held."""
        if self._spill is None or self._spill_permits is None:
            yield self._views
        else:
            async with self._spill_permits:
                yield [await self._spill.view()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the memory or the file. Idempotent."""
        self._views = ()
        if self._lease is not None:
            self._lease.release()
        if self._on_close is not None:
            self._on_close()
        if self._spill is not None:
            await self._spill.aclose()


async def reserve_buffer(
    size: int,
    pool: BufferPool,
    emit: EmitPutEvent,
    *,
    spill_size: int | None = None,
    continues: bool = False,
) -> Lease | SpillFile:
    """Lease memory, or reserve a spill file. Emit an event if no memory was free at once.

    See `BufferPool.lease_or_spill` for the arguments.
    """
    lease = pool.try_lease(size)
    if lease is not None:
        return lease
    clock = asyncio.get_running_loop().time
    started = clock()
    buffer = await pool.lease_or_spill(size, spill_size=spill_size, continues=continues)
    emit("wait", size, clock() - started)
    return buffer


class EmitPutEvent(Protocol):
    """Emits an event of a put."""

    def __call__(
        self, kind: Literal["part", "spill", "wait"], size: int, duration: float = 0.0
    ) -> None: ...


class ReportSent(Protocol):
    """Reports the number of bytes that have been sent, each byte once."""

    def __call__(self, size: int, /) -> None: ...


class SendablePart(Protocol):
    """A part that is ready to be sent. Leaving its context releases its resources."""

    part: Part

    async def send(self, upload: Upload, report_sent: ReportSent) -> None:
        """Send the part and report its bytes."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def aclose(self) -> None:
        """Release the part's resources. Idempotent."""
        ...


class Parts(Protocol):
    """The parts of a body, in order."""

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of all bytes so far, by kind."""
        ...

    async def next(self) -> SendablePart | None:
        """Return the next part, or None after the last. Called by one task at a time."""
        ...


class MemoryParts:
    """The parts of a body in memory, as views of it."""

    def __init__(self, memory: memoryview, size: int) -> None:
        self._memory = memory
        self._size = size
        self._position = 0
        self._crc = Crc32c()

    @property
    def checksums(self) -> Mapping[str, str]:
        return {CRC32C: self._crc.digest()}

    async def next(self) -> HeldPart | None:
        view = self._memory[self._position : self._position + self._size]
        if not view:
            return None
        crc = await hash_crc32c([view])
        self._crc.append(crc, len(view))
        part = Part(
            number=self._position // self._size + 1,
            offset=self._position,
            size=len(view),
            last=self._position + len(view) == len(self._memory),
            checksums={CRC32C: crc32c_text(crc)},
        )
        self._position += len(view)
        return HeldPart(part, [view])


class BufferedParts:
    """The parts of a pulled body, each buffered in leased memory or in a spill file.

    If the size of the body is unknown, a part begins with one slot of memory, because the body may be small,
    and grows as bytes arrive. If no memory is free then, the part must not wait for more while it holds
    some. If the backend accepts a short part, the part is sent as it is, and the next one uses the same memory.
    Otherwise its bytes are moved to a file until a whole part can be leased. Both end once the body turns out
    to be larger than a part: every later part is leased as a whole.

    Args:
        intake: The body.
        size: The size of a part.
        pool: The memory for parts.
        backend: The destination.
        emit: Emits the events of the put.
        capabilities: The limits of the backend for this put.
        planned_size: The size that the parts were planned for, if known.
    """

    def __init__(
        self,
        intake: Intake,
        size: int,
        pool: BufferPool,
        backend: Backend,
        emit: EmitPutEvent,
        *,
        capabilities: Capabilities,
        planned_size: int | None,
    ) -> None:
        self._intake = intake
        self._size = size
        self._pool = pool
        self._backend = backend
        self._emit = emit
        self._short_size = _min_short_size(size, capabilities, planned_size)
        self._part_number = 0
        self._ended = False
        self._lease: Lease | None = None  # the memory of short parts
        self._sent: asyncio.Event | None = None  # set once the last short part was sent

    @property
    def checksums(self) -> Mapping[str, str]:
        return self._intake.checksums

    def close(self) -> None:
        """Release the memory of short parts, once none of them is being sent. Idempotent."""
        if self._lease is not None:
            self._lease.release()

    async def next(self) -> HeldPart | None:
        # 1. Wait for the first byte before memory is leased: a source that is idle between parts holds none.
        if self._ended or not await self._intake.ready():
            self._ended = True
            return None
        # 2. Plan the part.
        offset = self._intake.byte_count
        total = self._intake.size
        size = self._size if total is None else min(self._size, total - offset)
        self._part_number += 1
        if self._part_number > self._backend.capabilities.max_parts:
            raise NotSupportedError(
                f"the body must fit in {self._part_number - 1} parts of {self._size} bytes, got more than"
                f" {offset} bytes: pass its size to put, so that larger parts are planned, or pass a path"
            )
        # 3. Buffer as much of it as is known to arrive, or its beginning.
        if total is None and self._short_size < size and offset < size:
            return await self._next_short(offset, size)
        if total is None and self._part_number == 1 and size > SLOT:
            reserve = self._pool.try_spill(SLOT, share=_RESERVES_SHARE)
            if reserve is not None:
                async with reserve:
                    return await self._next_growing(offset, size, reserve)
        return await self._next_whole(offset, size)

    async def _next_short(self, offset: int, size: int) -> HeldPart:
        """Fill a part that may end early: it has the bytes for which there is memory at once.

        The memory of a short part is used again for the next one. Otherwise all puts would be in progress
        at once, each waiting for its next slot.
        """
        # 1. Lease memory, or wait until the previous part was sent from it.
        if self._lease is None:
            buffer = await self._reserve(self._short_size)
            if isinstance(buffer, SpillFile):
                return await self._spill(buffer, offset, size)
            self._lease = buffer
        if self._sent is not None:
            await self._sent.wait()
        # 2. Fill it, and grow it as long as there is memory.
        lease = self._lease
        filled = await self._fill(take(lease.views, size))
        while (
            filled == lease.size < size
            and await self._intake.ready()
            and lease.try_grow(filled + SLOT)
        ):
            filled += await self._fill(take(lease.views[-1:], size - filled))
        # 3. Keep the memory, unless the body has ended or has got as many bytes as a whole part.
        part = await self._describe_part(offset)
        views = take(lease.views, part.size)
        if not part.last and offset + part.size < self._size:
            self._sent = asyncio.Event()
            return HeldPart(part, views, on_close=self._sent.set)
        self._lease = None
        lease.shrink(part.size)
        return HeldPart(part, views, lease=lease)

    async def _next_growing(self, offset: int, size: int, reserve: SpillFile) -> HeldPart:
        """Fill a part that begins with one slot, and ends early only with the body.

        Args:
            offset: The offset of the part.
            size: The size of the part.
            reserve: The file for the first slot, if the part cannot grow.
        """
        # 1. Fill the first slot, which is often the whole body, and grow if there is memory.
        buffer = await self._reserve(SLOT, spill_size=size)
        if isinstance(buffer, SpillFile):
            return await self._spill(buffer, offset, size)
        try:
            filled = await self._fill(buffer.views)
            if filled < SLOT or not await self._intake.ready():
                return await self._hold(buffer, offset)
            if buffer.try_grow(size):
                await self._fill(take(buffer.views[1:], size - SLOT))
                return await self._hold(buffer, offset)
            await reserve.write(buffer.views[0])
        except BaseException:
            buffer.release()
            raise
        # 2. Otherwise wait for a whole part, without memory. Then continue behind the first slot.
        buffer.release()
        buffer = await self._reserve(size, continues=True)
        if isinstance(buffer, SpillFile):
            return await self._spill(buffer, offset, size, begun=reserve)
        try:
            buffer.views[0][:] = await reserve.view()
            await self._fill(take(buffer.views[1:], size - SLOT))
            return await self._hold(buffer, offset)
        except BaseException:
            buffer.release()
            raise

    async def _next_whole(self, offset: int, size: int) -> HeldPart:
        """Fill a part whose memory is leased as a whole. It ends early only with the body."""
        buffer = await self._reserve(size)
        if isinstance(buffer, SpillFile):
            return await self._spill(buffer, offset, size)
        try:
            await self._fill(take(buffer.views, size))
            return await self._hold(buffer, offset)
        except BaseException:
            buffer.release()
            raise

    def _reserve(
        self, size: int, *, spill_size: int | None = None, continues: bool = False
    ) -> Awaitable[Lease | SpillFile]:
        return reserve_buffer(
            size, self._pool, self._emit, spill_size=spill_size, continues=continues
        )

    async def _fill(self, views: Sequence[memoryview]) -> int:
        """Fill `views`, unless the body ends before. Return the number of bytes."""
        filled = 0
        while views and (count := await self._intake.fill(views)):
            self._pool.record_filled(count)
            views, filled = drop(views, count), filled + count
        return filled

    async def _hold(self, lease: Lease, offset: int) -> HeldPart:
        """Return the bytes taken since `offset` as a part, and release the unused slots."""
        part = await self._describe_part(offset)
        lease.shrink(part.size)
        return HeldPart(part, take(lease.views, part.size), lease=lease)

    async def _spill(
        self, spill: SpillFile, offset: int, size: int, *, begun: SpillFile | None = None
    ) -> HeldPart:
        """Fill a part in a file. It ends early if the backend accepts that and no file may grow.

        Args:
            spill: The file. At least the smallest possible part is reserved.
            offset: The offset of the part.
            size: The size of the part.
            begun: The file with the beginning of the part.
        """
        try:
            if begun is not None:
                await spill.write(await begun.view())
                await begun.aclose()
            while (remaining := size - spill.written) and (
                spill.written < spill.size or spill.try_extend(min(SLOT, remaining))
            ):
                piece = await self._intake.take(min(spill.size - spill.written, SPILL_PIECE))
                if not piece:
                    break
                await spill.write(piece)
            part = await self._describe_part(offset)
            spill.shrink(part.size)
            self._emit("spill", part.size)
        except BaseException:
            await spill.aclose()
            raise
        return HeldPart(part, (), spill=spill, spill_permits=self._backend.spill_permits)

    async def _describe_part(self, offset: int) -> Part:
        position, total = self._intake.byte_count, self._intake.size
        if total is None or position >= total or position - offset < self._size:
            # Check for the end here, so that a body of the wrong size fails before the commit.
            self._ended = not await self._intake.ready()
        max_object = self._backend.capabilities.max_object
        if position > max_object:
            raise NotSupportedError(
                f"an object on this backend must have at most {max_object} bytes, got more"
            )
        return Part(
            number=self._part_number,
            offset=offset,
            size=position - offset,
            last=self._ended,
            checksums=self._intake.part_checksums(),
        )


def _min_short_size(size: int, capabilities: Capabilities, planned_size: int | None) -> int:
    """Return the smallest size of a short part, in whole slots, or `size` if no part may be short.

    Short parts need more part numbers: at most one for each slot of a whole part.
    """
    is_possible = (
        capabilities.uneven_parts
        and SLOT % capabilities.part_multiple == 0
        and (planned_size or 0) <= (capabilities.max_parts - size // SLOT) * size
    )
    return -(-capabilities.min_part // SLOT) * SLOT if is_possible else size
