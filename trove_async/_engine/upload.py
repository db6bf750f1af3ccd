"""The transfer engine, upwards: a body becomes one request, or parts sent side by side.

What is sent is always filled memory (or a file's pages), so a request can be repeated, no permit is
held while a user's source is pulled, and no memory while there is nothing to put into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Literal, Protocol, TypeVar, cast

from trove_async._checksums import CRC32C, compare, compare_stored, crc32c_text, hash_crc32c
from trove_async._concurrency import shielded, task_group
from trove_async.driver import Capabilities, Upload, Uploading
from trove_async.errors import BucketNotFoundError, IntegrityError, NotSupportedError, TroveError
from trove_async.events import Event, Events
from trove_async.models import MiB, ObjectInfo
from trove_async.options import DeleteOptions, PutOptions
from trove_async.pool import BufferPool

from .backends import Backend
from .intake import Intake
from .parts import (
    SPILL_PIECE,
    BufferedParts,
    HeldPart,
    MemoryParts,
    Parts,
    SendablePart,
    half_of,
    part_size,
)
from .sources import Source
from .streamed_parts import StreamedParts

T = TypeVar("T")


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
        self._capabilities = _effective_capabilities(backend.capabilities, options)

    async def run(self, source: Source) -> ObjectInfo:
        """Store the body; nothing of it is visible, or held here, unless this returns."""
        if source.memory is not None:
            return await self._put_memory(source.memory)
        try:
            return await self._put_stream(Intake(source, self._options.size))
        finally:
            with shielded():
                await source.aclose()

    # -- bodies in memory: never copied, never pooled -------------------------------------------------

    async def _put_memory(self, memory: memoryview) -> ObjectInfo:
        size, promised = len(memory), self._options.size
        if promised is not None and promised != size:
            raise IntegrityError(f"the body has {size} bytes, not {promised} as promised")
        capabilities = self._capabilities
        if not capabilities.upload:
            self._check_fits_put(size)
        part = part_size(size, capabilities, self._pool)
        if size <= min(part, capabilities.max_put) or not capabilities.upload:
            return await self._send_whole([memory] if size else [], size)
        return await self._send_parts(MemoryParts(memory, part), size)

    # -- bodies that are pulled ------------------------------------------------------------------------

    async def _put_stream(self, intake: Intake) -> ObjectInfo:
        # A size that was promised lets a missing bucket, or a backend too small, show before any
        # byte is pulled; otherwise the first byte is waited for, while nothing is held.
        if not intake.size and not await intake.ready():
            return await self._send_whole([], 0)
        capabilities, size = self._capabilities, intake.size
        if size is not None and not capabilities.upload:
            self._check_fits_put(size)
        part = part_size(size, capabilities, self._pool)
        if min(part, size or part) > half_of(self._pool):
            return await self._put_streamed_parts(intake, part)
        once = min(part, capabilities.max_put)
        parts = BufferedParts(intake, part, self._pool, self._backend, self._emit)
        if size is not None and size > once and capabilities.upload:
            return await self._send_parts(parts, size)
        first = await parts.next()
        assert first is not None  # noqa: S101 - there is a byte, or next has raised
        if first.part.last and first.part.size <= once:
            async with first, first.loaded() as views:
                return await self._send_whole(views, first.part.size, intake.checksums)
        if capabilities.upload:
            return await self._send_parts(parts, size, first)
        return await self._put_spilled(intake, first)

    async def _put_streamed_parts(self, intake: Intake, part: int) -> ObjectInfo:
        """Send parts that are too large to be held, read from the body's file while they are sent."""
        capabilities = self._capabilities
        streams = capabilities.upload and capabilities.streamed_parts
        file = await intake.file() if streams else None
        if file is None:
            raise self._parts_too_large(
                part, instead="a path or a file opened by open()" if streams else None
            )
        parts = StreamedParts(file, part, self._pool, self._backend, self._emit)
        return await self._send_parts(parts, file.size)

    def _parts_too_large(self, part: int, instead: str | None) -> NotSupportedError:
        capabilities, half = self._capabilities, half_of(self._pool)
        held = half // capabilities.part_multiple * capabilities.part_multiple
        most = held * capabilities.max_parts if held >= capabilities.min_part else half
        advice = f"give {instead}, or" if instead else "give"
        return NotSupportedError(
            f"parts of {part} bytes are needed for this body, more than half of the pool, through"
            f" which at most {min(most, capabilities.max_object)} bytes can be sent: {advice} the"
            f" store a BufferPool(max_bytes={2 * -(-part // MiB) * MiB}) or more",
            bucket=self._bucket,
            key=self._key,
        )

    async def _put_spilled(self, intake: Intake, first: HeldPart) -> ObjectInfo:
        """Send a large body to a driver that takes no parts: all of it, from a file's pages."""
        async with first:
            spill = self._pool.try_spill(first.part.size)
            if spill is None:
                raise self._exceeds_spill()
            async with spill:
                async with first.loaded() as views:
                    for view in views:
                        await spill.write(view)
                await first.aclose()
                while await intake.ready():
                    piece = await intake.take(SPILL_PIECE)
                    self._check_fits_put(spill.written + len(piece))
                    if not spill.try_extend(len(piece)):
                        raise self._exceeds_spill()
                    await spill.write(piece)
                self._emit("spill", spill.written)
                async with self._backend.spill_permits:
                    views = [await spill.view()]
                    return await self._send_whole(views, spill.written, intake.checksums)

    def _exceeds_spill(self) -> NotSupportedError:
        return NotSupportedError(
            f"backend {self._backend.name!r} {self._why_send_whole()}, and the body fits no spill file:"
            " raise the pool's spill_max_bytes",
            bucket=self._bucket,
            key=self._key,
        )

    def _check_fits_put(self, size: int) -> None:
        most = self._capabilities.max_put
        if size > most:
            raise NotSupportedError(
                f"backend {self._backend.name!r} {self._why_send_whole()}, and one request stores at"
                f" most {most} bytes, not {size}"
            )

    def _why_send_whole(self) -> str:
        if not self._backend.capabilities.upload:
            return "takes no parts"
        if self._options.conditional and not self._backend.capabilities.commit_conditions:
            return "honours if_match and if_none_match only where a body is sent in one request"
        return "keeps tags only where a body is sent in one request"

    # -- sending ---------------------------------------------------------------------------------------

    async def _send_whole(
        self,
        views: Sequence[memoryview],
        size: int,
        checksums: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        self._check_fits_put(size)
        if checksums is None:
            checksums = {CRC32C: crc32c_text(await hash_crc32c(views))}
        compare(self._options.checksums, checksums, "the body is not what was announced")
        options = self._options.of_body(size, checksums)
        driver = self._backend.driver
        info = await self._with_bucket(lambda: driver.put(self._bucket, self._key, views, options))
        info = await self._check_stored(info, size, checksums)
        self._emit("part", size)
        self._report(size, size)
        return info

    async def _send_parts(
        self, parts: Parts, size: int | None, first: HeldPart | None = None
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
        return await self._check_stored(info, self._done, parts.checksums)

    async def _send_all(
        self, upload: Upload, parts: Parts, size: int | None, first: HeldPart | None
    ) -> None:
        # The body is pulled by the task that called put, and by no other: what a user's generator
        # keeps open between its chunks, a timeout or a task group, may belong to one task only.
        # While parts are under way, one more is filled: it waits here for its turn to be sent.
        send_permits = asyncio.Semaphore(self._backend.capabilities.parallel_parts)

        async def send(ready: SendablePart) -> None:
            async with ready:
                await ready.send(upload, lambda moved: self._report(moved, size))
                self._emit("part", ready.part.size)
            send_permits.release()  # after a failure nothing more is to be sent

        async with task_group() as group:
            ready = first or await parts.next()
            while ready is not None:
                try:
                    await send_permits.acquire()
                except BaseException:
                    await ready.aclose()
                    raise
                group.start_soon(send, ready)
                ready = await parts.next()

    async def _with_bucket(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await request()
        except BucketNotFoundError as error:
            await self._missing(error)
        return await request()

    async def _check_stored(
        self, info: ObjectInfo, size: int, checksums: Mapping[str, str]
    ) -> ObjectInfo:
        try:
            compare_stored(checksums, size, info)
        except IntegrityError as error:
            error.located(
                operation="put", backend=self._backend.name, bucket=self._bucket, key=self._key
            )
            if self._backend.capabilities.delete_if_match and info.etag is not None:
                with shielded(), suppress(TroveError):  # what is there is ours, and wrong
                    await self._backend.driver.delete(
                        self._bucket, self._key, DeleteOptions(if_match=info.etag)
                    )
            raise
        return info

    def _report(self, size: int, total: int | None) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, total)

    def _emit(
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


def _effective_capabilities(capabilities: Capabilities, options: PutOptions) -> Capabilities:
    """Return the capabilities without uploads in parts if these would drop one of the options."""
    conditions = capabilities.commit_conditions or not options.conditional
    if conditions and (capabilities.upload_tags or not options.tags):
        return capabilities
    # The limits of a part are none of a body that is sent in one request.
    return replace(capabilities, upload=False, min_part=1, part_multiple=1)
