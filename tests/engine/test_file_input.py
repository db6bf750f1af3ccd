"""Paths as bodies of encoded puts: threads read and encode a file, without the event loop in between."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.framed_middleware import Framed
from trove_async import BufferPool, Middleware, Trove
from trove_async._concurrency import in_thread, task_group
from trove_async._engine import block_workers
from trove_async._engine.body_file import BodyFile
from trove_async._engine.file_sources import PathSource
from trove_async.drivers import MemoryDriver
from trove_async.errors import IntegrityError
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

BODY = b"".join(b"%d\n" % number for number in range(1_000_000))[: 5 * MiB + 123]
DECLINING = "declined, then encryption"
KEYS = Keyring({"key": bytes(32)})
STACKS: dict[str, list[Middleware]] = {
    "compression": [Compression(frame_size=512 * KiB, min_size=0)],
    "small frames": [Compression(frame_size=4 * KiB, min_size=0)],
    "encryption": [Encryption(KEYS)],
    "small segments": [Encryption(KEYS, segment_size=64 * KiB)],
    "both": [Compression(min_size=0), Encryption(KEYS)],
    DECLINING: [Framed(declines=True), Encryption(KEYS)],
    "small blocks": [Framed(into=True)],
}


@asynccontextmanager
async def store_of(*middleware: Middleware) -> AsyncIterator[Trove]:
    pool = BufferPool(8 * MiB, 2 * MiB)
    async with Trove(MemoryDriver(), middleware=middleware, pool=pool) as store:
        await store.create_bucket("data")
        yield store


def file_of(folder: Path, body: bytes) -> Path:
    path = folder / "body"
    path.write_bytes(body)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_of(tmp_path, BODY)


@pytest.fixture
def separate_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the reads that the event loop awaits."""
    sizes: list[int] = []

    async def fill(*_: object) -> int:
        raise AssertionError("a path was read as a source")

    async def read(call: Any, offset: int, views: Sequence[memoryview]) -> None:
        sizes.append(sum(map(len, views)))
        await in_thread(call, offset, views)

    monkeypatch.setattr(PathSource, "fill", fill)
    monkeypatch.setattr("trove_async._engine.file_input.in_thread", read)
    return sizes


@pytest.mark.parametrize("size", [1, 100 * KiB, 256 * KiB + 1, MiB, 4 * MiB - 56, len(BODY)])
@pytest.mark.parametrize("stack", STACKS)
async def test_few_reads_of_a_file_return_to_the_event_loop(
    separate_reads: list[int], tmp_path: Path, stack: str, size: int
) -> None:
    path = file_of(tmp_path, BODY[:size])
    async with store_of(*STACKS[stack]) as store:
        assert (await store.put("data", "key", path)).size == size
        assert await store.read("data", "key") == BODY[:size]
    small = ("small frames", "small blocks", DECLINING)
    if stack in small:  # read ahead in larger pieces
        assert len(separate_reads) <= 2 + size // (256 * KiB)
    else:  # the first and the last block may be small
        assert len(separate_reads) <= 2
        assert sum(separate_reads) <= 2 * 256 * KiB


@pytest.mark.parametrize("stack", STACKS)
async def test_whole_file_is_stored(path: Path, stack: str) -> None:
    async with store_of(*STACKS[stack]) as store:
        await store.put("data", "key", path, size=len(BODY))
        assert await store.read("data", "key") == BODY


async def test_large_file_is_encrypted_in_few_thread_hops(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = 0
    start = block_workers.BlockWorkers.start_with_file

    def counting(self: block_workers.BlockWorkers, work: Any) -> Any:
        nonlocal hops
        hops += 1
        return start(self, work)

    monkeypatch.setattr(block_workers.BlockWorkers, "start_with_file", counting)
    async with store_of(*STACKS["small segments"]) as store:
        await store.put("data", "key", path)
    # The first block, one hop for each part of 2 MiB, and the block at each border of two parts.
    assert hops <= 1 + 3 + 3


@pytest.mark.parametrize("stack", ["compression", "encryption"])
@pytest.mark.parametrize("grows", [True, False], ids=["grows", "shrinks"])
async def test_file_that_changes_size_while_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, stack: str, grows: bool
) -> None:
    fill = BodyFile.fill

    def change_and_fill(self: BodyFile, offset: int, views: Sequence[memoryview]) -> None:
        if offset:
            with path.open("r+b") as file:
                file.truncate(2 * len(BODY) if grows else MiB)
        fill(self, offset, views)

    monkeypatch.setattr(BodyFile, "fill", change_and_fill)
    async with store_of(*STACKS[stack]) as store:
        if grows:  # a log, for example: the bytes that it had at first are stored
            await store.put("data", "key", path)
            assert await store.read("data", "key") == BODY
        else:
            with pytest.raises(IntegrityError, match="got only"):
                await store.put("data", "key", path)
            assert not await store.exists("data", "key")
        assert store.pool.statistics().leased == 0


async def test_wrong_declared_size_is_refused_before_a_file_is_encoded(path: Path) -> None:
    async with store_of(*STACKS["both"]) as store:
        with pytest.raises(IntegrityError, match="as declared"):
            await store.put("data", "key", path, size=len(BODY) - 1)
        assert not await store.exists("data", "key")


# -- slow files ------------------------------------------------------------------------------------


class SlowFile:
    """Makes every read of a body's file wait until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        self._reading = threading.Semaphore(0)
        self._released = threading.Semaphore(0)
        fill = BodyFile.fill

        def slow(file: BodyFile, offset: int, views: Sequence[memoryview]) -> None:
            self.reads += 1
            self._reading.release()
            self._released.acquire()
            fill(file, offset, views)

        monkeypatch.setattr(BodyFile, "fill", slow)

    def release(self, count: int = 1000) -> None:
        self._released.release(count)

    async def wait_until_reading(self, count: int = 1) -> None:
        for _ in range(count):
            await asyncio.to_thread(self._reading.acquire)


async def test_slow_files_do_not_delay_other_bodies(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_of(Compression(), Encryption(KEYS)) as store:
        await store.put("data", "other", BODY)
        slow, count = SlowFile(monkeypatch), os.cpu_count() or 1
        async with task_group() as group:
            for number in range(count):
                group.start_soon(store.put, "data", str(number), path)
            # As many threads wait for a file as there are threads for blocks.
            await slow.wait_until_reading(count)
            assert await store.read("data", "other") == BODY
            await store.put("data", "another", BODY)
            slow.release()
        assert await store.read("data", "0") == BODY


@pytest.mark.parametrize("stack", ["compression", "small segments", "both"])
@pytest.mark.parametrize("block", ["first", "later"])
async def test_cancelled_put_starts_no_further_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, stack: str, block: str
) -> None:
    async with store_of(*STACKS[stack]) as store:
        slow = SlowFile(monkeypatch)
        task = asyncio.get_running_loop().create_task(store.put("data", "key", path))
        await slow.wait_until_reading()
        if block == "later":
            slow.release(1)
            await slow.wait_until_reading()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()  # a thread still writes to its memory
        in_flight = (
            1 if stack == "small segments" or block == "first" else (os.cpu_count() or 1) + 2
        )
        slow.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.reads <= (block == "later") + in_flight
        assert not await store.exists("data", "key")
        assert store.pool.statistics().leased == 0
