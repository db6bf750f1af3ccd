"""The driver suite over a `ReadThrough` with SeaweedFS as its origin and a directory as its cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drivers.s3.test_conformance import (
    SEAWEEDFS_FAILS,
    SEAWEEDFS_REFUSED_KEYS,
    driver_of,
)
from tests.server_quirks import expect_failures
from trove_async.drivers.s3 import S3Driver
from trove_async.layers import ReadThrough
from trove_async.models import KiB, MiB
from trove_async.testing import DriverSuite

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import S3Server


@expect_failures(SEAWEEDFS_FAILS)
class TestSeaweed(DriverSuite):
    refused_keys = SEAWEEDFS_REFUSED_KEYS

    @pytest.fixture
    def driver(self, seaweed: S3Server, tmp_path: Path) -> AsyncDriver:
        return ReadThrough(
            driver_of(seaweed), f"file://{tmp_path}", max_bytes=64 * MiB, block_size=256 * KiB
        )

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, ReadThrough)
        origin = backend.inner[0]
        assert isinstance(origin, S3Driver)
        await origin.set_versioning(bucket, enabled=True)
