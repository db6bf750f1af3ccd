"""Helpers shared by the suites: open and call a driver without a store, cancel at every step."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from trove_async import _checksums
from trove_async._concurrency import OwnedTask
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    DriverContext,
    DriverInUseError,
    DriverReader,
    StreamedUpload,
    Upload,
    Uploading,
    Versioned,
)
from trove_async.errors import BucketNotEmptyError
from trove_async.events import Events
from trove_async.models import MiB, ObjectInfo, Prefix, Timeout, VersionInfo
from trove_async.options import DeleteOptions, GetOptions, ListOptions, Part, PutOptions
from trove_async.pool import BufferPool

T = TypeVar("T")


@asynccontextmanager
async def opened(
    driver: AsyncDriver,
    *,
    pool: BufferPool | None = None,
    events: Events | None = None,
    timeout: Timeout | None = None,
) -> AsyncIterator[AsyncDriver]:
    """Open a driver as a store does, but without retries, permits and deadlines. Yield the driver.

    On exit, close first the driver and then the drivers that it attached.

    Args:
        driver: A driver that is not open.
        pool: Memory for the driver; None: a new pool of 16 MiB.
        events: Emits the driver's events; None: events without listeners.
        timeout: The timeouts that a network driver applies; None: the defaults.
    """
    attached: list[AsyncDriver] = []

    async def attach(inner: AsyncDriver) -> AsyncDriver:
        # Compared by identity, because drivers may define equality.
        if not any(other is inner for other in attached):
            attached.append(inner)
            try:
                await inner.open(context)
            except DriverInUseError:
                # Another store uses the driver, so it must not be closed here.
                attached[:] = [other for other in attached if other is not inner]
                raise
        return inner

    context = DriverContext(
        backend="default",
        pool=pool or BufferPool(16 * MiB),
        events=events or Events(),
        timeout=timeout or Timeout(),
        attach=attach,
    )
    async with AsyncExitStack() as stack:
        try:
            await attach(driver)
        finally:
            # A driver is closed even if its open failed, because it may have opened some of its
            # resources. The stack is last in, first out, so a layer is closed before the drivers
            # below it.
            for inner in reversed(attached):
                stack.push_async_callback(inner.aclose)
        yield driver


def content(size: int, seed: str = "") -> bytes:
    """Return `size` pseudorandom bytes, different for every seed.

    A body that was shifted, repeated or mixed with another body therefore never compares equal.
    """
    return hashlib.shake_128(seed.encode()).digest(size)


def assert_same(got: bytes | bytearray, expected: bytes) -> None:
    """Assert that two bodies are equal. pytest would take minutes to show a diff of megabytes."""
    if got != expected:
        pairs = enumerate(zip(got, expected, strict=False))
        offset = next((offset for offset, (left, right) in pairs if left != right), None)
        difference = "one is a prefix of the other" if offset is None else f"byte {offset} differs"
        raise AssertionError(f"expected {len(expected)} bytes, got {len(got)}: {difference}")


def views(body: bytes, size: int = MiB) -> Sequence[memoryview]:
    """Split a body into views of at most `size` bytes, as the store does. No view is empty."""
    return [memoryview(body)[start : start + size] for start in range(0, len(body), size)]


def crc32c_of(body: bytes) -> str:
    """Return the CRC-32C of a body in the notation of `ObjectInfo.checksums`."""
    return _checksums.crc32c_of([body])


async def write(
    driver: AsyncDriver, bucket: str, key: str, body: bytes = b"body", **options: Any
) -> ObjectInfo:
    """Put a body; `options` are fields of `PutOptions`."""
    return await driver.put(bucket, key, views(body), PutOptions(**options))


async def read(
    driver: AsyncDriver, bucket: str, key: str, *, size: int = MiB, **options: Any
) -> bytes:
    """Get a body in reads of `size` bytes; `options` are fields of `GetOptions`."""
    async with driver.get(bucket, key, GetOptions(**options)) as reader:
        return await read_to_end(reader, size)


async def read_to_end(reader: DriverReader, size: int = MiB) -> bytes:
    """Return the remaining bytes of a reader, in reads of `size` bytes."""
    pieces = []
    while piece := await reader.read(size):
        assert len(piece) <= size, f"read({size}) returned {len(piece)} bytes"
        pieces.append(piece)
    return b"".join(pieces)


async def delete(driver: AsyncDriver, bucket: str, key: str, **options: Any) -> None:
    """Delete an object; `options` are fields of `DeleteOptions`."""
    await driver.delete(bucket, key, DeleteOptions(**options))


async def repeat_while_not_empty(remove: Callable[[], Awaitable[None]]) -> None:
    """Remove a bucket and its objects, again if an object has appeared in between.

    A service may complete a write after its request was cancelled, which no test can wait for.
    """
    for _ in range(10):
        with suppress(BucketNotEmptyError):
            return await remove()
    return await remove()


async def list_all(
    driver: AsyncDriver,
    bucket: str,
    *,
    between: Callable[[], Awaitable[object]] | None = None,
    **options: Any,
) -> list[ObjectInfo | Prefix]:
    """List a bucket page by page, and assert that its pages and tokens are well-formed.

    Args:
        driver: An open driver.
        bucket: The bucket to list.
        between: Called after every page except the last.
        options: Fields of `ListOptions` except the token.
    """
    entries: list[ObjectInfo | Prefix] = []
    token = None
    while True:
        request = ListOptions(token=token, **options)
        page = await driver.list_page(bucket, request)
        assert len(page.entries) <= request.limit, "a page has more entries than its limit"
        entries.extend(page.entries)
        if page.token is None:
            return entries
        # Otherwise a store that lists to the end would loop forever.
        assert page.entries, "a page with a token is empty"
        assert page.token != token, "a page repeats the token that it was requested with"
        token = page.token
        if between is not None:
            await between()


async def keys(driver: AsyncDriver, bucket: str, **options: Any) -> list[str]:
    """List the keys and common prefixes of a bucket; `options` are those of `list_all`."""
    return [entry.key for entry in await list_all(driver, bucket, **options)]


def part_size(capabilities: Capabilities, minimum: int = 1000) -> int:
    """Return the smallest size of at least `minimum` bytes that a part before the last may have."""
    multiple = capabilities.part_multiple
    return -(-max(capabilities.min_part, minimum) // multiple) * multiple  # rounded up


def parts(body: bytes, size: int) -> list[tuple[Part, Sequence[memoryview]]]:
    """Split a body into parts of `size` bytes, with numbers and offsets as the store does.

    The last part may be shorter.
    """
    return [
        (
            Part(
                number=number,
                offset=offset,
                size=len(piece := body[offset : offset + size]),
                last=offset + size >= len(body),
            ),
            views(piece),
        )
        for number, offset in enumerate(range(0, len(body), size), 1)
    ]


async def upload(
    driver: AsyncDriver,
    bucket: str,
    key: str,
    body: bytes,
    *,
    min_part: int = 1000,
    **options: Any,
) -> ObjectInfo:
    """Upload a body in parts of at least `min_part` bytes, one after the other, and commit."""
    async with uploading(driver).upload(bucket, key, PutOptions(**options)) as running:
        for part, piece in parts(body, part_size(driver.capabilities, min_part)):
            await running.send(part, piece)
        return await running.commit({})


def uploading(driver: AsyncDriver) -> Uploading:
    """Cast a driver that claims `Capabilities.upload` to `Uploading`."""
    return cast("Uploading", driver)


def streaming(upload: Upload) -> StreamedUpload:
    """Cast an upload of a driver that claims `Capabilities.streamed_parts` to `StreamedUpload`."""
    return cast("StreamedUpload", upload)


class ReusingSource:
    """A `PartSource` that reuses one buffer for all of its pieces.

    The buffer is cleared after each piece, so a driver that keeps a piece instead of copying it
    stores wrong bytes.

    Args:
        body: The bytes of the part.
        error: Raised instead of yielding the last piece; None: all pieces are yielded.

    Attributes:
        open_count: The number of iterations that are open now.
        opened_count: The number of iterations that were opened so far.
    """

    def __init__(self, body: bytes, error: Exception | None = None) -> None:
        self._body = body
        self._error = error
        self.size = len(body)
        self.checksums = {"crc32c": crc32c_of(body)}
        self.open_count = self.opened_count = 0

    async def digest(self, algorithm: str) -> str:
        """See `PartSource.digest`."""
        return hashlib.new(algorithm, self._body, usedforsecurity=False).hexdigest()

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[memoryview]]:
        """See `PartSource.pieces`."""
        self.open_count += 1
        self.opened_count += 1
        try:
            async with aclosing(self._pieces()) as pieces:
                yield pieces
        finally:
            self.open_count -= 1

    async def _pieces(self) -> AsyncGenerator[memoryview]:
        # A third of the part, so that even a short part has several pieces.
        buffer = memoryview(bytearray(max(1, self.size // 3)))
        for start in range(0, self.size, len(buffer)):
            piece = self._body[start : start + len(buffer)]
            if self._error is not None and start + len(piece) == self.size:
                raise self._error
            await asyncio.sleep(0)
            buffer[: len(piece)] = piece
            yield buffer[: len(piece)]
            buffer[:] = bytes(len(buffer))


def copying(driver: AsyncDriver) -> Copying:
    """Cast a driver that claims `Capabilities.server_copy` to `Copying`."""
    return cast("Copying", driver)


def versioned(driver: AsyncDriver) -> Versioned:
    """Cast a driver that claims `Capabilities.versions` to `Versioned`."""
    return cast("Versioned", driver)


async def versions(driver: AsyncDriver, bucket: str, **options: Any) -> list[VersionInfo]:
    """List all versions in a bucket; `options` are fields of `ListOptions` except the token."""
    entries: list[VersionInfo] = []
    token = None
    while True:
        request = ListOptions(token=token, **options)
        page = await versioned(driver).version_page(bucket, request)
        page_keys = {version.key for version in page.entries}
        # A page may exceed the limit if all of it is one key: see `Versioned.version_page`.
        assert len(page.entries) <= request.limit or len(page_keys) == 1, (
            "a page has more entries than its limit"
        )
        entries.extend(page.entries)
        if page.token is None:
            return entries
        # Otherwise a store that lists to the end would loop forever.
        assert page.entries, "a page with a token is empty"
        assert page.token != token, "a page repeats the token that it was requested with"
        token = page.token


def bulk_deleting(driver: AsyncDriver) -> BulkDeleting:
    """Cast a driver that claims `Capabilities.bulk_delete` to `BulkDeleting`."""
    return cast("BulkDeleting", driver)


async def in_new_task(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a new task. A driver must not depend on the task that calls it."""
    task = OwnedTask(work)
    try:
        return await task.result()
    finally:
        await task.aclose()


async def cancel_at_every_step(
    start: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], Awaitable[object]],
) -> None:
    """Run a call again and again, each time cancelled later, until it ends before it is cancelled.

    The first runs are cancelled after 0, 1, 2, … 8 steps of the event loop. From then on, the number
    of steps grows by an eighth plus one, because a longer call mostly waits for the network.

    Args:
        start: Returns a new coroutine for the call.
        check: Called after each run, to assert what must hold.
    """
    steps = 0
    ended = False
    while not ended:
        task = OwnedTask(start())
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done:
                break
        ended = task.done
        if ended:
            await task.result()  # raises the error of a call that failed
        await task.aclose()  # cancels the call if it is still running
        await check()
        steps += 1 + steps // 8
