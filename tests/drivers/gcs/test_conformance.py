"""The contract, and what users are promised, against servers that speak Cloud Storage's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.cloud import Cloud
from tests.drivers.gcs.cloud_server import serving
from trove_async.drivers.gcs import GCSDriver
from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.testing.servers import GCSServer

UNHOLDABLE = frozenset({"new\nline", "carriage\rreturn"})


class TestCloud(DriverSuite):
    """Against what follows Google's documentation: all of it."""

    refused_keys = UNHOLDABLE

    @pytest_asyncio.fixture
    async def driver(self) -> AsyncIterator[GCSDriver]:
        async with serving(Cloud()) as url:
            yield GCSDriver(endpoint_url=url)


class TestEmulator(DriverSuite):
    refused_keys = UNHOLDABLE

    @pytest.fixture
    def driver(self, fake_gcs: GCSServer) -> GCSDriver:
        return GCSDriver(endpoint_url=fake_gcs.endpoint_url, project=fake_gcs.project)
