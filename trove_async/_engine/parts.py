"""Splits a body into parts, and holds the bytes of each part until the part is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Literal, Protocol, Self

from trove_async._checksums import CRC32C, Crc32c, crc32c_text, hash_crc32c
from trove_async._views import drop, take
from trove_async.driver import Capabilities, Upload
from trove_async.errors import NotSupportedError
from trove_async.models import KiB
from trove_async.options import Part
from trove_async.pool import BufferPool, Lease, SpillFile

from .backends import Backend
from .intake import Intake

SPILL_PIECE = 64 * KiB
"""Maximum number of bytes pulled at a time into a spill file. Each piece costs one thread hop."""


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
    """A part whose bytes are held in a lease, in a spill file, or in the user's memory."""

    def __init__(
        self,
        part: Part,
        views: Sequence[memoryview],
        *,
        lease: Lease | None = None,
        spill: SpillFile | None = None,
        spill_permits: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self.part = part
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
        if self._spill is not None:
            await self._spill.aclose()


async def reserve_buffer(size: int, pool: BufferPool, emit: EmitPutEvent) -> Lease | SpillFile:
    """Lease memory, or reserve a spill file. Emit an event if no memory was free at once."""
    lease = pool.try_lease(size)
    if lease is not None:
        return lease
    clock = asyncio.get_running_loop().time
    started = clock()
    buffer = await pool.lease_or_spill(size)
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
    """The parts of a pulled body, each buffered in leased memory or in a spill file."""

    def __init__(
        self,
        intake: Intake,
        size: int,
        pool: BufferPool,
        backend: Backend,
        emit: EmitPutEvent,
    ) -> None:
        self._intake = intake
        self._size = size
        self._pool = pool
        self._backend = backend
        self._emit = emit
        self._part_number = 0
        self._ended = False

    @property
    def checksums(self) -> Mapping[str, str]:
        return self._intake.checksums

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
        # 3. Lease memory, fill it, and return the unused slots.
        buffer = await reserve_buffer(size, self._pool, self._emit)
        if isinstance(buffer, SpillFile):
            return await self._spill(buffer, offset, size)
        try:
            unfilled = take(buffer.views, size)
            while unfilled and (count := await self._intake.fill(unfilled)):
                unfilled = drop(unfilled, count)
            part = await self._describe_part(offset)
            buffer.shrink(part.size)
        except BaseException:
            buffer.release()
            raise
        return HeldPart(part, take(buffer.views, part.size), lease=buffer)

    async def _spill(self, spill: SpillFile, offset: int, size: int) -> HeldPart:
        try:
            while (remaining := size - spill.written) and (
                piece := await self._intake.take(min(remaining, SPILL_PIECE))
            ):
                await spill.write(piece)
            part = await self._describe_part(offset)
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
