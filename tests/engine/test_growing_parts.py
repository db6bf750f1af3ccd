"""Parts of a body of unknown size: they begin with one slot, and grow while memory is free."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.concurrency.steps import let_tasks_run
from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import BufferPool
from trove_async._concurrency import OwnedTask, task_group
from trove_async._engine.parts import _min_short_size
from trove_async.driver import Capabilities
from trove_async.models import KiB, MiB
from trove_async.options import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async import Trove

pytestmark = pytest.mark.idle_time

BODY = content(4 * MiB + 300 * KiB)


async def stream(body: bytes, chunk: int = 256 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), chunk):
        await asyncio.sleep(0)
        yield body[at : at + chunk]


class StalledBody:
    """A body that yields its bytes, and then nothing until `resume` is set."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.stalled = asyncio.Event()
        self.resume = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in stream(self.body):
            yield chunk
        self.stalled.set()
        await self.resume.wait()


def recording(fake: Fake) -> list[Part]:
    """Return a list to which each part that the driver receives is appended."""
    parts: list[Part] = []
    open_upload = fake.upload

    def upload(bucket: str, key: str, options: Any) -> Any:
        running = open_upload(bucket, key, options)
        send = running.send

        async def record_and_send(part: Part, views: Any) -> None:
            assert sum(map(len, views)) == part.size
            parts.append(part)
            await send(part, views)

        running.send = record_and_send
        return running

    fake.upload = upload  # type: ignore[method-assign]
    return parts


@asynccontextmanager
async def all_but(pool: BufferPool, slots: int) -> AsyncIterator[None]:
    """Lease the whole pool except some slots."""
    with await pool.lease(pool.max_bytes - slots * MiB):
        yield


# -- memory is free ----------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", [True, False])
async def test_small_bodies_lease_one_slot_each(*, uneven: bool) -> None:
    fake = Fake(uneven_parts=uneven)
    async with store_of(fake, pool=BufferPool(8 * MiB, 4 * MiB)) as store:
        bodies = [StalledBody(BODY[: 600 * KiB]) for _ in range(8)]
        async with task_group() as group:
            for number, body in enumerate(bodies):
                group.start_soon(store.put, "bucket", str(number), body)
            for body in bodies:
                await body.stalled.wait()
            assert store.pool.statistics().leased == 8 * MiB
            assert store.pool.statistics().waiting == 0
            for body in bodies:
                body.resume.set()
        assert fake.count("put") == 8
        assert_idle(store, fake)


@pytest.mark.parametrize("uneven", [True, False])
async def test_part_grows_to_its_full_size_if_memory_is_free(*, uneven: bool) -> None:
    fake = Fake(uneven_parts=uneven)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(16 * MiB, 4 * MiB)) as store:
        await store.put("bucket", "key", stream(BODY))
        assert [part.size for part in parts] == [4 * MiB, 300 * KiB]
        await store.put("bucket", "small", stream(BODY[: 3 * MiB]))
        assert fake.count("put") == 1
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_part_that_is_no_multiple_of_a_slot_grows_to_its_full_size() -> None:
    fake = Fake(uneven_parts=True, max_part=5 * MiB // 2, max_put=5 * MiB // 2)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(16 * MiB, 4 * MiB)) as store:
        await store.put("bucket", "key", stream(BODY))
        assert [part.size for part in parts] == [5 * MiB // 2, len(BODY) - 5 * MiB // 2]
        assert await store.read("bucket", "key") == BODY


# -- no memory is free -------------------------------------------------------------------------------


async def test_part_that_cannot_grow_is_sent_short_if_the_backend_allows_it() -> None:
    fake = Fake(uneven_parts=True)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(8 * MiB, 4 * MiB)) as store:
        async with all_but(store.pool, 1):
            put = OwnedTask(store.put("bucket", "key", stream(BODY[: 3 * MiB + 1])))
            await put.result()
            assert [(part.number, part.offset, part.size, part.last) for part in parts] == [
                (1, 0, MiB, False),
                (2, MiB, MiB, False),
                (3, 2 * MiB, MiB, False),
                (4, 3 * MiB, 1, True),
            ]
        assert store.pool.statistics().spilled_total == 0
        assert await store.read("bucket", "key") == BODY[: 3 * MiB + 1]
        assert_idle(store, fake)


async def test_memory_of_a_short_part_is_kept_for_the_next_one() -> None:
    fake = Fake(uneven_parts=True)
    async with store_of(fake, pool=BufferPool(8 * MiB, 4 * MiB)) as store:
        async with all_but(store.pool, 1):
            body = StalledBody(BODY[: 2 * MiB])
            first = OwnedTask(store.put("bucket", "first", body))
            await body.stalled.wait()
            second = OwnedTask(store.put("bucket", "second", stream(b"small")))
            await let_tasks_run()
            assert not second.done  # the first put, which is in progress, continues before it
            assert store.pool.statistics().waiting == 1
            body.resume.set()
            await first.result()
            await second.result()
        assert_idle(store, fake)


async def test_body_larger_than_a_part_leases_whole_parts_after_the_first() -> None:
    fake = Fake(uneven_parts=True)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(6 * MiB, 2 * MiB)) as store:
        async with all_but(store.pool, 2):
            hold = await store.pool.lease(MiB)

            async def release_hold() -> None:
                hold.release()

            fake.before["send"] = release_hold
            await store.put("bucket", "key", stream(BODY))
        assert [part.size for part in parts] == [MiB, 2 * MiB, MiB + 300 * KiB]
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_part_of_a_fixed_size_that_cannot_grow_waits_without_memory() -> None:
    fake = Fake(uneven_parts=False)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(8 * MiB, 2 * MiB, spill_after=1e6)) as store:
        held = await store.pool.lease(7 * MiB)
        put = OwnedTask(store.put("bucket", "key", stream(BODY)))
        while not store.pool.statistics().waiting:
            await asyncio.sleep(0.001)
        statistics = store.pool.statistics()
        assert (statistics.leased, statistics.spilled) == (7 * MiB, MiB)
        held.release()
        await put.result()
        assert [part.size for part in parts] == [2 * MiB, 2 * MiB, 300 * KiB]
        assert store.pool.statistics().spilled_total == MiB
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_part_that_was_moved_to_a_file_is_completed_there_if_memory_stalls() -> None:
    fake = Fake(uneven_parts=False)
    parts = recording(fake)
    async with store_of(fake, pool=BufferPool(4 * MiB, 2 * MiB, spill_after=0.01)) as store:
        held = await store.pool.lease(3 * MiB)
        with held, await store.pool.lease(MiB) as last:
            put = OwnedTask(store.put("bucket", "key", stream(BODY)))
            await let_tasks_run()
            last.release()
            await put.result()
        assert [part.size for part in parts] == [2 * MiB, 2 * MiB, 300 * KiB]
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_moved_part_is_served_before_puts_that_begin() -> None:
    fake = Fake(uneven_parts=False)
    async with store_of(fake, pool=BufferPool(4 * MiB, 2 * MiB, spill_after=1e6)) as store:
        held = [await store.pool.lease(MiB) for _ in range(3)]
        ended: list[str] = []

        async def put(key: str, size: int) -> None:
            await store.put("bucket", key, stream(BODY[:size]))
            ended.append(key)

        async with task_group() as group:
            group.start_soon(put, "large", 2 * MiB)
            while not store.pool.statistics().spilled:
                await asyncio.sleep(0.001)
            # The slot of the large put is free until it waits for two, so the small ones get it or wait.
            while not store.pool.statistics().waiting:
                await asyncio.sleep(0.001)
            for number in range(3):
                group.start_soon(put, f"small-{number}", KiB)
            await let_tasks_run()
            assert store.pool.statistics().waiting == 4
            for lease in held:
                lease.release()
        assert ended[0] != "small-2"
        assert_idle(store, fake)


@pytest.mark.parametrize("spill_max_bytes", [0, 2 * MiB - 1])
async def test_part_of_a_fixed_size_is_leased_whole_if_no_file_could_hold_its_beginning(
    spill_max_bytes: int,
) -> None:
    fake = Fake(uneven_parts=False)
    pool = BufferPool(8 * MiB, 4 * MiB, spill_max_bytes=spill_max_bytes)
    async with store_of(fake, pool=pool) as store:
        body = StalledBody(b"small")
        put = OwnedTask(store.put("bucket", "key", body))
        await body.stalled.wait()
        assert store.pool.statistics().leased == 4 * MiB
        body.resume.set()
        await put.result()
        assert_idle(store, fake)


async def test_short_part_in_a_file_ends_where_the_files_are_full() -> None:
    fake = Fake(uneven_parts=True)
    parts = recording(fake)
    pool = BufferPool(8 * MiB, 4 * MiB, spill_after=0.01, spill_max_bytes=2 * MiB)
    async with store_of(fake, pool=pool) as store:
        with await store.pool.lease(8 * MiB):
            await store.put("bucket", "key", stream(BODY[: 3 * MiB]))
        assert parts[0].size == 2 * MiB
        assert await store.read("bucket", "key") == BODY[: 3 * MiB]
        assert_idle(store, fake)


# -- planning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "planned_size", "short_size"),
    [
        ({}, None, MiB),
        ({"min_part": 1}, None, MiB),
        ({"min_part": MiB + 1}, None, 2 * MiB),
        ({"part_multiple": 256 * KiB}, None, MiB),
        ({"part_multiple": 3}, None, 8 * MiB),
        ({"uneven_parts": False}, None, 8 * MiB),
        ({"max_parts": 20}, 12 * 8 * MiB, MiB),
        ({"max_parts": 20}, 12 * 8 * MiB + 1, 8 * MiB),  # short parts would use up the numbers
    ],
)
def test_shortest_part(limits: dict[str, Any], planned_size: int | None, short_size: int) -> None:
    capabilities = Capabilities(**{"uneven_parts": True, **limits})
    assert _min_short_size(8 * MiB, capabilities, planned_size) == short_size


# -- failures and cancels ----------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", [True, False])
async def test_failing_source_releases_all_memory(*, uneven: bool) -> None:
    async def failing(size: int) -> AsyncIterator[bytes]:
        async for chunk in stream(BODY[:size]):
            yield chunk
        raise RuntimeError("the source is gone")

    fake = Fake(uneven_parts=uneven)
    async with store_of(fake, pool=BufferPool(8 * MiB, 4 * MiB, spill_after=0.01)) as store:
        async with all_but(store.pool, 1):
            for size in (100, MiB, MiB + 1, 3 * MiB):
                with pytest.raises(RuntimeError, match="the source is gone"):
                    await store.put("bucket", "key", failing(size))
                assert store.pool.statistics().leased == 7 * MiB
        assert_idle(store, fake)


@pytest.mark.parametrize("uneven", [True, False])
async def test_put_cancelled_after_any_number_of_steps_holds_nothing(*, uneven: bool) -> None:
    fake = Fake(uneven_parts=uneven)
    async with store_of(fake, pool=BufferPool(4 * MiB, 2 * MiB, spill_after=0.001)) as store:
        finished, steps = False, 0
        while not finished:
            async with all_but(store.pool, 1):
                put = OwnedTask(store.put("bucket", "key", stream(BODY[: 3 * MiB], MiB)))
                for step in range(steps):
                    await asyncio.sleep(0.001 if step % 8 == 7 else 0)  # the clock stops in between
                    if put.done:
                        break
                finished = put.done
                await put.aclose()
                assert store.pool.statistics().leased == 3 * MiB
            assert await store.exists("bucket", "key") is finished
            assert_idle(store, fake)
            steps += 1 if steps < 60 else steps // 8


# -- random schedules --------------------------------------------------------------------------------


class Schedule:
    """Puts of random sizes whose sources stall at random, some until all the others are stored."""

    def __init__(self, seed: int, slots: int, count: int) -> None:
        self.random = rng = random.Random(seed)
        self.pool = BufferPool(slots * MiB, rng.randint(1, slots // 2) * MiB, spill_after=0.02)
        self.parallel_parts = rng.randint(1, 3)
        self.max_connections = rng.choice([1, 4])
        self.sizes = [rng.randrange(1, 4 * MiB) for _ in range(count)]
        self.stalls = [rng.random() < 0.3 for _ in range(count)]
        self.remaining = self.stalls.count(False)
        self.others_stored = asyncio.Event()

    async def run(self, *, uneven: bool) -> None:
        fake = Fake(
            uneven_parts=uneven,
            parallel_parts=self.parallel_parts,
            max_connections=self.max_connections,
        )
        if not self.remaining:
            self.others_stored.set()
        async with store_of(fake, pool=self.pool) as store:
            async with task_group() as group:
                for number in range(len(self.sizes)):
                    group.start_soon(self.put, store, number)
            for number, size in enumerate(self.sizes):
                assert await store.read("bucket", str(number)) == content(size, str(number))
            assert self.pool.statistics().peak <= self.pool.max_bytes
            assert_idle(store, fake)

    async def put(self, store: Trove, number: int) -> None:
        await store.put("bucket", str(number), self.body(number))
        self.remaining -= not self.stalls[number]
        if not self.remaining:
            self.others_stored.set()

    async def body(self, number: int) -> AsyncIterator[bytes]:
        rng, body = self.random, content(self.sizes[number], str(number))
        stall_at = rng.randrange(len(body)) if self.stalls[number] else len(body)
        for part in (body[:stall_at], body[stall_at:]):
            async for chunk in stream(part, rng.choice([100_000, MiB])):
                yield chunk
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.choice([0.001, 0.1]))
            if self.stalls[number]:
                await self.others_stored.wait()


@pytest.mark.parametrize("uneven", [True, False])
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32), slots=st.integers(2, 8), count=st.integers(1, 12))
def test_any_schedule_stores_all_bodies(seed: int, slots: int, count: int, *, uneven: bool) -> None:
    asyncio.run(Schedule(seed, slots, count).run(uneven=uneven))
