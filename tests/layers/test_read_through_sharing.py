"""Several processes, or several layers in one process, that share the cache of a `ReadThrough`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trove_async
from tests.layers.cached import BLOCK, Cache, Origin, settle
from trove_async._concurrency import task_group
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import ConfigError
from trove_async.layers import Mapped, ReadThrough
from trove_async.layers._cache import ledger as ledger_module
from trove_async.testing import opened
from trove_async.testing._harness import assert_same, content, read, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trove_async.driver import AsyncDriver

ROOT = Path(trove_async.__file__).parent.parent


class Clock:
    """The wall clock of the ledger."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ledger_module, "time", clock)
    return clock


class Shared:
    """Layers over one origin and one cache, as in several processes."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.origin = Origin()
        self.cache = Cache()

    async def open(self, max_blocks: int = 8) -> ReadThrough:
        layer = ReadThrough(
            several(self.origin),
            several(self.cache),
            max_bytes=max_blocks * BLOCK,
            block_size=BLOCK,
        )
        await self.stack.enter_async_context(opened(layer))
        await layer.wait_until_ready()
        return layer

    async def read(self, layer: ReadThrough, *numbers: int) -> None:
        for number in numbers:
            body = await read(layer, "bucket", f"k{number}")
            assert_same(body, content(BLOCK, str(number)))
            await settle(layer)


def several(driver: Cache | Origin) -> AsyncDriver:
    """Return a driver that can be opened beside other ones over the same objects."""

    names = {name: name for name in ("bucket", "trove-cache")}
    return Mapped(driver, buckets=names)


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    async with AsyncExitStack() as stack:
        shared = Shared(stack)
        await shared.origin.create_bucket("bucket")
        for number in range(40):
            await write(shared.origin, "bucket", f"k{number}", content(BLOCK, str(number)))
        yield shared


async def test_all_layers_together_stay_within_max_bytes(shared: Shared, clock: Clock) -> None:
    rng = random.Random(3)
    layers = [await shared.open() for _ in range(3)]
    for _ in range(300):
        await shared.read(rng.choice(layers), rng.randrange(40))
        clock.now += rng.random()
    assert shared.cache.peak <= 8 * BLOCK
    allowances = [layer.statistics().allowance for layer in layers]
    assert sum(allowances) <= 8 * BLOCK
    assert min(allowances) >= 2 * BLOCK
    assert sum(layer.statistics().stored_bytes for layer in layers) == shared.cache.stored


async def test_newcomer_gets_a_fair_share_once_the_others_renew(
    shared: Shared, clock: Clock
) -> None:
    first = await shared.open()
    await shared.read(first, *range(8))
    second = await shared.open()
    assert second.statistics().allowance == 0
    await shared.read(second, 0, 1, 20)  # the blocks of others are read; nothing is stored
    assert second.statistics().hits == 2
    assert second.statistics().blocks == 0
    clock.now += 6
    await shared.read(first, 30)
    assert first.statistics().allowance == 4 * BLOCK
    clock.now += 6
    await shared.read(second, *range(20, 28))
    assert second.statistics().allowance == 4 * BLOCK
    assert (first.statistics().blocks, second.statistics().blocks) == (4, 4)
    assert shared.cache.peak <= 8 * BLOCK


async def test_blocks_of_a_closed_layer_are_adopted(shared: Shared, clock: Clock) -> None:
    first = await shared.open()
    async with AsyncExitStack() as stack:
        other = Shared(stack)
        other.origin, other.cache = shared.origin, shared.cache
        second = await other.open()
        clock.now += 6
        await shared.read(first, 30)
        clock.now += 6
        await other.read(second, *range(4))
        assert second.statistics().blocks == 4
    clock.now += 6
    await shared.read(first, 31)
    assert first.statistics().allowance == 8 * BLOCK
    assert first.statistics().blocks == 6
    await shared.read(first, *range(4))
    assert first.statistics().hits == 4
    assert shared.cache.peak <= 8 * BLOCK


async def test_layer_that_was_taken_for_dead_joins_again(shared: Shared, clock: Clock) -> None:
    first = await shared.open()
    await shared.read(first, *range(6))
    clock.now += 31
    second = await shared.open()  # adopts everything
    assert second.statistics().allowance == 8 * BLOCK
    assert second.statistics().blocks == 6
    await shared.read(first, 20)
    assert first.statistics().blocks == 0
    clock.now += 6
    await shared.read(second, 21)
    clock.now += 6
    await shared.read(first, 22)
    await shared.read(first, 0)  # no longer its own, but it can still read them
    assert first.statistics().allowance == 4 * BLOCK
    assert shared.cache.peak <= 8 * BLOCK


async def test_damaged_ledger_is_written_anew(shared: Shared, clock: Clock) -> None:
    first = await shared.open()
    await shared.read(first, 0, 1)
    await MemoryDriver.put(
        shared.cache, "trove-cache", "ledger", [memoryview(b"[1, 2")], trove_options()
    )
    clock.now += 6
    await shared.read(first, 2, 3, 4)
    clock.now += 6
    await shared.read(first, 5, 6, 7, 8)
    assert shared.cache.stored <= 8 * BLOCK
    assert first.statistics().allowance == 8 * BLOCK


def trove_options() -> trove_async.options.PutOptions:
    return trove_async.options.PutOptions()


async def test_ledger_that_cannot_be_changed_stops_stores_and_not_reads(
    shared: Shared, clock: Clock
) -> None:
    first = await shared.open()
    await shared.read(first, 0)
    shared.cache.fail("put", key="ledger", times=None)
    clock.now += 6
    await shared.read(first, 1, 2, 0)
    assert first.statistics().blocks == 1


async def test_cache_without_conditional_puts_belongs_to_one_process() -> None:
    origin, cache = Origin(), Cache(put_if_match=False, put_if_none_match=False)
    for expected in (2, 4):
        layer = ReadThrough(origin, cache, max_bytes=8 * BLOCK, block_size=BLOCK)
        async with opened(layer):
            await layer.wait_until_ready()
            if expected == 2:
                await layer.create_bucket("bucket")
            for number in range(expected - 2, expected):
                await write(layer, "bucket", f"k{number}", content(BLOCK, str(number)))
                await read(layer, "bucket", f"k{number}")
            await settle(layer)
            assert layer.statistics().blocks == expected
            assert layer.statistics().allowance == 8 * BLOCK
    assert "ledger" not in cache.stored_keys("trove-cache")


async def test_second_layer_over_a_cache_without_conditional_puts_is_refused() -> None:
    cache = Cache(put_if_match=False, put_if_none_match=False)
    layers = [ReadThrough(Origin(), several(cache), max_bytes=8 * BLOCK) for _ in range(2)]
    for _ in range(2):  # once the first one is closed, the cache is free again
        async with opened(layers[0]):
            with pytest.raises(ConfigError, match="cannot be shared"):
                async with opened(layers[1]):
                    pass
            await layers[1].aclose()
            with pytest.raises(ConfigError, match="cannot be shared"):
                async with opened(layers[1]):
                    pass
            await layers[1].aclose()


async def test_origin_and_cache_must_not_be_one_directory(tmp_path: Path) -> None:
    layer = ReadThrough(LocalDriver(tmp_path), LocalDriver(tmp_path / "."), max_bytes=8 * BLOCK)
    with pytest.raises(ConfigError, match="different places"):
        async with opened(layer):
            pass


@pytest.mark.parametrize("sizes", [(4, 12), (12, 4)])
async def test_smallest_max_bytes_holds_for_all_and_no_layer_gets_nothing(
    shared: Shared, clock: Clock, sizes: tuple[int, int]
) -> None:
    layers = [await shared.open(max_blocks=size) for size in sizes]
    for _ in range(4):
        for layer in layers:
            clock.now += 6
            await shared.read(layer, *range(20))
    allowances = [layer.statistics().allowance for layer in layers]
    assert sum(allowances) <= 4 * BLOCK
    assert min(allowances) >= 2 * BLOCK
    assert shared.cache.stored <= 4 * BLOCK
    # A layer that is left alone may use what it was configured for.
    await layers[sizes.index(4)].aclose()
    for start in (0, 20):
        clock.now += 40
        await shared.read(layers[sizes.index(12)], *range(start, start + 20))
    assert layers[sizes.index(12)].statistics().allowance == 12 * BLOCK


# -- processes ---------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, random, sys
from trove_async.drivers import LocalDriver
from trove_async.errors import ConfigError
from trove_async.layers import Mapped, ReadThrough
from trove_async.testing import opened
from trove_async.testing._harness import content, read

root, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
BLOCK = 65536

async def main():
    layer = ReadThrough(
        LocalDriver(root + "/origin", fsync=False), "file://" + root + "/cache",
        max_bytes=8 * BLOCK, block_size=BLOCK,
    )
    async with opened(layer):
        await layer.wait_until_ready()
        rng = random.Random(seed)
        print("ready", flush=True)
        for _ in range(rounds):
            number = rng.randrange(30)
            assert await read(layer, "bucket", f"k{number}") == content(BLOCK * 2, str(number))
        print(layer.statistics().hits, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    async with opened(LocalDriver(tmp_path / "origin", fsync=False)) as origin:
        await origin.create_bucket("bucket")
        for number in range(30):
            await write(origin, "bucket", f"k{number}", content(BLOCK * 2, str(number)))
    return tmp_path


def start(directory: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(directory), str(seed), str(rounds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def files(directory: Path) -> Iterator[tuple[str, int]]:
    """Yield all files of the cache and their sizes, also of those that are being written."""
    # Another process changes the tree. `os.walk` skips a directory that has vanished; `rglob` would raise.
    for folder, _, names in os.walk(directory / "cache"):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(folder, name).stat()
                yield f"{status.st_ino} {status.st_ctime_ns}", status.st_size


async def test_two_processes_together_stay_within_max_bytes(directory: Path) -> None:
    processes = [start(directory, seed, 400) for seed in range(2)]
    peak = 0
    before: dict[str, int] = {}
    while any(process.poll() is None for process in processes):
        # A walk may see a file that is deleted during it, and the one written in its place. Files that two
        # walks have seen existed at the same time, between them.
        now = await asyncio.to_thread(lambda: dict(files(directory)))
        peak = max(peak, sum(min(before[file], now[file]) for file in before.keys() & now.keys()))
        before = now
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert 0 < peak <= 8 * BLOCK


async def test_killed_process_leaves_whole_blocks_or_none(directory: Path) -> None:
    rng = random.Random(11)
    for seed in range(4):
        process = start(directory, seed, 100_000)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        await asyncio.sleep(rng.random() / 5)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        process.stdout.close()
        layer = ReadThrough(
            LocalDriver(directory / "origin", fsync=False),
            f"file://{directory}/cache",
            max_bytes=8 * BLOCK,
            block_size=BLOCK,
        )
        async with opened(layer):
            await layer.wait_until_ready()
            statistics = layer.statistics()
            assert statistics.allowance == 8 * BLOCK  # the dead process is known to be dead
            assert sum(size for _, size in files(directory)) <= 8 * BLOCK

            async def read_all(layer: ReadThrough = layer) -> None:
                for number in range(30):
                    body = await read(layer, "bucket", f"k{number}")
                    assert_same(body, content(BLOCK * 2, str(number)))

            async with task_group() as group:
                group.start_soon(read_all)
            await settle(layer)
            assert layer.statistics().failures == 0
