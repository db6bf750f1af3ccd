"""A body cut into parts: how large they are, and where their bytes are until they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Literal, Protocol, Self

from trove_async._checksums import CRC32C, Crc32c
from trove_async._views import drop, take
from trove_async.driver import Capabilities, Upload
from trove_async.errors import NotSupportedError
from trove_async.models import KiB
from trove_async.options import Part
from trove_async.pool import BufferPool, Lease, SpillFile

from .backends import Backend
from .intake import Intake

SPILL_PIECE = 64 * KiB
"""Bytes pulled at a time on their way to a file: one thread hop each."""


def part_size(size: int | None, capabilities: Capabilities, pool: BufferPool) -> int:
    """Return the bytes of a part: the pool's, unless the backend or the size asks otherwise.

    Args:
        size: The whole body's bytes, where known.
        capabilities: The backend's limits.
        pool: Whose part_size is wanted.

    Raises:
        NotSupportedError: No number of parts holds that many bytes.
    """
    if size is not None and size > capabilities.max_object:
        raise NotSupportedError(
            f"the backend stores at most {capabilities.max_object} bytes in an object, not {size}"
        )
    needed = 0 if size is None else -(-size // capabilities.max_parts)
    multiple = capabilities.part_multiple
    wanted = min(pool.part_size, capabilities.max_part) // multiple * multiple
    least = max(capabilities.min_part, needed, 1)
    part = max(wanted, -(-least // multiple) * multiple)
    if part > capabilities.max_part:
        raise NotSupportedError(
            f"{size} bytes do not fit {capabilities.max_parts} parts of"
            f" {capabilities.max_part} bytes"
        )
    return part


def half_of(pool: BufferPool) -> int:
    """Return the most bytes of a part that is held: two of them always fit the pool."""
    return pool.max_bytes // 2


class HeldPart:
    """A part on its way: its bytes in a lease, in a spill file, or in the user's own memory."""

    def __init__(
        self,
        part: Part,
        views: Sequence[memoryview],
        *,
        lease: Lease | None = None,
        spill: SpillFile | None = None,
        permits: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self.part = part
        self._views = views
        self._lease = lease
        self._spill = spill
        self._permits = permits

    async def send(self, upload: Upload, report_sent: ReportSent) -> None:
        """Send it. See `SendablePart.send`."""
        async with self.loaded() as views:
            await upload.send(self.part, views)
        report_sent(self.part.size)

    @asynccontextmanager
    async def loaded(self) -> AsyncIterator[Sequence[memoryview]]:
        """Give its bytes; those of a spill file only while one of the backend's permits is free."""
        if self._spill is None or self._permits is None:
            yield self._views
        else:
            async with self._permits:
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
        """Give the memory, or the file, back. Idempotent."""
        self._views = ()
        if self._lease is not None:
            self._lease.release()
        if self._spill is not None:
            await self._spill.aclose()


async def reserve_buffer(size: int, pool: BufferPool, emit: EmitPutEvent) -> Lease | SpillFile:
    """Take memory, or else buffer in a file; tell if it had to be waited for."""
    lease = pool.try_lease(size)
    if lease is not None:
        return lease
    clock = asyncio.get_running_loop().time
    started = clock()
    buffer = await pool.lease_or_spill(size)
    emit("wait", size, clock() - started)
    return buffer


class EmitPutEvent(Protocol):
    """Takes what there is to tell of a put."""

    def __call__(
        self, kind: Literal["part", "spill", "wait"], size: int, duration: float = 0.0
    ) -> None: ...


class ReportSent(Protocol):
    """Is emit of bytes that have been sent, each once."""

    def __call__(self, size: int, /) -> None: ...


class SendablePart(Protocol):
    """A part that can be sent, and what it holds until it is left."""

    part: Part

    async def send(self, upload: Upload, report_sent: ReportSent) -> None:
        """Send it, telling `report_sent` of its bytes."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def aclose(self) -> None:
        """Give back what it holds. Idempotent."""
        ...


class Parts(Protocol):
    """A body cut into parts."""

    @property
    def checksums(self) -> Mapping[str, str]:
        """Of all bytes so far."""
        ...

    async def next(self) -> SendablePart | None:
        """Return the next part, ready, or None after the last. Called by one task at a time."""
        ...


class MemoryParts:
    """Parts of a body that is in memory: views of it."""

    def __init__(self, memory: memoryview, size: int) -> None:
        self._memory = memory
        self._size = size
        self._at = 0
        self._crc = Crc32c()

    @property
    def checksums(self) -> Mapping[str, str]:
        return {CRC32C: self._crc.digest()}

    async def next(self) -> HeldPart | None:
        view = self._memory[self._at : self._at + self._size]
        if not view:
            return None
        self._crc.update(view)
        part = Part(
            number=self._at // self._size + 1,
            offset=self._at,
            size=len(view),
            last=self._at + len(view) == len(self._memory),
        )
        self._at += len(view)
        return HeldPart(part, [view])


class BufferedParts:
    """Parts of a body that is pulled: each filled in leased memory, or else in a spill file."""

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
        self._number = 0
        self._last = False

    @property
    def checksums(self) -> Mapping[str, str]:
        return self._intake.checksums

    async def next(self) -> HeldPart | None:
        # The first byte is waited for before any memory is: a source that is silent holds nothing.
        if self._last or not await self._intake.ready():
            self._last = True
            return None
        offset = self._intake.taken
        whole = self._intake.size
        wanted = self._size if whole is None else min(self._size, whole - offset)
        self._number += 1
        if self._number > self._backend.capabilities.max_parts:
            raise NotSupportedError(
                f"the body is larger than {offset} bytes, {self._number - 1} parts of {self._size}"
                " bytes: give put its size, so that larger parts are planned, or a path"
            )
        buffer = await reserve_buffer(wanted, self._pool, self._emit)
        if isinstance(buffer, SpillFile):
            return await self._in_file(buffer, offset, wanted)
        try:
            rest = take(buffer.views, wanted)
            while rest and (count := await self._intake.fill(rest)):
                rest = drop(rest, count)
            part = await self._part(offset)
            buffer.shrink(part.size)
        except BaseException:
            buffer.release()
            raise
        return HeldPart(part, take(buffer.views, part.size), lease=buffer)

    async def _in_file(self, spill: SpillFile, offset: int, wanted: int) -> HeldPart:
        try:
            while (buffer := wanted - spill.written) and (
                piece := await self._intake.take(min(buffer, SPILL_PIECE))
            ):
                await spill.write(piece)
            part = await self._part(offset)
            self._emit("spill", part.size)
        except BaseException:
            await spill.aclose()
            raise
        return HeldPart(part, (), spill=spill, permits=self._backend.spill_permits)

    async def _part(self, offset: int) -> Part:
        taken, whole = self._intake.taken, self._intake.size
        if whole is None or taken >= whole or taken - offset < self._size:
            # Is that all? An end too early or too late shows here, before anything is committed.
            self._last = not await self._intake.ready()
        most = self._backend.capabilities.max_object
        if taken > most:
            raise NotSupportedError(f"the backend stores at most {most} bytes in an object")
        return Part(number=self._number, offset=offset, size=taken - offset, last=self._last)
