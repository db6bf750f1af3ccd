"""Bodies are shown to inspectors, and are stored only if every inspector has seen them to their end."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.fakes import IMMEDIATE_RETRIES, Fake, assert_idle, content, small_pool
from trove_async import (
    BodyConsumedError,
    BufferPool,
    ContentBlockedError,
    IntegrityError,
    NotSupportedError,
    ObjectNotFoundError,
    Scope,
    TimedOutError,
    Timeout,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._engine.inspecting import Inspectors
from trove_async._engine.sources import Replayable, source_of
from trove_async.middleware import ObjectContext
from trove_async.middlewares.compression import Compression
from trove_async.middlewares.encryption import Encryption
from trove_async.middlewares.keys import Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trove_async.middleware import Inspecting, Inspector, Middleware

OLD = content(300 * KiB, "old")
NEW = content(2 * MiB + 300 * KiB, "new")
SMALL = NEW[: 10 * KiB]

SIZES = [0, 1, 1000, MiB - 1, MiB, MiB + 1, 2 * MiB - 1, 2 * MiB, 2 * MiB + 1, len(NEW)]
"""Sizes around the borders of parts, which have 1 MiB."""


ENCODINGS: dict[str, list[Middleware]] = {
    "plain": [],
    "compressed": [Compression()],
    "encrypted": [Encryption(Keyring({"key": bytes(range(32))}, current="key"))],
}

ENCODED = pytest.mark.parametrize("encoding", ENCODINGS)


# -- inspectors --------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """Inspects bodies, records what it receives, and runs a function at each call.

    Attributes:
        at: Called with the name of a call (``"inspector"``, ``"update"``, ``"finish"``, ``"aclose"``)
            after it was recorded.
        calls: The names of all calls.
        contexts: The contexts of the bodies.
        pieces: What the updates received.
        log: A list that also receives the names of the calls.
    """

    at: Callable[[str], Awaitable[None]] | None = None
    calls: list[str] = field(default_factory=list)
    contexts: list[ObjectContext] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    log: list[str] | None = None

    async def inspector(self, context: ObjectContext) -> Inspector:
        self.contexts.append(context)
        await self.record("inspector")
        return RecordingInspector(self)

    async def record(self, call: str) -> None:
        self.calls.append(call)
        if self.log is not None:
            self.log.append(call)
        if self.at is not None:
            await self.at(call)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def assert_saw(self, body: bytes) -> None:
        """Assert that one body was inspected from its start to its end."""
        assert self.body == body
        assert all(type(piece) is bytes and 0 < len(piece) <= MiB for piece in self.pieces)
        updates = ["update"] * len(self.pieces)
        assert self.calls == ["inspector", *updates, "finish", "aclose"]


@dataclass
class RecordingInspector:
    recorder: Recorder

    async def update(self, data: bytes) -> None:
        self.recorder.pieces.append(data)
        await self.recorder.record("update")

    async def finish(self) -> None:
        await self.recorder.record("finish")

    async def aclose(self) -> None:
        await self.recorder.record("aclose")


class Blocking(Recorder):
    """Blocks a body when its byte at `position` has arrived."""

    def __init__(self, position: int) -> None:
        super().__init__(at=self._block)
        self.position = position

    async def _block(self, call: str) -> None:
        if call == "update" and len(self.body) > self.position:
            raise ContentBlockedError(f"byte {self.position} is not allowed")


class Hanging(Recorder):
    """Hangs at one of its calls.

    Attributes:
        reached: Set when that call was made.
    """

    def __init__(self, number: int) -> None:
        super().__init__(at=self._hang)
        self.number = number
        self.reached = asyncio.Event()

    async def _hang(self, _call: str) -> None:
        if len(self.calls) - 1 == self.number:
            self.reached.set()
            await asyncio.Event().wait()


def raising(call: str, error: Exception) -> Recorder:
    """Return an inspection that raises an error at a call."""

    async def at(current: str) -> None:
        if current == call:
            raise error

    return Recorder(at=at)


def store_of(
    fake: Fake,
    *middleware: Middleware | Inspecting | tuple[Middleware | Inspecting, Scope],
    pool: BufferPool | None = None,
    timeout: Timeout | None = None,
) -> AbstractAsyncContextManager[Trove]:
    """Return a store. It must have a bucket ``bucket``: see `prepare`."""
    return Trove(
        fake,
        middleware=middleware,
        pool=pool or small_pool(),
        retry=IMMEDIATE_RETRIES,
        timeout=timeout,
    )


async def prepare(fake: Fake) -> None:
    """Store the old object, without an inspection."""
    async with Trove(fake) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", OLD)
    fake.steps.clear()


async def assert_only_old_is_stored(fake: Fake) -> None:
    assert fake.stored_keys("bucket") == ["key"]
    async with Trove(fake) as store:
        assert await store.read("bucket", "key") == OLD


# -- bodies ------------------------------------------------------------------------------------------


async def chunks(body: bytes, size: int = 100_001) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        await asyncio.sleep(0)
        yield body[at : at + size]


def blocking_chunks(body: bytes) -> Iterator[bytes]:
    yield b""
    yield from (body[at : at + 100_001] for at in range(0, len(body), 100_001))


class Reader:
    """An async reader that may return fewer bytes than requested."""

    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    async def read(self, n: int) -> bytes:
        return self._file.read(min(n, 100_001))


def path_of(body: bytes, directory: Path) -> Path:
    path = directory / "body"
    path.write_bytes(body)
    return path


def file_of(body: bytes, directory: Path) -> io.BufferedIOBase:
    return io.BufferedReader(io.FileIO(path_of(body, directory)))


BODIES: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda body, _: body,
    "bytearray": lambda body, _: bytearray(body),
    "memoryview": lambda body, _: memoryview(body),
    "BytesIO": lambda body, _: io.BytesIO(body),
    "path": path_of,
    "file": file_of,
    "reader": lambda body, _: Reader(body),
    "async generator": lambda body, _: chunks(body),
    "one chunk": lambda body, _: chunks(body, 10 * MiB),
    "generator": lambda body, _: blocking_chunks(body),
    "list": lambda body, _: [body[: len(body) // 2], b"", body[len(body) // 2 :]],
}

KINDS = pytest.mark.parametrize("kind", BODIES)


@KINDS
@pytest.mark.parametrize("size", SIZES)
@ENCODED
async def test_every_byte_is_inspected_once_in_order(
    kind: str, size: int, encoding: str, tmp_path: Path
) -> None:
    fake, recorder, second = Fake(), Recorder(), Recorder()
    await prepare(fake)
    body = NEW[:size]
    async with store_of(fake, recorder, *ENCODINGS[encoding], second) as store:
        given = BODIES[kind](body, tmp_path)
        info = await store.put("bucket", "key", given)
        recorder.assert_saw(body)
        second.assert_saw(body)
        assert info.size == size
        assert await store.read("bucket", "key") == body
        assert_idle(store, fake)
    if isinstance(given, io.BufferedReader):
        given.close()


@pytest.mark.parametrize("size", SIZES)
async def test_body_of_a_declared_size_is_inspected_once(size: int) -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        await store.put("bucket", "key", chunks(NEW[:size]), size=size)
        recorder.assert_saw(NEW[:size])
        assert [context.size for context in recorder.contexts] == [size]
        assert await store.read("bucket", "key") == NEW[:size]


@pytest.mark.parametrize("opened", [False, True])
async def test_object_that_is_put_again_is_inspected(*, opened: bool) -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        if opened:
            async with store.get("bucket", "key") as reader:
                await store.put("bucket", "again", reader)
        else:
            await store.put("bucket", "again", store.get("bucket", "key"))
        recorder.assert_saw(OLD)
        assert await store.read("bucket", "again") == OLD
        assert_idle(store, fake)


async def test_spilled_body_is_inspected() -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        with await store.pool.lease(2 * MiB):
            await store.put("bucket", "key", chunks(NEW))
        recorder.assert_saw(NEW)
        assert await store.read("bucket", "key") == NEW
        assert_idle(store, fake)


async def test_body_without_uploads_is_inspected_before_it_is_sent() -> None:
    fake, recorder = Fake(upload=False), Recorder()
    recorder.log = fake.steps
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        await store.put("bucket", "key", chunks(NEW))
        recorder.assert_saw(NEW)
        assert fake.steps[-3:] == ["aclose", "put", "put.done"]


async def test_context_describes_the_object() -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        await store.put("bucket", "a", SMALL, content_type="Text/CSV; charset=utf-8")
        await store.put("bucket", "b.png", chunks(SMALL))
        await store.put("bucket", "c", chunks(b""), content_type="")
    assert recorder.contexts == [
        ObjectContext(
            bucket="bucket",
            key="a",
            backend="default",
            content_type="text/csv",
            size=len(SMALL),
        ),
        ObjectContext(bucket="bucket", key="b.png", backend="default", content_type="image/png"),
        ObjectContext(bucket="bucket", key="c", backend="default"),
    ]


async def test_changes_of_a_chunk_during_its_inspection_are_not_stored() -> None:
    chunk = bytearray(b"clean" * 1000)

    async def change(call: str) -> None:
        if call == "update":
            chunk[:] = b"virus" * 1000

    async def body() -> AsyncIterator[bytearray]:
        yield chunk

    fake, recorder = Fake(), Recorder(at=change)
    await prepare(fake)
    async with store_of(fake, recorder, (Compression(), Scope.keys("*.txt"))) as store:
        for key in ("key", "key.txt"):
            chunk[:] = b"clean" * 1000
            await store.put("bucket", key, body())
            assert await store.read("bucket", key) == b"clean" * 1000
        chunk[:] = b"clean" * 1000
        with await store.pool.lease(2 * MiB):
            await store.put("bucket", "spilled", body())
        assert await store.read("bucket", "spilled") == b"clean" * 1000


# -- the end of the body -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, MiB - 1, MiB, MiB + 1, 2 * MiB, len(NEW)])
@pytest.mark.parametrize("declared", [False, True])
@ENCODED
async def test_last_part_is_sent_after_the_inspection_has_finished(
    size: int, encoding: str, *, declared: bool
) -> None:
    fake, recorder = Fake(), Recorder()
    recorder.log = fake.steps
    await prepare(fake)
    async with store_of(fake, *ENCODINGS[encoding], recorder) as store:
        body = chunks(NEW[:size])
        await store.put("bucket", "key", body, size=size if declared else None)
    last_request = max(at for at, step in enumerate(fake.steps) if step in {"put", "send"})
    assert fake.steps.index("aclose") < last_request
    if encoding == "plain":
        assert fake.count("put") + fake.count("send") == -(-size // MiB)


async def test_first_parts_are_sent_during_the_inspection() -> None:
    fake, recorder = Fake(), Recorder()
    recorder.log = fake.steps
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        await store.put("bucket", "key", chunks(NEW))
    assert fake.steps.index("send.done") < fake.steps.index("finish")


# -- blocked bodies ----------------------------------------------------------------------------------

POSITIONS = {"first": 0, "middle": MiB + 17, "last": len(NEW) - 1}


@KINDS
@pytest.mark.parametrize("where", POSITIONS)
@ENCODED
@pytest.mark.parametrize("key", ["key", "new"])
async def test_blocked_body_is_not_stored(
    kind: str, where: str, encoding: str, key: str, tmp_path: Path
) -> None:
    fake, blocking, other = Fake(), Blocking(POSITIONS[where]), Recorder()
    await prepare(fake)
    async with store_of(fake, *ENCODINGS[encoding], other, blocking) as store:
        body = BODIES[kind](NEW, tmp_path)
        with pytest.raises(ContentBlockedError) as caught:
            await store.put("bucket", key, body)
        assert caught.value.message == f"byte {POSITIONS[where]} is not allowed"
        assert (caught.value.operation, caught.value.backend) == ("put", "default")
        assert (caught.value.bucket, caught.value.key) == ("bucket", key)
        assert_idle(store, fake)
        for recorder in (blocking, other):
            assert recorder.calls.count("aclose") == 1
            assert recorder.calls[-1] == "aclose"
            assert "finish" not in recorder.calls
        assert fake.count("put") == fake.count("commit") == 0
    await assert_only_old_is_stored(fake)
    if isinstance(body, (io.BytesIO, io.BufferedReader)):
        assert body.tell() == 0, "not set back to its start"
        body.close()


@KINDS
@pytest.mark.parametrize("call", ["inspector", "finish", "aclose"])
@pytest.mark.parametrize("size", [0, 1000, 2 * MiB, len(NEW)])
async def test_error_outside_of_updates_prevents_the_put(
    kind: str, call: str, size: int, tmp_path: Path
) -> None:
    error = ContentBlockedError("not allowed")
    fake, failing, other = Fake(), raising(call, error), Recorder()
    await prepare(fake)
    async with store_of(fake, other, failing) as store:
        body = BODIES[kind](NEW[:size], tmp_path)
        with pytest.raises(ContentBlockedError) as caught:
            await store.put("bucket", "key", body)
        assert caught.value is error
        assert_idle(store, fake)
        assert other.calls.count("aclose") == 1
        assert failing.calls.count("aclose") == (0 if call == "inspector" else 1)
        assert fake.count("put") == fake.count("commit") == 0
    await assert_only_old_is_stored(fake)
    if isinstance(body, io.BufferedReader):
        body.close()


async def test_spilled_body_that_is_blocked_leaves_no_file() -> None:
    fake, blocking = Fake(), Blocking(len(NEW) - 1)
    await prepare(fake)
    async with store_of(fake, blocking) as store:
        with await store.pool.lease(2 * MiB):
            with pytest.raises(ContentBlockedError):
                await store.put("bucket", "key", chunks(NEW))
            assert store.pool.statistics().spilled == 0
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


@pytest.mark.parametrize("call", ["inspector", "update", "finish", "aclose"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("bug"), KeyError("bug"), ExceptionGroup("bugs", [ValueError("bug")])]
)
async def test_other_exceptions_are_raised_unchanged(
    call: str, error: Exception, *, streamed: bool
) -> None:
    fake, failing = Fake(), raising(call, error)
    await prepare(fake)
    async with store_of(fake, failing) as store:
        with pytest.raises(type(error)) as caught:
            await store.put("bucket", "key", chunks(NEW) if streamed else NEW)
        assert caught.value is error
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


async def test_error_of_aclose_does_not_replace_the_first_error() -> None:
    async def fail(call: str) -> None:
        if call == "update":
            raise ContentBlockedError("not allowed")
        if call == "aclose":
            raise ValueError("the connection was lost")

    fake, failing, other = Fake(), Recorder(at=fail), Recorder()
    await prepare(fake)
    async with store_of(fake, other, failing) as store:
        for body in (NEW, chunks(NEW)):
            with pytest.raises(ContentBlockedError, match="not allowed"):
                await store.put("bucket", "key", body)
        assert other.calls.count("aclose") == failing.calls.count("aclose") == 2


async def test_later_inspections_do_not_see_what_an_earlier_one_blocks() -> None:
    fake, blocking, other = Fake(), Blocking(0), Recorder()
    await prepare(fake)
    async with store_of(fake, blocking, other) as store:
        with pytest.raises(ContentBlockedError):
            await store.put("bucket", "key", chunks(NEW))
    assert other.calls == ["inspector", "aclose"]


async def test_generator_of_a_blocked_body_is_closed_and_cannot_be_put_again() -> None:
    fake, blocking = Fake(), Blocking(MiB)
    await prepare(fake)
    closed = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield NEW
        finally:
            closed = True

    async with store_of(fake, blocking) as store:
        generator = body()
        with pytest.raises(ContentBlockedError):
            await store.put("bucket", "key", generator)
        assert closed
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "key", generator)


@pytest.mark.parametrize("size", [len(NEW) - 1, len(NEW) + 1])
@pytest.mark.parametrize("streamed", [False, True])
async def test_body_of_a_wrong_size_is_not_stored(size: int, *, streamed: bool) -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        with pytest.raises(IntegrityError, match="bytes as declared"):
            await store.put("bucket", "key", chunks(NEW) if streamed else NEW, size=size)
        assert recorder.calls.count("aclose") == 1
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


async def test_error_of_the_body_closes_the_inspector_without_finishing_it() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield NEW
        raise ValueError("the body broke off")

    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        with pytest.raises(ValueError, match="broke off"):
            await store.put("bucket", "key", body())
        assert recorder.calls[-1] == "aclose"
        assert "finish" not in recorder.calls
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


# -- retries and failing puts --------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["put", "put.done", "upload", "send", "send.done", "commit"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_retried_requests_are_inspected_once(step: str, *, streamed: bool) -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    body = SMALL if step.startswith("put") else NEW
    fake.fail(step, UnavailableError("busy"), UnavailableError("busy"))
    async with store_of(fake, recorder) as store:
        await store.put("bucket", "key", chunks(body) if streamed else body)
        recorder.assert_saw(body)
        assert await store.read("bucket", "key") == body


async def test_failing_put_closes_the_inspector() -> None:
    fake, recorder = Fake(), Recorder()
    await prepare(fake)
    fake.fail("upload", ValueError("bug"))
    async with store_of(fake, recorder) as store:
        with pytest.raises(ValueError, match="bug"):
            await store.put("bucket", "key", chunks(NEW), size=len(NEW))
        assert recorder.calls == ["inspector", "aclose"]
        assert_idle(store, fake)


# -- cancels -------------------------------------------------------------------------------------------


@pytest.mark.idle_time
@pytest.mark.parametrize("streamed", [False, True])
@ENCODED
async def test_cancel_where_an_inspector_hangs_leaves_nothing(
    encoding: str, *, streamed: bool
) -> None:
    fake = Fake()
    await prepare(fake)
    hang_at = 0
    while True:
        recorder, other = Hanging(hang_at), Recorder()
        async with store_of(fake, other, recorder, *ENCODINGS[encoding]) as store:
            body = chunks(NEW, 1_000_000) if streamed else NEW
            task = OwnedTask(store.put("bucket", "key", body))
            waiting = OwnedTask(recorder.reached.wait())
            await asyncio.wait([task._task, waiting._task], return_when="FIRST_COMPLETED")
            finished = task.done
            await waiting.aclose()
            await task.aclose()
            assert_idle(store, fake)
            if finished:
                assert (await task.result()).size == len(NEW)
                break
        created = recorder.calls.count("inspector") if hang_at else 0
        assert recorder.calls.count("aclose") == created
        assert other.calls.count("aclose") == 1
        await assert_only_old_is_stored(fake)
        hang_at += 1
    recorder.assert_saw(NEW)
    assert hang_at == len(recorder.calls) >= 6


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancel_after_a_number_of_loop_iterations_leaves_nothing(*, streamed: bool) -> None:
    async def wait(_call: str) -> None:
        await asyncio.sleep(0)

    fake = Fake()
    await prepare(fake)
    finished, steps = False, 0
    while not finished:
        recorder = Recorder(at=wait)
        async with store_of(fake, recorder) as store:
            task = OwnedTask(store.put("bucket", "key", chunks(NEW, 500_000) if streamed else NEW))
            for _ in range(steps):
                await asyncio.sleep(0)
                if task.done:
                    break
            finished = task.done
            await task.aclose()
            assert_idle(store, fake)
            assert recorder.calls.count("aclose") <= 1
            if recorder.calls not in ([], ["inspector"]):
                assert recorder.calls.count("aclose") == 1
            stored = await store.read("bucket", "key")
            assert stored in {OLD, NEW}
            if stored == NEW:
                recorder.assert_saw(NEW)
                await store.put("bucket", "key", OLD)
        steps += 1


async def test_aclose_completes_in_a_cancelled_scope() -> None:
    closed = False

    async def at(call: str) -> None:
        nonlocal closed
        if call == "update":
            scope.cancel()
            await asyncio.sleep(0)
        if call == "aclose":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            closed = True

    fake = Fake()
    await prepare(fake)
    async with store_of(fake, Recorder(at=at)) as store:
        for body in (NEW, chunks(NEW)):
            closed = False
            with anyio.CancelScope() as scope:
                await store.put("bucket", "key", body)
            assert scope.cancelled_caught
            assert closed
            assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


@pytest.mark.idle_time
async def test_cancelled_aclose_does_not_keep_other_inspectors_open() -> None:
    reached = asyncio.Event()

    async def hang(call: str) -> None:
        if call == "aclose":
            reached.set()
            await asyncio.Event().wait()

    fake, first, hanging = Fake(), Recorder(), Recorder(at=hang)
    await prepare(fake)
    async with store_of(fake, first, hanging) as store:
        task = asyncio.get_running_loop().create_task(store.put("bucket", "key", NEW))
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert first.calls.count("aclose") == hanging.calls.count("aclose") == 1
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


async def test_hanging_inspector_ends_at_the_deadline_of_the_put() -> None:
    async def hang(call: str) -> None:
        if call == "update":
            await asyncio.Event().wait()

    fake, recorder = Fake(), Recorder(at=hang)
    await prepare(fake)
    async with store_of(fake, recorder, timeout=Timeout(total=0.05)) as store:
        with pytest.raises(TimedOutError, match="put did not finish"):
            await store.put("bucket", "key", chunks(NEW))
        assert recorder.calls == ["inspector", "update", "aclose"]
        assert_idle(store, fake)
    await assert_only_old_is_stored(fake)


# -- memory and permits --------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [1000, len(NEW)])
async def test_inspector_may_use_the_store_while_connections_and_memory_are_scarce(
    size: int, *, streamed: bool
) -> None:
    # One write at a time, and memory for two parts: a permit that is held here would be a deadlock.
    fake = Fake(parallel_parts=1, max_connections=1)
    await prepare(fake)

    async def audit(call: str) -> None:
        await store.put("bucket", f"audit/{call}", chunks(NEW))
        assert await store.read("bucket", f"audit/{call}") == NEW

    inspected = (
        Recorder(at=audit),
        Scope.keys("*"),
    )  # which does not match the "/" of an audit's key
    async with store_of(fake, inspected) as store:
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                body = chunks(NEW[:size]) if streamed else NEW[:size]
                group.create_task(store.put("bucket", f"key-{number}", body))
        for number in range(4):
            assert await store.read("bucket", f"key-{number}") == NEW[:size]
        assert_idle(store, fake)


@pytest.mark.parametrize("max_size", [2, 4, 8])
async def test_concurrent_inspected_uploads_share_a_small_pool(max_size: int) -> None:
    async def wait(_call: str) -> None:
        await asyncio.sleep(0)

    fake, recorder = Fake(), Recorder(at=wait)
    await prepare(fake)
    pool = BufferPool(max_size * MiB, MiB, spill_after=0.02)
    async with store_of(fake, Compression(), recorder, pool=pool) as store:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(store.put("bucket", f"key-{number}", chunks(NEW)))
        for number in range(8):
            assert await store.read("bucket", f"key-{number}") == NEW
        assert pool.statistics().peak <= max_size * MiB
        assert_idle(store, fake)


async def test_file_is_not_read_again_for_parts_larger_than_half_of_the_pool(
    tmp_path: Path,
) -> None:
    fake, recorder = Fake(min_part=2 * MiB, streamed_parts=True), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder) as store:
        with pytest.raises(NotSupportedError, match="BufferPool") as caught:
            await store.put("bucket", "key", path_of(NEW, tmp_path), size=len(NEW))
        assert "a path" not in caught.value.message
        assert_idle(store, fake)
    async with store_of(fake, recorder, pool=BufferPool(8 * MiB, MiB)) as store:
        recorder.calls.clear()
        await store.put("bucket", "key", path_of(NEW, tmp_path), size=len(NEW))
        recorder.assert_saw(NEW)


async def test_inspected_source_is_not_replayable(tmp_path: Path) -> None:
    source = source_of(path_of(NEW, tmp_path))
    assert isinstance(source, Replayable)
    context = ObjectContext(bucket="bucket", key="key", backend="default")
    async with Inspectors([], context, source, None) as inspectors:
        inspected = await inspectors.inspected()
        assert not isinstance(inspected, Replayable)
        assert await inspected.ready()
        assert inspected.size == len(NEW)
        await inspected.aclose()
        await inspected.rewind()


# -- what is inspected ---------------------------------------------------------------------------------


async def test_scopes_decide_which_bodies_are_inspected() -> None:
    fake, text, large = Fake(), Recorder(), Recorder()
    await prepare(fake)
    scopes = Scope.content_types("text/*"), Scope.when(lambda _bucket, key: key.startswith("large"))
    async with store_of(fake, (text, scopes[0]), (large, scopes[1])) as store:
        for key in ("a.txt", "large.txt", "large.png", "b.png"):
            await store.put("bucket", key, SMALL)
    assert [context.key for context in text.contexts] == ["a.txt", "large.txt"]
    assert [context.key for context in large.contexts] == ["large.txt", "large.png"]


async def test_copies_moves_and_reads_are_not_inspected() -> None:
    fake, recorder = Fake(server_copy=False), Recorder()
    await prepare(fake)
    async with store_of(fake, recorder, (Compression(), Scope.keys("*.txt"))) as store:
        await store.copy("bucket", "key", "bucket", "copy")
        await store.copy("bucket", "key", "bucket", "encoded.txt")
        await store.move("bucket", "copy", "bucket", "moved")
        assert await store.read("bucket", "moved") == OLD
        assert await store.read("bucket", "encoded.txt") == OLD
    assert recorder.calls == []


async def test_object_may_be_a_middleware_and_an_inspection() -> None:
    class Both(Compression):
        def __init__(self) -> None:
            super().__init__()
            self.recorder = Recorder()
            self.inspector = self.recorder.inspector

    fake, both = Fake(), Both()
    await prepare(fake)
    async with store_of(fake, both) as store:
        info = await store.put("bucket", "key", chunks(bytes(MiB)))
        assert info.stored_size < info.size
        assert (await store.explain("bucket", "key")).middleware == (repr(both),)
    both.recorder.assert_saw(bytes(MiB))


async def test_explain_lists_inspections_and_middlewares_in_order() -> None:
    fake = Fake()
    first, second = Recorder(), Recorder()
    async with store_of(fake, first, Compression(), (second, Scope.keys("*.txt"))) as store:
        middleware = (await store.explain("bucket", "a.txt")).middleware
        assert middleware == (repr(first), "Compression()", repr(second))
        assert (await store.explain("bucket", "a")).middleware == (repr(first), "Compression()")


async def test_inspection_refuses_presigned_puts_only() -> None:
    class Presigning(Fake):
        async def presign(self, method: str, *_: object) -> str:
            return f"https://example.com/{method}"

    fake = Presigning(presign=True)
    await prepare(fake)
    scoped = Recorder(), Scope.keys("*.txt")
    async with store_of(fake, scoped) as store:
        assert await store.presign_get("bucket", "key.txt") == "https://example.com/GET"
        assert await store.presign_put("bucket", "key") == "https://example.com/PUT"
        with pytest.raises(NotSupportedError, match=r"bypass .*Recorder"):
            await store.presign_put("bucket", "key.txt")


@pytest.mark.parametrize("wrong", [Recorder, object(), (Recorder(), "*"), (Recorder(),)])
def test_wrong_item_is_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an item of middleware must be"):
        Trove("mem://", middleware=[wrong])


def test_inspection_without_a_list_is_rejected() -> None:
    with pytest.raises(TypeError, match="middleware must be a list"):
        Trove("mem://", middleware=Recorder())  # type: ignore[arg-type]  # tested at run time


async def test_missing_object_stays_missing_after_a_blocked_put() -> None:
    fake = Fake()
    await prepare(fake)
    async with store_of(fake, Blocking(0)) as store:
        with pytest.raises(ContentBlockedError):
            await store.put("bucket", "new", SMALL)
        with pytest.raises(ObjectNotFoundError):
            await store.head("bucket", "new")
