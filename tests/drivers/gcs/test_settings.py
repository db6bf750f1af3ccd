"""What the driver is told has an effect."""

from __future__ import annotations

import pytest

from tests.drivers.gcs.cloud import Cloud
from tests.drivers.gcs.cloud_server import serving
from trove_async.drivers import GCSDriver
from trove_async.errors import ClosedError
from trove_async.testing import opened


async def test_bucket_is_made_where_and_as_it_was_told() -> None:
    cloud = Cloud()
    async with serving(cloud) as url:
        driver = GCSDriver(
            endpoint_url=url, project="ours", location="EU", bucket_storage_class="ARCHIVE"
        )
        async with opened(driver):
            await driver.create_bucket("bucket")
    assert cloud.settings["bucket"] == {
        "project": "ours",
        "name": "bucket",
        "location": "EU",
        "storageClass": "ARCHIVE",
    }


async def test_bucket_is_as_the_service_chooses_unless_told() -> None:
    cloud = Cloud()
    async with serving(cloud) as url, opened(GCSDriver(endpoint_url=url)) as driver:
        await driver.create_bucket("bucket")
    assert cloud.settings["bucket"].keys() == {"project", "name"}


async def test_driver_that_is_open_is_not_opened_by_another() -> None:
    async with serving(Cloud()) as url, opened(GCSDriver(endpoint_url=url)) as driver:
        with pytest.raises(ClosedError, match="make one for each"):
            async with opened(driver):
                pass
        await driver.create_bucket("bucket")


async def test_everything_goes_through_the_proxy() -> None:
    cloud = Cloud()
    async with serving(cloud) as url:
        # There is no such host, but the proxy, being the service itself, knows what is meant.
        driver = GCSDriver(endpoint_url="http://storage.invalid", proxy=url)
        async with opened(driver):
            await driver.create_bucket("bucket")
            assert [info.name for info in await driver.list_buckets()] == ["bucket"]


async def test_so_many_readers_and_writes_are_allowed_as_it_was_told() -> None:
    claimed = GCSDriver(endpoint_url="http://storage.invalid", max_connections=3).capabilities
    assert (claimed.max_reads, claimed.max_writes) == (3, 3)
