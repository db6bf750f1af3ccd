"""Transfers that share a pool or a store make progress, whatever the other transfers do."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trove_async import (
    BufferPool,
    RetryPolicy,
    TimedOutError,
    Timeout,
    Trove,
    TroveError,
    UnavailableError,
)
from trove_async._concurrency import in_thread
from trove_async.drivers import MemoryDriver
from trove_async.testing import Faulty

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


MiB = 1024 * 1024
BODY = bytes(range(256)) * (2 * MiB // 256) + b"tail"  # three parts of up to 1 MiB


def pool_of_two_parts() -> BufferPool:
    return BufferPool(2 * MiB, MiB, spill_after=0.05)


async def in_pieces(body: bytes = BODY) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]
        await asyncio.sleep(0)


async def test_hundred_get_to_put_copies_complete_with_two_parts_and_ten_connections() -> None:
    driver = MemoryDriver(max_connections=10)
    async with asyncio.timeout(40), Trove(driver, pool=pool_of_two_parts()) as store:
        await store.create_bucket("b")
        for number in range(100):
            await store.put("b", f"from/{number}", BODY)

        async def copy_by_hand(number: int) -> None:
            async with store.get("b", f"from/{number}") as reader:
                await store.put("b", f"to/{number}", reader)

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(copy_by_hand(number))
        for number in range(0, 100, 9):
            assert await store.read("b", f"to/{number}") == BODY
        assert store.pool.statistics().leased == 0


async def test_copies_in_both_directions_between_two_backends_complete() -> None:
    backends = {"b": MemoryDriver(max_connections=2)}
    async with (
        asyncio.timeout(40),
        Trove(
            MemoryDriver(max_connections=2),
            backends=backends,
            routes=[("b/*", "b")],
            pool=pool_of_two_parts(),
        ) as store,
    ):
        await store.create_bucket("x", backends="all")
        for number in range(20):
            await store.put("x", f"a-{number}", BODY)
            await store.put("x", f"b/{number}", BODY)
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(store.copy("x", f"a-{number}", "x", f"b/from-a-{number}"))
                group.create_task(store.copy("x", f"b/{number}", "x", f"a-from-b-{number}"))
        entries = await store.list("x").all()
        assert [entry.size for entry in entries] == [len(BODY)] * 80


async def test_put_from_within_a_body_completes() -> None:
    driver = MemoryDriver(max_connections=1)
    async with asyncio.timeout(40), Trove(driver, pool=pool_of_two_parts()) as store:
        await store.create_bucket("b")

        async def nesting(depth: int) -> AsyncIterator[bytes]:
            yield bytes(MiB // 2)  # its lease is held while the other chunks are produced
            if depth:
                await store.put("b", f"inner/{depth}", nesting(depth - 1))
            yield bytes(MiB)

        await store.put("b", "outer", nesting(5))
        entries = await store.list("b").all()
        assert [entry.size for entry in entries] == [MiB + MiB // 2] * 6


async def test_silent_sources_do_not_block_a_fast_put() -> None:
    async with asyncio.timeout(40), Trove(MemoryDriver(), pool=pool_of_two_parts()) as store:
        await store.create_bucket("b")
        release = asyncio.Event()
        started = 0

        async def silent() -> AsyncIterator[bytes]:
            nonlocal started
            started += 1
            yield b"."
            await release.wait()
            yield b"."

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(store.put("b", f"slow/{number}", silent()))
            await store.put("b", "fast", in_pieces())
            assert started > 2
            release.set()
        assert await store.read("b", "fast") == BODY
        assert len(await store.list("b", prefix="slow/").all()) == 100
        statistics = store.pool.statistics()
        assert (statistics.leased, statistics.spilled) == (0, 0)
        assert statistics.spilled_total > 0


async def test_stalled_readers_do_not_block_a_fast_get_and_continue_later() -> None:
    driver = MemoryDriver(max_connections=3)
    async with asyncio.timeout(40), Trove(driver, pool=pool_of_two_parts()) as store:
        await store.create_bucket("b")
        await store.put("b", "k", BODY)
        stalled = [await store.get("b", "k") for _ in range(10)]
        for reader in stalled:
            assert await reader.read(1000) == BODY[:1000]
        assert await store.read("b", "k") == BODY
        await store.put("b", "other", in_pieces())
        for reader in stalled:
            assert await reader.read() == BODY[1000:]
            await reader.aclose()


@pytest.mark.idle_time
async def test_failing_backend_does_not_block_a_healthy_one() -> None:
    broken = Faulty(MemoryDriver())
    async with (
        asyncio.timeout(40),
        Trove(
            MemoryDriver(),
            backends={"broken": broken},
            routes=[("broken/*", "broken")],
            pool=pool_of_two_parts(),
            retry=RetryPolicy(attempts=2, base_delay=0.01, budget=10),
            timeout=Timeout(first_byte=0.05, idle=0.05),
        ) as store,
    ):
        await store.create_bucket("b", backends="all")
        broken.fail("put", error=UnavailableError("down"), times=None)
        broken.fail("upload", error=UnavailableError("down"), times=None)

        async def put_on_broken_backend(number: int) -> None:
            with pytest.raises(TroveError, match="down"):
                await store.put("b", f"broken/{number}", in_pieces())

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(put_on_broken_backend(number))
                group.create_task(store.put("b", f"healthy-{number}", in_pieces()))
        assert len(await store.list("b", prefix="healthy-").all()) == 20
        assert store.pool.statistics().leased == 0


@pytest.mark.idle_time
async def test_hanging_backend_does_not_block_a_healthy_one() -> None:
    broken = Faulty(
        MemoryDriver(), capabilities=replace(MemoryDriver().capabilities, embedded=False)
    )
    async with (
        asyncio.timeout(40),
        Trove(
            MemoryDriver(),
            backends={"broken": broken},
            routes=[("broken/*", "broken")],
            pool=pool_of_two_parts(),
            retry=RetryPolicy(attempts=2, base_delay=0.01),
            timeout=Timeout(first_byte=0.2, idle=0.1),
        ) as store,
    ):
        await store.create_bucket("b", backends="all")
        hang = broken.hang("send", times=None)

        async def put_on_broken_backend(number: int) -> None:
            with pytest.raises(TimedOutError):
                await store.put("b", f"broken/{number}", in_pieces())

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(put_on_broken_backend(number))
            await hang.reached.wait()
            for number in range(10):
                await store.put("b", f"healthy-{number}", in_pieces())
        assert store.pool.statistics().leased == 0


async def test_silent_pipes_do_not_block_a_fast_file(tmp_path: Path) -> None:
    async with asyncio.timeout(40), Trove(MemoryDriver(), pool=pool_of_two_parts()) as store:
        await store.create_bucket("b")
        pipes = [os.pipe() for _ in range(60)]

        async def put_from_pipe(number: int, read_end: int) -> None:
            with os.fdopen(read_end, "rb") as pipe:
                await store.put("b", f"slow/{number}", pipe)

        fast = tmp_path / "fast"
        await in_thread(fast.write_bytes, BODY)
        async with asyncio.TaskGroup() as group:
            for number, (read_end, write_end) in enumerate(pipes):
                os.write(write_end, b".")
                group.create_task(put_from_pipe(number, read_end))
            with fast.open("rb") as file:
                await store.put("b", "fast", file)
            await store.put("b", "faster", fast)
            await store.put("b", "fastest", iter([BODY]))
            for _, write_end in pipes:
                os.close(write_end)
        assert len(await store.list("b", prefix="slow/").all()) == 60
        assert await store.read("b", "fast") == await store.read("b", "faster") == BODY
