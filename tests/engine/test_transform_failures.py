"""Middlewares that fail or take long: cancelled reads, readers closed meanwhile, and exceptions."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    IntegrityError,
    ObjectNotFoundError,
    StreamError,
)
from trove_async._concurrency import OwnedTask
from trove_async._engine.block_workers import BlockWorkers
from trove_async._engine.encoding import encode_source
from trove_async._engine.sources import source_of
from trove_async.middleware import ObjectContext, Plan
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trove_async import ObjectReader
    from trove_async._engine.sources import Source
    from trove_async.middleware import Middleware, Record, Span

RING = Keyring({"key": bytes(range(32))})
BODY = content(MiB + 200 * KiB).hex().encode()  # compresses to a half

STACKS: dict[str, Sequence[Middleware]] = {
    "aes": [Encryption(RING)],
    "aes of small segments": [Encryption(RING, segment_size=64 * KiB)],
    "zstd": [Compression(frame_size=512 * KiB)],
    "both": [Compression(frame_size=512 * KiB), Encryption(RING)],
}


class Inverting:
    """Inverts the bits of blocks, and calls a function in each `encode` and `decode`.

    Args:
        block_size: The size of a block.
        during_encode: Called with the number of the block.
        during_decode: Called with the number of the block.
        name: The name.
    """

    required = False

    def __init__(
        self,
        block_size: int = 512 * KiB,
        *,
        during_encode: Callable[[int], None] = lambda _: None,
        during_decode: Callable[[int], None] = lambda _: None,
        name: str = "inverting",
    ) -> None:
        self.name = name
        self.block = block_size
        self.during_encode = during_encode
        self.during_decode = during_decode
        self.encoded_blocks: Counter[int] = Counter()

    async def encoder(self, context: ObjectContext) -> _Encoder | None:
        del context
        return _Encoder(self)

    def decoded_size(self, record: Record, encoded_size: int) -> int:
        del record
        return encoded_size

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> _Decoder:
        del context, record
        return _Decoder(self, encoded_size)

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        del context, renamed
        return record is not None


def inverted(data: bytes | memoryview) -> bytes:
    return bytes(data).translate(bytes(range(255, -1, -1)))


class _Encoder:
    header = b""

    def __init__(self, middleware: Inverting) -> None:
        self._middleware = middleware

    def block_size(self, index: int) -> int:
        del index
        return self._middleware.block

    def encoded_size(self, size: int) -> int:
        return size

    def encode(self, index: int, block: memoryview, *, last: bool) -> bytes:
        del last
        self._middleware.encoded_blocks[index] += 1
        self._middleware.during_encode(index)
        return inverted(block)

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        del encoded_sizes, size
        return b""

    def record(self, size: int | None) -> Record:
        del size
        return {}


class _Decoder:
    header = b""
    index: Span | None = None

    def __init__(self, middleware: Inverting, size: int) -> None:
        self._middleware = middleware
        self.size = size

    def load_index(self, data: bytes) -> None:
        raise NotImplementedError

    def plan(self, start: int, end: int) -> Plan:
        block = self._middleware.block
        first, last = start // block, (end - 1) // block
        return Plan(first, (first * block, min((last + 1) * block, self.size)), start % block)

    @property
    def block_count(self) -> int:
        return max(1, -(-self.size // self._middleware.block))

    def encoded_block_size(self, index: int, data: memoryview) -> int:
        del data
        return min(self._middleware.block, self.size - index * self._middleware.block)

    def decode(self, index: int, data: memoryview) -> bytes:
        self._middleware.during_decode(index)
        return inverted(data)

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        del encoded_sizes
        return b""


class Gate:
    """Holds threads until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.waiting = 0
        self._loop = asyncio.get_running_loop()
        self._opened = threading.Event()

    def wait(self, _: int = 0) -> None:
        """Wait in a thread until the gate is opened."""
        self._loop.call_soon_threadsafe(self._arrive)
        self._opened.wait()

    def _arrive(self) -> None:
        self.waiting += 1
        self.reached.set()

    def open(self) -> None:
        self._opened.set()


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100 * KiB):
        yield body[at : at + 100 * KiB]


async def read_to_end(reader: ObjectReader, size: int = MiB) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


# -- cancelled reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [(0, None), (70_000, len(BODY) - 5)])
@pytest.mark.parametrize("stack", STACKS)
async def test_read_cancelled_at_any_step_can_be_continued(
    stack: str, bounds: tuple[int, int | None]
) -> None:
    fake = Fake()
    async with store_of(fake, middleware=STACKS[stack], pool=BufferPool(16 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        for steps in [*range(12), 20, 40, 100]:
            pieces = []
            async with store.get("bucket", "key", range=bounds) as obj:
                while obj.remaining:
                    read = OwnedTask(obj.read(300 * KiB))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    await read.aclose()
                    try:
                        pieces.append(await read.result())
                    except ClosedError:
                        pieces.append(await obj.read(300 * KiB))
            assert b"".join(pieces) == BODY[slice(*bounds)]
        assert_idle(store, fake)


async def test_read_cancelled_while_a_thread_decodes_can_be_continued() -> None:
    gate = Gate()
    fake = Fake()
    middleware = Inverting(during_decode=gate.wait)
    async with store_of(fake, middleware=[middleware]) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            read = asyncio.get_running_loop().create_task(obj.read(MiB))
            await gate.reached.wait()
            read.cancel()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await read
            assert await read_to_end(obj) == BODY
        assert_idle(store, fake)


# -- readers that are closed or dropped --------------------------------------------------------------


async def test_reader_closed_while_a_thread_decodes_ends_its_read() -> None:
    gate = Gate()
    fake = Fake()
    async with store_of(fake, middleware=[Inverting(during_decode=gate.wait)]) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        read = OwnedTask(obj.read(MiB))
        await gate.reached.wait()
        close = OwnedTask(obj.aclose())
        await asyncio.sleep(0)
        gate.open()
        await close.result()
        with pytest.raises(ClosedError):
            await read.result()
        with pytest.raises(ClosedError):
            await obj.read(1)
        assert_idle(store, fake)


async def test_reader_closed_while_its_read_waits_for_a_response_ends_its_read() -> None:
    fake = Fake()
    async with store_of(fake, middleware=[Inverting()]) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        assert await obj.read(1) == BODY[:1]
        await asyncio.sleep(0)
        released = asyncio.Event()
        fake.before["read"] = released.wait
        fake.before["read.done"] = released.wait
        read = OwnedTask(read_to_end(obj))
        while fake.steps[-1] != "read":
            await asyncio.sleep(0)
        close = OwnedTask(obj.aclose())
        await asyncio.sleep(0)
        released.set()
        await close.result()
        with pytest.raises(ClosedError):
            await read.result()
        assert_idle(store, fake)


@pytest.mark.parametrize("stack", STACKS)
async def test_second_read_of_a_reader_is_refused_while_the_first_one_runs(stack: str) -> None:
    fake = Fake()
    async with store_of(fake, middleware=STACKS[stack]) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            reached = fake.hang("read")
            first = OwnedTask(obj.read(10))
            await reached.wait()
            with pytest.raises(StreamError, match="another task is reading"):
                await obj.read(10)
            fake.before.clear()
            await first.aclose()
            assert await read_to_end(obj) == BODY


async def test_close_cancelled_repeatedly_while_threads_decode_releases_every_worker() -> None:
    gate = Gate()
    fake = Fake()
    lower = Inverting(name="lower", during_decode=lambda index: gate.wait() if index else None)
    upper = Inverting(name="upper", during_decode=gate.wait)
    async with store_of(fake, middleware=[upper, lower], pool=BufferPool(16 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        read = asyncio.get_running_loop().create_task(obj.read(MiB))
        await gate.reached.wait()
        close = asyncio.get_running_loop().create_task(obj.aclose())
        for _ in range(5):
            await asyncio.sleep(0)
            read.cancel()
            close.cancel()
        gate.open()
        await asyncio.wait([read, close])
        assert read.cancelled()
        assert close.cancelled()
        assert_idle(store, fake)


@pytest.mark.parametrize("stack", STACKS)
async def test_reader_that_is_dropped_unclosed_releases_everything(stack: str) -> None:
    fake = Fake()
    async with store_of(fake, middleware=STACKS[stack]) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        assert await obj.read(10) == BODY[:10]
        with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031 - one drop
            del obj
            gc.collect()
        while fake.open_readers or not_idle(store):
            await asyncio.sleep(0)
        assert_idle(store, fake)


def not_idle(store: Any) -> bool:
    try:
        assert_idle(store)
    except AssertionError:
        return True
    return False


async def test_idle_reader_of_small_blocks_keeps_no_worker_of_others() -> None:
    fake = Fake()
    async with store_of(fake, middleware=STACKS["aes of small segments"]) as store:
        await store.put("bucket", "key", BODY)
        spare = store._core.transforms.workers
        free = spare.free
        async with store.get("bucket", "key") as obj:
            for _ in range(10):
                assert await obj.read(10_000)
                assert spare.free == free
        assert_idle(store, fake)


# -- cancelled puts ----------------------------------------------------------------------------------


async def test_put_cancelled_repeatedly_while_threads_encode_releases_every_worker() -> None:
    gate = Gate()
    fake = Fake()

    def wait(index: int) -> None:
        if index > 0:
            gate.wait()

    lower = Inverting(during_encode=wait, name="lower")
    upper = Inverting(during_encode=wait, name="upper")
    pool = BufferPool(16 * MiB)
    async with store_of(fake, middleware=[upper, lower], pool=pool) as store:
        before = asyncio.all_tasks()
        put = asyncio.get_running_loop().create_task(store.put("bucket", "key", chunks(BODY)))
        await gate.reached.wait()
        for _ in range(5):
            put.cancel()
            await asyncio.sleep(0)
        gate.open()
        await asyncio.wait([put])
        assert put.cancelled()
        assert asyncio.all_tasks() == before
        assert_idle(store, fake)
        assert not await store.exists("bucket", "key")


async def test_encoded_source_whose_close_is_cancelled_closes_every_stage() -> None:
    gate, spare = Gate(), BlockWorkers(8)
    # As many jobs wait as there are threads, up to two of the lower stage and one of the upper stage.
    upper = Inverting(name="upper", during_encode=lambda index: gate.wait() if index > 3 else None)
    lower = Inverting(name="lower", during_encode=lambda index: gate.wait() if index > 0 else None)
    context = ObjectContext(bucket="bucket", key="key", backend="default")
    encoded = await encode_source(source_of(BODY), None, [upper, lower], context, spare)
    assert encoded is not None
    read = asyncio.get_running_loop().create_task(drain(encoded))
    while gate.waiting < min(3, os.cpu_count() or 1):
        await asyncio.sleep(0)
    read.cancel()
    close = asyncio.get_running_loop().create_task(encoded.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
        close.cancel()
    gate.open()
    await asyncio.wait([read, close])
    assert close.cancelled()
    assert spare.free == 8
    await spare.aclose()


async def drain(source: Source) -> None:
    while await source.ready():
        await source.take(MiB)


# -- exceptions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [64 * KiB, 512 * KiB], ids=["on the loop", "in threads"])
@pytest.mark.parametrize("block", [0, 1, 2, 3])
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("no"), MemoryError("no")])
async def test_exception_of_an_encoder_ends_the_put_cleanly(
    block_size: int, block: int, error: Exception, *, above: bool
) -> None:
    def fail(index: int) -> None:
        if index == block:
            raise error

    fake = Fake()
    failing = Inverting(block_size, during_encode=fail)
    other = Encryption(RING, segment_size=64 * KiB)
    middleware: list[Middleware] = [other, failing] if above else [failing, other]
    async with store_of(fake, middleware=middleware) as store:
        for body in (BODY, chunks(BODY)):
            with pytest.raises(type(error)) as caught:
                await store.put("bucket", "key", body)
            assert caught.value is error
            assert_idle(store, fake)
        with pytest.raises(ObjectNotFoundError):
            await store.head("bucket", "key")


async def test_impossible_size_of_an_encoded_block_allocates_no_memory() -> None:
    class Broken(Inverting):
        async def decoder(
            self, context: ObjectContext, record: Record, encoded_size: int
        ) -> _Decoder:
            decoder = await super().decoder(context, record, encoded_size)
            decoder.encoded_block_size = lambda *_: 1 << 50  # type: ignore[method-assign]
            return decoder

    middleware: list[Middleware] = [Broken(64 * KiB), Encryption(RING)]
    async with store_of(Fake(), middleware=middleware) as store:
        await store.put("bucket", "key", BODY)
        for part in (None, (5, 10)):
            with pytest.raises(IntegrityError, match="not possible"):
                await store.read("bucket", "key", range=part)


@pytest.mark.parametrize("block_size", [64 * KiB, 512 * KiB], ids=["on the loop", "in threads"])
@pytest.mark.parametrize("block", [0, 1, 2, 3])
async def test_exception_of_a_decoder_is_raised_by_every_further_read(
    block_size: int, block: int
) -> None:
    def fail(index: int) -> None:
        if index == block:
            raise ValueError("a bug")

    fake = Fake()
    middleware = Inverting(block_size, during_decode=fail)
    async with store_of(fake, middleware=[middleware]) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            received = b""
            with pytest.raises(IntegrityError, match="decode raised ValueError"):
                while piece := await obj.read(100_000):
                    received += piece
            assert received == BODY[: len(received)]
            assert len(received) <= block * block_size
            for _ in range(3):
                with pytest.raises(IntegrityError, match="decode raised ValueError"):
                    await obj.read(1)
        assert_idle(store, fake)


async def test_every_block_is_encoded_once_although_requests_are_retried() -> None:
    fake = Fake()
    middleware = Inverting()
    async with store_of(fake, middleware=[middleware]) as store:
        for body in (BODY, chunks(BODY)):
            middleware.encoded_blocks.clear()
            fake.fail("send", times=3)
            fake.fail("send.done")
            fake.fail("upload")
            await store.put("bucket", "key", body)
            assert middleware.encoded_blocks == dict.fromkeys(range(5), 1)
            assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


# -- connections -------------------------------------------------------------------------------------


async def test_gets_of_streamed_compressed_objects_need_one_connection_each() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake, middleware=[Compression(frame_size=64 * KiB)]) as store:
        await store.put("bucket", "key", chunks(BODY))
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(store.read("bucket", "key")) for _ in range(5)]
        assert [read.result() for read in reads] == [BODY] * 5
        assert_idle(store, fake)
