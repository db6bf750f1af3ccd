"""The layer `ReadThrough`: the suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async.drivers import MemoryDriver
from trove_async.layers import ReadThrough
from trove_async.models import KiB, MiB
from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from trove_async.driver import AsyncDriver


class TestOnMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return ReadThrough(MemoryDriver(), MemoryDriver(), max_bytes=4 * MiB, block_size=64 * KiB)
