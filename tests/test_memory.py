"""The pool bounds the memory of a process, however much data it transfers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trove_async

ROOT = Path(trove_async.__file__).parent.parent

COMMON = """
import asyncio, resource, sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from trove_async import BufferPool, ObjectInfo, Trove
from trove_async.driver import Capabilities
from trove_async.drivers import MemoryDriver

MiB = 1024 * 1024


class DiscardingDriver(MemoryDriver):
    '''Discards all bodies and keeps their sizes.'''

    def __init__(self):
        super().__init__(parallel_parts=4)
        self.received = 0

    async def put(self, bucket, key, views, options):
        self.received += sum(map(len, views))
        await asyncio.sleep(0)
        return self._info(bucket, key, sum(map(len, views)))

    @asynccontextmanager
    async def upload(self, bucket, key, options):
        yield DiscardingUpload(self, bucket, key)

    def _info(self, bucket, key, size):
        return ObjectInfo(bucket=bucket, key=key, size=size, etag="e", last_modified=datetime.now(UTC))


class DiscardingUpload:
    def __init__(self, driver, bucket, key):
        self.driver, self.bucket, self.key, self.size = driver, bucket, key, 0

    async def send(self, part, views):
        self.size += part.size
        self.driver.received += part.size
        await asyncio.sleep(0)

    async def commit(self, checksums):
        return self.driver._info(self.bucket, self.key, self.size)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""

STREAMS = (
    COMMON
    + """
async def body(size):
    for _ in range(size // (256 * 1024)):
        yield bytes(256 * 1024)

async def main(count, size):
    driver = DiscardingDriver()
    async with Trove(driver, pool=BufferPool(64 * MiB)) as store:
        await store.create_bucket("b")
        await store.put("b", "warm", body(MiB))
        base, driver.received = peak(), 0
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(store.put("b", str(number), body(size)))
        assert driver.received == count * size, driver.received
        print((peak() - base) // MiB, store.pool.statistics().peak // MiB)

asyncio.run(main(200, 64 * MiB))
"""
)

COPIES = (
    COMMON
    + """
async def main():
    source, target = MemoryDriver(), DiscardingDriver()
    async with Trove(source, backends={"far": target}, routes=[("far/*", "far")],
                     pool=BufferPool(64 * MiB, spill_after=10)) as store:
        await store.create_bucket("b", backends="all")
        await store.put("b", "k", bytes(5 * MiB))
        await store.copy("b", "k", "b", "far/warm")
        base, target.received = peak(), 0
        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(store.copy("b", "k", "b", f"far/{number}"))
        assert target.received == 1000 * 5 * MiB, target.received
        print((peak() - base) // MiB, store.pool.statistics().peak // MiB)

asyncio.run(main())
"""
)

STALLED_PUTS = (
    COMMON
    + """
import os, random, tracemalloc
from trove_async.middlewares import Compression, Encryption, Keyring

TEXT = random.Random(1).randbytes(7 * MiB // 4).hex().encode()  # 3.5 MiB, which shrink to half
COUNT = 16

async def held(middleware, size):
    stalled, resume = asyncio.Semaphore(0), asyncio.Event()

    async def body():
        for start in range(0, len(TEXT), 64 * 1024):
            yield TEXT[start : start + 64 * 1024]
        stalled.release()
        await resume.wait()
        yield TEXT

    pool = BufferPool(256 * MiB)  # mapped memory, which tracemalloc does not trace
    async with Trove(DiscardingDriver(), pool=pool, middleware=middleware) as store:
        await store.create_bucket("b")
        tracemalloc.start()
        async with asyncio.TaskGroup() as group:
            for number in range(COUNT):
                group.create_task(store.put("b", f"{number}.txt", body(), size=size))
            for _ in range(COUNT):
                await stalled.acquire()
            total = tracemalloc.get_traced_memory()[0]
            resume.set()
        tracemalloc.stop()
    return total - 2 * MiB * os.cpu_count()  # blocks that are encoded in parallel

async def main():
    encryption = Encryption(Keyring({"key": bytes(32)}))
    most = 0
    for middleware in ([Compression()], [encryption], [Compression(), encryption]):
        for size in (None, 2 * len(TEXT)):
            most = max(most, await held(middleware, size) / len(middleware) / COUNT)
    print(int(most) // 1024, 0)

asyncio.run(main())
"""
)

TRANSFORMED = (
    COMMON
    + """
import os
from trove_async.middlewares import Compression, Encryption, Keyring

STACK = [Compression(level=1), Encryption(Keyring({"key": bytes(32)}))]
TEXT = os.urandom(64 * 1024).hex().encode()  # compresses to a half


async def body(size):
    for number in range(size // len(TEXT)):
        yield TEXT[number:] + TEXT[:number]


async def main(operation, count, size):
    source = MemoryDriver()
    async with Trove(DiscardingDriver(), backends={"near": source}, routes=[("near/*", "near")],
                     pool=BufferPool(64 * MiB), middleware=STACK) as store:
        await store.create_bucket("b", backends="all")
        await store.put("b", "near/k", body(size))
        await store.put("b", "warm", body(size))
        await store.read("b", "near/k")
        base = peak()

        async def put(number):
            await store.put("b", str(number), body(size))

        async def get(number):
            received = 0
            async with store.get("b", "near/k") as obj:
                async for chunk in obj:
                    received += len(chunk)
            assert received == size

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task((put if operation == "put" else get)(number))
        print((peak() - base) // MiB, store.pool.statistics().peak // MiB)

asyncio.run(main({operation!r}, {count}, {size} * MiB))
"""
)


def run(program: str) -> tuple[int, int]:
    """Run a program in a new process, and return the two numbers that it prints.

    Usually these are how much its memory grew, and its pool's peak, in MiB.
    """
    result = subprocess.run(  # noqa: S603 - runs the programs above
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    growth, pool = map(int, result.stdout.split())
    return growth, pool


@pytest.mark.timeout(300)
def test_200_streams_of_64_mib_stay_within_a_pool_of_64_mib() -> None:
    growth, pool = run(STREAMS)
    assert pool <= 64
    assert growth <= 64 + 48  # the interpreter's own memory grows as well


@pytest.mark.timeout(300)
def test_1000_concurrent_copies_stay_within_a_pool_of_64_mib() -> None:
    growth, pool = run(COPIES)
    assert pool <= 64
    assert growth <= 64 + 48


@pytest.mark.timeout(300)
def test_stalled_puts_hold_two_blocks_for_each_middleware() -> None:
    held_kib, _ = run(STALLED_PUTS)
    assert held_kib <= 2 * 1024 + 256


WINDOW = 2
"""The memory of one transform of one body, in MiB: a block and its encoded form."""


def check_transformed(operation: str, count: int, size: int) -> None:
    call = f"main({operation!r}, {count}, {size} * MiB)"
    growth, pool = run(TRANSFORMED.replace("main({operation!r}, {count}, {size} * MiB)", call))
    assert pool <= 64
    assert growth <= 64 + count * 2 * WINDOW + 48


@pytest.mark.timeout(300)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_40_streams_through_two_transforms_stay_within_their_windows(operation: str) -> None:
    check_transformed(operation, 40, 8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_200_streams_through_two_transforms_stay_within_their_windows(operation: str) -> None:
    check_transformed(operation, 200, 16)
