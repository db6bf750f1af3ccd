"""Tests of `opened`, which opens a driver without a store."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from trove_async.driver import DriverInUseError
from trove_async.drivers import MemoryDriver
from trove_async.testing import opened

if TYPE_CHECKING:
    from trove_async.driver import DriverContext


class EqualDriver(MemoryDriver):
    """A driver that is equal to all others of its class, and that may be in use elsewhere."""

    def __init__(self, *, in_use: bool = False) -> None:
        super().__init__()
        self.closed = False
        self._in_use = in_use

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualDriver)

    def __hash__(self) -> int:
        return 0

    async def open(self, context: DriverContext) -> None:
        if self._in_use:
            raise DriverInUseError("this driver is open in another store")
        await super().open(context)

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


class AttachingDriver(MemoryDriver):
    """A driver that attaches other drivers, except those that are in use."""

    def __init__(self, *drivers: EqualDriver) -> None:
        super().__init__()
        self._drivers = drivers

    async def open(self, context: DriverContext) -> None:
        for driver in self._drivers:
            with suppress(DriverInUseError):
                await context.attach(driver)
        await super().open(context)


async def test_only_the_driver_in_use_stays_open() -> None:
    attached, in_use = EqualDriver(), EqualDriver(in_use=True)
    async with opened(AttachingDriver(attached, in_use)):
        assert not attached.closed
    assert attached.closed
    assert not in_use.closed
