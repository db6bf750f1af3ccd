"""A backend in memory that fails, hangs and returns wrong data on demand, and logs its steps.

`Fake` is `trove_async.testing.Faulty` around memory, so it has the faults of the public API: a call
fails or hangs, a body breaks, ends early or has a wrong byte. It also counts *steps*: each call is
one step before its work (``put``) and one after it (``put.done``). A test can hang at the n-th step
and cancel there, for each step of a transfer in turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from trove_async import BufferPool, ObjectInfo, Prefix, RetryPolicy, Timeout, Trove
from trove_async._checksums import crc32c_of
from trove_async.drivers.memory import MemoryDriver
from trove_async.models import MiB
from trove_async.options import Page, PutOptions
from trove_async.paging import common_prefix
from trove_async.testing import Call as DriverCall
from trove_async.testing import Faulty, Hang, _harness
from trove_async.testing.faults import Flaw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trove_async.driver import AsyncDriver, DriverReader, PartSource, ReadsInto, Upload
    from trove_async.middleware import Middleware
    from trove_async.options import CopyOptions, GetOptions, ListOptions, Part
    from trove_async.scope import Scope
    from trove_async.testing import Operation

IMMEDIATE_RETRIES = RetryPolicy(base_delay=0.0)
NO_RETRIES = RetryPolicy(attempts=1)

content = cache(_harness.content)
"""Return `size` pseudorandom bytes, different for every seed."""


# -- stores -------------------------------------------------------------------------------------------


def small_pool(**options: Any) -> BufferPool:
    """Return a pool of two slots, each of which holds one part."""
    return BufferPool(2 * MiB, 1 * MiB, **{"spill_after": 0.02, **options})


@asynccontextmanager
async def store_of(
    *drivers: AsyncDriver,
    pool: BufferPool | None = None,
    retry: RetryPolicy = IMMEDIATE_RETRIES,
    timeout: Timeout | None = None,
    middleware: Sequence[Middleware | tuple[Middleware, Scope]] = (),
) -> AsyncIterator[Trove]:
    """Open a store of one or two drivers with the bucket ``bucket``. Keys ``b/*`` go to the second."""
    default, *more = drivers
    async with Trove(
        default,
        backends=dict(zip(["b"], more, strict=False)),
        routes=[("b/*", "b")] if more else (),
        pool=pool or small_pool(),
        retry=retry,
        timeout=timeout,
        middleware=middleware,
    ) as store:
        await store.create_bucket("bucket", exist_ok=True, backends="all")
        yield store


def single_attempt_store(default: AsyncDriver | None = None, **arguments: Any) -> Trove:
    """Return a store, not yet open, that does not retry."""
    return Trove(default or CallLog(), **{"retry": NO_RETRIES, **arguments})


async def fill(driver: AsyncDriver, bucket: str, *keys: str) -> None:
    """Put objects directly into a driver, without a store. The body of each is its key."""
    if bucket not in [info.name for info in await driver.list_buckets()]:
        await driver.create_bucket(bucket)
    for key in keys:
        await driver.put(bucket, key, [memoryview(key.encode())], PutOptions())


def assert_idle(store: Trove, *fakes: Fake) -> None:
    """Assert that the store holds no buffer, spill file, reader, upload, permit or spare worker."""
    spare = store._core.transforms.workers
    assert spare.free == (os.cpu_count() or 1) + 1, spare.free
    statistics = store.pool.statistics()
    assert (statistics.leased, statistics.waiting, statistics.spilled) == (0, 0, 0), statistics
    for fake in fakes:
        assert (fake.open_readers, fake.open_uploads, fake.calls_under_way) == (0, 0, 0), fake.steps
    backends = store._core.backends
    for name in store._core.names:
        leaf = cast("Any", backends[name].driver)
        for permits, limit in (
            (leaf.calls.read_permits, leaf.capabilities.max_reads),
            (leaf.calls.write_permits, leaf.capabilities.max_writes),
            (leaf.calls.request_permits, leaf.capabilities.max_requests),
        ):
            assert permits.waiting == 0
            assert limit is None or permits.free == limit


# -- drivers ------------------------------------------------------------------------------------------


class _Memory(MemoryDriver):
    """The memory inside a `Fake`, with the steps that `Faulty` does not have.

    They are: exiting a get or an upload, `readinto`, and reading a piece of a streamed part.
    """

    change_info: Callable[[ObjectInfo], ObjectInfo]
    step: Callable[[str], Awaitable[None]]
    _readinto: bool

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return self.change_info(await super().put(bucket, key, views, options))

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        return self.change_info(
            await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
        )

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        return _Get(self, super().get(bucket, key, options))

    def upload(self, bucket: str, key: str, options: PutOptions) -> Any:
        return _Upload(self, super().upload(bucket, key, options))


class Fake(Faulty, _Memory):
    """A memory driver with faults on demand, which logs its steps.

    Args:
        parallel_parts: See `MemoryDriver`.
        max_connections: See `MemoryDriver`.
        readinto: Whether readers have `readinto`.
        capabilities: Fields of `Capabilities` that differ from those of memory.

    Attributes:
        steps: All steps so far.
        hang_at: The index of the step that hangs until it is cancelled. An exit hangs only for 20 ms.
        reached: Set when the step `hang_at` is reached.
        calls_under_way: The number of calls that are at a step now.
        before: Async functions by step, called at that step.
        cuts: Positions at which the body of a get breaks, each once.
        shorts: Positions at which the body of a get ends early, each once.
        flips: Positions at which a byte of a get is wrong, every time.
        change_info: Changes the `ObjectInfo` that put, copy and commit return.
        pages: The options of every page that was listed.
    """

    def __init__(
        self,
        *,
        parallel_parts: int = 4,
        max_connections: int | None = None,
        readinto: bool = False,
        **capabilities: Any,
    ) -> None:
        # Faulty's methods run first and call memory's methods on the same object, so that a test's
        # subclass may override either.
        Faulty.__init__(self, cast("AsyncDriver", super(Faulty, self)))
        _Memory.__init__(self, parallel_parts=parallel_parts, max_connections=max_connections)
        self._capabilities = replace(self._capabilities, **capabilities)
        self._readinto = readinto
        self.steps: list[str] = []
        self.hang_at: int | None = None
        self.reached = asyncio.Event()
        self._never: asyncio.Future[None] | None = None
        self.calls_under_way = 0
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.cuts: list[int] = []
        self.shorts: list[int] = []
        self.flips: list[int] = []
        self.change_info = lambda info: info
        self.pages: list[ListOptions] = []

    def fail(  # type: ignore[override]  # several errors in one call, and steps for operations
        self, step: str, *errors: Exception, **options: Any
    ) -> None:
        """Make the next passes through a step raise these errors, in order.

        Args:
            step: An operation, or an operation with ``.done`` for the time after its work.
            errors: The errors. If there are none: one UnavailableError.
            options: See `Faults.fail`.
        """
        operation, when = _parse(step)
        for error in errors or (None,):
            super().fail(operation, error, **{"when": when, **options})

    def hang(  # type: ignore[override]  # every pass hangs, until the step is removed from `before`
        self, step: str
    ) -> asyncio.Event:
        """Make every pass through a step hang. Return an event that the first pass sets."""
        hang = Hang()
        self.before[step] = hang.wait
        return hang.reached

    def count(self, step: str) -> int:
        """Return how many times a step was passed."""
        return self.steps.count(step)

    def flaws(self, call: DriverCall) -> Iterator[Flaw]:
        """Iterate over the flaws of a body, including those in `cuts`, `shorts` and `flips`."""
        yield from super().flaws(call)
        for kind, positions in (("cut", self.cuts), ("short", self.shorts), ("flip", self.flips)):
            for at in list(positions):
                yield _ListedFlaw(
                    kind=cast("Any", kind),
                    bucket=None,
                    key=call.key or "",
                    at=at,
                    times=None,
                    positions=positions,
                )

    async def begin(self, call: DriverCall) -> None:
        self.record(call)
        await self.step(call.operation, call)

    async def end(self, call: DriverCall) -> None:
        await self.step(f"{call.operation}.done", call)

    def record(self, call: DriverCall) -> None:
        """Add a call to the log."""
        self.calls.append(call)

    async def step(self, name: str, call: DriverCall | None = None) -> None:
        """Pass a step: log it, then hang, call its function in `before`, or fail."""
        self.steps.append(name)
        self.calls_under_way += 1
        try:
            if len(self.steps) - 1 == self.hang_at:
                self.reached.set()
                self._never = self._never or asyncio.get_running_loop().create_future()
                # The store awaits an exit under a shield, so an exit that hangs would end
                # only at the shield's deadline.
                timeout = 0.02 if name.endswith(".exit") else None
                await asyncio.wait([self._never], timeout=timeout)
            if name in self.before:
                await self.before[name]()
            operation, when = _parse(name)
            await self._inject(when, call or DriverCall(operation))
        finally:
            self.calls_under_way -= 1

    def place(self, bucket: str, key: str) -> tuple[object, str, str]:
        return MemoryDriver.place(self, bucket, key)

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        return super().get(bucket, key, options)

    def upload(self, bucket: str, key: str, options: PutOptions) -> Any:
        return super().upload(bucket, key, options)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        self.pages.append(options)
        return await super().list_page(bucket, options)

    def stored_keys(self, bucket: str) -> list[str]:
        """Return the keys in the bucket, without a step."""
        return sorted(self._buckets[bucket].objects) if bucket in self._buckets else []

    def corrupt(self, bucket: str, key: str, body: bytes) -> None:
        """Replace the bytes of an object and leave its checksum."""
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(chunks=(body,))


def _parse(step: str) -> tuple[Operation, Any]:
    """Return the operation of a step, and whether the step is before or after its work."""
    operation = step.removesuffix(".done")
    return cast("Operation", operation), "before" if operation == step else "after"


@dataclass(slots=True, kw_only=True)
class _ListedFlaw(Flaw):
    """A flaw from `Fake.cuts`, `shorts` or `flips`."""

    positions: list[int]

    def count_use(self) -> None:
        if self.kind != "flip":
            self.positions.remove(self.at)


class CallLog(Fake):
    """A `Fake` that logs the names of its calls and whose failures persist.

    Attributes:
        calls: The names of the driver's methods, in the order of the calls.
    """

    calls: list[str]  # type: ignore[assignment]  # names only, to compare with a literal list

    def record(self, call: DriverCall) -> None:
        if call.operation not in {"read", "send", "commit"}:  # methods of readers and uploads
            self.calls.append(call.operation)

    def fail(  # type: ignore[override]  # one error, for every call
        self, method: str, error: Exception, *, after: int = 0
    ) -> None:
        """Make every call of a method raise the error, after the first `after` calls."""

        async def fail() -> None:
            nonlocal after
            if after == 0:
                raise error
            after -= 1

        self.before[method] = fail

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        return self._get(bucket, key, options)

    def _get(self, bucket: str, key: str, options: GetOptions) -> Any:
        return super().get(bucket, key, options)

    async def aclose(self) -> None:
        self.calls.append("aclose")
        await self.step("aclose")
        await super().aclose()


class WithoutEtags(Fake):
    """A service whose only validator is the date of an object."""

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        info = replace(super()._store(bucket, key, chunks, checksum, options), etag=None)
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(info=info)
        return info


class Unordered(CallLog):
    """Memory that lists keys in the order of their hashes.

    A token is the number of entries on the pages before.
    """

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(ordered=False, **capabilities)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        self.pages.append(options)
        await self.begin(DriverCall("list_page", bucket))
        entries: dict[str, ObjectInfo | Prefix] = {}
        for key, stored in self._bucket(bucket).objects.items():
            if key.startswith(options.prefix) and key > (options.start_after or ""):
                common = common_prefix(key, options)
                if common is None:
                    entries[key] = stored.info
                else:
                    entries[common] = Prefix(bucket=bucket, prefix=common)
        keys = sorted(entries, key=lambda key: hashlib.sha256(key.encode()).digest())
        start = int(options.token or 0)
        end = start + options.limit
        return Page(
            entries=[entries[key] for key in keys[start:end]],
            token=str(end) if end < len(keys) else None,
        )


class Sparse(CallLog):
    """Memory whose pages have only names, sizes, etags and dates, like the pages of S3."""

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        return replace(page, entries=[self._sparse(entry) for entry in page.entries])

    def _sparse(self, entry: ObjectInfo | Prefix) -> ObjectInfo | Prefix:
        if isinstance(entry, Prefix):
            return entry
        return ObjectInfo(
            bucket=entry.bucket,
            key=entry.key,
            size=entry.size,
            etag=entry.etag,
            last_modified=entry.last_modified,
            complete=False,
        )


# -- inside memory ------------------------------------------------------------------------------------


class _Get:
    """A get whose exit is a step."""

    def __init__(self, memory: _Memory, inner: AbstractAsyncContextManager[DriverReader]) -> None:
        self._memory = memory
        self._inner = inner

    async def __aenter__(self) -> DriverReader:
        reader = await self._inner.__aenter__()
        return (_ReadIntoReader if self._memory._readinto else _Reader)(self._memory, reader)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._memory.step("get.exit")
        await self._inner.__aexit__(kind, error, traceback)


class _Reader:
    """A reader without `readinto`, which memory's own reader has."""

    def __init__(self, memory: _Memory, inner: DriverReader) -> None:
        self._memory = memory
        self._inner = inner
        self.info = inner.info
        self.range = inner.range
        self.read = inner.read


class _ReadIntoReader(_Reader):
    """A reader with `readinto`, which has a step before its work and one after it."""

    async def readinto(self, buffer: memoryview) -> int:
        await self._memory.step("readinto")
        count = await cast("ReadsInto", self._inner).readinto(buffer)
        await self._memory.step("readinto.done")
        return count


class _Upload:
    """An upload whose exit is a step, and that accepts streamed parts."""

    def __init__(self, memory: _Memory, inner: AbstractAsyncContextManager[Upload]) -> None:
        self._memory = memory
        self._inner = inner

    async def __aenter__(self) -> Self:
        self._upload: Upload = await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._memory.step("upload.exit")
        await self._inner.__aexit__(kind, error, traceback)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        assert part.checksums in ({}, {"crc32c": crc32c_of(views)})
        await self._upload.send(part, views)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        pieces: list[memoryview] = []
        async with source.pieces() as stream:
            async for piece in stream:
                await self._memory.step("piece")
                pieces.append(memoryview(bytes(piece)))
        assert sum(map(len, pieces)) == part.size == source.size
        assert source.checksums == {"crc32c": crc32c_of(pieces)}
        await self._upload.send(part, pieces)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        return self._memory.change_info(await self._upload.commit(checksums))


# -- calls of a store, and the steps that they pass ----------------------------------------------------

LARGE = content(2 * MiB + 17)
"""A body of more than one part."""

Call: TypeAlias = "tuple[str, Callable[[Trove], Awaitable[object]]]"
"""A driver's step, and a call of a store that passes it."""

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


async def prepare_calls(store: Trove, fake: Fake) -> None:
    """Create the object and the bucket that `CALLS` need, and clear the log of steps."""
    await store.put("bucket", "key", b"body")
    await store.create_bucket("empty")
    fake.steps.clear()
