"""The driver of examples/custom_driver.py passes the driver suite."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from trove_async.driver import AsyncDriver

PROGRAM = Path(__file__).parents[2] / "examples" / "custom_driver.py"

_spec = importlib.util.spec_from_file_location("custom_driver", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
custom_driver = importlib.util.module_from_spec(_spec)
sys.modules["custom_driver"] = custom_driver  # dataclasses resolve annotations there
_spec.loader.exec_module(custom_driver)


class TestNotebookDriver(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        driver: AsyncDriver = custom_driver.NotebookDriver()
        return driver
