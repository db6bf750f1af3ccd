"""A store opens and closes its drivers: the order, errors, cancels and concurrent closes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.fakes import Fake
from trove_async import Trove
from trove_async._concurrency import OwnedTask, task_group

if TYPE_CHECKING:
    from trove_async.driver import DriverContext


class SlowDriver(Fake):
    """A driver with a step in its `open` and in its `aclose`."""

    async def open(self, context: DriverContext) -> None:
        await self.step("open")
        await super().open(context)

    async def aclose(self) -> None:
        await self.step("aclose")
        await super().aclose()


async def open_store(default: SlowDriver, *drivers: SlowDriver) -> Trove:
    backends = {str(number): driver for number, driver in enumerate(drivers)}
    return await Trove(default, backends=backends).__aenter__()


async def test_last_opened_is_closed_first() -> None:
    order: list[int] = []
    drivers = [SlowDriver() for _ in range(3)]
    for number, driver in enumerate(drivers):

        async def append_number(number: int = number) -> None:
            order.append(number)

        driver.before["aclose"] = append_number
    await (await open_store(*drivers)).aclose()
    assert order == [2, 1, 0]


async def test_second_close_continues_after_a_cancelled_one() -> None:
    first, second = SlowDriver(), SlowDriver()
    store = await open_store(first, second)
    reached = second.hang("aclose")
    closing = OwnedTask(store.aclose())
    await reached.wait()
    await closing.aclose()
    del second.before["aclose"]
    await store.aclose()
    assert second.count("aclose") == 2  # the first call was cancelled
    assert first.count("aclose") == 1
    await store.aclose()
    assert first.count("aclose") == 1


async def test_concurrent_closes_close_every_driver() -> None:
    drivers = [SlowDriver() for _ in range(3)]
    for driver in drivers:
        driver.before["aclose"] = lambda: asyncio.sleep(0)
    store = await open_store(*drivers)
    async with task_group() as group:
        for _ in range(3):
            group.start_soon(store.aclose)
    assert all(driver.count("aclose") for driver in drivers)


async def test_error_of_opening_is_raised_even_if_closing_fails() -> None:
    good, bad = SlowDriver(), SlowDriver()
    bad.fail("open", PermissionError("why"))
    bad.fail("aclose", OSError("and this"))
    good.fail("aclose", OSError("and that"))
    with pytest.raises(PermissionError, match="why"):
        await open_store(good, bad)
    assert (good.count("aclose"), bad.count("aclose")) == (1, 1)


async def test_cancelled_open_closes_the_opened_drivers() -> None:
    good, slow = SlowDriver(), SlowDriver()
    reached = slow.hang("open")
    opening = OwnedTask(open_store(good, slow))
    await reached.wait()
    await opening.aclose()
    assert (good.count("aclose"), slow.count("aclose")) == (1, 1)


async def test_several_close_failures_are_raised_as_a_group() -> None:
    drivers = [SlowDriver() for _ in range(3)]
    store = await open_store(*drivers)
    drivers[0].fail("aclose", OSError("one"))
    drivers[2].fail("aclose", KeyError("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await store.aclose()
    assert [type(error) for error in caught.value.exceptions] == [KeyError, OSError]
    assert drivers[1].count("aclose") == 1
