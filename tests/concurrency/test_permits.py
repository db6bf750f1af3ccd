"""Fair semaphores and permits: order, parking of idle holders, and release after a cancel."""

from __future__ import annotations

import asyncio

import pytest

from tests.concurrency.steps import let_tasks_run
from trove_async._concurrency import FairSemaphore, OwnedTask, Permits, task_group
from trove_async.errors import PoolTimeoutError


def semaphore_of(free: int) -> FairSemaphore:
    return FairSemaphore(free, lambda: None)


class Holder:
    def __init__(self, permits: Permits) -> None:
        self.permits = permits
        self.parked = 0

    def park(self) -> None:
        self.parked += 1
        self.permits.release()


async def test_semaphore_serves_strictly_in_order() -> None:
    semaphore = semaphore_of(2)
    assert semaphore.try_acquire(1)
    large, small = semaphore.enqueue(2), semaphore.enqueue(1)
    assert not semaphore.try_acquire(1)
    await let_tasks_run()
    assert (large.done(), small.done(), len(semaphore)) == (False, False, 2)
    assert (semaphore.behind(0), semaphore.behind(1)) == ([large, small], [small])
    semaphore.release(1)
    assert (large.done(), small.done()) == (True, False)
    assert (semaphore.behind(0), semaphore.behind(1)) == ([small], [])
    semaphore.abandon(large, 2)
    assert small.done()
    assert semaphore.free == 1


async def test_abandoned_waiter_lets_the_next_ones_be_served() -> None:
    semaphore = semaphore_of(1)
    large, small = semaphore.enqueue(2), semaphore.enqueue(1)
    semaphore.abandon(large, 2)
    assert small.done()
    assert semaphore.free == 0


async def test_timed_out_acquire_holds_nothing() -> None:
    semaphore = semaphore_of(0)
    assert not await semaphore.acquire(1, 0.01)
    assert len(semaphore) == 0


async def test_acquire_cancelled_just_after_being_served_releases() -> None:
    semaphore = semaphore_of(0)
    task = OwnedTask(semaphore.acquire(1, 60))
    await let_tasks_run()
    semaphore.release(1)  # served, but the task has not run yet
    task._task.cancel()
    await let_tasks_run()
    assert semaphore.free == 1
    assert len(semaphore) == 0


async def test_semaphore_reclaims_while_there_are_waiters_and_only_then() -> None:
    reclaims = asyncio.Semaphore(0)
    semaphore = FairSemaphore(0, reclaims.release)
    waiter = semaphore.enqueue(1)
    for _ in range(3):
        await reclaims.acquire()
    semaphore.release(1)
    assert waiter.done()
    timer = semaphore._timer
    assert timer is not None
    while semaphore._timer is timer:
        await asyncio.sleep(0.01)
    assert semaphore._timer is None
    assert reclaims.locked()


async def test_reclaimed_units_serve_a_waiter_at_once() -> None:
    semaphore: FairSemaphore = FairSemaphore(0, lambda: semaphore.release(1))
    assert semaphore.enqueue(1).done()
    assert semaphore._timer is None


async def test_permits_are_served_in_order() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    order: list[int] = []

    async def use_one(number: int) -> None:
        await permits.acquire(10)
        order.append(number)
        await let_tasks_run()
        permits.release()

    async with task_group() as group:
        for number in range(10):
            group.start_soon(use_one, number)
        await let_tasks_run()
        assert permits.waiting == 10
        assert not permits.try_acquire()
        permits.release()
    assert order == list(range(10))
    assert permits.free == 1


async def test_unlimited_permits_never_wait() -> None:
    permits = Permits(None, "connection")
    for _ in range(1000):
        assert permits.try_acquire()
    permits.release()
    permits.mark_idle(Holder(permits))
    assert not permits._idle


async def test_permit_timeout_names_the_setting_to_raise() -> None:
    permits = Permits(0, "connection for reading")
    with pytest.raises(
        PoolTimeoutError,
        match=r"no connection for reading became free .*limit is 0.*max_connections",
    ):
        await permits.acquire(0.01)
    assert permits.waiting == 0


async def test_cancelled_wait_for_a_permit_holds_none() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    task = OwnedTask(permits.acquire(10))
    await let_tasks_run()
    await task.aclose()
    assert permits.waiting == 0
    permits.release()
    assert permits.free == 1


async def test_longest_idle_holder_is_parked_for_a_waiter() -> None:
    permits = Permits(2, "connection")
    first, second = Holder(permits), Holder(permits)
    for holder in (first, second):
        await permits.acquire(1)
        permits.mark_idle(holder)
    permits.mark_busy(first)
    permits.mark_idle(first)  # read again, so the second holder has been idle longer
    await permits.acquire(5)
    assert (first.parked, second.parked) == (0, 1)


async def test_busy_holder_is_not_parked() -> None:
    permits = Permits(1, "connection")
    holder = Holder(permits)
    await permits.acquire(1)
    permits.mark_idle(holder)
    permits.mark_busy(holder)
    with pytest.raises(PoolTimeoutError):
        await permits.acquire(0.3)
    assert holder.parked == 0
