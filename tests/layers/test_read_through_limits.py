"""The limits of `ReadThrough`: bytes in the cache, memory, eviction, and what a restart finds."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.layers.cached import BLOCK, Cache, Origin, cached
from trove_async._concurrency import task_group
from trove_async.driver import AsyncDriver
from trove_async.drivers import MemoryDriver
from trove_async.errors import UnavailableError
from trove_async.layers import ReadThrough
from trove_async.layers._cache.sieve import Entry, Sieve
from trove_async.layers._cache.versions import object_id_of
from trove_async.models import ByteRange, MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.pool import BufferPool
from trove_async.testing import opened
from trove_async.testing._harness import assert_same, content, read, write

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


async def read_objects(layer: AsyncDriver, names: Sequence[str]) -> None:
    for name in names:
        await read(layer, "bucket", name)


# -- bytes in the cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("max_blocks", [1, 3, 8])
async def test_max_bytes_is_never_exceeded_as_by_rclone_and_filecache(max_blocks: int) -> None:
    async with cached(max_bytes=max_blocks * BLOCK, pool=BufferPool(64 * MiB)) as setup:
        rng = random.Random(max_blocks)
        sizes = {f"k{number}": rng.randrange(1, 5 * BLOCK) for number in range(20)}
        for key, size in sizes.items():
            await setup.put(key, content(size, key))

        async def read_some() -> None:
            for _ in range(20):
                key = rng.choice(list(sizes))
                assert_same(await read(setup.layer, "bucket", key), content(sizes[key], key))

        async with task_group() as group:
            for _ in range(8):
                group.start_soon(read_some)
        await setup.settle()
        assert 0 < setup.cache.stored <= setup.cache.peak <= max_blocks * BLOCK
        assert setup.cache.stored == setup.layer.statistics().stored_bytes
        assert setup.layer.statistics().evictions > 0


@pytest.mark.parametrize("step", ["put", "put.done", "delete", "delete.done"])
async def test_max_bytes_is_not_exceeded_if_writes_and_deletions_fail(step: str) -> None:
    async with cached(max_bytes=3 * BLOCK) as setup:
        for number in range(12):
            await setup.put(f"k{number}", content(BLOCK, str(number)))
        store = setup.layer._open_core.store
        for number in range(12):
            if number % 3 == 1:
                setup.cache.fail(step)
            await read(setup.layer, "bucket", f"k{number}")
            await setup.settle()
            store._writes.succeeded()  # do not wait for the pause to end
        assert store.index.used == setup.cache.stored + sum(
            size for name, size in store._doubtful.items() if name not in setup.cache.blocks
        )
        assert store.failures > 0


async def test_lowered_max_bytes_is_met_at_restart() -> None:
    origin, cache = Origin(), Cache()
    async with cached(origin, cache, max_bytes=16 * BLOCK) as setup:
        await setup.put("key", content(16 * BLOCK))
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        assert len(cache.blocks) == 16
    async with cached(origin, cache, max_bytes=5 * BLOCK) as setup:
        assert len(cache.blocks) == 5
        assert setup.layer.statistics().stored_bytes == 5 * BLOCK
        assert_same(await read(setup.layer, "bucket", "key"), content(16 * BLOCK))
        await setup.settle()
        assert cache.stored <= 5 * BLOCK


# -- eviction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [BLOCK, 1000])
async def test_scan_of_ten_times_max_bytes_does_not_evict_the_hot_set(piece: int) -> None:
    async with cached(max_bytes=32 * BLOCK) as setup:
        hot = [f"hot{number}" for number in range(12)]
        cold = [f"cold{number}" for number in range(320)]
        for key in hot + cold:
            await setup.put(key, content(BLOCK, key))
        for _ in range(3):
            await read_objects(setup.layer, hot)
            await setup.settle()
        setup.origin.reset()
        for key in cold:
            # A scan in small ranges hits each block many times, but only in one pass.
            for start in range(0, BLOCK, BLOCK if piece == BLOCK else 10_000):
                await read(setup.layer, "bucket", key, range=ByteRange(start, start + 10_000))
            await setup.settle()
        assert setup.origin.requests == ["get"] * len(cold)
        setup.origin.reset()
        await read_objects(setup.layer, hot)
        assert setup.origin.requests == []


class Numbered(Entry):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def test_sieve_evicts_in_order_and_spares_what_was_hit() -> None:
    sieve: Sieve[Numbered] = Sieve()
    entries = [Numbered(number) for number in range(6)]
    for entry in entries:
        sieve.add(entry)
    entries[0].visited = entries[2].visited = True
    evicted = [sieve.evict() for _ in range(3)]
    assert [entry.number for entry in evicted if entry is not None] == [1, 3, 4]
    sieve.remove(entries[5])
    sieve.remove(entries[5])
    assert len(sieve) == 2
    assert [entry.number for entry in (sieve.evict(), sieve.evict()) if entry is not None] == [0, 2]
    assert sieve.evict() is None


def test_sieve_against_a_model() -> None:
    rng = random.Random(7)
    sieve: Sieve[Numbered] = Sieve()
    queue: list[Numbered] = []  # from the tail to the head
    visited: set[Numbered] = set()
    hand = 0
    for number in range(5000):
        action = rng.random()
        if action < 0.4:
            queue.append(Numbered(number))
            sieve.add(queue[-1])
        elif action < 0.6 and queue:
            entry = rng.choice(queue)
            entry.visited = True
            visited.add(entry)
        elif action < 0.7 and queue:
            index = rng.randrange(len(queue))
            sieve.remove(queue.pop(index))
            hand = (hand - (index < hand)) % max(len(queue), 1)
        elif queue:
            while queue[hand] in visited:
                visited.remove(queue[hand])
                hand = (hand + 1) % len(queue)
            assert sieve.evict() is queue.pop(hand)
            hand %= max(len(queue), 1)
        assert len(sieve) == len(queue)


# -- restart -----------------------------------------------------------------------------------------


async def test_blocks_of_an_earlier_process_are_read_after_one_head_request() -> None:
    origin, cache = Origin(), Cache()
    body = content(5 * BLOCK + 3)
    async with cached(origin, cache) as setup:
        await setup.put("key", body)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
    async with cached(origin, cache) as setup:
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), body)
        assert origin.requests == ["head"]
        assert setup.layer.statistics().hits == 12


@pytest.mark.parametrize("damage", [b"", b"x", bytes(BLOCK), bytes(BLOCK + 1)])
async def test_what_a_crash_leaves_of_a_block_is_not_read(damage: bytes) -> None:
    origin, cache = Origin(), Cache()
    body = content(3 * BLOCK)
    async with cached(origin, cache) as setup:
        await setup.put("key", body)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
    block = sorted(cache.blocks)[1]
    await MemoryDriver.put(
        cache, "trove-cache", block, [memoryview(damage)] if damage else [], PutOptions()
    )
    async with cached(origin, cache) as setup:
        assert_same(await read(setup.layer, "bucket", "key"), body)
        await setup.settle()
        assert origin.received == BLOCK
        origin.reset()
        assert_same(await read(setup.layer, "bucket", "key"), body)
        assert origin.requests == []
        assert len(cache.blocks) == 3


async def test_changed_block_size_makes_new_blocks() -> None:
    origin, cache = Origin(), Cache()
    body = content(4 * BLOCK)
    for block_size in (BLOCK, BLOCK // 2, BLOCK):
        async with cached(origin, cache, block_size=block_size) as setup:
            if not origin.stored_keys("bucket"):
                await setup.put("key", body)
            for _ in range(2):
                assert_same(await read(setup.layer, "bucket", "key"), body)
            await setup.settle()
    assert len(cache.blocks) == 12


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "object"])
async def test_two_origins_may_use_the_same_names_and_etags(*, is_named: bool) -> None:
    cache = Cache()
    for name in ("one", "two"):
        origin = Origin()
        if is_named:  # otherwise the place has the driver itself, as that of a `MemoryDriver`
            origin.place = lambda bucket, key, name=name: (name, bucket, key)  # type: ignore[method-assign, misc]
        origin._token = "same"  # noqa: S105 - the prefix of its etags
        async with cached(origin, cache) as setup:
            await setup.put("key", name.encode())
            for _ in range(2):
                assert await read(setup.layer, "bucket", "key") == name.encode()
            await setup.settle()
    assert len(cache.blocks) == 2


def test_only_equal_places_have_the_same_id() -> None:
    class Slotted:
        __slots__ = ()  # it has no weak references

    driver = MemoryDriver()
    assert object_id_of((driver, "b", "k")) == object_id_of((driver, "b", "k"))
    places: list[Hashable] = [
        (driver, "b"),
        (MemoryDriver(), "b"),
        (Slotted(), "b"),
        ("MemoryDriver", "b"),
    ]
    places += [("a,b",), ("a", "b"), (("a", "b"),), (1,), ("1",), (b"1",), (None,)]
    assert len({object_id_of(place) for place in places}) == len(places)


async def test_reads_do_not_wait_for_the_listing_of_a_large_cache() -> None:
    origin, cache = Origin(), Cache()
    reached = cache.hang("list_page")
    async with cached(origin, cache, ready=False) as setup:
        await setup.put("key", content(2 * BLOCK))
        await reached.wait()
        assert_same(await read(setup.layer, "bucket", "key"), content(2 * BLOCK))
        assert setup.layer.statistics().bypasses == 1
        assert not setup.layer.statistics().is_ready
        hanging = cache.before.pop("list_page")
        hanging.__self__.release()  # type: ignore[attr-defined]  # the method of a Hang
        await setup.layer.wait_until_ready()
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), content(2 * BLOCK))
            await setup.settle()
        assert setup.layer.statistics().hits == 2


async def test_foreign_objects_in_the_bucket_are_left_alone() -> None:
    origin, cache = Origin(), Cache()
    await cache.create_bucket("trove-cache")
    for key in ("readme", "a/b", "0/x-1-2-3"):
        await write(cache, "trove-cache", key, b"mine")
    async with cached(origin, cache, max_bytes=BLOCK) as setup:
        await setup.put("key", content(3 * BLOCK))
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        cache.limit = 2 * BLOCK
    for key in ("readme", "a/b", "0/x-1-2-3"):
        assert await read(cache, "trove-cache", key) == b"mine"


# -- memory ------------------------------------------------------------------------------------------


async def test_200_concurrent_readers_stay_within_the_pool() -> None:
    pool = BufferPool(16 * MiB)
    async with cached(pool=pool, max_bytes=512 * BLOCK, block_size=MiB) as setup:
        for number in range(200):
            await setup.put(f"k{number}", content(MiB + 7, str(number)))
        done = 0

        async def read_it(number: int) -> None:
            nonlocal done
            body = await read(setup.layer, "bucket", f"k{number}", size=100_000)
            assert_same(body, content(MiB + 7, str(number)))
            done += 1

        async with task_group() as group:
            for number in range(200):
                group.start_soon(read_it, number)
        await setup.settle()
        statistics = pool.statistics()
        assert done == 200
        assert statistics.peak <= 8 * MiB  # half of the pool
        assert (statistics.leased, statistics.waiting) == (0, 0)
        assert setup.origin.open_readers == 0


async def test_reader_without_memory_takes_the_response_of_its_fill() -> None:
    pool = BufferPool(4 * MiB)
    async with cached(pool=pool, block_size=MiB) as setup:
        body = content(6 * MiB)
        await setup.put("key", body)
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            start = await reader.read(MiB)
            leases = []
            while (lease := pool.try_lease(MiB)) is not None:
                leases.append(lease)
            pieces = [start]
            while data := await reader.read(MiB):
                pieces.append(data)
            assert_same(b"".join(pieces), body)
        assert setup.origin.requests == ["get"]
        for lease in leases:
            lease.release()


async def test_transfer_that_waits_for_memory_gets_that_of_a_fill() -> None:
    pool = BufferPool(4 * MiB)
    async with cached(pool=pool, block_size=2 * MiB) as setup:
        body = content(4 * MiB)
        await setup.put("key", body)
        reached = asyncio.Event()

        async def hang_once() -> None:
            if not reached.is_set():
                reached.set()
                await asyncio.Event().wait()

        setup.origin.before["read"] = hang_once
        async with task_group() as group:
            result: list[bytes] = []

            async def read_it() -> None:
                result.append(await read(setup.layer, "bucket", "key"))

            group.start_soon(read_it)
            await reached.wait()
            assert pool.statistics().leased == 2 * MiB
            lease = await pool.lease(4 * MiB, timeout=5.0)
            while not result:  # the reader does not wait for memory
                await asyncio.sleep(0)
            lease.release()
        assert_same(result[0], body)


async def test_failing_origin_leaves_no_memory() -> None:
    pool = BufferPool(16 * MiB)
    async with cached(pool=pool) as setup:
        await setup.put("key", content(4 * BLOCK))
        setup.origin.cut("key", at=BLOCK + 1, times=None)
        with pytest.raises(UnavailableError):
            await read(setup.layer, "bucket", "key")
        await setup.settle()
        assert pool.statistics().leased == 0


async def test_opening_100_000_blocks_does_not_hold_the_loop() -> None:
    cache = MemoryDriver()
    await cache.create_bucket("trove-cache")
    for number in range(10_000):
        name = f"dead/{number:016x}{number:032x}-0-4-00000000"
        await cache.put("trove-cache", name, [memoryview(b"body")], PutOptions())
    layer = ReadThrough(MemoryDriver(), cache, max_bytes=MiB, block_size=BLOCK)
    async with opened(layer):
        assert not layer.statistics().is_ready
        turns = 0
        while not layer.statistics().is_ready:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20  # at least one for each page
        assert layer.statistics().blocks == 10_000
