"""Stores one body: in one request, or as parts sent in parallel.

A request always sends bytes that are in memory or in a file. So it can be retried, and no permit is
held while the user's source is pulled. Memory for a part is leased only once the source is known to
have another byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
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
from .locations import Location
from .part_window import PartWindow
from .parts import (
    SPILL_PIECE,
    BufferedParts,
    HeldPart,
    MemoryParts,
    Parts,
    SendablePart,
    max_held_part,
    part_size,
)
from .sources import Source
from .streamed_parts import StreamedParts

T = TypeVar("T")


class Progress(Protocol):
    """A user's callback for progress: bytes transferred, and the total if it is known."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Receive the progress. Called on the event loop."""
        ...


class Put:
    """One put, from the source of the body to the stored object.

    Args:
        backend: The destination.
        bucket: The bucket, which may be missing.
        key: The key.
        options: The options. Their checksums, if any, are compared with those of the body.
        pool: The memory for parts.
        events: The events of the store.
        progress: The user's callback.
        create_bucket: Called with the error of a missing bucket. It creates the bucket, or raises.
        planned_size: The size to plan parts for, if the size of the body is unknown but can be estimated.
        finish: Completes the options just before the first request, for values that depend on the body.
        read_once: Whether all parts must be held in the pool: the body is encoded or inspected while it is
            read, and reading a file again might return different bytes.

    Attributes:
        sent_bytes: The number of bytes that the backend has received.
        checksums: The checksums of the body, once it was sent.
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
        create_bucket: Callable[[BucketNotFoundError], Awaitable[None]],
        planned_size: int | None = None,
        finish: Callable[[PutOptions], PutOptions] | None = None,
        read_once: bool = False,
    ) -> None:
        self._finish = finish
        self._planned_size = planned_size
        self._read_once = read_once
        self._backend = backend
        self._bucket = bucket
        self._key = key
        self._options = options
        self._pool = pool
        self._events = events
        self._progress = progress
        self._create_bucket = create_bucket
        self.sent_bytes = 0
        self.checksums: Mapping[str, str] = {}
        self._capabilities = _effective_capabilities(backend.capabilities, options)

    async def run(self, source: Source) -> ObjectInfo:
        """Store the body. After an error or a cancel no partial object is visible and nothing is held."""
        if source.memory is not None:
            return await self._put_memory(source.memory)
        try:
            return await self._put_stream(Intake(source, self._options.size))
        finally:
            with shielded():
                await source.aclose()

    # -- bodies in memory: never copied, never pooled -------------------------------------------------

    async def _put_memory(self, memory: memoryview) -> ObjectInfo:
        size, declared = len(memory), self._options.size
        if declared is not None and declared != size:
            raise IntegrityError(
                f"the body must have {declared} bytes as declared, got {size}: pass the correct size, or omit it"
            )
        capabilities = self._capabilities
        if not capabilities.upload:
            self._check_fits_put(size)
        part = part_size(size, capabilities, self._pool)
        if size <= min(part, capabilities.max_put) or not capabilities.upload:
            return await self._put_in_one_request([memory] if size else [], size)
        return await self._send_parts(MemoryParts(memory, part), size)

    # -- bodies that are pulled ------------------------------------------------------------------------

    async def _put_stream(self, intake: Intake) -> ObjectInfo:
        # 1. With a declared size, an object that is too large is detected before any byte is pulled, and
        # so is a missing bucket if the body is sent in parts. Otherwise wait for the first byte, while
        # nothing is held.
        if not intake.size and not await intake.ready():
            return await self._put_in_one_request([], 0)
        # 2. Choose the part size. Parts larger than half of the pool are read from their file.
        capabilities, size = self._capabilities, intake.size
        if size is not None and not capabilities.upload:
            self._check_fits_put(size)
        planned = size
        if planned is None and self._planned_size is not None:
            planned = min(self._planned_size, capabilities.max_object)
        part = part_size(planned, capabilities, self._pool)
        if size is None:
            # An estimate is no reason to refuse a body: it is usually far too large for one that is compressed.
            multiple = capabilities.part_multiple
            held = max_held_part(self._pool) // multiple * multiple
            part = min(part, max(held, capabilities.min_part))
        if min(part, size or part) > max_held_part(self._pool):
            return await self._put_streamed_parts(intake, part)
        max_single_put = min(part, capabilities.max_put)
        parts = BufferedParts(
            intake,
            part,
            self._pool,
            self._backend,
            self._emit,
            capabilities=capabilities,
            planned_size=planned,
        )
        with closing(parts):
            return await self._put_parts(intake, parts, max_single_put)

    async def _put_parts(
        self, intake: Intake, parts: BufferedParts, max_single_put: int
    ) -> ObjectInfo:
        """Send parts that are buffered, or the first one in one request if it is the whole body."""
        capabilities, size = self._capabilities, intake.size
        if size is not None and size > max_single_put and capabilities.upload:
            return await self._send_parts(parts, size)
        first = await parts.next()
        assert first is not None  # noqa: S101 - `ready` has found a byte
        if first.part.last and first.part.size <= max_single_put:
            async with first, first.loaded() as views:
                return await self._put_in_one_request(views, first.part.size, intake.checksums)
        if capabilities.upload:
            return await self._send_parts(parts, size, first)
        return await self._put_spilled(intake, first)

    async def _put_streamed_parts(self, intake: Intake, part: int) -> ObjectInfo:
        """Send parts that are too large to be held, reading the body's file while they are sent."""
        capabilities = self._capabilities
        can_stream = capabilities.upload and capabilities.streamed_parts and not self._read_once
        file = await intake.file() if can_stream else None
        if file is None:
            raise self._parts_too_large_error(
                part, alternative="a path or a file opened by open()" if can_stream else None
            )
        parts = StreamedParts(file, part, self._pool, self._backend, self._emit)
        return await self._send_parts(parts, file.size)

    def _parts_too_large_error(self, part: int, alternative: str | None) -> NotSupportedError:
        capabilities, half = self._capabilities, max_held_part(self._pool)
        max_part = half // capabilities.part_multiple * capabilities.part_multiple
        max_size = max_part * capabilities.max_parts if max_part >= capabilities.min_part else half
        advice = f"pass {alternative}, or create" if alternative else "create"
        return NotSupportedError(
            f"this body needs parts of {part} bytes, which must fit in half of the pool; with this pool"
            f" at most {min(max_size, capabilities.max_object)} bytes can be sent: {advice} the"
            f" store with a BufferPool(max_bytes={2 * -(-part // MiB) * MiB}) or a larger one",
            bucket=self._bucket,
            key=self._key,
        )

    async def _put_spilled(self, intake: Intake, first: HeldPart) -> ObjectInfo:
        """Send a large body in one request, from a spill file, because it cannot be sent in parts."""
        async with first:
            spill = self._pool.try_spill(first.part.size)
            if spill is None:
                raise self._spill_full_error()
            async with spill:
                async with first.loaded() as views:
                    for view in views:
                        await spill.write(view)
                await first.aclose()
                while await intake.ready():
                    piece = await intake.take(SPILL_PIECE)
                    self._check_fits_put(spill.written + len(piece))
                    if not spill.try_extend(len(piece)):
                        raise self._spill_full_error()
                    await spill.write(piece)
                self._emit("spill", spill.written)
                async with self._backend.spill_permits:
                    views = [await spill.view()]
                    return await self._put_in_one_request(views, spill.written, intake.checksums)

    def _spill_full_error(self) -> NotSupportedError:
        return NotSupportedError(
            f"backend {self._backend.name!r} {self._one_request_reason()}, and the spill files are full:"
            " raise the pool's spill_max_bytes",
            bucket=self._bucket,
            key=self._key,
        )

    def _check_fits_put(self, size: int) -> None:
        max_size = self._capabilities.max_put
        if size > max_size:
            raise NotSupportedError(
                f"backend {self._backend.name!r} {self._one_request_reason()}, so the body must have at"
                f" most {max_size} bytes, got {size}"
            )

    def _one_request_reason(self) -> str:
        if not self._backend.capabilities.upload:
            return "has no multipart uploads"
        if self._options.conditional and not self._backend.capabilities.commit_conditions:
            return "supports if_match and if_none_match only in a put of one request"
        return "supports tags only in a put of one request"

    # -- sending ---------------------------------------------------------------------------------------

    async def _put_in_one_request(
        self,
        views: Sequence[memoryview],
        size: int,
        checksums: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        self._check_fits_put(size)
        if checksums is None:
            checksums = {CRC32C: crc32c_text(await hash_crc32c(views))}
        compare(self._options.checksums, checksums, "the body differs from its declared checksum")
        options = self._finished_options().of_body(size, checksums)
        driver = self._backend.driver
        info = await self._with_bucket(lambda: driver.put(self._bucket, self._key, views, options))
        await self._check_stored(info, size, checksums)
        self._emit("part", size)
        self._report(size, size)
        return info

    async def _send_parts(
        self, parts: Parts, size: int | None, first: HeldPart | None = None
    ) -> ObjectInfo:
        driver = cast("Uploading", self._backend.driver)
        async with AsyncExitStack() as stack:
            if first is not None:
                stack.push_async_exit(first)
            options = replace(self._finished_options(), size=size)
            upload = await self._with_bucket(
                lambda: stack.enter_async_context(driver.upload(self._bucket, self._key, options))
            )
            await self._send_all(upload, parts, size, first)
            compare(
                self._options.checksums,
                parts.checksums,
                "the body differs from its declared checksum",
            )
            info = await upload.commit(parts.checksums)
        await self._check_stored(info, self.sent_bytes, parts.checksums)
        return info

    def _finished_options(self) -> PutOptions:
        return self._options if self._finish is None else self._finish(self._options)

    async def _send_all(
        self, upload: Upload, parts: Parts, size: int | None, first: HeldPart | None
    ) -> None:
        # Only the task that called put pulls the body: a user's generator may hold a timeout or a
        # task group open between chunks, and those belong to one task. While parts are in flight,
        # one more is filled and waits here for its turn.
        window = PartWindow(
            self._backend.capabilities, self._pool, in_memory=isinstance(parts, MemoryParts)
        )
        clock = asyncio.get_running_loop().time

        async def send(part: SendablePart, in_flight: int) -> None:
            started = clock()
            async with part:
                await part.send(upload, lambda sent: self._report(sent, size))
                self._emit("part", part.part.size)
            # Not after a failure: no further part may be sent then.
            window.sent(part.part.size, clock() - started, in_flight)

        async with task_group() as group:
            part = first or await parts.next()
            while part is not None:
                try:
                    in_flight = await window.start()
                except BaseException:
                    await part.aclose()
                    raise
                group.start_soon(send, part, in_flight)
                part = await parts.next()

    async def _with_bucket(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await request()
        except BucketNotFoundError as error:
            await self._create_bucket(error)
        return await request()

    async def _check_stored(
        self, info: ObjectInfo, size: int, checksums: Mapping[str, str]
    ) -> None:
        self.checksums = checksums
        target = Location(backend=self._backend, bucket=self._bucket, key=self._key)
        await check_stored(target, info, size, checksums)

    def _report(self, size: int, total: int | None) -> None:
        self.sent_bytes += size
        if self._progress is not None:
            self._progress(self.sent_bytes, total)

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


async def check_stored(
    target: Location, info: ObjectInfo, size: int, checksums: Mapping[str, str]
) -> None:
    """Compare a stored object with the body that was sent. Delete it if it differs.

    Args:
        target: Where it was stored.
        info: The object as its backend reported it.
        size: The number of bytes that were sent.
        checksums: Their checksums.

    Raises:
        IntegrityError: The backend stored other bytes.
    """
    try:
        compare_stored(checksums, size, info)
    except IntegrityError as error:
        backend, bucket, key = target.backend, target.bucket, target.key
        error.located(operation="put", backend=backend.name, bucket=bucket, key=key)
        if backend.capabilities.delete_if_match and info.etag is not None:
            with shielded(), suppress(TroveError):  # this put has stored a corrupt object
                await backend.driver.delete(bucket, key, DeleteOptions(if_match=info.etag))
        raise


def _effective_capabilities(capabilities: Capabilities, options: PutOptions) -> Capabilities:
    """Return the capabilities, without multipart uploads if these would drop an option."""
    honours_conditions = capabilities.commit_conditions or not options.conditional
    if honours_conditions and (capabilities.upload_tags or not options.tags):
        return capabilities
    # The limits on parts do not apply to a put in one request.
    return replace(capabilities, upload=False, min_part=1, part_multiple=1, uneven_parts=False)
