"""Paths as bodies of encoded puts: the threads that encode a file also read it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.framed_middleware import Framed
from trove_async import BufferPool, Middleware, Trove
from trove_async._engine import block_workers
from trove_async._engine.body_file import BodyFile
from trove_async._engine.file_sources import PathSource
from trove_async.drivers import MemoryDriver
from trove_async.errors import IntegrityError
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BODY = b"".join(b"%d\n" % number for number in range(1_000_000))[: 5 * MiB + 123]
DECLINING = "declined, then encryption"
KEYS = Keyring({"key": bytes(32)})
STACKS: dict[str, list[Middleware]] = {
    "compression": [Compression(frame_size=256 * KiB, min_size=0)],
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
def no_reads_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a put fail that awaits a thread only to read the file."""

    async def fill(*_: object) -> int:
        raise AssertionError("a block was read by a thread that does not encode it")

    monkeypatch.setattr(PathSource, "fill", fill)
    monkeypatch.setattr("trove_async._engine.file_input.in_thread", fill)


@pytest.mark.usefixtures("no_reads_on_their_own")
@pytest.mark.parametrize("size", [1, 100 * KiB, 256 * KiB + 1, MiB, 4 * MiB - 56, len(BODY)])
@pytest.mark.parametrize("stack", sorted(STACKS.keys() - {DECLINING}))
async def test_file_is_read_by_the_threads_that_encode_it(
    tmp_path: Path, stack: str, size: int
) -> None:
    path = file_of(tmp_path, BODY[:size])
    async with store_of(*STACKS[stack]) as store:
        assert (await store.put("data", "key", path)).size == size
        assert await store.read("data", "key") == BODY[:size]


@pytest.mark.parametrize("stack", STACKS)
async def test_whole_file_is_stored(path: Path, stack: str) -> None:
    async with store_of(*STACKS[stack]) as store:
        await store.put("data", "key", path, size=len(BODY))
        assert await store.read("data", "key") == BODY


async def test_large_file_is_encrypted_in_few_thread_hops(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = 0
    start = block_workers.BlockWorkers.start

    def counting(self: block_workers.BlockWorkers, work: Any) -> Any:
        nonlocal hops
        hops += 1
        return start(self, work)

    monkeypatch.setattr(block_workers.BlockWorkers, "start", counting)
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

    def change_and_fill(self: BodyFile, offset: int, view: memoryview) -> None:
        if offset:
            with path.open("r+b") as file:
                file.truncate(2 * len(BODY) if grows else MiB)
        fill(self, offset, view)

    monkeypatch.setattr(BodyFile, "fill", change_and_fill)
    async with store_of(*STACKS[stack]) as store:
        if grows:  # a log, for example: the bytes that it had at first are stored
            await store.put("data", "key", path)
            assert await store.read("data", "key") == BODY
        else:
            with pytest.raises(IntegrityError, match="the file changed"):
                await store.put("data", "key", path)
            assert not await store.exists("data", "key")
        assert store.pool.statistics().leased == 0


async def test_wrong_declared_size_is_refused_before_a_file_is_encoded(path: Path) -> None:
    async with store_of(*STACKS["both"]) as store:
        with pytest.raises(IntegrityError, match="as declared"):
            await store.put("data", "key", path, size=len(BODY) - 1)
        assert not await store.exists("data", "key")
