"""Sends parts that are too large to be held, by reading their file through a small window.

Each part is read at least twice. The first pass computes its checksum, which is sent ahead of the
part, as for a held part, so that every service can verify it. Every later pass (one to sign a body
over plain HTTP, one to send it, another for each retry) must compute the same checksum before it
yields the last bytes. Otherwise the request is aborted, so the bytes of two passes never mix. A
trailing checksum would save a pass but not the comparison, and not every S3-compatible service
supports trailers. On a later pass the bytes are mostly still in the page cache.

As for held parts, a window is leased before a write permit is requested, and never by a task that
is filling another window.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from hashlib import new as new_hash
from types import TracebackType
from typing import Self, cast

from trove_async._checksums import CRC32C, Crc32c
from trove_async._concurrency import wait_until_done
from trove_async.driver import StreamedUpload, Upload
from trove_async.errors import ClosedError
from trove_async.options import Part
from trove_async.pool import SLOT, BufferPool, Lease, SpillFile

from .backends import Backend
from .body_file import BodyFile, file_changed_error
from .parts import EmitPutEvent, ReportSent, max_held_part, reserve_buffer

_WINDOW = 2 * SLOT
"""The size of a window. One half is read ahead while the other is sent."""


class StreamedParts:
    """The parts of a file, none of them held in memory.

    Args:
        file: The body, of one byte or more.
        size: The size of a part.
        pool: The pool that windows are leased from.
        backend: The destination.
        emit: Emits the events of the put.
    """

    def __init__(
        self, file: BodyFile, size: int, pool: BufferPool, backend: Backend, emit: EmitPutEvent
    ) -> None:
        self._file = file
        self._size = size
        self._pool = pool
        self._backend = backend
        self._emit = emit
        self._window = min(_WINDOW, max_held_part(pool) // SLOT * SLOT)
        self._position = 0
        self._crc = Crc32c()

    @property
    def checksums(self) -> Mapping[str, str]:
        return {CRC32C: self._crc.digest()}

    async def next(self) -> StreamedPart | None:
        size = min(self._size, self._file.size - self._position)
        if not size:
            return None
        part = Part(
            number=self._position // self._size + 1,
            offset=self._position,
            size=size,
            last=self._position + size == self._file.size,
        )
        buffer = await reserve_buffer(self._window, self._pool, self._emit)
        streamed_part = StreamedPart(part, self._file, buffer, self._backend)
        try:
            await streamed_part.open(self._crc)
        except BaseException:
            await streamed_part.aclose()
            raise
        self._position += size
        return streamed_part


class StreamedPart:
    """One part and the window that it is read through: a `PartSource` and a `SendablePart`.

    Args:
        part: The part.
        file: The body.
        buffer: The memory of the window.
        backend: The destination.
    """

    def __init__(
        self, part: Part, file: BodyFile, buffer: Lease | SpillFile, backend: Backend
    ) -> None:
        self.part = part
        self.size = part.size
        self._file = file
        self._buffer: Lease | SpillFile | None = buffer
        self._backend = backend
        self._halves: list[memoryview] = []
        self._checksum: str | None = None
        self._digests: dict[str, str] = {}
        self._reported_bytes = 0
        self._report_sent: ReportSent = lambda size: None  # noqa: ARG005 - replaced by `send`
        self._passes = 0
        self._read_in_flight: asyncio.Future[memoryview] | None = None

    async def open(self, body_crc: Crc32c) -> None:
        """Read the part for the first time, and update the checksum of the whole body."""
        if isinstance(self._buffer, SpillFile):
            window = [await self._buffer.window()]
        else:
            window = list(self._buffer.views) if self._buffer is not None else []
        half = sum(map(len, window)) // 2
        self._halves = [
            view[start : start + half] for view in window for start in range(0, len(view), half)
        ]
        await self._read_all(body_crc.update)

    async def send(self, upload: Upload, report_sent: ReportSent) -> None:
        """Send the part. See `SendablePart.send`."""
        self._report_sent = report_sent
        stream = cast("StreamedUpload", upload).send_stream
        if isinstance(self._buffer, SpillFile):
            async with self._backend.spill_permits:
                await stream(self.part, self)
        else:
            await stream(self.part, self)
        self._report_up_to(self.size)

    # -- PartSource, for the driver --------------------------------------------------------------------

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksum of the part. See `PartSource.checksums`."""
        return {} if self._checksum is None else {CRC32C: self._checksum}

    async def digest(self, algorithm: str) -> str:
        """Return a hash of the part. See `PartSource.digest`."""
        if algorithm not in self._digests:
            hasher = new_hash(algorithm, usedforsecurity=False)
            await self._read_all(hasher.update)
            self._digests[algorithm] = hasher.hexdigest()
        return self._digests[algorithm]

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[memoryview]]:
        """Open the part to be sent. See `PartSource.pieces`."""
        async with aclosing(self._counted_pieces()) as pieces:
            yield pieces

    # -- passes ----------------------------------------------------------------------------------------

    async def _counted_pieces(self) -> AsyncGenerator[memoryview]:
        sent = 0
        async with aclosing(self._pass()) as pieces:
            async for piece in pieces:
                self._report_up_to(sent)  # the driver has sent the pieces before this one
                yield piece
                sent += len(piece)
            self._report_up_to(sent)

    def _report_up_to(self, sent: int) -> None:
        if sent > self._reported_bytes:  # otherwise a retry sends bytes that were already reported
            size, self._reported_bytes = sent - self._reported_bytes, sent
            self._report_sent(size)

    async def _read_all(self, update: Callable[[memoryview], object]) -> None:
        async with aclosing(self._pass(update)) as pieces:
            async for _ in pieces:
                pass

    async def _pass(
        self, update: Callable[[memoryview], object] | None = None
    ) -> AsyncGenerator[memoryview]:
        """Read the part once, one piece ahead of the consumer. `update` is called in a thread."""
        crc = Crc32c()
        loop = asyncio.get_running_loop()

        # 1. Define how to read one half of the window in a thread.
        def read(position: int, view: memoryview) -> memoryview:
            self._file.read(self.part.offset + position, view)
            crc.update(view)
            if update is not None:
                update(view)
            return view

        def start_read(position: int) -> asyncio.Future[memoryview]:
            half = self._halves[position // len(self._halves[0]) % 2]
            self._read_in_flight = loop.run_in_executor(
                None, read, position, half[: self.size - position]
            )
            return self._read_in_flight

        # 2. End the previous pass, which may still use the window.
        pass_number = await self._next_pass()
        self._check_current(pass_number)
        # 3. Yield one half while the other is read.
        position, next_read = 0, start_read(0)
        try:
            while position < self.size:
                view = await wait_until_done(next_read)
                self._check_current(pass_number)
                position += len(view)
                if position < self.size:
                    next_read = start_read(position)
                else:
                    self._compare(crc.digest())
                yield view
                self._check_current(pass_number)
        # 4. Wait for the read in flight: the caller may release the window.
        finally:
            with suppress(Exception):  # already raised, or no longer relevant
                await wait_until_done(next_read)

    def _check_current(self, pass_number: int) -> None:
        if self._passes != pass_number:
            raise ClosedError(
                "this pass over the part has ended, because a retry has started another"
            )

    async def _next_pass(self) -> int:
        """End the previous pass, which an abandoned request may still read. Return the new pass's number."""
        self._passes += 1
        pass_number = self._passes
        if self._read_in_flight is not None:
            with suppress(Exception):
                await wait_until_done(self._read_in_flight)
        return pass_number

    def _compare(self, checksum: str) -> None:
        if self._checksum is None:
            self._checksum = checksum
        elif checksum != self._checksum:
            raise file_changed_error()

    # -- the window ------------------------------------------------------------------------------------

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
        """Release the window once no read into it is running. Idempotent."""
        buffer, self._buffer = self._buffer, None
        try:
            await self._next_pass()
        finally:
            self._halves = []
            if isinstance(buffer, SpillFile):
                await buffer.aclose()
            elif buffer is not None:
                buffer.release()
