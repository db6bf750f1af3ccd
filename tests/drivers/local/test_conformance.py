"""The driver passes the conformance suite on this system and on a simulated one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.local import LocalDriver
from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestLocal(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> LocalDriver:
        return LocalDriver(tmp_path, fsync=False)


class TestDurable(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> LocalDriver:
        return LocalDriver(tmp_path)


class TestPortable(DriverSuite):
    """A system without the features of Linux, and a file system that folds names."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> LocalDriver:
        return LocalDriver(tmp_path, fsync=False)._simulating(
            openat2=False, ofd_locks=False, xattrs=False, folding=True
        )
