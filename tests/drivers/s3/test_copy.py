"""Copies: conditions, metadata, and multipart copies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import OBJECT_HEADERS, error_response, now, response
from tests.drivers.s3.test_conformance import driver_of
from trove_async import Trove
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3._copy import Copier
from trove_async.errors import (
    BucketNotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, PutOptions

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize(
    "key", ["a b", "a%2Fb", "\u00fc", "a+b", "a\\b", "a?versionId=v", "a&b=c", "%"]
)
async def test_copy_source_with_special_characters_is_encoded(
    moto_server: S3Server, plane: str, key: str
) -> None:
    driver = driver_of(moto_server, data_plane=plane, dialect="s3")
    async with Trove(driver) as store:
        await store.create_bucket("encoded", exist_ok=True)
        info = await store.put("encoded", key, b"body")
        await store.copy("encoded", key, "encoded", "copy")
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=1,
            part_size=4,
        )
        options = CopyOptions(source=info, put=PutOptions())
        await copier.copy("encoded", key, "encoded", "parts", options)
        for copy in ("copy", "parts"):
            assert await store.read("encoded", copy) == b"body"
        await store.delete_many("encoded", [key, "copy", "parts"])


async def test_copy_reports_which_condition_failed(scripted_driver: Any) -> None:
    failed = [error_response(412, "PreconditionFailed") for _ in range(2)]
    _, opened_driver = scripted_driver(
        failed[0],
        response(headers=OBJECT_HEADERS),
        failed[1],
        response(headers={**OBJECT_HEADERS, "etag": '"f"'}),
    )
    source = ObjectInfo(bucket="data", key="from", size=5, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions(if_match="x"))
    async with opened_driver as driver:
        for error_type in (PreconditionFailedError, ObjectChangedError):
            with pytest.raises(TroveError) as caught:
                await driver.copy("data", "from", "data", "to", options)
            assert type(caught.value) is error_type


async def test_copy_of_an_older_version_reports_which_condition_failed(
    scripted_driver: Any,
) -> None:
    transport, opened_driver = scripted_driver(
        error_response(412, "PreconditionFailed"), response(headers=OBJECT_HEADERS)
    )
    source = ObjectInfo(
        bucket="data", key="from", size=5, etag="e", last_modified=now(), version_id="v1"
    )
    options = CopyOptions(source=source, put=PutOptions(if_none_match="*"))
    async with opened_driver as driver:
        with pytest.raises(ObjectExistsError):
            await driver.copy("data", "from", "data", "to", options)
    assert transport.request_lines[1].endswith("/from?versionId=v1")


@pytest.mark.parametrize("max_single_copy", [1000, 100])
async def test_copy_sends_the_expected_owner_of_the_source(
    scripted_driver: Any, max_single_copy: int
) -> None:
    upload = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    etag = "<ETag>&quot;e&quot;</ETag>"
    single_copy = [response(body=f"<CopyObjectResult>{etag}</CopyObjectResult>")]
    parts = [
        response(body=upload),
        response(body=f"<CopyPartResult>{etag}</CopyPartResult>"),
        response(body=f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>"),
    ]
    responses = single_copy if max_single_copy == 1000 else parts
    transport, opened_driver = scripted_driver(*responses, expected_bucket_owner="123")
    source = ObjectInfo(bucket="theirs", key="from", size=200, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions())
    async with opened_driver as driver:
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=max_single_copy,
            part_size=200,
        )
        await copier.copy("theirs", "from", "data", "to", options)
    [headers] = [
        request.headers for request in transport.requests if "x-amz-copy-source" in request.headers
    ]
    assert headers["x-amz-source-expected-bucket-owner"] == "123"


async def test_copy_reports_which_bucket_is_missing(scripted_driver: Any) -> None:
    missing = [error_response(404, "NoSuchBucket") for _ in range(2)]
    _, opened_driver = scripted_driver(missing[0], response(404), missing[1], response())
    source = ObjectInfo(bucket="data", key="from", size=5, etag="e", last_modified=now())
    options = CopyOptions(source=source, put=PutOptions())
    async with opened_driver as driver:
        for bucket in ("target", "data"):
            with pytest.raises(BucketNotFoundError) as caught:
                await driver.copy("data", "from", "target", "to", options)
            assert caught.value.bucket == bucket


@pytest.mark.parametrize("to", ["to", "from"])
@pytest.mark.parametrize("in_parts", [True, False])
async def test_copy_keeps_the_fields_of_the_source(
    scripted_driver: Any, to: str, *, in_parts: bool
) -> None:
    fields = {
        "content-type": "text/plain",
        "cache-control": "max-age=5",
        "content-disposition": "attachment",
        "content-encoding": "identity",
        "content-language": "de",
        "expires": "Tue, 01 Jan 2030 00:00:00 GMT",
    }
    etag = "<ETag>&quot;e&quot;</ETag>"
    upload = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    single_copy = [response(body=f"<CopyObjectResult>{etag}</CopyObjectResult>")]
    parts = [
        response(body=upload),
        response(body=f"<CopyPartResult>{etag}</CopyPartResult>"),
        response(body=f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>"),
    ]
    head = response(
        headers={**OBJECT_HEADERS, **fields, "content-length": "200", "x-amz-meta-a": "b"}
    )
    transport, _ = scripted_driver(head, *(parts if in_parts else single_copy))
    driver = S3Driver(region="us-east-1", access_key_id="KEYID", secret_access_key="SECRET")
    async with Trove(driver) as store:
        if in_parts:
            copier = Copier(
                driver._plane,
                driver._open_components.known_buckets.exists,
                max_single_copy=100,
                part_size=200,
            )
            driver._components = replace(driver._open_components, copier=copier)
        await store.copy("data", "from", "data", to, metadata={"a": "c"})
    sent = transport.requests[1].headers
    assert {name: sent.get(name) for name in fields} == fields
    assert sent["x-amz-meta-a"] == "c"


async def test_large_object_is_copied_in_parts(scripted_driver: Any) -> None:
    upload = (
        b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    )
    part = b"<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
    completed = b"<CompleteMultipartUploadResult><ETag>&quot;e-3&quot;</ETag></CompleteMultipartUploadResult>"
    transport, opened_driver = scripted_driver(
        response(body=upload), *[response(body=part) for _ in range(3)], response(body=completed)
    )
    source = ObjectInfo(bucket="data", key="a b", size=250, etag="e", last_modified=now())
    async with opened_driver as driver:
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=100,
            part_size=100,
        )
        info = await copier.copy(
            "data", "a b", "data", "to", CopyOptions(source=source, put=PutOptions())
        )
    assert (info.etag, info.size) == ("e-3", 250)
    # Only the response to CreateMultipartUpload must arrive promptly.
    assert transport.patient == [False, True, True, True, True]
    ranges = sorted(
        request.headers["x-amz-copy-source-range"] for request in transport.requests[1:4]
    )
    assert ranges == ["bytes=0-99", "bytes=100-199", "bytes=200-249"]
    for request in transport.requests[1:4]:
        assert request.headers["x-amz-copy-source"] == "/data/a%20b"
        assert request.headers["x-amz-copy-source-if-match"] == '"e"'


async def test_only_the_failed_part_of_a_copy_is_retried(
    scripted_driver: Any,
) -> None:
    upload = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    part = "<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
    completed = "<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
    transport, opened_driver = scripted_driver(
        response(body=upload),
        error_response(503, "SlowDown"),
        response(body=part),
        response(body=completed),
    )
    source = ObjectInfo(bucket="data", key="from", size=101, etag="e", last_modified=now())
    async with opened_driver as driver:
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=100,
            part_size=101,
        )
        options = CopyOptions(source=source, put=PutOptions())
        assert (await copier.copy("data", "from", "data", "to", options)).size == 101
    assert len(transport.requests) == 4
    assert transport.request_lines[1] == transport.request_lines[2]
