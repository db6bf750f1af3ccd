"""The contract, and what users are promised, against servers that speak Cloud Storage's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.gcs import GCSDriver
from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from trove_async.testing.servers import GCSServer


class TestEmulator(DriverSuite):
    refused_keys = frozenset({"new\nline", "carriage\rreturn"})

    @pytest.fixture
    def driver(self, fake_gcs: GCSServer) -> GCSDriver:
        return GCSDriver(endpoint_url=fake_gcs.endpoint_url, project=fake_gcs.project)
