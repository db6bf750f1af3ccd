"""Transfers that never wait, because their bytes are in memory: other tasks run meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from trove_async import BufferPool, Inspecting, Middleware, ObjectInfo, Trove
from trove_async._concurrency import OwnedTask, turns
from trove_async._engine.intake import Intake
from trove_async._engine.sources import source_of
from trove_async._engine.verified import VerifiedBody
from trove_async.drivers import MemoryDriver
from trove_async.middlewares import Encryption, Inspection, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 32 * MiB
MIN_TURNS = 31  # one before each MiB, except the first


@pytest.fixture(autouse=True)
def turns_are_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)


class OtherTask:
    """Counts the turns of a task that is always ready to run."""

    turns = 0

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turns += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = OwnedTask(self._run())
        await asyncio.sleep(0)
        before = self.turns
        yield
        self.turns -= before
        await task.aclose()


class MemoryReader:
    """A reader that never waits."""

    reads_into = True

    def __init__(self) -> None:
        self.info = ObjectInfo(
            bucket="data", key="key", size=SIZE, etag="e", last_modified=datetime.now(UTC)
        )
        self.range = (0, SIZE)
        self._chunk = bytes(MiB)

    async def read(self, size: int) -> bytes:
        return self._chunk[:size]

    async def readinto(self, buffer: memoryview) -> int:
        buffer[:] = self._chunk[: len(buffer)]
        return len(buffer)


@pytest.mark.parametrize("into", [False, True])
async def test_long_read_gives_turns_to_other_tasks(*, into: bool) -> None:
    body, buffer, other = VerifiedBody(MemoryReader()), memoryview(bytearray(MiB)), OtherTask()
    async with other.running():
        while await (body.readinto(buffer) if into else body.read(MiB)):
            pass
    assert body.remaining == 0
    assert other.turns >= MIN_TURNS


@pytest.mark.parametrize("fills", [False, True])
async def test_long_put_gives_turns_to_other_tasks(*, fills: bool) -> None:
    intake, other = Intake(source_of(bytes(MiB) for _ in range(SIZE // MiB)), None), OtherTask()
    with await BufferPool(2 * MiB).lease(MiB) as lease:
        async with other.running():
            while await (intake.fill(lease.views) if fills else intake.take(MiB)):
                pass
    assert intake.byte_count == SIZE
    assert other.turns >= MIN_TURNS


async def test_each_small_block_gives_turns_to_other_tasks() -> None:
    async with store_of(Encryption(Keyring({"a": bytes(32)}), segment_size=4 * KiB)) as store:
        put, get = OtherTask(), OtherTask()
        async with put.running():
            await store.put("data", "key", bytes(MiB))
        async with get.running():
            await store.read("data", "key")
    assert put.turns >= MiB // (4 * KiB) - 1
    assert get.turns >= MiB // (4 * KiB) - 1


async def test_inspection_of_a_body_in_memory_gives_turns_to_other_tasks() -> None:
    class Inspector:
        async def update(self, data: bytes) -> None:
            pass

        async def finish(self) -> None:
            pass

    other = OtherTask()
    async with store_of(Inspection(lambda *_: Inspector())) as store, other.running():
        await store.put("data", "key", bytes(SIZE))
    assert other.turns >= MIN_TURNS


@asynccontextmanager
async def store_of(middleware: Middleware | Inspecting) -> AsyncIterator[Trove]:
    async with Trove(MemoryDriver(), middleware=[middleware]) as store:
        await store.create_bucket("data")
        yield store
