"""A backend in memory that the engine's tests can stop, break and watch at each of its steps."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from trove_async import BufferPool, RetryPolicy, Timeout, Trove
from trove_async._checksums import crc32c_of
from trove_async.drivers.memory import MemoryDriver
from trove_async.errors import UnavailableError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trove_async.driver import AsyncDriver, DriverReader, PartSource, ReadsInto, Upload
    from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
    from trove_async.options import (
        CopyOptions,
        DeleteOptions,
        GetOptions,
        ListOptions,
        Page,
        Part,
        PutOptions,
    )

AT_ONCE = RetryPolicy(base_delay=0.0)
"""Retries that do not pause."""


@cache
def content(size: int, seed: str = "") -> bytes:
    """Return bytes that no shift of themselves looks like."""
    return hashlib.shake_128(seed.encode()).digest(size)


def small_pool(**options: Any) -> BufferPool:
    """Return a pool of two slots, one of which is a part."""
    return BufferPool(2 * MiB, 1 * MiB, **{"spill_after": 0.02, **options})


@asynccontextmanager
async def store_of(
    *drivers: AsyncDriver,
    pool: BufferPool | None = None,
    retry: RetryPolicy = AT_ONCE,
    timeout: Timeout | None = None,
) -> AsyncIterator[Trove]:
    """Open a store of up to two drivers, ``b/…`` routed to the second, with the bucket ``bucket``."""
    default, *more = drivers
    async with Trove(
        default,
        backends=dict(zip(["b"], more, strict=False)),
        routes=[("b/*", "b")] if more else (),
        pool=pool or small_pool(),
        retry=retry,
        timeout=timeout,
    ) as store:
        await store.create_bucket("bucket", exist_ok=True, backends="all")
        yield store


def assert_idle(store: Trove, *fakes: Fake) -> None:
    """Assert that nothing is held: no memory, no file, no connection, no permit."""
    figures = store.pool.statistics()
    assert (figures.leased, figures.waiting, figures.spilled) == (0, 0, 0), figures
    for fake in fakes:
        assert (fake.open_readers, fake.open_uploads, fake.calls_under_way) == (0, 0, 0), fake.steps
    backends = store._core.backends
    for name in store._core.names:
        leaf = cast("Any", backends[name].driver)
        for permits, limit in (
            (leaf.calls.reads, leaf.capabilities.max_reads),
            (leaf.calls.writes, leaf.capabilities.max_writes),
            (leaf.calls.requests, leaf.capabilities.max_requests),
        ):
            assert permits.waiting == 0
            assert limit is None or permits.free == limit


class Fake(MemoryDriver):
    """Memory each of whose calls is a step before it, and one after it: ``put``, ``put.done``.

    Args:
        parallel_parts: As of memory.
        max_connections: As of memory.
        readinto: Whether readers can fill memory.
        capabilities: Fields of `Capabilities` that differ from memory's.

    Attributes:
        steps: All steps so far.
        hang_at: The number of the step that hangs for ever.
        reached: Set when it is reached.
        open_readers: Gets that were entered and not left.
        open_uploads: Uploads that were entered and not left.
        calls_under_way: Puts, sends and commits that have begun and not ended.
        before: By step: called, and awaited, at that step.
        cuts: Absolute positions at which a body breaks, once each.
        shorts: Absolute positions at which a body ends early, once each.
        flips: Absolute positions at which a byte is wrong.
        lie: Changes what put and commit report.
    """

    def __init__(
        self,
        *,
        parallel_parts: int = 4,
        max_connections: int | None = None,
        readinto: bool = False,
        **capabilities: Any,
    ) -> None:
        super().__init__(parallel_parts=parallel_parts, max_connections=max_connections)
        self._capabilities = replace(self._capabilities, **capabilities)
        self._readinto = readinto
        self.steps: list[str] = []
        self.hang_at: int | None = None
        self.reached = asyncio.Event()
        self._never: asyncio.Future[None] = asyncio.Future()
        self.open_readers = self.open_uploads = self.calls_under_way = 0
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.cuts: list[int] = []
        self.shorts: list[int] = []
        self.flips: list[int] = []
        self.lie: Callable[[ObjectInfo], ObjectInfo] = lambda info: info
        self._failures: dict[str, list[Exception]] = {}

    def fail(self, step: str, *errors: Exception) -> None:
        """Let the next passes through a step raise these, in order; none: one that is passing."""
        queue = self._failures.setdefault(step, [])
        queue.extend(errors or (UnavailableError("as it was told"),))

    def hang(self, step: str) -> asyncio.Event:
        """Let every pass through a step wait; return an event that is set when one does."""
        reached = asyncio.Event()

        async def wait() -> None:
            reached.set()
            await asyncio.Event().wait()

        self.before[step] = wait
        return reached

    def count(self, step: str) -> int:
        """Return how often a step was passed."""
        return self.steps.count(step)

    async def step(self, name: str) -> None:
        """Pass a step."""
        self.steps.append(name)
        if len(self.steps) - 1 == self.hang_at:
            self.reached.set()
            # An exit is waited for under a shield: one that hangs longer is only left later.
            await asyncio.wait([self._never], timeout=0.02 if name.endswith(".exit") else None)
        if name in self.before:
            await self.before[name]()
        if self._failures.get(name):
            raise self._failures[name].pop(0)

    async def _around(self, name: str, work: Awaitable[Any]) -> Any:
        self.calls_under_way += 1
        try:
            await self.step(name)
        except BaseException:
            close = getattr(work, "close", None)
            if close is not None:
                close()  # a coroutine that is not to be awaited any more
            self.calls_under_way -= 1
            raise
        try:
            result = await work
            await self.step(f"{name}.done")
        finally:
            self.calls_under_way -= 1
        return result

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return self.lie(
            await self._around("put", super().put(bucket, key, views, options)),
        )

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        return cast("ObjectInfo", await self._around("head", super().head(bucket, key, version_id)))

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await self._around("delete", super().delete(bucket, key, options))

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        return cast("Page", await self._around("list_page", super().list_page(bucket, options)))

    async def create_bucket(self, bucket: str) -> None:
        await self._around("create_bucket", super().create_bucket(bucket))

    async def delete_bucket(self, bucket: str) -> None:
        await self._around("delete_bucket", super().delete_bucket(bucket))

    async def head_bucket(self, bucket: str) -> BucketInfo:
        return cast("BucketInfo", await self._around("head_bucket", super().head_bucket(bucket)))

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        work = super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
        return self.lie(await self._around("copy", work))

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        return cast(
            "Sequence[DeleteResult]",
            await self._around("delete_many", super().delete_many(bucket, keys)),
        )

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        return _Get(self, super().get(bucket, key, options), readinto=self._readinto)

    def upload(self, bucket: str, key: str, options: PutOptions) -> Any:
        return _FakeUpload(self, super().upload(bucket, key, options))


class Unvalidated(Fake):
    """A service that gives no etags, and dates only."""

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        info = replace(super()._store(bucket, key, chunks, checksum, options), etag=None)
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(info=info)
        return info


class _Get:
    """A get, counted."""

    def __init__(
        self, fake: Fake, inner: AbstractAsyncContextManager[DriverReader], *, readinto: bool
    ) -> None:
        self._fake = fake
        self._inner = inner
        self._kind = _FillingReader if readinto else _Reader

    async def __aenter__(self) -> DriverReader:
        reader = await self._fake._around("get", self._inner.__aenter__())
        self._fake.open_readers += 1
        return self._kind(self._fake, reader)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fake.open_readers -= 1
        await self._fake.step("get.exit")
        await self._inner.__aexit__(kind, error, traceback)


class _Reader:
    """A body that breaks where the fake says."""

    def __init__(self, fake: Fake, inner: DriverReader) -> None:
        self._fake = fake
        self._inner = inner
        self._at = inner.range[0]
        self.info = inner.info
        self.range = inner.range

    async def read(self, size: int) -> bytes:
        await self._fake.step("read")
        size = self._until_flaw(size)
        data = bytearray(await self._inner.read(size) if size else b"")
        await self._fake.step("read.done")
        self._spoil(data)
        return bytes(data)

    def _until_flaw(self, size: int) -> int:
        fake = self._fake
        for flaws in (fake.cuts, fake.shorts):
            for at in flaws:
                if at == self._at:
                    flaws.remove(at)
                    if flaws is fake.cuts:
                        raise UnavailableError(f"cut at {at}")
                    return 0
                if at > self._at:
                    size = min(size, at - self._at)
        return size

    def _spoil(self, data: bytearray | memoryview) -> None:
        for at in self._fake.flips:
            if self._at <= at < self._at + len(data):
                data[at - self._at] ^= 1
        self._at += len(data)


class _FillingReader(_Reader):
    """One that fills memory."""

    async def readinto(self, buffer: memoryview) -> int:
        await self._fake.step("readinto")
        size = self._until_flaw(len(buffer))
        count = await cast("ReadsInto", self._inner).readinto(buffer[:size]) if size else 0
        await self._fake.step("readinto.done")
        self._spoil(buffer[:count])
        return count


class _FakeUpload:
    """An upload, counted."""

    def __init__(self, fake: Fake, inner: AbstractAsyncContextManager[Upload]) -> None:
        self._fake = fake
        self._inner = inner

    async def __aenter__(self) -> Self:
        self._upload: Upload = await self._fake._around("upload", self._inner.__aenter__())
        self._fake.open_uploads += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fake.open_uploads -= 1
        await self._fake.step("upload.exit")
        await self._inner.__aexit__(kind, error, traceback)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        await self._fake._around("send", self._upload.send(part, views))

    async def send_stream(self, part: Part, source: PartSource) -> None:
        await self._fake._around("send", self._read(part, source))

    async def _read(self, part: Part, source: PartSource) -> None:
        read: list[memoryview] = []
        async with source.pieces() as pieces:
            async for piece in pieces:
                await self._fake.step("piece")
                read.append(memoryview(bytes(piece)))
        assert sum(map(len, read)) == part.size == source.size
        assert source.checksums == {"crc32c": crc32c_of(read)}
        await self._upload.send(part, read)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        return self._fake.lie(await self._fake._around("commit", self._upload.commit(checksums)))


LARGE = content(2 * MiB + 17)
"""A body of more than one part."""

Call: TypeAlias = "tuple[str, Callable[[Trove], Awaitable[object]]]"
"""The name of a driver's step, and a call of a store's that takes it."""

CALLS: dict[str, Call] = {
    "put": ("put", lambda store: store.put("bucket", "new", b"body")),
    "upload": ("upload", lambda store: store.put("bucket", "new", LARGE)),
    "send": ("send", lambda store: store.put("bucket", "new", LARGE)),
    "commit": ("commit", lambda store: store.put("bucket", "new", LARGE)),
    "get": ("get", lambda store: store.read("bucket", "key")),
    "read": ("read", lambda store: store.read("bucket", "key")),
    "head": ("head", lambda store: store.head("bucket", "key")),
    "delete": ("delete", lambda store: store.delete("bucket", "key")),
    "list": ("list_page", lambda store: store.list("bucket").all()),
    "copy": ("copy", lambda store: store.copy("bucket", "key", "bucket", "new")),
    "create_bucket": ("create_bucket", lambda store: store.create_bucket("other")),
    "delete_bucket": ("delete_bucket", lambda store: store.delete_bucket("empty")),
}


async def prepared(store: Trove, fake: Fake) -> None:
    await store.put("bucket", "key", b"body")
    await store.create_bucket("empty")
    fake.steps.clear()
