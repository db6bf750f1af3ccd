"""The layer `Mirrored`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fakes import small_pool
from trove_async import BufferPool, Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.layers import Mapped, Mirrored
from trove_async.models import MiB
from trove_async.testing import DriverSuite, StoreSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.driver import AsyncDriver


class TestMemoryAndMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mirrored(MemoryDriver(), MemoryDriver())


class TestMemoryAndLocal(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        return Mirrored(MemoryDriver(), LocalDriver(tmp_path, fsync=False))


class TestAcknowledgedByPrimary(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mirrored(MemoryDriver(), MemoryDriver(), MemoryDriver(), acknowledge="primary")


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        mapped = Mapped(MemoryDriver(), into="all", prefix="p")
        inner = Mirrored(MemoryDriver(), mapped, acknowledge=1)
        return Mapped(Mirrored(inner, MemoryDriver()), into="outer")


class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        mirror = Mirrored(MemoryDriver(), MemoryDriver())
        async with Trove(mirror, pool=BufferPool(4 * MiB, 1 * MiB, spill_after=0.05)) as store:
            yield store


class TestRoutedStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        mirror = Mirrored(MemoryDriver(), LocalDriver(tmp_path, fsync=False))
        async with Trove(
            MemoryDriver(),
            backends={"mirror": mirror},
            routes=[("[a-k]*", "mirror"), ("*/1", "mirror")],
            pool=small_pool(),
        ) as store:
            yield store
