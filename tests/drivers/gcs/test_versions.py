"""Versions of objects, which the service lists oldest first and without delete markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async.drivers.gcs import GCSDriver
from trove_async.drivers.gcs._versions import version_page
from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    ClosedError,
    ObjectNotFoundError,
    UnavailableError,
)
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from trove_async.drivers.gcs._client import Client


async def put(driver: GCSDriver, key: str, body: bytes = b"body") -> str:
    info = await driver.put("bucket", key, [memoryview(body)], PutOptions())
    assert info.version_id is not None
    return info.version_id


async def test_deleted_object_has_no_latest_version() -> None:
    async with gcs_server(InMemoryGCS()) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        await driver.set_versioning("bucket", enabled=True)
        old, new = await put(driver, "key", b"old"), await put(driver, "key", b"newer")
        await driver.delete("bucket", "key", DeleteOptions())
        page = await driver.version_page("bucket", ListOptions())
        assert [
            (version.version_id, version.etag, version.size, version.latest, version.deleted)
            for version in page.entries
        ] == [(new, new, 5, False, False), (old, old, 3, False, False)]
        async with driver.get("bucket", "key", GetOptions(version_id=old)) as reader:
            assert await reader.read(10) == b"old"


async def test_version_id_is_encoded_in_every_request() -> None:
    async with gcs_server(InMemoryGCS()) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        version_id = f"{await put(driver, 'key')}&fields=name"
        with pytest.raises(ObjectNotFoundError):
            await driver.head("bucket", "key", version_id)
        with pytest.raises(ObjectNotFoundError):
            async with driver.get("bucket", "key", GetOptions(version_id=version_id)):
                pass
        await driver.delete("bucket", "key", DeleteOptions(version_id=version_id))
        assert (await driver.head("bucket", "key")).size == 4


async def test_existing_versions_remain_after_versioning_is_disabled() -> None:
    async with gcs_server(InMemoryGCS()) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        await driver.set_versioning("bucket", enabled=True)
        first, second = [await put(driver, "key") for _ in range(2)]
        await driver.set_versioning("bucket", enabled=False)
        third = await put(driver, "key")
        page = await driver.version_page("bucket", ListOptions())
        assert [version.version_id for version in page.entries] == [third, first]
        assert second not in {first, third}


async def test_set_versioning_raises_for_missing_bucket_and_closed_driver() -> None:
    async with gcs_server(InMemoryGCS()) as url:
        driver = GCSDriver(endpoint_url=url)
        with pytest.raises(ClosedError):
            await driver.set_versioning("bucket", enabled=True)
        async with opened(driver):
            with pytest.raises(BucketNotFoundError) as caught:
                await driver.set_versioning("bucket", enabled=True)
            assert caught.value.bucket == "bucket"
        with pytest.raises(ClosedError):
            await driver.set_versioning("bucket", enabled=True)


class PagedClient:
    """A client that returns versions, oldest first, in pages of at most `page_size`.

    Args:
        page_size: The maximum number of versions on a page.
        counts: The number of versions by key.
    """

    def __init__(self, page_size: int, **counts: int) -> None:
        self.page_size = page_size
        self.items = [
            {"name": key, "generation": str(number), "size": "0", "updated": "2026-01-01T00:00:00Z"}
            for key, count in sorted(counts.items())
            for number in range(1, count + 1)
        ]

    async def get_page(self, target: str) -> dict[str, Any]:
        query = dict(pair.split("=") for pair in target.partition("?")[2].split("&"))
        start = query.get("startOffset", "")
        remaining = [item for item in self.items if item["name"] >= start]
        first = int(query.get("pageToken", "0"))
        end = first + min(self.page_size, int(query["maxResults"]))
        document: dict[str, Any] = {"items": remaining[first:end]}
        if remaining[end:]:
            document["nextPageToken"] = str(end)
        return document


async def read_pages(client: PagedClient, limit: int, **options: Any) -> list[list[str]]:
    pages_read: list[list[str]] = []
    token = None
    while True:
        page = await version_page(
            client,  # type: ignore[arg-type]  # implements the part of Client that is used
            "bucket",
            ListOptions(limit=limit, token=token, **options),
            "gcs",
        )
        pages_read.append([f"{version.key}{version.version_id}" for version in page.entries])
        token = page.token
        if token is None:
            return pages_read


@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
async def test_pages_do_not_split_the_versions_of_a_key(page_size: int) -> None:
    expected = ["a1", "b3", "b2", "b1", "c2", "c1", "d1"]
    for limit in range(1, 9):
        pages_read = await read_pages(PagedClient(page_size, a=1, b=3, c=2, d=1), limit)
        assert [name for page in pages_read for name in page] == expected
        for page in pages_read:
            assert len(page) <= limit or len({name[0] for name in page}) == 1
            assert page


async def test_many_versions_of_one_key_are_on_one_page() -> None:
    client = PagedClient(1000, a=2500, b=1)
    pages_read = await read_pages(client, 1000)
    assert [len(page) for page in pages_read] == [2500, 1]
    assert (pages_read[0][0], pages_read[0][-1]) == ("a2500", "a1")
    assert await read_pages(PagedClient(2, a=5), 1000, start_after="a") == [[]]


async def test_repeated_page_raises() -> None:
    class RepeatingClient(PagedClient):
        async def get_page(self, target: str) -> dict[str, Any]:
            return {
                **await super().get_page(target.partition("&pageToken")[0]),
                "nextPageToken": "a",
            }

    with pytest.raises(BackendError, match="same page"):
        await read_pages(RepeatingClient(1, a=2), 1)


async def test_malformed_version_page_is_unavailable() -> None:
    class MalformedClient:
        async def get_page(self, _target: str) -> dict[str, Any]:
            return {"items": [{"name": "key", "generation": "one"}]}

    client: Client = MalformedClient()  # type: ignore[assignment]  # as above
    with pytest.raises(UnavailableError, match="is malformed"):
        await version_page(client, "bucket", ListOptions(), "gcs")
