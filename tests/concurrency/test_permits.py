"""Connections and memory, handed out in the order in which they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from tests.concurrency.steps import steps
from trove_async._concurrency import FairSemaphore, OwnedTask, Permits, task_group
from trove_async.errors import PoolTimeoutError


def line(free: int) -> FairSemaphore:
    return FairSemaphore(free, lambda: None)


class Holder:
    def __init__(self, permits: Permits) -> None:
        self.permits = permits
        self.parked = 0

    def park(self) -> None:
        self.parked += 1
        self.permits.release()


async def test_line_serves_in_order_and_nobody_overtakes() -> None:
    one = line(2)
    assert one.try_take(1)
    large, small = one.join(2), one.join(1)
    assert not one.try_take(1)
    await steps()
    assert (large.done(), small.done(), len(one)) == (False, False, 2)
    assert (one.position(large), one.position(small)) == (1, 2)
    one.give_back(1)
    assert (large.done(), small.done()) == (True, False)
    assert (one.position(large), one.position(small)) == (0, 1)
    one.leave(large, 2)
    assert small.done()
    assert one.free == 1


async def test_leaving_a_line_lets_those_behind_be_served() -> None:
    one = line(1)
    large, small = one.join(2), one.join(1)
    one.leave(large, 2)
    assert small.done()
    assert one.free == 0


async def test_line_times_out_and_holds_nothing() -> None:
    one = line(0)
    assert not await one.take(1, 0.01)
    assert len(one) == 0


async def test_line_cancelled_as_it_is_served_gives_back() -> None:
    one = line(0)
    task = OwnedTask(one.take(1, 60))
    await steps()
    one.give_back(1)  # served, and not told yet
    task._task.cancel()
    await steps()
    assert one.free == 1
    assert len(one) == 0


async def test_line_nudges_while_somebody_waits_and_only_then() -> None:
    nudges = asyncio.Semaphore(0)
    one = FairSemaphore(0, nudges.release)
    place = one.join(1)
    for _ in range(3):
        await nudges.acquire()
    one.give_back(1)
    assert place.done()
    timer = one._timer
    assert timer is not None
    while one._timer is timer:
        await asyncio.sleep(0.01)
    assert one._timer is None
    assert nudges.locked()


async def test_nudge_that_frees_something_serves_at_once() -> None:
    one: FairSemaphore = FairSemaphore(0, lambda: one.give_back(1))
    assert one.join(1).done()
    assert one._timer is None


async def test_permits_are_handed_out_in_order() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    order: list[int] = []

    async def one(number: int) -> None:
        await permits.acquire(10)
        order.append(number)
        await steps()
        permits.release()

    async with task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
        await steps()
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
    permits.idle(Holder(permits))
    assert not permits._idle


async def test_permit_timeout_says_which_knob_to_turn() -> None:
    permits = Permits(0, "connection for reading")
    with pytest.raises(PoolTimeoutError, match=r"no connection for reading of 0.*max_connections"):
        await permits.acquire(0.01)
    assert permits.waiting == 0


async def test_cancelled_wait_for_a_permit_holds_none() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    task = OwnedTask(permits.acquire(10))
    await steps()
    await task.aclose()
    assert permits.waiting == 0
    permits.release()
    assert permits.free == 1


async def test_longest_idle_holder_is_parked_for_who_waits() -> None:
    permits = Permits(2, "connection")
    first, second = Holder(permits), Holder(permits)
    for holder in (first, second):
        await permits.acquire(1)
        permits.idle(holder)
    permits.busy(first)
    permits.idle(first)  # read again: idle for less time than the second by now
    await permits.acquire(5)
    assert (first.parked, second.parked) == (0, 1)


async def test_busy_holder_is_not_parked() -> None:
    permits = Permits(1, "connection")
    holder = Holder(permits)
    await permits.acquire(1)
    permits.idle(holder)
    permits.busy(holder)
    with pytest.raises(PoolTimeoutError):
        await permits.acquire(0.3)
    assert holder.parked == 0
