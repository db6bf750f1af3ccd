"""The constructor arguments of the driver."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async.drivers import GCSDriver
from trove_async.errors import ClosedError, ConfigError
from trove_async.testing import opened


async def test_bucket_is_created_with_project_location_and_class() -> None:
    service = InMemoryGCS()
    async with gcs_server(service) as url:
        driver = GCSDriver(
            endpoint_url=url, project="my-project", location="EU", bucket_storage_class="ARCHIVE"
        )
        async with opened(driver):
            await driver.create_bucket("bucket")
    assert service.bucket_documents["bucket"] == {
        "project": "my-project",
        "name": "bucket",
        "location": "EU",
        "storageClass": "ARCHIVE",
    }


async def test_bucket_is_created_with_service_defaults() -> None:
    service = InMemoryGCS()
    async with gcs_server(service) as url, opened(GCSDriver(endpoint_url=url)) as driver:
        await driver.create_bucket("bucket")
    assert service.bucket_documents["bucket"].keys() == {"project", "name"}


async def test_open_driver_cannot_be_opened_again() -> None:
    async with gcs_server(InMemoryGCS()) as url, opened(GCSDriver(endpoint_url=url)) as driver:
        with pytest.raises(ClosedError, match="create one for each store"):
            async with opened(driver):
                pass
        await driver.create_bucket("bucket")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("project", 1, "project must be a str, got int"),
        ("location", 1, "location must be a str, got int"),
        ("bucket_storage_class", 1, "bucket_storage_class must be a str, got int"),
        ("storage_class", 1, "storage_class must be a str, got int"),
        ("kms_key_name", 1, "kms_key_name must be a str, got int"),
        ("endpoint_url", 1, "an endpoint must be a str, got int"),
        ("credentials", 1, "credentials must be a path, or .* got int"),
        ("credentials", b"{}", "credentials must be a path, or .* got bytes"),
        ("token_origins", 3, "token_origins must be a URL or a collection of URLs, got int"),
        ("token_origins", [3], "an endpoint must be a str, got int"),
        ("anonymous", "no", "anonymous must be a bool, got str"),
        ("trust_env", "no", "trust_env must be a bool, got str"),
        ("max_connections", "8", "max_connections must be an int, got str"),
        ("tls", True, "tls must be an ssl.SSLContext, got bool"),
    ],
)
def test_settings_of_wrong_type_are_rejected(setting: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        GCSDriver(**{setting: value})


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(ConfigError, match="max_connections must be at least 1, got 0"):
        GCSDriver(max_connections=0)
    with pytest.raises(ConfigError, match="credentials must not be empty: omit them"):
        GCSDriver(credentials="")  # for example from an unset environment variable


async def test_requests_to_the_service_use_the_proxy() -> None:
    service = InMemoryGCS()
    async with gcs_server(service) as url:
        # The host does not exist. The proxy is the service itself and handles the request.
        driver = GCSDriver(endpoint_url="http://storage.invalid", proxy=url)
        async with opened(driver):
            await driver.create_bucket("bucket")
            assert [info.name for info in await driver.list_buckets()] == ["bucket"]


def test_max_connections_limits_reads_writes_and_other_requests() -> None:
    capabilities = GCSDriver(endpoint_url="http://storage.invalid", max_connections=3).capabilities
    limits = capabilities.max_reads, capabilities.max_writes, capabilities.max_requests
    assert limits == (3, 3, 3)
