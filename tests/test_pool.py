"""The buffer pool: settings, the order of leases, revocable leases, and random schedules."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.concurrency.steps import let_tasks_run
from trove_async import BufferPool, ClosedError, PoolTimeoutError
from trove_async._concurrency import OwnedTask, task_group
from trove_async.errors import ConfigError
from trove_async.models import MiB
from trove_async.pool import SLOT, Lease, SpillFile

pytestmark = pytest.mark.idle_time


def leased(pool: BufferPool) -> int:
    return pool.statistics().leased


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_bytes", "part_size"),
    [
        (0, None),
        (1 * MiB, None),
        (2 * MiB + 1, None),
        (8 * MiB, 5 * MiB),
        (8 * MiB, 0),
        (8 * MiB, MiB + 1),
        (8 * MiB, -MiB),
    ],
)
def test_inconsistent_sizes_are_rejected(max_bytes: int, part_size: int | None) -> None:
    with pytest.raises(ConfigError):
        BufferPool(max_bytes, part_size)


@pytest.mark.parametrize(
    ("max_bytes", "part_size"), [(2, 1), (3, 1), (5, 2), (15, 7), (16, 8), (128, 8)]
)
def test_part_is_8_mib_or_half_of_a_small_pool(max_bytes: int, part_size: int) -> None:
    assert BufferPool(max_bytes * MiB).part_size == part_size * MiB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_bytes": "64 MiB"}, "max_bytes must be an int, got str"),
        ({"part_size": 1e6}, "part_size must be an int"),
        ({"spill_max_bytes": None}, "spill_max_bytes must be an int"),
        ({"spill_after": "1"}, "spill_after must be a number, got str"),
        ({"deadline": None}, "deadline must be a number, got NoneType"),
    ],
)
def test_settings_of_a_wrong_type_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        BufferPool(**arguments)


@pytest.mark.parametrize("argument", ["spill_after", "deadline"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_invalid_time_limits_are_rejected(argument: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"{argument}.* must "):
        BufferPool(**{argument: seconds})  # type: ignore[arg-type] # each takes a float


def test_repr_of_a_pool_shows_its_sizes() -> None:
    assert repr(BufferPool(2 * MiB)) == "BufferPool(max_bytes=2097152, part_size=1048576)"


async def test_lease_larger_than_the_pool_is_rejected_immediately() -> None:
    with pytest.raises(ConfigError):
        await BufferPool(2 * MiB).lease(3 * MiB)


# -- leases ------------------------------------------------------------------------------------------


async def test_leases_have_separate_writable_slots() -> None:
    pool = BufferPool(4 * MiB)
    with await pool.lease(2 * MiB) as first, await pool.lease(1) as second:
        assert (first.size, second.size, leased(pool)) == (2 * MiB, SLOT, 3 * MiB)
        for number, view in enumerate([*first.views, *second.views]):
            assert len(view) == SLOT
            view[:] = bytes([number]) * SLOT
        assert [view[0] for view in [*first.views, *second.views]] == [0, 1, 2]
    assert leased(pool) == 0
    assert pool.statistics().peak == 3 * MiB


async def test_release_is_idempotent() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(MiB)
    lease.release()
    lease.release()
    assert leased(pool) == 0
    assert lease.views == []


async def test_shrink_releases_the_slots_that_are_not_needed() -> None:
    pool = BufferPool(4 * MiB)
    lease = await pool.lease(4 * MiB)
    lease.shrink(MiB + 1)
    assert (lease.size, leased(pool)) == (2 * MiB, 2 * MiB)
    lease.shrink(0)
    assert lease.size == SLOT
    lease.shrink(MiB)
    assert lease.size == SLOT
    lease.release()
    assert leased(pool) == 0


async def test_shrink_serves_a_waiter() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(2 * MiB)
    waiter = OwnedTask(pool.lease(MiB))
    await let_tasks_run()
    lease.shrink(MiB)
    (await waiter.result()).release()
    lease.release()


async def test_leases_are_served_in_order() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(2 * MiB)
    order = []

    async def take(number: int) -> None:
        with await pool.lease(MiB):
            order.append(number)
            await let_tasks_run()

    async with task_group() as group:
        for number in range(10):
            group.start_soon(take, number)
            await let_tasks_run(1)
        assert pool.statistics().waiting == 10
        lease.release()
    assert order == list(range(10))


async def test_small_lease_waits_behind_a_large_one() -> None:
    pool = BufferPool(4 * MiB)
    leases = [await pool.lease(MiB) for _ in range(3)]
    large = OwnedTask(pool.lease(2 * MiB))
    await let_tasks_run()
    small = OwnedTask(pool.lease(MiB))
    await let_tasks_run()
    assert not small.done  # although a slot is free
    assert pool.try_lease(MiB) is None
    leases.pop().release()
    (await large.result()).release()
    (await small.result()).release()
    for lease in leases:
        lease.release()


async def test_timed_out_lease_names_the_setting_to_raise() -> None:
    pool = BufferPool(2 * MiB, deadline=0.01)
    with await pool.lease(2 * MiB):
        with pytest.raises(PoolTimeoutError, match="raise max_bytes"):
            await pool.lease(MiB)
        with pytest.raises(PoolTimeoutError, match=r"0\.02 s"):
            await pool.lease(MiB, timeout=0.02)
        assert pool.statistics().waiting == 0
    (await pool.lease(2 * MiB)).release()


async def test_timed_out_lease_does_not_block_later_waiters() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(MiB)
    large = OwnedTask(pool.lease(2 * MiB, timeout=0.02))
    await let_tasks_run()
    (await pool.lease(MiB)).release()
    with pytest.raises(PoolTimeoutError):
        await large.result()
    lease.release()


@pytest.mark.parametrize("spilling", [False, True])
async def test_cancelled_wait_holds_nothing(*, spilling: bool) -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(2 * MiB)
    waiter = OwnedTask[Lease | SpillFile](pool.lease_or_spill(MiB) if spilling else pool.lease(MiB))
    await let_tasks_run()
    await waiter.aclose()
    assert pool.statistics().waiting == 0
    lease.release()
    assert leased(pool) == 0


@pytest.mark.parametrize("spilling", [False, True])
async def test_wait_cancelled_once_it_was_served_releases_its_lease(*, spilling: bool) -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(2 * MiB)
    waiter = OwnedTask[Lease | SpillFile](pool.lease_or_spill(MiB) if spilling else pool.lease(MiB))
    await let_tasks_run()
    lease.release()
    await waiter.aclose()
    assert leased(pool) == 0
    assert pool.statistics().waiting == 0


@pytest.mark.parametrize("spilling", [False, True])
async def test_wait_in_a_queue_that_moves_does_not_time_out(*, spilling: bool) -> None:
    pool = BufferPool(2 * MiB, deadline=1.0)
    ended = []

    async def take(number: int) -> None:
        lease = await (pool.lease_or_spill(2 * MiB) if spilling else pool.lease(2 * MiB))
        assert isinstance(lease, Lease)
        with lease:
            await asyncio.sleep(0.3)
        ended.append(number)

    async with task_group() as group:
        for number in range(4):  # the last one waits for 0.9 s: it is served within the deadline
            group.start_soon(take, number)
    assert ended == list(range(4))
    ended.clear()
    async with task_group() as group:
        held = await pool.lease(2 * MiB)
        waiters = [OwnedTask(pool.lease(2 * MiB)) for _ in range(6)]
        for waiter in waiters:
            await asyncio.sleep(0.7)  # altogether much longer than the deadline
            held.release()
            held = await waiter.result()
        held.release()


async def test_queue_whose_memory_is_being_filled_does_not_spill() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.5)
    with await pool.lease(2 * MiB):
        waiter = OwnedTask(pool.lease_or_spill(MiB))
        for _ in range(10):
            pool.record_filled(100_000)
            await asyncio.sleep(0.2)
        assert not waiter.done
        spill = await waiter.result()  # nothing is filled any more
        assert isinstance(spill, SpillFile)
        await spill.aclose()


async def test_lease_grows_if_memory_is_free_and_no_transfer_waits() -> None:
    pool = BufferPool(4 * MiB)
    with await pool.lease(MiB) as lease:
        lease.views[0][:1] = b"a"
        assert lease.try_grow(2 * MiB + 1)
        assert (lease.size, leased(pool)) == (3 * MiB, 3 * MiB)
        assert bytes(lease.views[0][:1]) == b"a"
        assert lease.try_grow(MiB)  # it is large enough
        assert lease.size == 3 * MiB
        assert not lease.try_grow(5 * MiB)
        waiter = OwnedTask(pool.lease(2 * MiB))
        await let_tasks_run()
        assert not lease.try_grow(4 * MiB)  # a slot is free, but a transfer waits
        assert lease.size == 3 * MiB
    (await waiter.result()).release()
    assert leased(pool) == 0


async def test_transfer_that_continues_is_served_before_those_that_begin() -> None:
    pool = BufferPool(2 * MiB)
    order: list[str] = []

    async def take(name: str, *, continues: bool) -> None:
        lease = await pool.lease_or_spill(2 * MiB, continues=continues)
        assert isinstance(lease, Lease)
        with lease:
            order.append(name)

    with await pool.lease(2 * MiB):
        tasks = [
            OwnedTask(take(name, continues=name.startswith("old")))
            for name in ("new-1", "old-1", "new-2", "old-2")
        ]
        await let_tasks_run()
        assert pool.statistics().waiting == 4
    for task in tasks:
        await task.result()
    assert order == ["old-1", "old-2", "new-1", "new-2"]


async def test_slot_used_last_is_used_next() -> None:
    pool = BufferPool(16 * MiB)
    with await pool.lease(MiB) as lease:
        lease.views[0][:4] = b"warm"
    with await pool.lease(MiB) as lease:
        assert bytes(lease.views[0][:4]) == b"warm"


# -- revocable leases --------------------------------------------------------------------------------


class RevocableLease:
    """A lease that can be revoked once it is filled."""

    def __init__(self, pool: BufferPool, size: int = MiB) -> None:
        self.filled = True
        self.revocations = 0
        self.lease = pool.try_lease(size, revoke=self.revoke)

    def revoke(self) -> bool:
        self.revocations += 1
        if self.filled:
            assert self.lease is not None
            self.lease.release()
        return self.filled


async def test_try_lease_returns_none_if_too_little_is_free() -> None:
    pool = BufferPool(2 * MiB)
    lease = pool.try_lease(2 * MiB)
    assert lease is not None
    assert pool.try_lease(1) is None
    lease.release()


async def test_oldest_revocable_lease_is_revoked_first() -> None:
    pool = BufferPool(4 * MiB)
    older, newer = RevocableLease(pool), RevocableLease(pool)
    with await pool.lease(2 * MiB):
        (await pool.lease(MiB, timeout=5)).release()
    assert (older.revocations, newer.revocations) == (1, 0)
    assert newer.lease is not None
    newer.lease.release()


async def test_revocable_leases_use_at_most_half_of_the_pool() -> None:
    pool = BufferPool(4 * MiB)
    first, second, third = RevocableLease(pool), RevocableLease(pool), RevocableLease(pool)
    assert first.lease is not None
    assert second.lease is not None
    assert third.lease is None
    first.lease.release()
    fourth = RevocableLease(pool)
    assert fourth.lease is not None
    fourth.lease.release()
    second.lease.release()
    assert RevocableLease(pool, 3 * MiB).lease is None


async def test_lease_that_cannot_be_revoked_yet_is_revoked_later() -> None:
    pool = BufferPool(2 * MiB)
    revocable, lease = RevocableLease(pool), pool.try_lease(MiB)
    assert lease is not None
    revocable.filled = False
    waiter = OwnedTask(pool.lease(MiB))
    while revocable.revocations < 2:
        await asyncio.sleep(0.01)
    assert not waiter.done
    revocable.filled = True
    (await waiter.result()).release()
    lease.release()


async def test_revocable_lease_is_kept_while_there_are_no_waiters() -> None:
    pool = BufferPool(4 * MiB)
    revocable = RevocableLease(pool)
    assert revocable.lease is not None
    (await pool.lease(MiB)).release()
    assert revocable.revocations == 0
    revocable.lease.release()


# -- event loop and process --------------------------------------------------------------------------


def test_pool_belongs_to_one_event_loop() -> None:
    pool = BufferPool(2 * MiB)

    async def use() -> None:
        (await pool.lease(MiB)).release()

    asyncio.run(use())
    with pytest.raises(ClosedError, match="another event loop"):
        asyncio.run(use())


def test_pool_belongs_to_one_process() -> None:
    pool = BufferPool(2 * MiB)

    async def use() -> None:
        (await pool.lease(MiB)).release()

    with asyncio.Runner() as runner:
        runner.run(use())
        owner = pool._owner
        assert owner is not None
        pool._owner = (owner[0] + 1, owner[1])  # as in a forked child, whose process id differs
        with pytest.raises(ClosedError, match="process"):
            runner.run(use())


# -- random schedules --------------------------------------------------------------------------------


class Schedule:
    """Leases of every kind at random moments, some of them cancelled."""

    def __init__(self, seed: int, slots: int, users: int) -> None:
        self.random = random.Random(seed)
        self.slots = slots
        self.users = users
        self.owned: set[int] = set()
        self.served = 0
        self.cancelled = 0

    async def run(self) -> None:
        self.pool = pool = BufferPool(self.slots * SLOT, SLOT, spill_after=0.0, deadline=30)
        tasks = [OwnedTask(self.take()) for _ in range(self.users)]
        async with task_group() as group:
            for task in tasks:
                if self.random.random() < 0.2:
                    await let_tasks_run(self.random.randrange(3))
                    group.start_soon(task.aclose)
        for task in tasks:
            try:
                await task.result()
                self.served += 1
            except ClosedError:
                self.cancelled += 1
        statistics = pool.statistics()
        assert (statistics.leased, statistics.waiting, statistics.spilled) == (0, 0, 0)
        assert sorted(pool._free) == list(range(self.slots))
        assert statistics.peak <= pool.max_bytes

    async def take(self) -> None:
        rng, pool = self.random, self.pool
        await let_tasks_run(rng.randrange(10))
        size, kind = rng.randint(1, self.slots * SLOT), rng.randrange(3)
        if kind == 0:
            memory = await pool.lease_or_spill(size, continues=rng.random() < 0.2)
            if isinstance(memory, SpillFile):
                await memory.aclose()
            else:
                await self.use(memory)
        elif kind == 1:
            revocable = RevocableLease(pool, size)
            try:
                await let_tasks_run(rng.randrange(6))
            finally:
                if revocable.lease is not None:
                    revocable.lease.release()
        else:
            await self.use(await pool.lease(size))

    async def use(self, lease: Lease) -> None:
        with lease:
            slots = set(lease._slots)
            assert not slots & self.owned, "two leases own one slot"
            assert leased(self.pool) <= self.pool.max_bytes
            self.owned |= slots
            try:
                await let_tasks_run(self.random.randrange(4))
            finally:
                self.owned -= slots
            if self.random.random() < 0.3:
                lease.try_grow(self.random.randint(1, self.slots * SLOT))
                await let_tasks_run(self.random.randrange(2))
            if self.random.random() < 0.3:
                lease.shrink(1)
                await let_tasks_run(self.random.randrange(2))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), slots=st.integers(2, 6), users=st.integers(1, 40))
def test_any_schedule_serves_all_waiters_and_loses_no_slot(
    seed: int, slots: int, users: int
) -> None:
    schedule = Schedule(seed, slots, users)
    asyncio.run(schedule.run())
    assert schedule.served + schedule.cancelled == users
