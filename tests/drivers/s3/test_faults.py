"""What the network and the service do wrong, and exactly which requests it takes to be right."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
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
from trove_async.errors import TimedOutError
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.drivers.s3.proxied_store import ProxiedStore
    from trove_async.testing.servers import S3Server


def content(size: int, seed: str) -> bytes:
    block = hashlib.sha256(seed.encode()).digest() * 2048
    return (block * (size // len(block) + 1))[:size]


SMALL = content(100 * KiB, "small")
LARGE = content(12 * MiB, "large")  # of three parts

SOON = Timeout(connect=5, first_byte=0.3, idle=0.3)


def error(code: str, **fields: str) -> bytes:
    more = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}<Error><Code>{code}</Code><Message>m</Message>{more}</Error>".encode()


@pytest.fixture(scope="module")
def client(seaweed: S3Server) -> Any:
    return boto3_client(seaweed)


@pytest_asyncio.fixture
async def proxied(seaweed: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    async with proxied_store(seaweed, client) as proxied:
        yield proxied


# -- one operation each, as its user calls it --------------------------------------------------------


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
    found = await proxied.store.list(proxied.bucket).all()
    assert [entry.key for entry in found] == ["key"]


async def copy(proxied: ProxiedStore) -> None:
    await proxied.store.copy(proxied.bucket, "key", proxied.bucket, "copied")
    assert await proxied.stored_body("copied") == SMALL


async def delete_many(proxied: ProxiedStore) -> None:
    await proxied.store.delete_many(proxied.bucket, ["key"])
    assert await proxied.stored_body("key") is None


Work = tuple["Callable[[ProxiedStore], Awaitable[None]]", str, str]
WORKS: dict[str, Work] = {
    "PutObject": (put, "PUT", "*/key*"),
    "GetObject": (get, "GET", "*/key*"),
    "HeadObject": (head, "HEAD", "*/key*"),
    "DeleteObject": (delete, "DELETE", "*/key*"),
    "ListObjectsV2": (listing, "GET", "*list-type*"),
    "CopyObject": (copy, "PUT", "*/copied*"),
    "DeleteObjects": (delete_many, "POST", "*delete*"),
}


@pytest.fixture(params=WORKS.keys())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def struck(proxied: ProxiedStore, name: str, fault: Any, times: int = 1) -> None:
    """Do an operation whose request meets a fault so many times; count only that request's tries."""
    work, method, target = WORKS[name]
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(fault, method=method, target=target, times=times)
    await work(proxied)
    assert proxied.operation_counts[name] == times + 1


# -- answers that ask to come again -----------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_three_refusals_and_then_an_answer_take_four_requests(
    proxied: ProxiedStore, name: str, status: int
) -> None:
    await struck(proxied, name, Response(status, {"Retry-After": "0"}, error("SlowDown")), times=3)


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
async def test_passing_errors_are_tried_again(
    proxied: ProxiedStore, status: int, code: str
) -> None:
    await struck(proxied, "PutObject", Response(status, body=error(code)))


async def test_error_page_of_a_gateway_is_tried_again(proxied: ProxiedStore, name: str) -> None:
    page = Response(502, {"Content-Type": "text/html"}, b"<html><h1>Bad & Gateway</h1></html>")
    await struck(proxied, name, page)


# -- connections that break --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_broken_before_the_server_hears_of_it_takes_two_requests(
    proxied: ProxiedStore, name: str, end: str
) -> None:
    await struck(proxied, name, Cut("request head", reset=end == "reset"))


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_answer_that_is_lost_takes_two_requests(
    proxied: ProxiedStore, name: str, end: str
) -> None:
    await struck(proxied, name, Cut("answer head", reset=end == "reset"))


async def test_half_an_answers_head_takes_two_requests(proxied: ProxiedStore, name: str) -> None:
    await struck(proxied, name, Cut("answer head", 30, reset=False))


@pytest.mark.parametrize("name", ["PutObject", "DeleteObject"])
async def test_transport_sends_nothing_again_by_itself(
    seaweed: S3Server, client: Any, name: str
) -> None:
    async with proxied_store(seaweed, client, retry=NO_RETRY) as proxied:
        await proxied.store.exists(proxied.bucket, "key")  # a connection that may have gone stale
        work, method, target = WORKS[name]
        proxied.proxy.arm(Cut("answer head"), method=method, target=target)
        with pytest.raises(UnavailableError):
            await work(proxied)
        assert proxied.operation_counts[name] == 1


@pytest.mark.parametrize("at", [1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_put_broken_midway_is_sent_again_whole(
    proxied: ProxiedStore, at: int, end: str
) -> None:
    proxied.proxy.arm(Cut("request body", at, reset=end == "reset"), method="PUT")
    await put(proxied)
    assert proxied.operations == ["PutObject", "PutObject"]


@pytest.mark.parametrize("at", [0, 1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_get_broken_midway_goes_on_where_it_broke_with_its_version_pinned(
    proxied: ProxiedStore, at: int, end: str
) -> None:
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(Cut("answer body", at, reset=end == "reset"), method="GET")
    await get(proxied)
    assert proxied.operations == ["GetObject", "GetObject"]
    first, again = proxied.proxy.requests
    assert "range" not in first.headers
    assert "if-match" in again.headers
    # A reset may overtake what was sent before it. Then nothing has arrived, and all is asked for.
    start = int(again.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    assert start <= at
    assert start or not at or end == "reset"


async def test_get_never_mixes_two_versions(proxied: ProxiedStore) -> None:
    await proxied.put_directly("key", SMALL)
    proxied.proxy.arm(Cut("answer body", 50 * KiB), method="GET")
    resuming = proxied.proxy.arm(Stall("request head"), method="GET")

    async def replace() -> None:
        await resuming.reached.wait()
        await proxied.put_directly("key", content(100 * KiB, "another"))
        resuming.release()

    with pytest.raises(ObjectChangedError):
        async with task_group() as group:
            group.start_soon(replace)
            await proxied.store.read(proxied.bucket, "key")
    assert proxied.operations == ["GetObject", "GetObject"]


async def test_list_broken_midway_is_asked_again_and_never_ends_early(
    proxied: ProxiedStore,
) -> None:
    for number in range(5):
        await proxied.put_directly(f"many/{number}", b"x")
    proxied.proxy.arm(Cut("answer body", 600, reset=False), target="*list-type*")
    found = await proxied.store.list(proxied.bucket).all()
    assert [entry.key for entry in found] == [f"many/{number}" for number in range(5)]
    assert proxied.operations == ["ListObjectsV2", "ListObjectsV2"]


# -- our own write, when its answer is lost ----------------------------------------------------------


CREATED_TWICE = ["PutObject", "PutObject", "HeadObject", "HeadObject"]
"""The driver of SeaweedFS looks whether it is an object that is there, and the store whose it is."""


async def test_create_whose_answer_is_lost_knows_its_own_write(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Cut("answer head"), method="PUT")
    info = await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert info.size == len(SMALL)
    assert proxied.operations == CREATED_TWICE


async def test_create_whose_answer_is_lost_knows_anothers_write(proxied: ProxiedStore) -> None:
    await proxied.put_directly("key", b"another's")
    proxied.proxy.arm(Response(503, {"Retry-After": "0"}), method="PUT")
    with pytest.raises(ObjectExistsError):
        await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert proxied.operations == CREATED_TWICE
    assert await proxied.stored_body("key") == b"another's"


async def test_replacing_whose_answer_is_lost_knows_its_own_write(proxied: ProxiedStore) -> None:
    old = await proxied.store.put(proxied.bucket, "key", b"old")
    proxied.clear_requests()
    proxied.proxy.arm(Cut("answer head"), method="PUT")
    await proxied.store.put(proxied.bucket, "key", SMALL, if_match=old)
    assert await proxied.stored_body("key") == SMALL
    assert proxied.operations == ["PutObject", "PutObject", "HeadObject"]


async def test_large_create_whose_commit_is_lost_knows_its_own_write(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Cut("answer head"), method="POST", target="*uploadId*")
    await proxied.store.put(proxied.bucket, "key", LARGE, if_none_match="*")
    assert await proxied.stored_body("key") == LARGE
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2
    assert await proxied.unfinished_uploads() == []


# -- multipart uploads -------------------------------------------------------------------------------


async def put_large(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", LARGE)
    assert await proxied.stored_body("key") == LARGE
    assert await proxied.unfinished_uploads() == []


async def test_large_put_takes_one_request_a_part_and_two_more(proxied: ProxiedStore) -> None:
    await put_large(proxied)
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
        Cut("answer head"),
        Response(503, {"Retry-After": "0"}, error("SlowDown")),
    ],
    ids=repr,
)
async def test_part_that_fails_is_the_only_one_sent_again(
    proxied: ProxiedStore, fault: Any
) -> None:
    proxied.proxy.arm(fault, method="PUT", target="*partNumber=2*")
    await put_large(proxied)
    assert proxied.operation_counts["UploadPart"] == 4
    assert sum("partNumber=2" in request for request in proxied.proxy.seen) == 2


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_commit_answered_200_with_an_error_is_tried_again(
    proxied: ProxiedStore, code: str
) -> None:
    proxied.proxy.arm(Response(200, body=error(code)), method="POST", target="*uploadId*")
    await put_large(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


async def test_commit_answered_200_with_an_error_after_it_was_done_is_recognised(
    proxied: ProxiedStore,
) -> None:
    answer = Response(200, body=error("InternalError"), served=True)
    proxied.proxy.arm(answer, method="POST", target="*uploadId*")
    await put_large(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


@pytest.mark.parametrize("body", [b"", b"<CompleteMultipartUploadResult>", b"\x00\xff"])
async def test_commit_answered_with_garbage_is_not_taken_for_done(
    proxied: ProxiedStore, body: bytes
) -> None:
    proxied.proxy.arm(Response(200, body=body), method="POST", target="*uploadId*")
    await put_large(proxied)
    assert proxied.operation_counts["CompleteMultipartUpload"] == 2


async def test_upload_that_cannot_be_finished_is_aborted(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(403, body=error("AccessDenied")), target="*partNumber=2*")
    with pytest.raises(PermissionError):
        await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["AbortMultipartUpload"] == 1
    assert "CompleteMultipartUpload" not in proxied.operations
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") is None


async def test_abort_that_fails_is_tried_again(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(403, body=error("AccessDenied")), target="*partNumber=2*")
    proxied.proxy.arm(Response(503, {"Retry-After": "0"}), method="DELETE")
    with pytest.raises(PermissionError):
        await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["AbortMultipartUpload"] == 2
    assert await proxied.unfinished_uploads() == []


async def test_upload_whose_opening_was_lost_is_found_afterwards(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Cut("answer head"), method="POST", target="*uploads*")
    await proxied.store.put(proxied.bucket, "key", LARGE)
    assert proxied.operation_counts["CreateMultipartUpload"] == 2
    assert await proxied.unfinished_uploads() == ["key"]  # whose id nobody was told
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=3600) == 0
    assert await proxied.driver.gc_uploads(proxied.bucket, older_than=0) == 1
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == LARGE


async def test_copy_answered_200_with_an_error_is_tried_again(proxied: ProxiedStore) -> None:
    await struck(proxied, "CopyObject", Response(200, body=error("InternalError")))


# -- bytes that are not what they were ---------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 50 * KiB, 100 * KiB - 1])
async def test_flipped_byte_of_a_get_is_an_error_before_its_end(
    proxied: ProxiedStore, at: int
) -> None:
    await proxied.store.put(proxied.bucket, "key", SMALL)
    proxied.proxy.arm(Flip("answer body", at), method="GET", times=None)
    got = b""
    with pytest.raises(IntegrityError):
        async with proxied.store.get(proxied.bucket, "key") as reader:
            async for chunk in reader:
                got += chunk
    assert len(got) < len(SMALL)


async def test_shortened_body_of_a_get_is_never_its_end(proxied: ProxiedStore) -> None:
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
async def test_garbage_is_never_an_empty_listing(proxied: ProxiedStore, body: bytes) -> None:
    proxied.proxy.arm(Response(200, body=body), target="*list-type*", times=None)
    with pytest.raises(TroveError):
        await proxied.store.list(proxied.bucket).all()


# -- silence -----------------------------------------------------------------------------------------


@asynccontextmanager
async def impatient(server: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    async with proxied_store(server, client, timeout=SOON) as proxied:
        yield proxied


@pytest.mark.parametrize("name", ["PutObject", "GetObject", "HeadObject", "ListObjectsV2"])
async def test_silence_instead_of_an_answer_is_timed_out_and_tried_again(
    seaweed: S3Server, client: Any, name: str
) -> None:
    async with impatient(seaweed, client) as proxied:
        await struck(proxied, name, Stall("answer head"))


async def test_silence_that_lasts_is_a_timeout(seaweed: S3Server, client: Any) -> None:
    async with proxied_store(seaweed, client, timeout=SOON, retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Stall("answer head"))
        with pytest.raises(TimedOutError):
            await proxied.store.put(proxied.bucket, "key", SMALL)
        assert proxied.operations == ["PutObject"]


async def test_silence_in_a_body_is_timed_out_and_resumed(seaweed: S3Server, client: Any) -> None:
    async with impatient(seaweed, client) as proxied:
        await proxied.put_directly("key", SMALL)
        proxied.proxy.arm(Stall("answer body", 50 * KiB), method="GET")
        await get(proxied)
        assert proxied.operations == ["GetObject", "GetObject"]


async def test_puts_never_wait_for_a_continue(proxied: ProxiedStore) -> None:
    await put(proxied)
    await put_large(proxied)
    assert not any("expect" in request.headers for request in proxied.proxy.requests)


# -- where requests must not go ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_foreign_host_gets_no_request_and_no_credentials(
    proxied: ProxiedStore, name: str, status: int
) -> None:
    work, method, target = WORKS[name]
    await proxied.put_directly("key", SMALL)
    async with AsyncExitStack() as stack:
        foreign = await stack.enter_async_context(FaultProxy("http://127.0.0.1:1"))
        url = f"{foreign.endpoint_url}/elsewhere"
        answer = Response(status, {"Location": url}, error("TemporaryRedirect", Endpoint=url))
        proxied.proxy.arm(answer, method=method, target=target, times=None)
        with pytest.raises(TroveError):
            await work(proxied)
        assert foreign.requests == []


# -- clocks and credentials --------------------------------------------------------------------------


async def test_wrong_clock_is_learned_once(proxied: ProxiedStore) -> None:
    skewed = Response(403, {"Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, error("RequestTimeTooSkewed"))
    proxied.proxy.arm(skewed, method="PUT")
    proxied.proxy.arm(Response(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}), times=2)
    for _ in range(2):
        await proxied.store.put(proxied.bucket, "key", b"")
    dates = [request.headers["x-amz-date"][:8] for request in proxied.proxy.requests]
    assert dates[0] != "20250101"
    assert dates[1:] == ["20250101", "20250101"]


async def test_expired_token_that_cannot_be_renewed_is_told_at_once(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(400, body=error("ExpiredToken")), method="PUT", times=None)
    with pytest.raises(TroveError) as told:
        await proxied.store.put(proxied.bucket, "key", SMALL)
    assert not told.value.retryable
    assert len(proxied.operations) <= 2


async def test_second_create_of_a_bucket_says_that_it_exists(
    moto_server: S3Server,
) -> None:
    async with proxied_store(
        moto_server, boto3_client(moto_server)
    ) as proxied:  # answers 200, as us-east-1 does
        with pytest.raises(BucketExistsError):
            await proxied.store.create_bucket(proxied.bucket)


async def test_unread_readers_do_not_block_the_third(seaweed: S3Server, client: Any) -> None:
    async with proxied_store(seaweed, client, max_connections=2) as proxied:
        await proxied.put_directly("key", LARGE)
        async with (
            proxied.store.get(proxied.bucket, "key") as one,
            proxied.store.get(proxied.bucket, "key") as two,
        ):
            await one.read(KiB)
            await two.read(KiB)
            async with proxied.store.get(proxied.bucket, "key") as three:
                assert await three.read() == LARGE
            assert await one.read() == LARGE[KiB:]
            assert await two.read() == LARGE[KiB:]
