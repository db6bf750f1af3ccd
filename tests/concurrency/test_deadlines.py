"""Time limits of many calls, enforced by one timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.concurrency.steps import raising
from trove_async import Timeout, Trove
from trove_async._concurrency import Deadlines
from trove_async.drivers import MemoryDriver
from trove_async.errors import TimedOutError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    deadlines = Deadlines()
    yield deadlines
    deadlines.close()


async def wait_forever() -> None:
    await asyncio.Event().wait()


async def test_work_within_the_limit_returns(deadlines: Deadlines) -> None:
    assert await deadlines.within(5, "nothing arrived", asyncio.sleep(0, "result")) == "result"


async def test_work_beyond_the_limit_is_cancelled_and_raises(deadlines: Deadlines) -> None:
    with pytest.raises(TimedOutError, match=r"nothing arrived within 0\.01 s"):
        await deadlines.within(0.01, "nothing arrived", wait_forever())


@pytest.mark.idle_time
async def test_each_call_has_its_own_limit(deadlines: Deadlines) -> None:
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimedOutError, match=f"within {seconds:g} s"):
            await deadlines.within(seconds, "nothing arrived", wait_forever())
        ended.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (0.06, 0.02, 0.04, 0.08):
            group.create_task(wait(seconds))
        group.create_task(deadlines.within(0.05, "", asyncio.sleep(0)))
    assert ended == [0.02, 0.04, 0.06, 0.08]


async def test_inner_timeout_does_not_affect_the_outer_limit(deadlines: Deadlines) -> None:
    async def inner() -> str:
        with pytest.raises(TimedOutError, match="inner"):
            await deadlines.within(0.01, "inner", wait_forever())
        return await asyncio.sleep(0, "continued")

    assert await deadlines.within(5, "outer", inner()) == "continued"
    with pytest.raises(TimedOutError, match="outer"):
        await deadlines.within(0.01, "outer", deadlines.within(5, "inner", wait_forever()))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("error", [TimeoutError("its own"), TimedOutError("its own"), KeyError()])
async def test_error_of_the_work_is_raised_unchanged(
    deadlines: Deadlines, error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        await deadlines.within(5, "nothing arrived", raising(error))
    assert caught.value is error


async def test_error_that_the_cancelled_work_raises_replaces_the_timeout(
    deadlines: Deadlines,
) -> None:
    own_error = TimedOutError("its own")

    async def raise_own_error() -> Any:
        try:
            await wait_forever()
        except asyncio.CancelledError:
            raise own_error from None

    with pytest.raises(TimedOutError) as caught:
        await deadlines.within(0.01, "nothing arrived", raise_own_error())
    assert caught.value is own_error
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_that_ignores_the_cancel_leaves_no_cancel_pending(deadlines: Deadlines) -> None:
    async def ignore_cancel() -> str:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "result"

    assert await deadlines.within(0.01, "nothing arrived", ignore_cancel()) == "result"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_cancel_by_the_caller_is_not_a_timeout(deadlines: Deadlines) -> None:
    task = asyncio.get_running_loop().create_task(deadlines.within(5, "", wait_forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancel_by_the_caller_takes_precedence_over_a_timeout(deadlines: Deadlines) -> None:
    cancelled = asyncio.Event()

    async def ignore_cancel() -> None:
        try:
            await wait_forever()
        except asyncio.CancelledError:
            cancelled.set()
            await wait_forever()

    task = asyncio.get_running_loop().create_task(deadlines.within(0.01, "", ignore_cancel()))
    await cancelled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closed_store_leaves_no_timer() -> None:
    async with Trove(MemoryDriver(), timeout=Timeout(total=3600)) as store:
        await store.create_bucket("b")
        await store.put("b", "k", bytes(MiB))
        timers = [timer for timer in _timers() if not timer.cancelled()]
        assert len(timers) == 1
    assert [timer for timer in _timers() if not timer.cancelled()] == []


def _timers() -> list[asyncio.TimerHandle]:
    timers: list[asyncio.TimerHandle] = vars(asyncio.get_running_loop())["_scheduled"]
    return [timer for timer in timers if timer.when() > asyncio.get_running_loop().time() + 1000]
