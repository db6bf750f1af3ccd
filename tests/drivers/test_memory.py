from __future__ import annotations

import pytest

from trove_async.drivers.memory import MemoryDriver
from trove_async.testing import DriverSuite


class TestMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> MemoryDriver:
        return MemoryDriver()
