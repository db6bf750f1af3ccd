"""Faults of the network and the service: their outcome, and the exact requests that are sent."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.s3.proxied_store import NO_RETRY, boto3_client, proxied_store
from tests.fault_proxy import FaultProxy
from tests.http_faults import Cut, Flip, Response, Shorten, Stall
from trove_async import (
    BucketExistsError,
    IntegrityError,
    ObjectChangedError,
    ObjectExistsError,
    Timeout,
    TroveError,
    UnavailableError,
)
from trove_async._concurrency import task_group
from trove_async.drivers import S3Driver
from trove_async.errors import TimedOutError
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.drivers.s3.proxied_store import ProxiedStore
    from trove_async.testing.servers import S3Server


def content(size: int, seed: str) -> bytes:
    """Return a body that differs for each seed."""
    block = hashlib.sha256(seed.encode()).digest() * 2048
    return (block * (size // len(block) + 1))[:size]


SMALL = content(100 * KiB, "small")
LARGE = content(12 * MiB, "large")  # three parts

SHORT_TIMEOUT = Timeout(connect=5, first_byte=0.3, idle=0.3)


def error_document(code: str, **fields: str) -> bytes:
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    declaration = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{declaration}<Error><Code>{code}</Code><Message>m</Message>{elements}</Error>".encode()


@pytest.fixture(scope="module")
def client(seaweed: S3Server) -> Any:
    return boto3_client(seaweed)


@pytest_asyncio.fixture
async def proxied(seaweed: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    async with proxied_store(seaweed, client) as proxied:
        yield proxied


# -- operations of the store, one function each ----------------------------------------------------


async def put(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", SMALL)
    assert await proxied.stored_body("key") == SMALL


async def get(proxied: ProxiedStore) -> None:
    assert await proxied.store.read(proxied.bucket, "key") == SMALL


async def head(proxied: ProxiedStore) -> None:
    assert (await proxied.store.head(proxied.bucket, "key")).size == len(SMALL)


async def delete(proxied: ProxiedStore) -> None:
    await proxied.store.delete(proxied.bucket, "key")
    assert await proxied.stored_body("key") is None


async def listing(proxied: ProxiedStore) -> None:
    entries = await proxied.store.list(proxied.bucket).all()
    assert [entry.key for entry in entries] == ["key"]


async def copy(proxied: ProxiedStore) -> None:
    await proxied.store.copy(proxied.bucket, "key", proxied.bucket, "copied")
    assert await proxied.stored_body("copied") == SMALL


async def delete_many(proxied: ProxiedStore) -> None:
    await proxied.store.delete_many(proxied.bucket, ["key"])
    assert await proxied.stored_body("key") is None


Operation = tuple["Callable[[ProxiedStore], Awaitable[None]]", str, str]
OPERATIONS: dict[str, Operation] = {
    "PutObject": (put, "PUT", "*/key*"),
    "GetObject": (get, "GET", "*/key*"),
    "HeadObject": (head, "HEAD", "*/key*"),
    "DeleteObject": (delete, "DELETE", "*/key*"),
    "ListObjectsV2": (listing, "GET", "*list-type*"),
    "CopyObject": (copy, "PUT", "*/copied*"),
    "DeleteObjects": (delete_many, "POST", "*delete*"),
}


@pytest.fixture(params=OPERATIONS.keys())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def check_retried(proxied: ProxiedStore, name: str, fault: Any, times: int = 1) -> None:
    """Run an operation whose first `times` requests fail; assert that only one more is sent."""
    operate, method, target = OPERATIONS[name]
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(fault, method=method, target=target, times=times)
    await operate(proxied)
    assert proxied.operation_counts[name] == times + 1


# -- error responses -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_three_errors_and_a_success_take_four_requests(
    proxied: ProxiedStore, name: str, status: int
) -> None:
    await check_retried(
        proxied, name, Response(status, {"Retry-After": "0"}, error_document("SlowDown")), times=3
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "RequestTimeout"),
        (408, "RequestTimeout"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
        (409, "OperationAborted"),
    ],
)
async def test_transient_errors_are_retried(proxied: ProxiedStore, status: int, code: str) -> None:
    await check_retried(proxied, "PutObject", Response(status, body=error_document(code)))


async def test_error_page_of_a_gateway_is_retried(proxied: ProxiedStore, name: str) -> None:
    page = Response(502, {"Content-Type": "text/html"}, b"<html><h1>Bad & Gateway</h1></html>")
    await check_retried(proxied, name, page)


# -- broken connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_connection_broken_before_the_request_takes_two_requests(
    proxied: ProxiedStore, name: str, end: str
) -> None:
    await check_retried(proxied, name, Cut("request head", reset=end == "reset"))


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_lost_response_takes_two_requests(proxied: ProxiedStore, name: str, end: str) -> None:
    await check_retried(proxied, name, Cut("response head", reset=end == "reset"))


async def test_half_a_response_head_takes_two_requests(proxied: ProxiedStore, name: str) -> None:
    await check_retried(proxied, name, Cut("response head", 30, reset=False))


@pytest.mark.parametrize("name", ["PutObject", "DeleteObject"])
async def test_transport_does_not_retry(seaweed: S3Server, client: Any, name: str) -> None:
    async with proxied_store(seaweed, client, retry=NO_RETRY) as proxied:
        await proxied.store.exists(proxied.bucket, "key")  # so that a connection is reused
        operate, method, target = OPERATIONS[name]
        proxied.proxy.arm(Cut("response head"), method=method, target=target)
        with pytest.raises(UnavailableError):
            await operate(proxied)
        assert proxied.operation_counts[name] == 1


@pytest.mark.parametrize("byte", [1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_put_broken_midway_is_resent_whole(
    proxied: ProxiedStore, byte: int, end: str
) -> None:
    proxied.proxy.arm(Cut("request body", byte, reset=end == "reset"), method="PUT")
    await put(proxied)
    assert proxied.operations == ["PutObject", "PutObject"]


@pytest.mark.parametrize("byte", [0, 1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_get_broken_midway_resumes_with_if_match(
    proxied: ProxiedStore, byte: int, end: str
) -> None:
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(Cut("response body", byte, reset=end == "reset"), method="GET")
    await get(proxied)
    assert proxied.operations == ["GetObject", "GetObject"]
    first, resumed = proxied.proxy.requests
    assert "range" not in first.headers
    assert "if-match" in resumed.headers
    # A reset may overtake data. Then nothing has arrived, and the whole body is requested.
    start = int(resumed.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    assert start <= byte
    if byte and end == "close":
        assert start


async def test_get_never_mixes_two_versions(proxied: ProxiedStore) -> None:
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(Cut("response body", 50 * KiB), method="GET")
    resuming = proxied.proxy.arm(Stall("request head"), method="GET")

    async def replace() -> None:
        await resuming.reached.wait()
        await proxied.put_directly("key", content(100 * KiB, "replacement"))
        resuming.release()

    with pytest.raises(ObjectChangedError):
        async with task_group() as group:
            group.start_soon(replace)
            await proxied.store.read(proxied.bucket, "key")
    assert proxied.operations == ["GetObject", "GetObject"]


async def test_list_broken_midway_is_retried(proxied: ProxiedStore) -> None:
    for number in range(5):
        await proxied.put_directly(f"many/{number}", b"x")
    proxied.proxy.arm(Cut("response body", 600, reset=False), target="*list-type*")
    entries = await proxied.store.list(proxied.bucket).all()
    assert [entry.key for entry in entries] == [f"many/{number}" for number in range(5)]
    assert proxied.operations == ["ListObjectsV2", "ListObjectsV2"]


# -- lost responses to conditional writes ----------------------------------------------------------


RETRIED_CREATE = ["PutObject", "PutObject", "HeadObject", "HeadObject"]
"""The driver sends the first HEAD, which finds an object. The store sends the second one, which shows
which write created the object."""


async def test_create_whose_response_is_lost_recognises_its_own_write(
    proxied: ProxiedStore,
) -> None:
    proxied.proxy.arm(Cut("response head"), method="PUT")
    info = await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert info.size == len(SMALL)
    assert proxied.operations == RETRIED_CREATE


async def test_failed_create_recognises_the_write_of_another_client(proxied: ProxiedStore) -> None:
    await proxied.put_directly("key", b"other")
    proxied.proxy.arm(Response(503, {"Retry-After": "0"}), method="PUT")
    with pytest.raises(ObjectExistsError):
        await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert proxied.operations == RETRIED_CREATE
    assert await proxied.stored_body("key") == b"other"


async def test_replace_whose_response_is_lost_recognises_its_own_write(
    proxied: ProxiedStore,
) -> None:
    old = await proxied.store.put(proxied.bucket, "key", b"old")
    proxied.clear_requests()
    proxied.proxy.arm(Cut("response head"), method="PUT")
    await proxied.store.put(proxied.bucket, "key", SMALL, if_match=old)
    assert await proxied.stored_body("key") == SMALL
    assert proxied.operations == ["PutObject", "PutObject", "HeadObject"]


async def test_large_create_whose_completion_response_is_lost_recognises_its_own_write(
    seaweed: S3Server, client: Any
) -> None:
    # On SeaweedFS itself, the driver does not send the condition with a completion.
    driver_class = partial(S3Driver, dialect="s3")
    async with proxied_store(seaweed, client, driver_class=driver_class) as proxied:
        proxied.proxy.arm(Cut("response head"), method="POST", target="*uploadId*")
        await proxied.store.put(proxied.bucket, "key", LARGE, if_none_match="*")
        assert await proxied.stored_body("key") == LARGE
        assert proxied.operation_counts["CompleteMultipartUpload"] == 2
        assert await proxied.unfinished_uploads() == []


async def test_large_create_on_seaweedfs_is_one_request(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", LARGE, if_none_match="*")
    assert proxied.operations == ["PutObject"]


# -- multipart uploads -----------------------------------------------------------------------------


async def put_large_object(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", LARGE)
    assert await proxied.stored_body("key") == LARGE
    assert await proxied.unfinished_uploads() == []


async def test_large_put_takes_one_request_per_part_and_two_more(proxied: ProxiedStore) -> None:
    await put_large_object(proxied)
    assert proxied.operation_counts == {
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "CompleteMultipartUpload": 1,
    }


@pytest.mark.parametrize(
    "fault",
    [
        Cut("request head"),
        Cut("request body", MiB),
        Cut("response head"),
        Response(503, {"Retry-After": "0"}, error_document("SlowDown")),
    ],
    ids=repr,
)
async def test_only_the_failed_part_is_retried(proxied: ProxiedStore, fault: Any) -> None:
    proxied.proxy.arm(fault, method="PUT", target="*partNumber=2*")
    await put_large_object(proxied)
    assert proxied.operation_counts["UploadPart"] == 4
    assert sum("partNumber=2" in request for request in proxied.proxy.request_lines) == 2


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_completion_with_status_200_and_an_error_is_retried(
    proxied: ProxiedStore, code: str
) -> None:
    proxied.proxy.arm(Response(200, body=error_document(code)), method="POST", target="*uploadId*")
    await put_large_object(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


async def test_completion_that_succeeded_but_returned_an_error_is_recognised(
    proxied: ProxiedStore,
) -> None:
    fault = Response(200, body=error_document("InternalError"), served=True)
    proxied.proxy.arm(fault, method="POST", target="*uploadId*")
    await put_large_object(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


@pytest.mark.parametrize("body", [b"", b"<CompleteMultipartUploadResult>", b"\x00\xff"])
async def test_completion_with_a_malformed_response_is_retried(
    proxied: ProxiedStore, body: bytes
) -> None:
    proxied.proxy.arm(Response(200, body=body), method="POST", target="*uploadId*")
    await put_large_object(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


async def test_upload_that_cannot_be_finished_is_aborted(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(403, body=error_document("AccessDenied")), target="*partNumber=2*")
    with pytest.raises(PermissionError):
        await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["AbortMultipartUpload"] == 1
    assert "CompleteMultipartUpload" not in proxied.operations
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") is None


async def test_failed_abort_is_retried(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(403, body=error_document("AccessDenied")), target="*partNumber=2*")
    proxied.proxy.arm(Response(503, {"Retry-After": "0"}), method="DELETE")
    with pytest.raises(PermissionError):
        await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["AbortMultipartUpload"] == 2
    assert await proxied.unfinished_uploads() == []


async def test_gc_uploads_aborts_an_upload_whose_id_was_lost(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Cut("response head"), method="POST", target="*uploads*")
    await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["CreateMultipartUpload"] == 2
    assert await proxied.unfinished_uploads() == ["key"]
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=3600) == 0
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=0) == 1
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == LARGE


async def test_copy_with_status_200_and_an_error_is_retried(proxied: ProxiedStore) -> None:
    await check_retried(proxied, "CopyObject", Response(200, body=error_document("InternalError")))


# -- corrupted bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [0, 50 * KiB, 100 * KiB - 1])
async def test_flipped_byte_of_a_get_raises_before_the_end_of_the_body(
    proxied: ProxiedStore, byte: int
) -> None:
    await proxied.store.put(proxied.bucket, "key", SMALL)
    proxied.proxy.arm(Flip("response body", byte), method="GET", times=None)
    received = b""
    with pytest.raises(IntegrityError):
        async with proxied.store.get(proxied.bucket, "key") as reader:
            async for chunk in reader:
                received += chunk
    assert len(received) < len(SMALL)


async def test_shortened_body_of_a_get_raises(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", SMALL)
    proxied.proxy.arm(Shorten(1), method="GET", times=None)
    with pytest.raises(IntegrityError):
        await proxied.store.read(proxied.bucket, "key")


async def test_flipped_byte_of_a_put_is_never_stored(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Flip("request body", 50 * KiB), method="PUT", times=None)
    with pytest.raises(TroveError):
        await proxied.store.put(proxied.bucket, "key", SMALL)
    assert await proxied.stored_body("key") is None


async def test_flipped_byte_of_a_part_is_never_stored(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Flip("request body", MiB), target="*partNumber=2*", times=None)
    with pytest.raises(TroveError):
        await proxied.store.put(proxied.bucket, "key", LARGE)
    assert await proxied.stored_body("key") is None
    assert await proxied.unfinished_uploads() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\x00\xff\xfe",
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ],
)
async def test_malformed_listing_is_not_an_empty_one(proxied: ProxiedStore, body: bytes) -> None:
    proxied.proxy.arm(Response(200, body=body), target="*list-type*", times=None)
    with pytest.raises(TroveError):
        await proxied.store.list(proxied.bucket).all()


# -- stalls ----------------------------------------------------------------------------------------


@asynccontextmanager
async def store_with_short_timeout(server: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    async with proxied_store(server, client, timeout=SHORT_TIMEOUT) as proxied:
        yield proxied


@pytest.mark.parametrize("name", ["PutObject", "GetObject", "HeadObject", "ListObjectsV2"])
async def test_missing_response_times_out_and_is_retried(
    seaweed: S3Server, client: Any, name: str
) -> None:
    async with store_with_short_timeout(seaweed, client) as proxied:
        await check_retried(proxied, name, Stall("response head"))


async def test_missing_response_without_retries_raises_timeout(
    seaweed: S3Server, client: Any
) -> None:
    async with proxied_store(seaweed, client, timeout=SHORT_TIMEOUT, retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Stall("response head"))
        with pytest.raises(TimedOutError):
            await proxied.store.put(proxied.bucket, "key", SMALL)
        assert proxied.operations == ["PutObject"]


async def test_stalled_body_times_out_and_is_resumed(seaweed: S3Server, client: Any) -> None:
    async with store_with_short_timeout(seaweed, client) as proxied:
        await proxied.put_directly("key", SMALL)
        proxied.proxy.arm(Stall("response body", 50 * KiB), method="GET")
        await get(proxied)
        assert proxied.operations == ["GetObject", "GetObject"]


async def test_puts_send_no_expect_header(proxied: ProxiedStore) -> None:
    await put(proxied)
    await put_large_object(proxied)
    assert not any("expect" in request.headers for request in proxied.proxy.requests)


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_another_host_is_not_followed(
    proxied: ProxiedStore, name: str, status: int
) -> None:
    operate, method, target = OPERATIONS[name]
    await proxied.put_directly("key", SMALL)
    async with AsyncExitStack() as stack:
        foreign = await stack.enter_async_context(FaultProxy("http://127.0.0.1:1"))
        url = f"{foreign.endpoint_url}/elsewhere"
        redirect = Response(
            status, {"Location": url}, error_document("TemporaryRedirect", Endpoint=url)
        )
        proxied.proxy.arm(redirect, method=method, target=target, times=None)
        with pytest.raises(TroveError):
            await operate(proxied)
        assert foreign.requests == []


# -- clocks and credentials ------------------------------------------------------------------------


async def test_clock_skew_is_learned_once(proxied: ProxiedStore) -> None:
    skewed = Response(
        403, {"Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, error_document("RequestTimeTooSkewed")
    )
    proxied.proxy.arm(skewed, method="PUT")
    proxied.proxy.arm(Response(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}), times=2)
    for _ in range(2):
        await proxied.store.put(proxied.bucket, "key", b"")
    dates = [request.headers["x-amz-date"][:8] for request in proxied.proxy.requests]
    assert dates[0] != "20250101"
    assert dates[1:] == ["20250101", "20250101"]


async def test_expired_token_that_cannot_be_renewed_is_not_retried(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(400, body=error_document("ExpiredToken")), method="PUT", times=None)
    with pytest.raises(TroveError) as caught:
        await proxied.store.put(proxied.bucket, "key", SMALL)
    assert not caught.value.retryable
    assert proxied.operations == ["PutObject"]


async def test_second_create_of_a_bucket_raises_bucket_exists(moto_server: S3Server) -> None:
    # moto would respond to the second CreateBucket with 200, as S3 does in us-east-1.
    async with proxied_store(moto_server, boto3_client(moto_server)) as proxied:
        with pytest.raises(BucketExistsError):
            await proxied.store.create_bucket(proxied.bucket)


async def test_two_idle_readers_do_not_block_a_third(seaweed: S3Server, client: Any) -> None:
    async with proxied_store(seaweed, client, max_connections=2) as proxied:
        await proxied.put_directly("key", LARGE)
        async with (
            proxied.store.get(proxied.bucket, "key") as first,
            proxied.store.get(proxied.bucket, "key") as second,
        ):
            await first.read(KiB)
            await second.read(KiB)
            async with proxied.store.get(proxied.bucket, "key") as third:
                assert await third.read() == LARGE
            assert await first.read() == LARGE[KiB:]
            assert await second.read() == LARGE[KiB:]
