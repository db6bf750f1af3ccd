"""The transfer engine, upwards: a body becomes one request, or parts sent side by side.

What is sent is always filled memory (or a file's pages), so a request can be repeated, no permit is
held while a user's source is pulled, and no memory while there is nothing to put into it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar, cast

from ._concurrency import in_thread, shielded, task_group
from ._pipeline import CRC32C, Crc32c, Intake, compare, compare_stored, crc32c_of
from ._sources import trimmed, without
from .errors import (
    BucketNotFoundError,
    IntegrityError,
    NotSupportedError,
    TroveError,
)
from .events import Event
from .models import DeleteOptions, KiB, MiB, Part
from .pool import SpillFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._backends import Backend
    from ._sources import Source
    from .driver import Capabilities, Upload, Uploading
    from .events import Events
    from .models import ObjectInfo, PutOptions
    from .pool import BufferPool, Lease

T = TypeVar("T")

_INLINE_HASH = 4 * MiB
"""Bytes that are hashed on the loop: as long as a thread hop takes, at 20 GB/s."""

_SPILL_PIECE = 256 * KiB
"""Bytes pulled at a time on their way to a file: one thread hop each."""


class Progress(Protocol):
    """A user's callback: bytes done, and bytes in all where that is known."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Take note; called on the event loop."""
        ...


class Put:
    """One put, from the user's body to the object as stored.

    Args:
        backend: Where to.
        bucket: A bucket, which may be missing.
        key: The key.
        options: What the user said, complete but for the checksums.
        pool: The memory to use.
        events: Whom to tell.
        progress: The user's callback.
        missing: Called with the BucketNotFoundError of a missing bucket: makes it, or raises.
    """

    def __init__(
        self,
        backend: Backend,
        bucket: str,
        key: str,
        options: PutOptions,
        *,
        pool: BufferPool,
        events: Events,
        progress: Progress | None,
        missing: Callable[[BucketNotFoundError], Awaitable[None]],
    ) -> None:
        self._backend = backend
        self._bucket = bucket
        self._key = key
        self._options = options
        self._pool = pool
        self._events = events
        self._progress = progress
        self._missing = missing
        self._done = 0

    async def run(self, source: Source) -> ObjectInfo:
        """Store the body; nothing of it is visible, or held here, unless this returns."""
        if source.memory is not None:
            return await self._of_memory(source.memory)
        try:
            return await self._of_stream(Intake(source, self._options.size))
        finally:
            with shielded():
                await source.aclose()

    # -- bodies in memory: never copied, never pooled -------------------------------------------------

    async def _of_memory(self, memory: memoryview) -> ObjectInfo:
        size, promised = len(memory), self._options.size
        if promised is not None and promised != size:
            raise IntegrityError(f"the body has {size} bytes, not {promised} as promised")
        capabilities = self._backend.capabilities
        part = part_size(size, capabilities, self._pool)
        if size <= min(part, capabilities.max_put) or not capabilities.upload:
            return await self._at_once([memory] if size else [], size)
        return await self._in_parts(_MemoryParts(memory, part), size)

    # -- bodies that are pulled ------------------------------------------------------------------------

    async def _of_stream(self, intake: Intake) -> ObjectInfo:
        # A size that was promised lets a missing bucket, or a backend too small, show before any
        # byte is pulled; otherwise the first byte is waited for, while nothing is held.
        if not intake.size and not await intake.ready():
            return await self._at_once([], 0)
        capabilities, size = self._backend.capabilities, intake.size
        part = part_size(size, capabilities, self._pool)
        if part > self._pool.max_bytes // 2:
            raise NotSupportedError(
                f"parts of {part} bytes are needed here, which is more than half of the pool:"
                f" give the store a BufferPool(max_bytes={2 * part}) or more"
            )
        once = min(part, capabilities.max_put)
        parts = _StreamParts(intake, part, self._pool, self._backend, self._told)
        if size is not None and size > once:
            if capabilities.upload:
                return await self._in_parts(parts, size)
            self._check_fits_put(size)
        first = await parts.next()
        assert first is not None  # noqa: S101 - there is a byte, or next has raised
        if first.part.last and first.part.size <= once:
            async with first, first.loaded() as views:
                return await self._at_once(views, first.part.size, intake.checksums)
        if capabilities.upload:
            return await self._in_parts(parts, size, first)
        return await self._from_file(intake, first)

    async def _from_file(self, intake: Intake, first: _Filled) -> ObjectInfo:
        """Send a large body to a driver that takes no parts: all of it, from a file's pages."""
        async with first:
            spill = self._pool.try_spill(first.part.size)
            if spill is None:
                raise self._too_large()
            async with spill:
                async with first.loaded() as views:
                    for view in views:
                        await spill.write(view)
                await first.aclose()
                while await intake.ready():
                    piece = await intake.take(_SPILL_PIECE)
                    self._check_fits_put(spill.written + len(piece))
                    if not spill.try_extend(len(piece)):
                        raise self._too_large()
                    await spill.write(piece)
                self._told("spill", spill.written)
                async with self._backend.spill_lanes:
                    views = [await spill.view()]
                    return await self._at_once(views, spill.written, intake.checksums)

    def _too_large(self) -> NotSupportedError:
        return NotSupportedError(
            f"backend {self._backend.name!r} takes no parts, and the body fits no spill file:"
            " raise the pool's spill_max_bytes",
            bucket=self._bucket,
            key=self._key,
        )

    def _check_fits_put(self, size: int) -> None:
        most = self._backend.capabilities.max_put
        if size > most:
            raise NotSupportedError(
                f"backend {self._backend.name!r} stores at most {most} bytes in an object,"
                f" not {size}"
            )

    # -- sending ---------------------------------------------------------------------------------------

    async def _at_once(
        self,
        views: Sequence[memoryview],
        size: int,
        checksums: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        self._check_fits_put(size)
        if checksums is None:
            hop = size > _INLINE_HASH
            checksums = {CRC32C: await in_thread(crc32c_of, views) if hop else crc32c_of(views)}
        compare(self._options.checksums, checksums, "the body is not what was announced")
        options = replace(
            self._options, size=size, checksums={**self._options.checksums, **checksums}
        )
        driver = self._backend.driver
        info = await self._with_bucket(lambda: driver.put(self._bucket, self._key, views, options))
        info = await self._verified(info, size, checksums)
        self._report(size, size)
        return info

    async def _in_parts(
        self, parts: _Parts, size: int | None, first: _Filled | None = None
    ) -> ObjectInfo:
        driver = cast("Uploading", self._backend.driver)
        options = replace(self._options, size=size)
        async with AsyncExitStack() as stack:
            if first is not None:
                stack.push_async_exit(first)
            upload = await self._with_bucket(
                lambda: stack.enter_async_context(driver.upload(self._bucket, self._key, options))
            )
            await self._send_all(upload, parts, size, first)
            compare(self._options.checksums, parts.checksums, "the body is not what was announced")
            info = await upload.commit(parts.checksums)
        return await self._verified(info, self._done, parts.checksums)

    async def _send_all(
        self, upload: Upload, parts: _Parts, size: int | None, first: _Filled | None
    ) -> None:
        # The body is pulled by the task that called put, and by no other: what a user's generator
        # keeps open between its chunks, a timeout or a task group, may belong to one task only.
        # While parts are under way, one more is filled: it waits here for its turn to be sent.
        lanes = asyncio.Semaphore(self._backend.capabilities.parallel_parts)

        async def send(filled: _Filled) -> None:
            async with filled, filled.loaded() as views:
                await upload.send(filled.part, views)
                self._report(filled.part.size, size)
            lanes.release()  # after a failure nothing more is to be sent

        async with task_group() as group:
            filled = first or await parts.next()
            while filled is not None:
                try:
                    await lanes.acquire()
                except BaseException:
                    await filled.aclose()
                    raise
                group.start_soon(send, filled)
                filled = await parts.next()

    async def _with_bucket(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await request()
        except BucketNotFoundError as error:
            await self._missing(error)
        return await request()

    async def _verified(
        self, info: ObjectInfo, size: int, checksums: Mapping[str, str]
    ) -> ObjectInfo:
        try:
            compare_stored(checksums, size, info)
        except IntegrityError as error:
            error.located(
                operation="put", backend=self._backend.name, bucket=self._bucket, key=self._key
            )
            if self._backend.capabilities.delete_if_match:
                with shielded(), suppress(TroveError):  # what is there is ours, and wrong
                    await self._backend.driver.delete(
                        self._bucket, self._key, DeleteOptions(if_match=info.etag)
                    )
            raise
        return info

    def _report(self, size: int, total: int | None) -> None:
        self._done += size
        self._told("part", size)
        if self._progress is not None:
            self._progress(self._done, total)

    def _told(
        self, kind: Literal["part", "spill", "wait"], size: int, duration: float = 0.0
    ) -> None:
        if self._events:
            event = Event(
                kind=kind,
                operation="put",
                backend=self._backend.name,
                bucket=self._bucket,
                key=self._key,
                size=size,
                duration=duration,
            )
            self._events.emit(event)


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


class _Filled:
    """A part on its way: its bytes in a lease, in a spill file, or in the user's own memory."""

    def __init__(
        self,
        part: Part,
        views: Sequence[memoryview],
        *,
        lease: Lease | None = None,
        spill: SpillFile | None = None,
        lanes: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self.part = part
        self._views = views
        self._lease = lease
        self._spill = spill
        self._lanes = lanes

    @asynccontextmanager
    async def loaded(self) -> AsyncIterator[Sequence[memoryview]]:
        """Give its bytes; those of a spill file only while one of the backend's lanes is free."""
        if self._spill is None or self._lanes is None:
            yield self._views
        else:
            async with self._lanes:
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


class _Told(Protocol):
    """Takes what there is to tell of a put."""

    def __call__(
        self, kind: Literal["part", "spill", "wait"], size: int, duration: float = 0.0
    ) -> None: ...


class _Parts(Protocol):
    """A body cut into parts."""

    @property
    def checksums(self) -> Mapping[str, str]:
        """Of all bytes so far."""
        ...

    async def next(self) -> _Filled | None:
        """Return the next part, filled, or None after the last. Called by one task at a time."""
        ...


class _MemoryParts:
    """Parts of a body that is in memory: views of it."""

    def __init__(self, memory: memoryview, size: int) -> None:
        self._memory = memory
        self._size = size
        self._at = 0
        self._crc = Crc32c()

    @property
    def checksums(self) -> Mapping[str, str]:
        return {CRC32C: self._crc.digest()}

    async def next(self) -> _Filled | None:
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
        return _Filled(part, [view])


class _StreamParts:
    """Parts of a body that is pulled: each filled in leased memory, or else in a spill file."""

    def __init__(
        self,
        intake: Intake,
        size: int,
        pool: BufferPool,
        backend: Backend,
        told: _Told,
    ) -> None:
        self._intake = intake
        self._size = size
        self._pool = pool
        self._backend = backend
        self._told = told
        self._number = 0
        self._last = False

    @property
    def checksums(self) -> Mapping[str, str]:
        return self._intake.checksums

    async def next(self) -> _Filled | None:
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
                f"the body is larger than {self._backend.capabilities.max_parts} parts of"
                f" {self._size} bytes: give put its size, so that larger parts are planned"
            )
        room = self._pool.try_lease(wanted) or await self._wait(wanted)
        if isinstance(room, SpillFile):
            return await self._in_file(room, offset, wanted)
        try:
            rest = trimmed(room.views, wanted)
            while rest and (count := await self._intake.fill(rest)):
                rest = without(rest, count)
            part = await self._part(offset)
            room.shrink(part.size)
        except BaseException:
            room.release()
            raise
        return _Filled(part, trimmed(room.views, part.size), lease=room)

    async def _wait(self, size: int) -> Lease | SpillFile:
        clock = asyncio.get_running_loop().time
        started = clock()
        room = await self._pool.lease_or_spill(size)
        self._told("wait", size, clock() - started)
        return room

    async def _in_file(self, spill: SpillFile, offset: int, wanted: int) -> _Filled:
        try:
            while (room := wanted - spill.written) and (
                piece := await self._intake.take(min(room, _SPILL_PIECE))
            ):
                await spill.write(piece)
            part = await self._part(offset)
        except BaseException:
            await spill.aclose()
            raise
        self._told("spill", part.size)
        return _Filled(part, (), spill=spill, lanes=self._backend.spill_lanes)

    async def _part(self, offset: int) -> Part:
        taken, whole = self._intake.taken, self._intake.size
        if whole is None or taken >= whole or taken - offset < self._size:
            # Is that all? An end too early or too late shows here, before anything is committed.
            self._last = not await self._intake.ready()
        most = self._backend.capabilities.max_object
        if taken > most:
            raise NotSupportedError(f"the backend stores at most {most} bytes in an object")
        return Part(number=self._number, offset=offset, size=taken - offset, last=self._last)
