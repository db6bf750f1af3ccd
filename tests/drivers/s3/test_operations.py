"""Operations over scripted responses, many of them contradictory, malformed or endless."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.drivers.s3.scripted_transport import (
    OBJECT_HEADERS,
    SECRET,
    TOKEN,
    FakeResponse,
    error_response,
    now,
    response,
)
from trove_async.drivers.s3._data_plane import UploadId
from trove_async.drivers.s3._multipart import MultipartUpload
from trove_async.drivers.s3._sdk_client import SdkBody
from trove_async.errors import (
    BackendError,
    BucketExistsError,
    BucketNotFoundError,
    ConfigError,
    IntegrityError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.models import ByteRange
from trove_async.options import DeleteOptions, GetOptions, ListOptions, Part, PutOptions


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_completion_with_status_200_and_an_error_is_retryable(
    scripted_driver: Any, code: str
) -> None:
    upload = (
        b"<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>"
    )
    completed = b"<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
    transport, opened_driver = scripted_driver(
        response(body=upload),
        response(headers=OBJECT_HEADERS),
        error_response(200, code),
        response(body=b"  " + completed),
    )
    async with opened_driver as driver, driver.upload("data", "key", PutOptions()) as session:
        part = Part(number=1, offset=0, size=5, last=True)
        await session.send(part, [memoryview(b"hello")])
        with pytest.raises(UnavailableError):
            await session.commit({"crc32c": "mnG7TA=="})
        info = await session.commit({"crc32c": "mnG7TA=="})
    assert (info.etag, info.size) == ("e-1", 5)
    assert transport.request_lines[2].endswith("?uploadId=u%2F1")
    headers = transport.requests[2].headers
    assert headers["x-amz-checksum-crc32c"] == "mnG7TA=="
    assert headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert headers["x-amz-mp-object-size"] == "5"


@pytest.mark.parametrize("body", [b"", b"<html>", b"<ListBucketResult><Contents>", b"\xff"])
async def test_malformed_response_is_retryable(scripted_driver: Any, body: bytes) -> None:
    _, opened_driver = scripted_driver(response(body=body))
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="is malformed"):
            await driver.list_page("data", ListOptions())


async def test_error_without_a_document_is_classified_by_its_status(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(response(503, "<html>busy</html>", retry_after="7"))
    async with opened_driver as driver:
        with pytest.raises(UnavailableError) as caught:
            await driver.list_page("data", ListOptions())
    assert caught.value.retry_after == 7


async def test_missing_object_and_missing_bucket_are_distinguished_by_one_head_per_bucket(
    scripted_driver: Any,
) -> None:
    transport, opened_driver = scripted_driver(
        response(404), response(), response(404), response(404), response(404)
    )
    async with opened_driver as driver:
        for _ in range(2):
            with pytest.raises(ObjectNotFoundError):
                await driver.head("data", "key")
        with pytest.raises(BucketNotFoundError):
            await driver.head("other", "key")
    assert [request.method for request in transport.requests] == ["HEAD"] * 5
    assert transport.request_lines[1] == "HEAD https://data.s3.us-east-1.amazonaws.com/"


async def test_create_bucket_checks_for_the_bucket_first(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(),
        response(403),
        error_response(409, "BucketAlreadyExists"),
        response(404),
        response(),
    )
    async with opened_driver as driver:
        for name in ("mine", "theirs"):
            with pytest.raises(BucketExistsError):
                await driver.create_bucket(name)
        await driver.create_bucket("new")
    assert [request.method for request in transport.requests] == [
        "HEAD",
        "HEAD",
        "PUT",
        "HEAD",
        "PUT",
    ]
    assert transport.requests[-1].body == b""


async def test_bucket_is_created_in_the_region_of_the_driver(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(404),
        response(),
        region="eu-west-1",
        endpoint_url="https://s3.eu-west-1.amazonaws.com",
    )
    async with opened_driver as driver:
        await driver.create_bucket("new")
    assert b"<LocationConstraint>eu-west-1<" in transport.requests[-1].body


async def test_if_match_on_a_missing_object_raises_precondition_failed(
    scripted_driver: Any,
) -> None:
    _, opened_driver = scripted_driver(
        error_response(404, "NoSuchKey"), error_response(404, "NoSuchKey")
    )
    async with opened_driver as driver:
        with pytest.raises(PreconditionFailedError):
            await driver.put("data", "key", [], PutOptions(if_match="e"))
        with pytest.raises(PreconditionFailedError):
            await driver.delete("data", "key", DeleteOptions(if_match="e"))


async def test_whole_object_in_response_to_a_range_raises(scripted_driver: Any) -> None:
    object_headers = {**OBJECT_HEADERS, "content-length": "10"}
    _, opened_driver = scripted_driver(
        response(body=b"0123456789", headers=object_headers), response(headers=OBJECT_HEADERS)
    )
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="requested bytes 2 to 4"):
            await driver.get("data", "key", GetOptions(range=ByteRange(2, 4))).__aenter__()
        with pytest.raises(RangeError):
            await driver.get("data", "key", GetOptions(range=ByteRange(0, 4))).__aenter__()


async def test_body_that_ends_early_raises(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(
        response(body=b"01234", headers={**OBJECT_HEADERS, "content-length": "10"})
    )
    async with opened_driver as driver, driver.get("data", "key", GetOptions()) as reader:
        assert await reader.read(100) == b"01234"
        with pytest.raises(UnavailableError, match="5 bytes early"):
            await reader.read(100)


async def test_keys_that_xml_cannot_contain_are_deleted_one_by_one(scripted_driver: Any) -> None:
    deleted = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    transport, opened_driver = scripted_driver(response(body=deleted), response(204))
    async with opened_driver as driver:
        results = await driver.delete_many("data", ["a", "bell\x07", "b"])
    assert [(result.key, type(result.error)) for result in results] == [
        ("a", type(None)),
        ("bell\x07", type(None)),
        ("b", PermissionDeniedError),
    ]
    assert transport.request_lines == [
        "POST https://data.s3.us-east-1.amazonaws.com/?delete",
        "DELETE https://data.s3.us-east-1.amazonaws.com/bell%07",
    ]
    assert "content-md5" in transport.requests[0].headers


def listing(*keys: str, token: str = "") -> FakeResponse:
    next_token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
        '<ETag>"e"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>'
        for key in keys
    )
    truncated = str(bool(token)).lower()
    return response(
        body=f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next_token}{entries}"
        "</ListBucketResult>"
    )


async def test_unordered_listing_raises(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(listing("b", "a"), listing("a"))
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="order"):
            await driver.list_page("data", ListOptions())
        with pytest.raises(BackendError, match="order"):
            await driver.list_page("data", ListOptions(start_after="b"))


async def test_listing_whose_token_repeats_raises(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(listing("a", token="t"))
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="same page again"):
            await driver.list_page("data", ListOptions(token="t"))


async def test_empty_pages_are_skipped(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(listing(token="t"), listing("a"))
    async with opened_driver as driver:
        page = await driver.list_page("data", ListOptions())
    assert [entry.key for entry in page.entries] == ["a"]
    assert "continuation-token=t" in transport.request_lines[1]


async def test_presigned_url_shows_no_secret(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(session_token=TOKEN)
    async with opened_driver as driver:
        url = await driver.presign("GET", "data", "a b", 59.5)
        with pytest.raises(ConfigError):
            await driver.presign("GET", "data", "key", 604_801)
    assert url.startswith("https://data.s3.us-east-1.amazonaws.com/a%20b?")
    assert "X-Amz-Expires=60" in url
    assert SECRET not in url


async def test_head_whose_tags_cannot_be_read_closes_its_response(scripted_driver: Any) -> None:
    tagged = response(headers=OBJECT_HEADERS, x_amz_tagging_count="1")
    transport, opened_driver = scripted_driver(tagged, error_response(503, "SlowDown"))
    async with opened_driver as driver:
        with pytest.raises(UnavailableError):
            await driver.head("data", "key")
        assert tagged.closed
    assert [request.method for request in transport.requests] == ["HEAD", "GET"]


async def test_web_page_in_response_to_a_put_raises(scripted_driver: Any) -> None:
    page = "<html>Welcome, please log in</html>"
    pages = [response(body=page, content_length=str(len(page))) for _ in range(2)]
    _, opened_driver = scripted_driver(*pages)
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="response is malformed"):
            await driver.put("data", "key", [memoryview(b"body")], PutOptions())


async def test_range_without_content_range_raises(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(206, b"hello", headers={**OBJECT_HEADERS, "content-length": "5"})
    )
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="must have a Content-Range"):
            async with driver.get("data", "key", GetOptions(range=ByteRange(0, 5))):
                pass
    assert transport.returned_responses[0].closed


async def test_invalid_date_does_not_change_the_clock(scripted_driver: Any) -> None:
    date = f"Tue, 24 Nov 2026 11:00:50 +{'9' * 20}"
    _, opened_driver = scripted_driver(error_response(403, "RequestTimeTooSkewed", date=date))
    async with opened_driver as driver:
        with pytest.raises(UnauthenticatedError):
            await driver.head_bucket("data")


class EndlessResponse(FakeResponse):
    """A response whose body exceeds any limit."""

    async def read_all(self, limit: int) -> bytes:
        raise IntegrityError(f"the response has more than {limit} bytes")


async def test_error_with_an_endless_body_is_classified_by_its_status(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(EndlessResponse(503, {}, b""))
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="503"):
            await driver.head_bucket("data")


async def test_readinto_of_an_sdk_body_returns_the_available_bytes() -> None:
    class SlowBody:
        async def read(self, _size: int) -> bytes:
            return chunks.pop(0)

    chunks = [b"some", b"more"]
    assert await SdkBody(SlowBody()).readinto(memoryview(bytearray(100))) == 4
    assert chunks == [b"more"]


async def test_ping_accepts_credentials_that_may_not_list_buckets(
    scripted_driver: Any,
) -> None:
    _, opened_driver = scripted_driver(
        error_response(403, "AccessDenied"), error_response(403, "InvalidAccessKeyId")
    )
    async with opened_driver as driver:
        await driver.ping()
        with pytest.raises(UnauthenticatedError):
            await driver.ping()


async def test_abort_after_the_driver_was_closed_is_not_retried() -> None:
    class ClosedPlane:
        aborts = 0

        async def create_upload(self, bucket: str, key: str, _options: PutOptions) -> UploadId:
            return UploadId(bucket, key, "u")

        async def abort_upload(self, _upload: UploadId) -> None:
            self.aborts += 1
            raise UnavailableError("the connections are closed", retryable=False)

    plane: Any = ClosedPlane()
    async with MultipartUpload(plane, "data", "key", PutOptions()):
        pass
    assert plane.aborts == 1


def page_of_uploads(initiated: datetime, elements: str = "") -> str:
    return (
        "<ListMultipartUploadsResult><Upload><Key>key</Key><UploadId>u</UploadId>"
        f"<Initiated>{initiated.isoformat().replace('+00:00', 'Z')}</Initiated></Upload>{elements}"
        "</ListMultipartUploadsResult>"
    )


async def test_gc_uploads_uses_the_clock_of_the_service(
    scripted_driver: Any,
) -> None:
    # By the local clock, the upload is five hours old.
    initiated = now() - timedelta(hours=5)
    minute_later = format_datetime(initiated + timedelta(minutes=1), usegmt=True)
    hours_later = format_datetime(initiated + timedelta(hours=2), usegmt=True)
    _, opened_driver = scripted_driver(
        response(body=page_of_uploads(initiated), date=minute_later),
        response(body=page_of_uploads(initiated), date=hours_later),
        response(204),
    )
    async with opened_driver as driver:
        assert await driver.gc_uploads("data", older_than=3600) == 0
        assert await driver.gc_uploads("data", older_than=3600) == 1


async def test_gc_uploads_rejects_an_invalid_age(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver()
    async with opened_driver as driver:
        for seconds in (-1, float("nan")):
            with pytest.raises(ValueError, match="older_than"):
                await driver.gc_uploads("data", older_than=seconds)


@pytest.mark.parametrize("seconds", [1e18, float("inf")])
async def test_gc_uploads_accepts_a_huge_age(scripted_driver: Any, seconds: float) -> None:
    _, opened_driver = scripted_driver(
        response(body=page_of_uploads(now()), date=format_datetime(now(), usegmt=True))
    )
    async with opened_driver as driver:
        assert await driver.gc_uploads("data", older_than=seconds) == 0


async def test_listings_whose_markers_repeat_raise(scripted_driver: Any) -> None:
    page = page_of_uploads(
        now(), "<IsTruncated>true</IsTruncated><NextKeyMarker>key</NextKeyMarker>"
    )
    buckets = (
        "<ListAllMyBucketsResult><Buckets/><ContinuationToken>t</ContinuationToken>"
        "</ListAllMyBucketsResult>"
    )
    _, opened_driver = scripted_driver(
        *[response(body=body) for body in (page, page, buckets, buckets)]
    )
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="same page"):
            await driver.gc_uploads("data", older_than=3600)
        with pytest.raises(BackendError, match="same page"):
            await driver.list_buckets()


async def test_bucket_looked_up_during_its_deletion_is_missing_afterwards(
    scripted_driver: Any,
) -> None:
    _, opened_driver = scripted_driver(response(), response(204), response(404), response(404))
    async with opened_driver as driver:
        delete_bucket = driver._plane.delete_bucket

        async def delete_after_a_lookup(bucket: str) -> None:
            assert await driver._open_components.known_buckets.exists(bucket)
            await delete_bucket(bucket)

        driver._plane.delete_bucket = delete_after_a_lookup
        await driver.delete_bucket("data")
        with pytest.raises(BucketNotFoundError):
            await driver.head("data", "key")


async def test_list_of_buckets_with_circular_tokens_raises(scripted_driver: Any) -> None:
    def page(token: str) -> FakeResponse:
        return response(
            body="<ListAllMyBucketsResult><Buckets><Bucket><Name>data</Name></Bucket></Buckets>"
            f"<ContinuationToken>{token}</ContinuationToken></ListAllMyBucketsResult>"
        )

    _, opened_driver = scripted_driver(*map(page, ["a", "b", "c", "b", "c"]))
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="same page"):
            await driver.list_buckets()
