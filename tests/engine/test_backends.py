"""Every driver is opened and closed once, also after errors and cancels."""

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
    """A driver whose open and close take several steps of the loop."""

    async def open(self, context: DriverContext) -> None:
        await self.step("open")
        await super().open(context)

    async def aclose(self) -> None:
        await self.step("aclose")
        await super().aclose()


async def opened(*doors: SlowDriver) -> Trove:
    default, *more = doors
    store = Trove(default, backends={str(number): door for number, door in enumerate(more)})
    return await store.__aenter__()


async def test_last_opened_is_closed_first() -> None:
    order: list[int] = []
    doors = [SlowDriver() for _ in range(3)]
    for number, door in enumerate(doors):

        async def note(number: int = number) -> None:
            order.append(number)

        door.before["aclose"] = note
    await (await opened(*doors)).aclose()
    assert order == [2, 1, 0]


async def test_second_close_continues_after_a_cancelled_one() -> None:
    first, second = SlowDriver(), SlowDriver()
    store = await opened(first, second)
    reached = second.hang("aclose")
    closing = OwnedTask(store.aclose())
    await reached.wait()
    await closing.aclose()
    del second.before["aclose"]
    await store.aclose()
    assert second.count("aclose") == 2  # the first was interrupted
    assert first.count("aclose") == 1
    await store.aclose()
    assert first.count("aclose") == 1


async def test_two_concurrent_closes_close_everything() -> None:
    doors = [SlowDriver() for _ in range(3)]
    for door in doors:
        door.before["aclose"] = lambda: asyncio.sleep(0)
    store = await opened(*doors)
    async with task_group() as group:
        for _ in range(3):
            group.start_soon(store.aclose)
    assert all(door.count("aclose") for door in doors)


async def test_error_of_opening_is_raised_even_if_closing_fails() -> None:
    good, bad = SlowDriver(), SlowDriver()
    bad.fail("open", PermissionError("why"))
    bad.fail("aclose", OSError("and this"))
    good.fail("aclose", OSError("and that"))
    with pytest.raises(PermissionError, match="why"):
        await opened(good, bad)
    assert (good.count("aclose"), bad.count("aclose")) == (1, 1)


async def test_cancelled_open_closes_the_opened_drivers() -> None:
    good, slow = SlowDriver(), SlowDriver()
    reached = slow.hang("open")
    opening = OwnedTask(opened(good, slow))
    await reached.wait()
    await opening.aclose()
    assert (good.count("aclose"), slow.count("aclose")) == (1, 1)


async def test_several_close_failures_are_raised_as_a_group() -> None:
    doors = [SlowDriver() for _ in range(3)]
    store = await opened(*doors)
    doors[0].fail("aclose", OSError("one"))
    doors[2].fail("aclose", KeyError("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await store.aclose()
    assert [type(error) for error in caught.value.exceptions] == [KeyError, OSError]
    assert doors[1].count("aclose") == 1
