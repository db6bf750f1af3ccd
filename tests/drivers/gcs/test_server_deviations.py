"""Deviations of servers with the same API, for example Google's storage-testbench."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.drivers.gcs.service_account_key import service_account_key
from tests.fault_proxy import FaultProxy
from trove_async import Trove
from trove_async.drivers.gcs import GCSDriver
from trove_async.errors import (
    BucketNotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    TroveError,
)
from trove_async.models import ObjectInfo
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

DOTTED_KEYS = ["a/../b", "../a", "a/..", "./a", "a/./b", ".", ".."]


@pytest.fixture
def service() -> InMemoryGCS:
    service = InMemoryGCS()
    service.create_bucket("bucket")
    return service


@pytest_asyncio.fixture
async def driver(service: InMemoryGCS) -> AsyncIterator[GCSDriver]:
    async with gcs_server(service) as url:
        driver = GCSDriver(endpoint_url=url)
        async with opened(driver):
            yield driver


@pytest_asyncio.fixture
async def store(service: InMemoryGCS) -> AsyncIterator[Trove]:
    async with gcs_server(service) as url, Trove(GCSDriver(endpoint_url=url)) as store:
        yield store


def put_directly(
    service: InMemoryGCS, key: str, body: bytes, metadata: Mapping[str, str] | None = None
) -> None:
    """Store an object, bypassing the driver."""
    fields = {"name": key, "contentType": "text/plain", "metadata": metadata or {}}
    service.insert("bucket", fields, body, {})


async def info_of_body(driver: GCSDriver, key: str) -> ObjectInfo:
    async with driver.get("bucket", key, GetOptions()) as reader:
        while await reader.read(1 << 20):
            pass
        return reader.info


# -- omitted fields and operations -----------------------------------------------------------------


async def test_date_missing_from_body_is_taken_from_resource(
    service: InMemoryGCS, store: Trove
) -> None:
    service.sends_dates = False
    put_directly(service, "key", b"body")
    assert await store.read("bucket", "key") == b"body"
    assert await store.read("bucket", "key", range=(1, 3)) == b"od"
    async with store.get("bucket", "key") as obj:
        assert obj.info.last_modified == (await store.head("bucket", "key")).last_modified


async def test_omitted_size_is_zero(service: InMemoryGCS, store: Trove) -> None:
    service.sends_zero_sizes = False
    assert (await store.put("bucket", "empty", b"")).size == 0
    await store.put("bucket", "full", b"body")
    assert (await store.head("bucket", "empty")).size == 0
    assert await store.read("bucket", "empty") == b""
    assert [entry.size async for entry in store.list("bucket")] == [0, 4]
    assert [entry.size async for entry in store.list_versions("bucket")] == [0, 4]
    assert (await store.copy("bucket", "empty", "bucket", "other")).size == 0


async def test_delete_many_without_batches_deletes_one_by_one(
    service: InMemoryGCS, store: Trove
) -> None:
    service.supports_batches = False
    for _ in range(2):  # the second time, the driver sends no batch
        for key in ("a", "b", "c"):
            put_directly(service, key, b"body")
        await store.delete_many("bucket", ["a", "b", "missing"])
        assert list(service.buckets["bucket"]) == ["c"]


async def test_delete_many_without_batches_reports_each_key(
    service: InMemoryGCS, driver: GCSDriver
) -> None:
    service.supports_batches = False
    put_directly(service, "a", b"body")
    results = await driver.delete_many("bucket", ["a", "b"])
    assert [(result.key, result.error) for result in results] == [("a", None), ("b", None)]
    with pytest.raises(TroveError, match="no such bucket"):
        await driver.delete_many("missing", ["a"])


async def test_message_names_what_is_missing(store: Trove) -> None:
    for call in (store.read, store.head):
        with pytest.raises(BucketNotFoundError) as no_bucket:
            await call("missing", "key")
        assert no_bucket.value.message.startswith("no such bucket: create_bucket creates it (404")
        with pytest.raises(ObjectNotFoundError) as no_object:
            await call("bucket", "key")
        assert no_object.value.message.startswith("no such object (404")


# -- metadata --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"My-Key": "1"}, {"my-key": "1"}),
        ({"Key": "1", "key": "2"}, {"Key": "1", "key": "2"}),
        ({"key": "1", "KEY": "2", "Other": "3"}, {"key": "1", "KEY": "2", "other": "3"}),
        ({"list": "a, b, c"}, {"list": "a, b, c"}),
    ],
)
async def test_metadata_names_agree_in_head_get_and_list(
    service: InMemoryGCS, driver: GCSDriver, stored: dict[str, str], expected: dict[str, str]
) -> None:
    put_directly(service, "key", b"body", stored)
    assert (await driver.head("bucket", "key")).metadata == expected
    assert (await info_of_body(driver, "key")).metadata == expected
    page = await driver.list_page("bucket", ListOptions(limit=10))
    assert [entry.metadata for entry in page.entries if isinstance(entry, ObjectInfo)] == [expected]


@pytest.mark.parametrize(
    ("write_id", "requests"),
    [
        ("1", ["/bucket/key"]),  # an object that this library wrote
        (None, ["/bucket/key", "/storage/v1/b/bucket/o/key"]),  # the comma may join two values
    ],
)
async def test_comma_in_metadata_of_another_tool_needs_a_second_request(
    service: InMemoryGCS, write_id: str | None, requests: list[str]
) -> None:
    options = PutOptions(metadata={"list": "a, b"}, write_id=write_id)
    async with (
        gcs_server(service) as url,
        FaultProxy(url) as proxy,
        opened(driver := GCSDriver(endpoint_url=proxy.endpoint_url)),
    ):
        await driver.put("bucket", "key", [memoryview(b"body")], options)
        proxy.requests.clear()
        assert (await info_of_body(driver, "key")).metadata == {"list": "a, b"}
        assert [request.path for request in proxy.requests] == requests


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", DOTTED_KEYS)
async def test_key_with_dot_segments_is_listed_read_and_deleted(
    service: InMemoryGCS, driver: GCSDriver, key: str
) -> None:
    put_directly(service, key, b"body")
    put_directly(service, "b", b"other")
    page = await driver.list_page("bucket", ListOptions(limit=10))
    assert key in [entry.key for entry in page.entries]
    assert (await driver.head("bucket", key)).key == key
    async with driver.get("bucket", key, GetOptions()) as reader:
        assert await reader.read(100) == b"body"
    await driver.delete("bucket", key, DeleteOptions())
    assert list(service.buckets["bucket"]) == ["b"]
    put_directly(service, key, b"body")
    assert [result.error for result in await driver.delete_many("bucket", [key])] == [None]
    assert list(service.buckets["bucket"]) == ["b"]


@pytest.mark.parametrize("key", [".", ".."])
async def test_key_of_dots_does_not_address_the_bucket(
    service: InMemoryGCS, driver: GCSDriver, key: str
) -> None:
    service.resolves_dots = True
    with pytest.raises(ObjectNotFoundError):
        await driver.head("bucket", key)
    with pytest.raises(TroveError):
        await info_of_body(driver, key)
    await driver.delete("bucket", key, DeleteOptions())
    await driver.delete_many("bucket", [key])
    assert list(service.buckets) == ["bucket"]


@pytest.mark.parametrize("key", DOTTED_KEYS)
async def test_presign_of_key_with_dot_segments_is_not_supported(key: str) -> None:
    driver = GCSDriver(credentials=service_account_key())
    async with opened(driver):
        with pytest.raises(NotSupportedError, match="segment cannot be in a signed URL"):
            await driver.presign("GET", "bucket", key, 60)
