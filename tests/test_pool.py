"""The pool: leases in order, revoking, spilling, and what it never does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trove_async import BufferPool, ClosedError, PoolTimeoutError
from trove_async._concurrency import OwnedTask, task_group
from trove_async.errors import ConfigError
from trove_async.models import KiB, MiB
from trove_async.pool import SLOT, Lease, SpillFile

if TYPE_CHECKING:
    from pathlib import Path


async def steps(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


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
def test_sizes_that_do_not_fit_together_are_refused(max_bytes: int, part_size: int | None) -> None:
    with pytest.raises(ConfigError):
        BufferPool(max_bytes, part_size)


@pytest.mark.parametrize(
    ("max_bytes", "part_size"), [(2, 1), (3, 1), (5, 2), (15, 7), (16, 8), (128, 8)]
)
def test_part_is_8_mib_or_half_of_a_small_pool(max_bytes: int, part_size: int) -> None:
    assert BufferPool(max_bytes * MiB).part_size == part_size * MiB


def test_pool_says_what_it_is() -> None:
    assert repr(BufferPool(2 * MiB)) == "BufferPool(max_bytes=2097152, part_size=1048576)"


async def test_more_than_the_pool_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        await BufferPool(2 * MiB).lease(3 * MiB)


# -- leases ------------------------------------------------------------------------------------------


async def test_lease_is_page_aligned_writable_slots_of_its_own() -> None:
    pool = BufferPool(4 * MiB)
    with await pool.lease(2 * MiB) as one, await pool.lease(1) as other:
        assert (one.size, other.size, leased(pool)) == (2 * MiB, SLOT, 3 * MiB)
        for number, view in enumerate([*one.views, *other.views]):
            assert len(view) == SLOT
            view[:] = bytes([number]) * SLOT
        assert [view[0] for view in [*one.views, *other.views]] == [0, 1, 2]
    assert leased(pool) == 0
    assert pool.statistics().peak == 3 * MiB


async def test_release_is_idempotent() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(MiB)
    lease.release()
    lease.release()
    assert leased(pool) == 0
    assert lease.views == []


async def test_shrink_gives_back_what_is_not_needed() -> None:
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


async def test_shrink_serves_who_waits() -> None:
    pool = BufferPool(2 * MiB)
    lease = await pool.lease(2 * MiB)
    waiter = OwnedTask(pool.lease(MiB))
    await steps()
    lease.shrink(MiB)
    (await waiter.result()).release()
    lease.release()


async def test_leases_are_served_in_order() -> None:
    pool = BufferPool(2 * MiB)
    held = await pool.lease(2 * MiB)
    order = []

    async def take(number: int) -> None:
        with await pool.lease(MiB):
            order.append(number)
            await steps()

    async with task_group() as group:
        for number in range(10):
            group.start_soon(take, number)
            await steps(1)
        assert pool.statistics().waiting == 10
        held.release()
    assert order == list(range(10))


async def test_small_lease_waits_behind_a_large_one() -> None:
    pool = BufferPool(4 * MiB)
    held = [await pool.lease(MiB) for _ in range(3)]
    large = OwnedTask(pool.lease(2 * MiB))
    await steps()
    small = OwnedTask(pool.lease(MiB))
    await steps()
    assert not small.done  # though its slot is free
    assert pool.try_lease(MiB) is None
    held.pop().release()
    (await large.result()).release()
    (await small.result()).release()
    for lease in held:
        lease.release()


async def test_lease_that_is_not_served_in_time_says_what_to_do() -> None:
    pool = BufferPool(2 * MiB, deadline=0.01)
    with await pool.lease(2 * MiB):
        with pytest.raises(PoolTimeoutError, match="raise max_bytes"):
            await pool.lease(MiB)
        with pytest.raises(PoolTimeoutError, match=r"0\.02 s"):
            await pool.lease(MiB, timeout=0.02)
        assert pool.statistics().waiting == 0
    (await pool.lease(2 * MiB)).release()


async def test_lease_that_gives_up_lets_those_behind_go_on() -> None:
    pool = BufferPool(2 * MiB)
    held = await pool.lease(MiB)
    large = OwnedTask(pool.lease(2 * MiB, timeout=0.02))
    await steps()
    (await pool.lease(MiB)).release()
    with pytest.raises(PoolTimeoutError):
        await large.result()
    held.release()


@pytest.mark.parametrize("spilling", [False, True])
async def test_wait_that_is_cancelled_holds_nothing(*, spilling: bool) -> None:
    pool = BufferPool(2 * MiB)
    held = await pool.lease(2 * MiB)
    waiter = OwnedTask[Lease | SpillFile](pool.lease_or_spill(MiB) if spilling else pool.lease(MiB))
    await steps()
    await waiter.aclose()
    assert pool.statistics().waiting == 0
    held.release()
    assert leased(pool) == 0


@pytest.mark.parametrize("spilling", [False, True])
async def test_wait_that_is_granted_and_cancelled_at_once_gives_back(*, spilling: bool) -> None:
    pool = BufferPool(2 * MiB)
    held = await pool.lease(2 * MiB)
    waiter = OwnedTask[Lease | SpillFile](pool.lease_or_spill(MiB) if spilling else pool.lease(MiB))
    await steps()
    held.release()
    await waiter.aclose()
    assert leased(pool) == 0
    assert pool.statistics().waiting == 0


async def test_slot_that_was_used_last_is_used_next() -> None:
    pool = BufferPool(16 * MiB)
    with await pool.lease(MiB) as lease:
        lease.views[0][:4] = b"warm"
    with await pool.lease(MiB) as lease:
        assert bytes(lease.views[0][:4]) == b"warm"


# -- read-ahead --------------------------------------------------------------------------------------


class Ahead:
    """Read-ahead that can be revoked once it is filled."""

    def __init__(self, pool: BufferPool, size: int = MiB) -> None:
        self.filled = True
        self.asked = 0
        self.lease = pool.try_lease(size, revoke=self.revoke)

    def revoke(self) -> bool:
        self.asked += 1
        if self.filled:
            assert self.lease is not None
            self.lease.release()
        return self.filled


async def test_try_lease_takes_only_what_is_free_while_nobody_waits() -> None:
    pool = BufferPool(2 * MiB)
    lease = pool.try_lease(2 * MiB)
    assert lease is not None
    assert pool.try_lease(1) is None
    lease.release()


async def test_read_ahead_is_revoked_for_who_waits_the_oldest_first() -> None:
    pool = BufferPool(2 * MiB)
    old, young = Ahead(pool), Ahead(pool)
    (await pool.lease(MiB, timeout=5)).release()
    assert (old.asked, young.asked) == (1, 0)
    assert young.lease is not None
    young.lease.release()


async def test_read_ahead_that_is_being_filled_is_asked_again() -> None:
    pool = BufferPool(2 * MiB)
    ahead = Ahead(pool, 2 * MiB)
    ahead.filled = False
    waiter = OwnedTask(pool.lease(MiB))
    while ahead.asked < 2:
        await asyncio.sleep(0.01)
    assert not waiter.done
    ahead.filled = True
    (await waiter.result()).release()


async def test_read_ahead_is_left_alone_while_nobody_waits() -> None:
    pool = BufferPool(4 * MiB)
    ahead = Ahead(pool)
    assert ahead.lease is not None
    (await pool.lease(MiB)).release()
    assert ahead.asked == 0
    ahead.lease.release()


# -- home --------------------------------------------------------------------------------------------


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
        home = pool._home
        assert home is not None
        pool._home = (home[0] + 1, home[1])  # as a child of a fork would see it
        with pytest.raises(ClosedError, match="process"):
            runner.run(use())


# -- spilling ----------------------------------------------------------------------------------------


async def test_memory_is_preferred_to_a_file() -> None:
    pool = BufferPool(2 * MiB)
    room = await pool.lease_or_spill(MiB)
    assert isinstance(room, Lease)
    room.release()


async def test_file_is_given_where_the_line_stands_still() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.01)
    with await pool.lease(2 * MiB):
        room = await pool.lease_or_spill(MiB)
        assert isinstance(room, SpillFile)
        assert pool.statistics().spilled == MiB
        assert pool.statistics().waiting == 0
        await room.aclose()
        assert pool.statistics().spilled == 0


async def test_line_that_moves_is_waited_in() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.05)
    held = [await pool.lease(MiB), await pool.lease(MiB)]
    first, second = OwnedTask(pool.lease(MiB)), OwnedTask(pool.lease_or_spill(MiB))
    await steps()
    held.pop().release()  # one is served, and one more is in line: that is the pace it takes
    await first.result()
    await asyncio.sleep(0.07)
    assert not second.done
    held.pop().release()
    room = await second.result()
    assert isinstance(room, Lease)
    room.release()
    (await first.result()).release()


async def test_line_that_moves_too_slowly_is_left_for_a_file() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.02)
    held = [await pool.lease(MiB), await pool.lease(MiB)]
    crowd = [OwnedTask(pool.lease(MiB)) for _ in range(5)]
    await steps()
    last = OwnedTask(pool.lease_or_spill(MiB))
    await steps()
    held.pop().release()
    room = await last.result()
    assert isinstance(room, SpillFile)
    await room.aclose()
    for task in crowd:
        await task.aclose()
    (await crowd[0].result()).release()
    held.pop().release()


async def test_full_spill_files_leave_only_the_line_then_the_deadline() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.01, spill_max_bytes=MiB, deadline=0.05)
    spill = pool.try_spill(MiB)
    assert spill is not None
    assert pool.try_spill(1) is None
    with await pool.lease(2 * MiB):
        with pytest.raises(PoolTimeoutError, match="spill_max_bytes"):
            await pool.lease_or_spill(MiB)
        waiter = OwnedTask(pool.lease_or_spill(MiB))
        await steps()
        await spill.aclose()  # room for it while it waits
        room = await waiter.result()
        assert isinstance(room, SpillFile)
        await room.aclose()
    assert pool.statistics().waiting == 0


async def test_spilling_can_be_switched_off() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.0, spill_max_bytes=0, deadline=0.05)
    with await pool.lease(2 * MiB), pytest.raises(PoolTimeoutError):
        await pool.lease_or_spill(MiB)


async def test_spill_file_gives_back_what_was_written_and_has_no_name(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, spill_dir=tmp_path)
    body = random.randbytes(3 * 256 * KiB + 1)
    async with SpillFile(pool, len(body)) as spill:
        assert bytes(await spill.view()) == b""
        for at in range(0, len(body), 256 * KiB):
            await spill.write(body[at : at + 256 * KiB])
        assert os.listdir(tmp_path) == []  # noqa: PTH208 - in a test
        view = await spill.view()
        assert view.readonly
        assert bytes(view) == body
        assert spill.written == len(body)
        assert pool.statistics().spilled_total == len(body)
    assert bytes(view) == body  # whoever still holds the view is not hurt
    assert pool.statistics().spilled == 0


async def test_spill_file_extends_within_the_budget() -> None:
    pool = BufferPool(2 * MiB, spill_max_bytes=10)
    async with SpillFile(pool, 4) as spill:
        assert spill.try_extend(6)
        assert not spill.try_extend(1)
        assert pool.statistics().spilled == 10
    assert pool.statistics().spilled == 0


async def test_spill_file_is_closed_once_and_though_cancelled() -> None:
    pool = BufferPool(2 * MiB)
    spill = SpillFile(pool, 4)
    await spill.write(b"data")
    assert bytes(await spill.view()) == b"data"
    file = spill._file
    assert file is not None
    closer = OwnedTask(spill.aclose())
    await asyncio.sleep(0)
    await closer.aclose()
    assert file.closed
    await spill.aclose()
    assert pool.statistics().spilled == 0


async def test_cancelled_write_is_over_before_the_cancel_is_told() -> None:
    started, go_on = threading.Event(), threading.Event()
    written = []

    class Slow(SpillFile):
        def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
            started.set()
            go_on.wait(10)
            super()._write(*pieces)
            written.append(b"".join(pieces))

    pool = BufferPool(2 * MiB)
    slow = Slow(pool, MiB)
    task = OwnedTask(slow.write(bytes(MiB)))
    while not started.is_set():
        await asyncio.sleep(0)
    closer = OwnedTask(task.aclose())
    await steps()
    assert not closer.done
    go_on.set()
    await closer.result()
    assert written == [bytes(MiB)]
    await slow.aclose()
    assert pool.statistics().spilled == 0


async def test_small_writes_are_gathered() -> None:
    hops = []

    class Counting(SpillFile):
        def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
            hops.append(sum(map(len, pieces)))
            super()._write(*pieces)

    pool = BufferPool(2 * MiB)
    body = random.randbytes(200 * KiB)
    async with Counting(pool, len(body)) as spill:
        for at in range(0, len(body), 1000):
            await spill.write(body[at : at + 1000])
        assert spill.written == len(body)
        assert bytes(await spill.view()) == body
        assert bytes(await spill.view()) == body
    assert len(hops) == 4
    assert min(hops[:-1]) >= 64 * KiB


async def test_disk_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, spill_dir=tmp_path / "missing")
    async with SpillFile(pool, 4) as spill:
        await spill.write(b"data")
        with pytest.raises(FileNotFoundError) as caught:
            await spill.view()
        assert caught.value.errno == errno.ENOENT
    assert pool.statistics().spilled == 0


# -- any schedule ------------------------------------------------------------------------------------


class Schedule:
    """Takers of every kind, at random moments, some of them cancelled."""

    def __init__(self, seed: int, slots: int, takers: int) -> None:
        self.chance = random.Random(seed)
        self.slots = slots
        self.takers = takers
        self.owned: set[int] = set()
        self.served = 0
        self.cancelled = 0

    async def run(self) -> None:
        self.pool = pool = BufferPool(self.slots * SLOT, SLOT, spill_after=0.0, deadline=30)
        tasks = [OwnedTask(self.take()) for _ in range(self.takers)]
        async with task_group() as group:
            for task in tasks:
                if self.chance.random() < 0.2:
                    await steps(self.chance.randrange(3))
                    group.start_soon(task.aclose)
        for task in tasks:
            try:
                await task.result()
                self.served += 1
            except ClosedError:
                self.cancelled += 1
        figures = pool.statistics()
        assert (figures.leased, figures.waiting, figures.spilled) == (0, 0, 0)
        assert sorted(pool._free) == list(range(self.slots))
        assert figures.peak <= pool.max_bytes

    async def take(self) -> None:
        chance, pool = self.chance, self.pool
        await steps(chance.randrange(10))
        size, kind = chance.randint(1, self.slots * SLOT), chance.randrange(3)
        if kind == 0:
            room = await pool.lease_or_spill(size)
            if isinstance(room, SpillFile):
                await room.aclose()
            else:
                await self.use(room)
        elif kind == 1:
            ahead = Ahead(pool, size)
            try:
                await steps(chance.randrange(6))
            finally:
                if ahead.lease is not None:
                    ahead.lease.release()
        else:
            await self.use(await pool.lease(size))

    async def use(self, lease: Lease) -> None:
        with lease:
            mine = set(lease._slots)
            assert not mine & self.owned, "two own one slot"
            assert leased(self.pool) <= self.pool.max_bytes
            self.owned |= mine
            try:
                await steps(self.chance.randrange(4))
            finally:
                self.owned -= mine
            if self.chance.random() < 0.3:
                lease.shrink(1)
                await steps(self.chance.randrange(2))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), slots=st.integers(2, 6), takers=st.integers(1, 40))
def test_any_schedule_serves_everybody_and_loses_nothing(
    seed: int, slots: int, takers: int
) -> None:
    schedule = Schedule(seed, slots, takers)
    asyncio.run(schedule.run())
    assert schedule.served + schedule.cancelled == takers
