"""The SDK's client, for operations that the driver does not wrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import pytest

from tests.drivers.s3.test_conformance import driver_of
from trove_async._concurrency import task_group
from trove_async.drivers.s3._lazy_sdk import LazySdkClient
from trove_async.errors import ClosedError
from trove_async.testing import opened
from trove_async.testing._harness import write

if TYPE_CHECKING:
    from trove_async.drivers.s3._sdk_client import SdkClient
    from trove_async.testing.servers import S3Server


@pytest.mark.parametrize("data_plane", ["lean", "sdk"])
async def test_client_sets_a_lifecycle_rule(
    moto_server: S3Server, data_plane: Literal["lean", "sdk"]
) -> None:
    bucket = f"control-{uuid4().hex[:20]}"
    rule = {
        "ID": "forget",
        "Status": "Enabled",
        "Filter": {"Prefix": "tmp/"},
        "Expiration": {"Days": 7},
    }
    driver = driver_of(moto_server, data_plane=data_plane)
    async with opened(driver):
        await driver.create_bucket(bucket)
        client = await driver.client
        await client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        )
        lifecycle = await client.get_bucket_lifecycle_configuration(Bucket=bucket)
        assert lifecycle["Rules"] == [rule]


async def test_head_returns_tags_that_the_client_adds_to_an_object(
    moto_server: S3Server,
) -> None:
    bucket = f"control-{uuid4().hex[:20]}"
    driver = driver_of(moto_server)
    async with opened(driver):
        await driver.create_bucket(bucket)
        await write(driver, bucket, "key")
        client = await driver.client
        await client.put_object_tagging(
            Bucket=bucket,
            Key="key",
            Tagging={"TagSet": [{"Key": "kept", "Value": "until 2030"}]},
        )
        assert dict((await driver.head(bucket, "key")).tags) == {"kept": "until 2030"}


async def test_client_uses_the_endpoint_region_and_credentials_of_the_driver(
    seaweed: S3Server,
) -> None:
    driver = driver_of(seaweed)
    async with opened(driver):
        client = await driver.client
        assert client is await driver.client
        assert client.meta.endpoint_url == seaweed.endpoint_url
        assert client.meta.region_name == seaweed.region
        assert "Buckets" in await client.list_buckets()  # SeaweedFS verifies the signature


async def test_client_is_available_only_while_the_driver_is_open(moto_server: S3Server) -> None:
    driver = driver_of(moto_server)
    with pytest.raises(ClosedError):
        _ = driver.client
    async with opened(driver):
        pending = driver.client
    with pytest.raises(ClosedError):
        await pending
    with pytest.raises(ClosedError):
        _ = driver.client


class FakeClient:
    close_count = 0

    async def aclose(self) -> None:
        self.close_count += 1


async def test_concurrent_first_uses_create_one_client() -> None:
    clients: list[FakeClient] = []

    async def make_client() -> SdkClient:
        clients.append(FakeClient())
        return clients[-1]  # type: ignore[return-value]  # only aclose is used

    lazy_client = LazySdkClient(make_client)
    async with task_group() as group:
        for _ in range(3):
            group.start_soon(lazy_client.client)
    assert len(clients) == 1
    await lazy_client.aclose()
    assert clients[0].close_count == 1


async def test_unused_client_is_never_created() -> None:
    async def make_client() -> SdkClient:
        raise AssertionError("a client is created")

    await LazySdkClient(make_client).aclose()


async def test_second_client_parses_no_files(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = driver_of(moto_server), driver_of(moto_server)
    async with opened(first):
        await first.client

    def load_file(*_: object) -> None:
        raise AssertionError("a file was parsed again")

    monkeypatch.setattr("botocore.loaders.JSONFileLoader.load_file", load_file)
    async with opened(second):
        client = await second.client
        assert "Buckets" in await client.list_buckets()
