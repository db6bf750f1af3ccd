"""The rate of a job is limited on the clock of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from trove_async.jobs._limits import RateLimit

pytestmark = pytest.mark.idle_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_rate_is_kept_on_average() -> None:
    limit, start = RateLimit(10), now()
    for _ in range(101):
        await limit.acquire(1)
    assert now() - start == pytest.approx(10.0 - 0.1, abs=0.11)


async def test_large_amount_is_granted_and_delays_the_next_one() -> None:
    limit, start = RateLimit(100), now()
    await limit.acquire(1000)
    assert now() == start
    await limit.acquire(1)
    assert now() - start == pytest.approx(10.0, abs=0.11)


async def test_idle_time_is_not_saved_up() -> None:
    limit = RateLimit(10)
    await limit.acquire(1)
    await asyncio.sleep(3600)
    start = now()
    for _ in range(11):
        await limit.acquire(1)
    assert now() - start > 0.8


async def test_no_limit_never_waits() -> None:
    limit, start = RateLimit(None), now()
    for _ in range(1000):
        await limit.acquire(10**12)
    assert now() == start


async def test_returned_amount_wakes_the_waiting_caller() -> None:
    limit, start = RateLimit(100), now()
    await limit.acquire(1000)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(limit.acquire(100)) for _ in range(2)]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        limit.give_back(1000)
    # The first one goes on at once, and the second one waits for its amount.
    assert now() - start == pytest.approx(2.0, abs=0.11)


async def test_cancelled_caller_uses_nothing() -> None:
    limit, start = RateLimit(100), now()
    await limit.acquire(100)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(limit.acquire(10**6))
        await asyncio.sleep(0.5)
        waiting.cancel()
    await limit.acquire(1)
    assert now() - start == pytest.approx(1.0, abs=0.11)
