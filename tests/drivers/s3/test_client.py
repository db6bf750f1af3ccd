"""Addressing, regions, clock skew, expired credentials and sizes that responses lack.

No test server reproduces these.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.drivers.s3.scripted_transport import (
    EMPTY_PAGE,
    OBJECT_HEADERS,
    SECRET,
    TOKEN,
    FakeResponse,
    error_response,
    response,
)
from trove_async._concurrency import task_group
from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import _components as components_module
from trove_async.drivers.s3._credentials import Session
from trove_async.drivers.s3._sigv4 import Credentials
from trove_async.errors import (
    BackendError,
    InvalidNameError,
    PermissionDeniedError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trove_async._http import Origin

# -- addressing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "bucket", "url"),
    [
        ({}, "data", "https://data.s3.us-east-1.amazonaws.com/a%20b"),
        ({}, "da.ta", "https://s3.us-east-1.amazonaws.com/da.ta/a%20b"),
        ({}, "DATA", "https://s3.us-east-1.amazonaws.com/DATA/a%20b"),
        ({}, "da_ta", "https://s3.us-east-1.amazonaws.com/da_ta/a%20b"),
        ({"addressing_style": "path"}, "data", "https://s3.us-east-1.amazonaws.com/data/a%20b"),
        ({"endpoint_url": "http://h:9", "dialect": "s3"}, "data", "http://h:9/data/a%20b"),
        (
            {"endpoint_url": "http://h:9", "dialect": "s3", "addressing_style": "virtual"},
            "data",
            "http://data.h:9/a%20b",
        ),
    ],
)
async def test_bucket_is_part_of_the_host_name_where_possible(
    scripted_driver: Any, settings: dict[str, Any], bucket: str, url: str
) -> None:
    transport, opened_driver = scripted_driver(response(headers=OBJECT_HEADERS), **settings)
    async with opened_driver as driver:
        await driver.head(bucket, "a b")
    assert transport.request_lines == [f"HEAD {url}"]


@pytest.mark.parametrize("bucket", ["ab", "b\u00fccher", "a b c", "a/b", "%2F%2F", "-abc", ".abc"])
async def test_invalid_bucket_name_raises_before_any_request(
    scripted_driver: Any, bucket: str
) -> None:
    _, opened_driver = scripted_driver()
    async with opened_driver as driver:
        with pytest.raises(InvalidNameError):
            await driver.head(bucket, "key")


async def test_empty_bucket_name_does_not_address_the_service_itself(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(response(body=b"<ListAllMyBucketsResult/>"))
    async with opened_driver as driver:
        await driver.list_buckets()  # caches the address of the service
        with pytest.raises(InvalidNameError):
            await driver.head("", "key")


async def test_expected_bucket_owner_is_sent_with_every_request(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(), response(body=EMPTY_PAGE), expected_bucket_owner="123"
    )
    async with opened_driver as driver:
        await driver.head_bucket("data")
        await driver.list_page("data", ListOptions())
    assert all(
        request.headers["x-amz-expected-bucket-owner"] == "123" for request in transport.requests
    )
    assert all(
        "x-amz-expected-bucket-owner" in request.headers["Authorization"]
        for request in transport.requests
    )


HELLO_SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.mark.parametrize(
    ("scheme", "settings", "digest"),
    [
        ("https", {}, "UNSIGNED-PAYLOAD"),
        ("http", {}, HELLO_SHA256),
        ("https", {"payload_signing": True}, HELLO_SHA256),
        ("http", {"payload_signing": False}, "UNSIGNED-PAYLOAD"),
    ],
)
async def test_body_is_signed_by_default_only_over_plain_http(
    scripted_driver: Any, scheme: str, settings: dict[str, Any], digest: str
) -> None:
    url = f"{scheme}://s3.us-east-1.amazonaws.com"
    transport, opened_driver = scripted_driver(
        response(headers=OBJECT_HEADERS), endpoint_url=url, **settings
    )
    async with opened_driver as driver:
        await driver.put("data", "key", [memoryview(b"hello")], PutOptions())
    assert transport.requests[0].headers["x-amz-content-sha256"] == digest


# -- regions ---------------------------------------------------------------------------------------

WRONG_REGION_RESPONSES = [
    error_response(
        301,
        "PermanentRedirect",
        "<Endpoint>evil.example</Endpoint>",
        headers={"x-amz-bucket-region": "eu-west-1"},
    ),
    error_response(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
    error_response(
        307,
        "TemporaryRedirect",
        location="https://evil.example/",
        headers={"x-amz-bucket-region": "eu-west-1"},
    ),
    response(301, headers={"x-amz-bucket-region": "eu-west-1"}),
    response(400, headers={"x-amz-bucket-region": "eu-west-1"}),
]


@pytest.mark.parametrize("template", WRONG_REGION_RESPONSES)
async def test_region_of_a_bucket_is_learned_once(
    scripted_driver: Any, template: FakeResponse
) -> None:
    redirect = FakeResponse(template.status, template.headers, template._body)
    transport, opened_driver = scripted_driver(
        redirect, response(headers=OBJECT_HEADERS), response(headers=OBJECT_HEADERS)
    )
    async with opened_driver as driver:
        await driver.head("data", "key")
        await driver.head("data", "key")
    assert transport.request_lines == [
        "HEAD https://data.s3.us-east-1.amazonaws.com/key",
        "HEAD https://data.s3.eu-west-1.amazonaws.com/key",
        "HEAD https://data.s3.eu-west-1.amazonaws.com/key",
    ]
    assert "/eu-west-1/s3/" in transport.requests[1].headers["Authorization"]


@pytest.mark.parametrize(
    "region",
    ["evil.example", "evil.example/", "eu-west-1.evil.example#", "us-east-1", "", "\u00e9"],
)
async def test_redirect_without_another_valid_region_is_not_followed(
    scripted_driver: Any, region: str
) -> None:
    transport, opened_driver = scripted_driver(
        error_response(301, "PermanentRedirect", f"<Region>{region}</Region>")
    )
    async with opened_driver as driver:
        with pytest.raises(BackendError, match="region"):
            await driver.put("data", "key", [], PutOptions())
    assert len(transport.requests) == 1


async def test_circular_region_redirects_raise(scripted_driver: Any) -> None:
    def redirect_to(region: str) -> FakeResponse:
        return error_response(301, "PermanentRedirect", f"<Region>{region}</Region>")

    _, opened_driver = scripted_driver(redirect_to("eu-west-1"), redirect_to("us-east-1"))
    async with opened_driver as driver:
        with pytest.raises(BackendError):
            await driver.put("data", "key", [], PutOptions())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_custom_endpoint_is_not_followed(
    scripted_driver: Any, status: int
) -> None:
    transport, opened_driver = scripted_driver(
        response(
            status, location="https://evil.example/", headers={"x-amz-bucket-region": "eu-west-1"}
        ),
        endpoint_url="https://minio.example",
        dialect="s3",
    )
    async with opened_driver as driver:
        with pytest.raises(BackendError):
            await driver.put("data", "key", [], PutOptions())
    assert transport.request_lines == ["PUT https://minio.example/data/key"]


async def test_dot_segments_are_sent_percent_encoded(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        response(headers=OBJECT_HEADERS), response(headers=OBJECT_HEADERS)
    )
    async with opened_driver as driver:
        await driver.head("data", "a/../b")
        url = await driver.presign("GET", "data", "a/./b", 60)
        await driver.head("data", "a/x/b")
    assert transport.request_lines[0].endswith(".com/a/%2E%2E/b")
    assert url.startswith("https://data.s3.us-east-1.amazonaws.com/a/%2E/b?")


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", ""])
async def test_clock_skew_is_corrected_once(scripted_driver: Any, code: str) -> None:
    service_time = formatdate(time.time() + 3600, usegmt=True)
    rejected = (
        error_response(403, code, date=service_time) if code else response(403, date=service_time)
    )
    transport, opened_driver = scripted_driver(
        rejected, response(headers=OBJECT_HEADERS), response(headers=OBJECT_HEADERS)
    )
    async with opened_driver as driver:
        await driver.head("data", "key")
        await driver.head("data", "key")
    dates = [request.headers["x-amz-date"] for request in transport.requests]
    assert dates[0] < dates[1] <= dates[2]
    hours = [int(date[9:11]) for date in dates]
    assert (hours[1] - hours[0]) % 24 == 1


class FastClockTransport:
    """Responds as a service whose clock is an hour ahead, once all requests have arrived."""

    def __init__(self, request_count: int) -> None:
        self.remaining = request_count
        self.all_arrived = anyio.Event()

    async def send(
        self,
        _method: str,
        _origin: Origin,
        _target: str,
        headers: Mapping[str, str],
        *_: Any,
        **__: Any,
    ) -> Any:
        signed = datetime.strptime(f"{headers['x-amz-date']}+0000", "%Y%m%dT%H%M%SZ%z")
        now = datetime.now(UTC) + timedelta(hours=1)
        self.remaining -= 1
        if not self.remaining:
            self.all_arrived.set()
        await self.all_arrived.wait()
        date = format_datetime(now, usegmt=True)
        if abs(now - signed) > timedelta(minutes=15):
            return response(403, date=date)
        return response(headers=OBJECT_HEADERS)

    async def aclose(self) -> None:
        pass


async def test_clock_skew_is_corrected_for_all_requests_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = FastClockTransport(request_count=20)
    monkeypatch.setattr(components_module, "transport_over", lambda *_, **__: transport)
    driver = S3Driver(
        region="us-east-1",
        endpoint_url="http://h:9",
        access_key_id="KEYID",
        secret_access_key=SECRET,
        dialect="s3",
    )
    async with opened(driver), task_group() as group:
        for number in range(20):
            group.start_soon(driver.head, "data", f"key{number}")


async def test_clock_skew_that_persists_raises(scripted_driver: Any) -> None:
    service_time = formatdate(time.time() + 3600, usegmt=True)
    errors = [error_response(403, "RequestTimeTooSkewed", date=service_time) for _ in range(2)]
    _, opened_driver = scripted_driver(*errors)
    async with opened_driver as driver:
        with pytest.raises(UnauthenticatedError, match="clock"):
            await driver.put("data", "key", [], PutOptions())


@pytest.mark.parametrize("date", ["", "yesterday", "now"])
async def test_denial_without_clock_skew_does_not_change_the_clock(
    scripted_driver: Any, date: str
) -> None:
    _, opened_driver = scripted_driver(
        response(403, date=formatdate(usegmt=True) if date == "now" else date)
    )
    async with opened_driver as driver:
        with pytest.raises(PermissionDeniedError):
            await driver.head("data", "key")


# -- expired credentials ---------------------------------------------------------------------------


@pytest.fixture
def rejected_credentials(monkeypatch: pytest.MonkeyPatch) -> list[Credentials]:
    """Make the credentials of sessions renewable; return the list of those that were rejected."""
    rejected: list[Credentials] = []
    alternating = [Credentials("ONE", SECRET, TOKEN), Credentials("TWO", SECRET, TOKEN)]

    async def current(_: Session) -> Credentials:
        return alternating[len(rejected) % 2]

    async def renew(_: Session, old: Credentials) -> Credentials:
        rejected.append(old)
        return alternating[len(rejected) % 2]

    monkeypatch.setattr(Session, "credentials", current)
    monkeypatch.setattr(Session, "renew", renew)
    return rejected


@pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired", ""])
async def test_expired_credentials_are_renewed_once(
    scripted_driver: Any, rejected_credentials: list[Credentials], code: str
) -> None:
    expired = error_response(400, code) if code else response(400)
    transport, opened_driver = scripted_driver(expired, response(headers=OBJECT_HEADERS))
    async with opened_driver as driver:
        await driver.head("data", "key")
    assert [rejected.access_key for rejected in rejected_credentials] == ["ONE"]
    assert "Credential=TWO/" in transport.requests[1].headers["Authorization"]


async def test_credentials_that_expire_again_raise(
    scripted_driver: Any, rejected_credentials: list[Credentials]
) -> None:
    _, opened_driver = scripted_driver(
        error_response(400, "ExpiredToken"), error_response(400, "ExpiredToken")
    )
    async with opened_driver as driver:
        with pytest.raises(UnauthenticatedError):
            await driver.put("data", "key", [], PutOptions())
    assert len(rejected_credentials) == 1


async def test_credentials_passed_as_arguments_are_not_renewed(scripted_driver: Any) -> None:
    transport, opened_driver = scripted_driver(
        error_response(400, "ExpiredToken"), session_token=TOKEN
    )
    async with opened_driver as driver:
        with pytest.raises(UnauthenticatedError) as caught:
            await driver.put("data", "key", [], PutOptions())
    assert transport.requests[0].headers["x-amz-security-token"] == TOKEN
    for shown in (str(caught.value), repr(caught.value), repr(driver._identity)):
        assert SECRET not in shown
        assert TOKEN not in shown


# -- error responses and missing sizes -------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403])
async def test_error_without_a_document_suggests_causes(scripted_driver: Any, status: int) -> None:
    rejected = response(status, headers={"x-amz-bucket-region": "eu-west-9"})
    _, opened_driver = scripted_driver(rejected, endpoint_url="http://h:9", dialect="s3")
    async with opened_driver as driver:
        with pytest.raises((BackendError, PermissionDeniedError)) as caught:
            await driver.head("data", "key")
    for hint in ("credentials", "`region`", "clock", "policy", "'eu-west-9'"):
        assert hint in str(caught.value)


@pytest.mark.parametrize("bucket", ["Data", "da_ta", "da..ta"])
async def test_error_for_an_invalid_bucket_name_explains_the_rule(
    scripted_driver: Any, bucket: str
) -> None:
    _, opened_driver = scripted_driver(response(400), response(400), dialect="s3")
    async with opened_driver as driver:
        with pytest.raises(InvalidNameError, match="bucket's name"):
            await driver.head(bucket, "key")
        with pytest.raises(InvalidNameError, match="bucket's name"):
            await driver.create_bucket(bucket)


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest"), (501, "")],
)
async def test_rejected_checksum_suggests_checksums_false(
    scripted_driver: Any, status: int, code: str
) -> None:
    rejected = error_response(status, code) if code else response(status)
    _, opened_driver = scripted_driver(
        rejected, error_response(status, code or "InvalidArgument"), dialect="s3"
    )
    async with opened_driver as driver:
        with pytest.raises(TroveError, match="checksums=False"):
            await driver.put("data", "key", [], PutOptions(checksums={"crc32c": "AAAAAA=="}))
        with pytest.raises(TroveError) as caught:
            await driver.delete("data", "key", DeleteOptions())
    assert "checksums=False" not in str(caught.value)


HEADERS_WITHOUT_SIZE = {
    name: value for name, value in OBJECT_HEADERS.items() if name != "content-length"
}


@pytest.mark.parametrize(
    ("range_response", "size"),
    [
        (response(206, b"b", content_range="bytes 0-0/4"), 4),
        (error_response(416, "InvalidRange"), 0),
        (response(200, content_length="0"), 0),
    ],
)
async def test_size_missing_from_a_get_is_read_with_a_range_request(
    scripted_driver: Any, range_response: FakeResponse, size: int
) -> None:
    transport, opened_driver = scripted_driver(
        response(200, b"body"[:size], HEADERS_WITHOUT_SIZE), range_response
    )
    async with opened_driver as driver, driver.get("data", "key", GetOptions()) as reader:
        assert reader.info.size == size
        assert await reader.read(100) == b"body"[:size]
    assert transport.requests[1].headers["range"] == "bytes=0-0"
    assert transport.requests[1].headers["if-match"] == '"e"'


async def test_size_missing_from_a_head_is_read_with_a_range_request(scripted_driver: Any) -> None:
    range_response = response(206, b"b", content_range="bytes 0-0/4")
    _, opened_driver = scripted_driver(response(headers=HEADERS_WITHOUT_SIZE), range_response)
    async with opened_driver as driver:
        assert (await driver.head("data", "key")).size == 4


async def test_size_of_a_replaced_object_is_not_used(scripted_driver: Any) -> None:
    headers_without_validator = {
        name: value for name, value in HEADERS_WITHOUT_SIZE.items() if name != "etag"
    }
    replaced = {"last-modified": "Wed, 01 Jan 2025 00:00:01 GMT", "content-range": "bytes 0-0/2"}
    _, opened_driver = scripted_driver(
        response(200, b"body", headers_without_validator), response(206, b"b", replaced)
    )
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="replaced"):
            await driver.get("data", "key", GetOptions()).__aenter__()


async def test_get_without_any_size_raises(scripted_driver: Any) -> None:
    _, opened_driver = scripted_driver(
        response(200, b"body", HEADERS_WITHOUT_SIZE), response(200, b"body", HEADERS_WITHOUT_SIZE)
    )
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="size"):
            await driver.get("data", "key", GetOptions()).__aenter__()


@pytest.mark.parametrize(
    "range_response",
    [
        response(200, b"body", HEADERS_WITHOUT_SIZE),
        response(206, b"b", content_range="bytes */*"),
        error_response(412, "PreconditionFailed"),
    ],
    ids=["no size", "invalid size", "replaced"],
)
async def test_head_without_any_size_raises_a_retryable_error(
    scripted_driver: Any, range_response: FakeResponse
) -> None:
    _, opened_driver = scripted_driver(response(headers=HEADERS_WITHOUT_SIZE), range_response)
    async with opened_driver as driver:
        with pytest.raises(UnavailableError) as caught:
            await driver.head("data", "key")
    assert caught.value.retryable
