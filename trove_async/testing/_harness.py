"""Opening a driver as a store does, and calling it in one line: what the driver's suites share."""

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
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeVar, cast

from trove_async import _checksums
from trove_async._concurrency import OwnedTask
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    StreamedUpload,
    Upload,
    Uploading,
    Versioned,
)
from trove_async.errors import ClosedError
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
    """Open a driver as a store does, but bare: without retries, permits and timeouts around it.

    Leaving closes it and whatever it attached, the outermost first.

    Args:
        driver: A driver that is not open.
        pool: Memory for it; None: some of its own.
        events: Where it tells what happens; None: nobody listens.
        timeout: The limits that a network driver sets; None: the usual ones.
    """
    attached: list[AsyncDriver] = []

    async def attach(inner: AsyncDriver) -> AsyncDriver:
        if not any(one is inner for one in attached):
            attached.append(inner)
            try:
                await inner.open(context)
            except ClosedError:
                attached.remove(inner)  # it is another's, who goes on using it
                raise
        return inner

    context = DriverContext(
        backend="default",
        pool=pool or BufferPool(16 * MiB),
        events=events or Events(),
        timeout=timeout or Timeout(),
        attach=attach,
    )
    async with AsyncExitStack() as closing:
        try:
            await attach(driver)
        finally:
            for one in reversed(attached):
                closing.push_async_callback(one.aclose)
        yield driver


def content(size: int, seed: str = "") -> bytes:
    """Return bytes that no shift, no repetition and no other seed looks like."""
    return hashlib.shake_128(seed.encode()).digest(size)


def assert_same(got: bytes | bytearray, body: bytes) -> None:
    """Fail in one line unless two bodies are equal; a diff of megabytes would take minutes."""
    if got != body:
        at = next(
            (at for at, pair in enumerate(zip(got, body, strict=False)) if len({*pair}) > 1), None
        )
        where = (
            "one goes on where the other ends" if at is None else f"they differ from byte {at} on"
        )
        raise AssertionError(f"got {len(got)} bytes instead of {len(body)}: {where}")


def views(body: bytes, size: int = MiB) -> Sequence[memoryview]:
    """Cut a body as the store would: filled memory, none of it empty."""
    return [memoryview(body)[at : at + size] for at in range(0, len(body), size)]


def crc32c_of(body: bytes) -> str:
    """Return the body's CRC-32C as `ObjectInfo.checksums` writes it."""
    return _checksums.crc32c_of([body])


async def write(
    driver: AsyncDriver, bucket: str, key: str, body: bytes = b"body", **options: Any
) -> ObjectInfo:
    """Put a body, with the fields of `PutOptions` by name."""
    return await driver.put(bucket, key, views(body), PutOptions(**options))


async def read(
    driver: AsyncDriver, bucket: str, key: str, *, size: int = MiB, **options: Any
) -> bytes:
    """Get a body, in reads of `size`, with the fields of `GetOptions` by name."""
    async with driver.get(bucket, key, GetOptions(**options)) as reader:
        return await rest(reader, size)


async def rest(reader: DriverReader, size: int = MiB) -> bytes:
    """Read what a reader has left."""
    pieces = []
    while piece := await reader.read(size):
        assert len(piece) <= size, "read returned more than was asked for"
        pieces.append(piece)
    return b"".join(pieces)


async def delete(driver: AsyncDriver, bucket: str, key: str, **options: Any) -> None:
    """Delete an object, with the fields of `DeleteOptions` by name."""
    await driver.delete(bucket, key, DeleteOptions(**options))


async def listed(
    driver: AsyncDriver,
    bucket: str,
    *,
    between: Callable[[], Awaitable[object]] | None = None,
    **options: Any,
) -> list[ObjectInfo | Prefix]:
    """List a bucket to its end, with the fields of `ListOptions` by name.

    Args:
        driver: An open driver.
        bucket: What to list.
        between: Called after each page that is not the last.
        options: All but the token.
    """
    entries: list[ObjectInfo | Prefix] = []
    token = None
    while True:
        asked = ListOptions(token=token, **options)
        page = await driver.list_page(bucket, asked)
        assert len(page.entries) <= asked.limit, "a page has more entries than its limit"
        entries.extend(page.entries)
        if page.token is None:
            return entries
        assert page.entries, "a page with a token is empty"
        assert page.token != token, "a page's token leads to the same page again"
        token = page.token
        if between is not None:
            await between()


async def keys(driver: AsyncDriver, bucket: str, **options: Any) -> list[str]:
    """List a bucket's keys and prefixes."""
    return [entry.key for entry in await listed(driver, bucket, **options)]


def part_size(capabilities: Capabilities, least: int = 1000) -> int:
    """Return a small size, `least` or above, that a part which is not the last may have."""
    multiple = capabilities.part_multiple
    return -(-max(capabilities.min_part, least) // multiple) * multiple


def parts(body: bytes, size: int) -> list[tuple[Part, Sequence[memoryview]]]:
    """Cut a body into parts of `size`, numbered as the store does."""
    return [
        (
            Part(
                number=number,
                offset=at,
                size=len(piece := body[at : at + size]),
                last=at + size >= len(body),
            ),
            views(piece),
        )
        for number, at in enumerate(range(0, len(body), size), 1)
    ]


async def upload(
    driver: AsyncDriver,
    bucket: str,
    key: str,
    body: bytes,
    *,
    least: int = 1000,
    **options: Any,
) -> ObjectInfo:
    """Upload a body in its smallest parts, `least` or above, one by one, and commit."""
    async with uploading(driver).upload(bucket, key, PutOptions(**options)) as one:
        for part, piece in parts(body, part_size(driver.capabilities, least)):
            await one.send(part, piece)
        return await one.commit({})


def uploading(driver: AsyncDriver) -> Uploading:
    """Return the driver as what `Capabilities.upload` says it is."""
    return cast("Uploading", driver)


def streaming(upload: Upload) -> StreamedUpload:
    """Return an upload as what `Capabilities.streamed_parts` says it is."""
    return cast("StreamedUpload", upload)


class Source:
    """A `PartSource` of bytes, whose one window is filled anew for each piece.

    Args:
        body: What it gives.
        fails: Raised instead of the last piece.

    Attributes:
        open: How often it is open now.
        opened: How often it was opened.
    """

    def __init__(self, body: bytes, fails: Exception | None = None) -> None:
        self._body = body
        self._fails = fails
        self.size = len(body)
        self.checksums = {"crc32c": crc32c_of(body)}
        self.open = self.opened = 0

    async def digest(self, algorithm: str) -> str:
        """See `PartSource.digest`."""
        return hashlib.new(algorithm, self._body, usedforsecurity=False).hexdigest()

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[memoryview]]:
        """See `PartSource.pieces`."""
        self.open += 1
        self.opened += 1
        try:
            async with aclosing(self._pieces()) as pieces:
                yield pieces
        finally:
            self.open -= 1

    async def _pieces(self) -> AsyncGenerator[memoryview]:
        window = memoryview(bytearray(max(1, self.size // 3)))
        for at in range(0, self.size, len(window)):
            piece = self._body[at : at + len(window)]
            if self._fails is not None and at + len(piece) == self.size:
                raise self._fails
            await asyncio.sleep(0)
            window[: len(piece)] = piece
            yield window[: len(piece)]
            window[:] = bytes(len(window))


def copying(driver: AsyncDriver) -> Copying:
    """Return the driver as what `Capabilities.server_copy` says it is."""
    return cast("Copying", driver)


def versioned(driver: AsyncDriver) -> Versioned:
    """Return the driver as what `Capabilities.versions` says it is."""
    return cast("Versioned", driver)


async def versions(driver: AsyncDriver, bucket: str, **options: Any) -> list[VersionInfo]:
    """List a bucket's versions to their end, with the fields of `ListOptions` by name."""
    told: list[VersionInfo] = []
    token = None
    while True:
        asked = ListOptions(token=token, **options)
        page = await versioned(driver).version_page(bucket, asked)
        named = {version.key for version in page.entries}
        assert len(page.entries) <= asked.limit or len(named) == 1, "a page is over its limit"
        told.extend(page.entries)
        if page.token is None:
            return told
        assert page.entries, "a page with a token is empty"
        assert page.token != token, "a page's token leads to the same page again"
        token = page.token


def bulk_deleting(driver: AsyncDriver) -> BulkDeleting:
    """Return the driver as what `Capabilities.bulk_delete` says it is."""
    return cast("BulkDeleting", driver)


async def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Await something in a task of its own."""
    task = OwnedTask(work)
    try:
        return await task.result()
    finally:
        await task.aclose()


async def cancelled_everywhere(
    start: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], Awaitable[object]],
) -> None:
    """Cancel a call after 0, 1, 2, … steps of the loop, until it ends before its cancel.

    Far out, where a network's waiting is all there is, the steps grow by an eighth.

    Args:
        start: Makes the call anew.
        check: Asserts what must hold after each cancel.
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
            await task.result()
        await task.aclose()
        await check()
        steps += 1 + steps // 8
