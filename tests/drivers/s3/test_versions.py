"""Versioned buckets: versions are listed, read and deleted by id."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import pytest

from tests.drivers.s3.test_conformance import driver_of
from trove_async.drivers.s3._versions import page_from_full_listing, parse_versions, versions_query
from trove_async.drivers.s3._xml import MalformedResponse
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    NotSupportedError,
    ObjectNotFoundError,
)
from trove_async.models import VersionInfo
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PutOptions, VersionPage
from trove_async.testing import opened

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server


async def test_versions_are_read_and_deleted_by_id(seaweed: S3Server) -> None:
    bucket = f"versions-{uuid4().hex[:20]}"
    driver = driver_of(seaweed, dialect="seaweedfs")

    async def read(version_id: str | None) -> bytes:
        async with driver.get(bucket, "key", GetOptions(version_id=version_id)) as reader:
            return await reader.read(100)

    async with opened(driver):
        await driver.create_bucket(bucket)
        await driver.set_versioning(bucket, enabled=True)
        old, new = [
            await driver.put(bucket, "key", [memoryview(body)], PutOptions())
            for body in (b"old", b"new one")
        ]
        assert old.version_id
        assert new.version_id not in {None, old.version_id}
        assert [await read(None), await read(old.version_id)] == [b"new one", b"old"]
        assert (await driver.head(bucket, "key", old.version_id)).size == 3
        await driver.delete(bucket, "key", DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await driver.head(bucket, "key")
        assert await read(new.version_id) == b"new one"
        await driver.delete(bucket, "key", DeleteOptions(version_id=new.version_id))
        with pytest.raises(ObjectNotFoundError):
            await read(new.version_id)
        assert await read(old.version_id) == b"old"


AMAZON_DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>bucket</Name><Prefix>a</Prefix><KeyMarker/><VersionIdMarker/>
  <NextKeyMarker>c%2Bd+e</NextKeyMarker><NextVersionIdMarker>w+/</NextVersionIdMarker>
  <MaxKeys>5</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
  <Version><Key>a%2B</Key><VersionId>3</VersionId><IsLatest>true</IsLatest>
    <LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>&quot;33&quot;</ETag>
    <Size>434234</Size><StorageClass>STANDARD</StorageClass><Owner><ID>7</ID></Owner></Version>
  <DeleteMarker><Key>a%2B</Key><VersionId>2</VersionId><IsLatest>false</IsLatest>
    <LastModified>2009-10-12T17:50:30.000Z</LastModified><Owner><ID>7</ID></Owner></DeleteMarker>
  <Version><Key>a%2B</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>
    <LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>"11"</ETag><Size>1</Size></Version>
  <DeleteMarker><Key>c%2Bd+e</Key><VersionId>w+/</VersionId><IsLatest>true</IsLatest>
    <LastModified>2009-10-12T17:50:31.000Z</LastModified></DeleteMarker>
</ListVersionsResult>"""


def parse(text: str) -> VersionPage:
    return parse_versions(text.encode(), bucket="bucket", backend="cold")


def test_versions_and_delete_markers_are_read_in_document_order() -> None:
    page = parse(AMAZON_DOCUMENT)
    newest = page.entries[0]
    assert newest == VersionInfo(
        bucket="bucket",
        key="a+",
        version_id="3",
        size=434234,
        etag="33",
        last_modified=datetime(2009, 10, 12, 17, 50, 30, tzinfo=UTC),
        storage_class="STANDARD",
        latest=True,
        backend="cold",
    )
    assert [(entry.key, entry.version_id, entry.size, entry.deleted) for entry in page.entries] == [
        ("a+", "3", 434234, False),
        ("a+", "2", 0, True),
        ("a+", "null", 1, False),
        ("c+d e", "w+/", 0, True),
    ]


def test_next_page_is_requested_with_the_markers_of_key_and_version() -> None:
    token = parse(AMAZON_DOCUMENT).token
    assert versions_query(ListOptions(prefix="a", start_after="a", token=token, limit=5000)) == {
        "versions": "",
        "max-keys": "1000",
        "prefix": "a",
        "key-marker": "c+d e",
        "version-id-marker": "w+/",
    }
    assert versions_query(ListOptions(start_after="b", limit=7)) == {
        "versions": "",
        "max-keys": "7",
        "key-marker": "b",
    }


def test_delete_markers_listed_after_all_versions_are_merged_in_order() -> None:
    def element(kind: str, key: str, version_id: str, second: int, latest: str) -> str:
        return (
            f"<{kind}><Key>{key}</Key><VersionId>{version_id}</VersionId><IsLatest>{latest}"
            f"</IsLatest><LastModified>2026-01-01T00:00:{second:02}Z</LastModified>"
            f"<Size>1</Size></{kind}>"
        )

    page = parse(
        "<ListVersionsResult>"
        + element("Version", "a", "3", 3, "false")
        + element("Version", "a", "1", 1, "false")
        + element("Version", "b", "1", 1, "true")
        + element("DeleteMarker", "a", "4", 3, "true")
        + element("DeleteMarker", "a", "2", 2, "false")
        + "<IsTruncated>false</IsTruncated></ListVersionsResult>"
    )
    assert [(entry.key, entry.version_id) for entry in page.entries] == [
        ("a", "4"),
        ("a", "3"),
        ("a", "2"),
        ("a", "1"),
        ("b", "1"),
    ]
    assert page.token is None


@pytest.mark.parametrize(
    "document",
    [
        AMAZON_DOCUMENT.replace("<NextKeyMarker>c%2Bd+e</NextKeyMarker>", ""),
        AMAZON_DOCUMENT.replace("<VersionId>2</VersionId>", ""),
        AMAZON_DOCUMENT.replace("<Size>1</Size>", "<Size>-1</Size>"),
        AMAZON_DOCUMENT.replace("<Key>a%2B</Key>", "<Key></Key>"),
        AMAZON_DOCUMENT.replace("<Key>a%2B</Key>", "<Key>%ff</Key>"),
        AMAZON_DOCUMENT.replace("17:50:31", "17:50:61"),
        AMAZON_DOCUMENT.replace("ListVersionsResult", "ListBucketResult"),
        AMAZON_DOCUMENT[:-30],
    ],
)
def test_malformed_page_of_versions_raises(document: str) -> None:
    with pytest.raises(MalformedResponse):
        parse(document)


async def test_page_from_full_listing_continues_after_deletes() -> None:
    def version(key: str, number: int) -> VersionInfo:
        return VersionInfo(
            bucket="b",
            key=key,
            version_id=str(number),
            size=0,
            etag=None,
            last_modified=datetime.now(UTC),
            latest=False,
        )

    versions = [version("b", 1), version("a", 3), version("a", 2), version("a", 1)]
    requests: list[ListOptions] = []

    async def list_versions(_bucket: str, options: ListOptions) -> VersionPage:
        requests.append(options)
        return VersionPage(entries=versions)

    first = await page_from_full_listing(list_versions, "b", ListOptions(prefix="p", limit=2))
    assert [entry.version_id for entry in first.entries] == ["3", "2"]
    del versions[1:3]
    versions.insert(1, version("a", 4))
    second = await page_from_full_listing(
        list_versions, "b", ListOptions(prefix="p", limit=2, token=first.token)
    )
    assert [(entry.key, entry.version_id) for entry in second.entries] == [("a", "1"), ("b", "1")]
    assert second.token is None
    after_a = await page_from_full_listing(list_versions, "b", ListOptions(start_after="a"))
    assert [entry.key for entry in after_a.entries] == ["b"]
    assert {(options.limit, options.token) for options in requests} == {(1000, None)}


async def test_full_listing_of_more_than_one_page_raises_not_supported() -> None:
    async def list_versions(_bucket: str, _options: ListOptions) -> VersionPage:
        return VersionPage(entries=[], token="more")

    with pytest.raises(NotSupportedError, match="longer prefix"):
        await page_from_full_listing(list_versions, "b", ListOptions())


@pytest.mark.parametrize("data_plane", ["lean", "sdk"])
async def test_versioning_is_enabled_and_suspended(
    moto_server: S3Server, data_plane: Literal["lean", "sdk"]
) -> None:
    bucket = f"versions-{uuid4().hex[:20]}"
    driver = driver_of(moto_server, data_plane=data_plane)
    with pytest.raises(ClosedError):
        await driver.set_versioning(bucket, enabled=True)
    async with opened(driver):
        with pytest.raises(BucketNotFoundError):
            await driver.set_versioning(bucket, enabled=True)
        await driver.create_bucket(bucket)
        statuses = []
        for enabled in (True, False, True):
            await driver.set_versioning(bucket, enabled=enabled)
            client = await driver.client
            statuses.append((await client.get_bucket_versioning(Bucket=bucket))["Status"])
        assert statuses == ["Enabled", "Suspended", "Enabled"]
    with pytest.raises(ClosedError):
        await driver.set_versioning(bucket, enabled=True)
