"""The index of the blocks of `ReadThrough`, after a listing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.layers.cached import BLOCK, Cache, Origin, cached
from trove_async._concurrency import Turns
from trove_async.layers._cache import blocks, listing
from trove_async.layers._cache.blocks import Block, BlockIndex, ListedBlocks
from trove_async.layers._cache.listing import Listing
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions
from trove_async.testing._harness import assert_same, content, read

if TYPE_CHECKING:
    from collections.abc import Iterable


def name_of(owner: str, item: int, number: int, size: int, crc32c: int = 0) -> str:
    """Return the name of a block of the `item`-th version. Two versions are of one object."""
    return f"{owner}/{item // 2:016x}{item:032x}-{number:x}-{size:x}-{crc32c:08x}"


def block_id(item: int) -> str:
    return f"{item:032x}"


def entry(name: str, size: int) -> ObjectInfo:
    def nothing(raw: None, field: str) -> object:
        del raw, field
        return None

    return ObjectInfo.listed("bucket", name, size, backend="cache", find=nothing, raw=None)


def listed(names: Iterable[str]) -> ListedBlocks:
    """Return the listing of blocks of one owner."""
    result = Listing()
    result.add([entry(name, int(name.split("-")[-2], 16)) for name in names])
    assert not result.unusable
    (found,) = result.owners.values()
    return found


async def test_listed_block_is_found_once_and_then_counted_once() -> None:
    index = BlockIndex()
    await index.add_listed(listed([name_of("a", 1, 0, 10), name_of("a", 1, 31, 7)]), is_owned=True)
    assert (index.used, index.stored_bytes, index.owned_count) == (17, 17, 2)
    found = index.find(block_id(1), 31)
    assert found is not None
    assert (found.size, found.is_verified, index.is_owned(found)) == (7, False, True)
    assert index.find(block_id(1), 31) is found
    assert (index.used, index.stored_bytes, index.owned_count) == (17, 17, 2)
    assert index.find(block_id(1), 1) is None
    index.remove(found)
    assert (index.used, index.stored_bytes, index.owned_count) == (10, 10, 1)
    assert index.has_blocks_of(found.object_id)


def test_other_names_and_interrupted_writes_are_not_blocks() -> None:
    result = Listing()
    whole, short = name_of("a", 1, 0, 10), name_of("a", 2, 0, 10)
    twice = name_of("a", 1, 0, 10, crc32c=5)
    names = [(whole, 10), (short, 9), (twice, 10), ("ledger", 3), (f"{whole}x", 10), ("a/b", 1)]
    result.add([entry(name, size) for name, size in names])
    assert [name for _, name in result.owners["a"]] == [whole]
    assert result.unusable == [(short, 9), (twice, 10)]


@pytest.mark.parametrize("is_unique", [True, False])
@pytest.mark.parametrize("seed", range(20))
async def test_index_agrees_with_a_model(  # noqa: C901, PLR0912 - the actions of a random schedule
    seed: int,
    is_unique: bool,  # noqa: FBT001 - a parameter of the test: no two processes wrote the same block
) -> None:
    rng = random.Random(seed)
    index = BlockIndex()
    owned: dict[str, int] = {}  # the names and sizes of the owned blocks
    foreign: set[str] = set()
    for step in range(200):
        action = rng.random()
        if action < 0.15:  # a listing
            owner, is_owned = f"{step:x}", rng.random() < 0.6
            keys = {(rng.randrange(20), rng.randrange(3)) for _ in range(rng.randrange(1, 12))}
            if is_unique:
                keys = {key for key in keys if index.find(block_id(key[0]), key[1]) is None}
            if not keys:
                continue
            names = [name_of(owner, item, number, 1 + item) for item, number in keys]
            await index.add_listed(listed(names), is_owned=is_owned)
            if is_owned:
                owned.update({name: int(name.split("-")[-2], 16) for name in names})
            else:
                foreign.add(owner)
        elif action < 0.55:
            found = index.find(block_id(rng.randrange(20)), rng.randrange(3))
            if found is not None:
                assert index.is_owned(found) == (found.name in owned)
                if rng.random() < 0.3:
                    index.remove(found)
                    owned.pop(found.name, None)
        elif action < 0.8:
            victim = index.take_victim()
            assert (victim is None) == (not owned)
            if victim is not None:
                index.used -= owned.pop(victim.name)
        elif action < 0.9 and owned:
            owners = {name.partition("/")[0] for name in rng.sample(list(owned), 1)}
            index.disown(owners)
            owned = {
                name: size for name, size in owned.items() if name.partition("/")[0] not in owners
            }
            foreign |= owners
        elif foreign:
            index.drop_owner(owner := rng.choice(sorted(foreign)))
            foreign.discard(owner)
        assert index.used == index.stored_bytes == sum(owned.values())
        assert index.owned_count == len(owned)
        if is_unique and step % 20 == 0:
            for name in owned:
                found = index.find(name.split("-")[0][-32:], int(name.split("-")[1], 16))
                assert found is not None
                assert found.name == name
    while index.take_victim() is not None:
        pass
    for owner in foreign:
        index.drop_owner(owner)
    assert index.owned_count == index.stored_bytes == 0
    assert not any(index.has_blocks_of(f"{item:016x}") for item in range(20))
    assert not any(index.find(block_id(item), number) for item in range(20) for number in range(3))


async def test_other_tasks_run_while_a_large_cache_is_indexed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = 0

    class Due(Turns):
        """Turns that are always due: a step of the event loop is one slice."""

        is_due = True

        async def give(self) -> None:
            nonlocal given
            given += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(listing, "Turns", Due)
    monkeypatch.setattr(blocks, "Turns", Due)
    cache = Cache()
    await cache.create_bucket("trove-cache")
    count = 2000
    for number in range(count):
        owner = "dead" if number % 2 else "gone"
        await put_block(cache, name_of(owner, number, 0, 1))
    async with cached(Origin(), cache, max_bytes=count) as setup:
        assert setup.layer.statistics().blocks == count
    # Each entry is listed in one slice, and half of them are merged in another one.
    assert given >= count // blocks.SLICE * 3 // 2


async def put_block(cache: Cache, name: str) -> None:
    await cache.put("trove-cache", name, [memoryview(b"x")], PutOptions(size=1))


async def test_blocks_of_two_earlier_processes_are_read_and_evicted_after_a_restart() -> None:
    origin, cache = Origin(), Cache()
    bodies = {key: content(2 * BLOCK, key) for key in "abcd"}
    for key in "abc":  # three processes, one after the other, so that the blocks have three owners
        async with cached(origin, cache, max_bytes=6 * BLOCK) as setup:
            await setup.put(key, bodies[key])
            assert_same(await read(setup.layer, "bucket", key), bodies[key])
            await setup.settle()
    async with cached(origin, cache, max_bytes=6 * BLOCK) as setup:
        assert setup.layer.statistics().blocks == 6
        for key in "abc":
            assert_same(await read(setup.layer, "bucket", key), bodies[key])
        assert "get" not in origin.requests
        await setup.put("d", bodies["d"])
        assert_same(await read(setup.layer, "bucket", "d"), bodies["d"])
        await setup.settle()
        statistics = setup.layer.statistics()
        assert (statistics.blocks, statistics.evictions) == (6, 2)
    assert cache.stored <= 6 * BLOCK


def test_names_of_blocks_are_parsed_alike() -> None:
    name = name_of("0a", 3, 17, 4096, 0xDEADBEEF)
    block = Block.parse(name)
    match = blocks.LISTED(name)
    assert block is not None
    assert match is not None
    ident = f"{block.block_id}-{block.number:x}"
    assert match.groups() == (block.owner, block.object_id, ident, f"{block.size:x}")
