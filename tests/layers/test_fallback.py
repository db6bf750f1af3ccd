"""The layer `Fallback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fakes import Unordered, small_pool
from trove_async import Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.layers import Fallback, Mapped, Mirrored
from trove_async.testing import DriverSuite, StoreSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.driver import AsyncDriver


class TestMemoryAndMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Fallback(MemoryDriver(), MemoryDriver())


class TestOnMissing(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        return Fallback(MemoryDriver(), LocalDriver(tmp_path, fsync=False), on_missing=True)


class TestOnMissingUnordered(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Fallback(MemoryDriver(), Unordered(), on_missing=True)


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        old = Mapped(Fallback(MemoryDriver(), MemoryDriver(), on_missing=True), into="all")
        mirror = Mirrored(Fallback(MemoryDriver(), MemoryDriver()), MemoryDriver())
        return Mapped(Fallback(mirror, old, on_missing=True), into="outer", prefix="p")


class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        layer = Fallback(MemoryDriver(), MemoryDriver(), on_missing=True)
        async with Trove(layer, pool=small_pool()) as store:
            yield store


class TestRoutedStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        layer = Fallback(LocalDriver(tmp_path, fsync=False), MemoryDriver())
        async with Trove(
            MemoryDriver(),
            backends={"fallback": layer},
            routes=[("[a-k]*", "fallback"), ("*/1", "fallback")],
            pool=small_pool(),
        ) as store:
            yield store
