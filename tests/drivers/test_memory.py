"""The memory driver: its settings, and the conformance suite."""

from __future__ import annotations

import pytest

from trove_async.drivers.memory import MemoryDriver
from trove_async.errors import ConfigError
from trove_async.testing import DriverSuite


@pytest.mark.parametrize("setting", ["parallel_parts", "max_connections"])
def test_invalid_settings_raise(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be at least 1, got 0"):
        MemoryDriver(**{setting: 0})
    with pytest.raises(TypeError, match=f"{setting} must be an int, got str"):
        MemoryDriver(**{setting: "3"})  # type: ignore[arg-type]  # the wrong type


class TestMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> MemoryDriver:
        return MemoryDriver()
