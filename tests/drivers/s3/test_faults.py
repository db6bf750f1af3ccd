"""What the network and the service do wrong, and exactly which requests it takes to be right."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.s3.proxied_store import NEVER, boto, linked
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

    from tests.drivers.s3.proxied_store import Link
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
    return boto(seaweed)


@pytest_asyncio.fixture
async def link(seaweed: S3Server, client: Any) -> AsyncIterator[Link]:
    async with linked(seaweed, client) as link:
        yield link


# -- one operation each, as its user calls it --------------------------------------------------------


async def put(link: Link) -> None:
    await link.store.put(link.bucket, "key", SMALL)
    assert await link.stored("key") == SMALL


async def get(link: Link) -> None:
    assert await link.store.read(link.bucket, "key") == SMALL


async def head(link: Link) -> None:
    assert (await link.store.head(link.bucket, "key")).size == len(SMALL)


async def delete(link: Link) -> None:
    await link.store.delete(link.bucket, "key")
    assert await link.stored("key") is None


async def listing(link: Link) -> None:
    found = await link.store.list(link.bucket).all()
    assert [entry.key for entry in found] == ["key"]


async def copy(link: Link) -> None:
    await link.store.copy(link.bucket, "key", link.bucket, "copied")
    assert await link.stored("copied") == SMALL


async def delete_many(link: Link) -> None:
    await link.store.delete_many(link.bucket, ["key"])
    assert await link.stored("key") is None


Work = tuple["Callable[[Link], Awaitable[None]]", str, str]
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


async def struck(link: Link, name: str, fault: Any, times: int = 1) -> None:
    """Do an operation whose request meets a fault so many times; count only that request's tries."""
    work, method, target = WORKS[name]
    await link.place("key", SMALL)
    link.proxy.arm(fault, method=method, target=target, times=times)
    await work(link)
    assert link.counted[name] == times + 1


# -- answers that ask to come again -----------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_three_refusals_and_then_an_answer_take_four_requests(
    link: Link, name: str, status: int
) -> None:
    await struck(link, name, Response(status, {"Retry-After": "0"}, error("SlowDown")), times=3)


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
async def test_passing_errors_are_tried_again(link: Link, status: int, code: str) -> None:
    await struck(link, "PutObject", Response(status, body=error(code)))


async def test_error_page_of_a_gateway_is_tried_again(link: Link, name: str) -> None:
    page = Response(502, {"Content-Type": "text/html"}, b"<html><h1>Bad & Gateway</h1></html>")
    await struck(link, name, page)


# -- connections that break --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_broken_before_the_server_hears_of_it_takes_two_requests(
    link: Link, name: str, end: str
) -> None:
    await struck(link, name, Cut("request head", reset=end == "reset"))


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_answer_that_is_lost_takes_two_requests(link: Link, name: str, end: str) -> None:
    await struck(link, name, Cut("answer head", reset=end == "reset"))


async def test_half_an_answers_head_takes_two_requests(link: Link, name: str) -> None:
    await struck(link, name, Cut("answer head", 30, reset=False))


@pytest.mark.parametrize("name", ["PutObject", "DeleteObject"])
async def test_transport_sends_nothing_again_by_itself(
    seaweed: S3Server, client: Any, name: str
) -> None:
    async with linked(seaweed, client, retry=NEVER) as link:
        await link.store.exists(link.bucket, "key")  # a connection that may have gone stale
        work, method, target = WORKS[name]
        link.proxy.arm(Cut("answer head"), method=method, target=target)
        with pytest.raises(UnavailableError):
            await work(link)
        assert link.counted[name] == 1


@pytest.mark.parametrize("at", [1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_put_broken_midway_is_sent_again_whole(link: Link, at: int, end: str) -> None:
    link.proxy.arm(Cut("request body", at, reset=end == "reset"), method="PUT")
    await put(link)
    assert link.done == ["PutObject", "PutObject"]


@pytest.mark.parametrize("at", [0, 1, 50 * KiB, 100 * KiB - 1])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_get_broken_midway_goes_on_where_it_broke_with_its_version_pinned(
    link: Link, at: int, end: str
) -> None:
    await link.place("key", SMALL)
    link.proxy.arm(Cut("answer body", at, reset=end == "reset"), method="GET")
    await get(link)
    assert link.done == ["GetObject", "GetObject"]
    first, again = link.proxy.requests
    assert "range" not in first.headers
    assert "if-match" in again.headers
    # A reset may overtake what was sent before it. Then nothing has arrived, and all is asked for.
    start = int(again.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    assert start <= at
    assert start or not at or end == "reset"


async def test_get_never_mixes_two_versions(link: Link) -> None:
    await link.place("key", SMALL)
    link.proxy.arm(Cut("answer body", 50 * KiB), method="GET")
    resuming = link.proxy.arm(Stall("request head"), method="GET")

    async def replace() -> None:
        await resuming.reached.wait()
        await link.place("key", content(100 * KiB, "another"))
        resuming.release()

    with pytest.raises(ObjectChangedError):
        async with task_group() as group:
            group.start_soon(replace)
            await link.store.read(link.bucket, "key")
    assert link.done == ["GetObject", "GetObject"]


async def test_list_broken_midway_is_asked_again_and_never_ends_early(link: Link) -> None:
    for number in range(5):
        await link.place(f"many/{number}", b"x")
    link.proxy.arm(Cut("answer body", 600, reset=False), target="*list-type*")
    found = await link.store.list(link.bucket).all()
    assert [entry.key for entry in found] == [f"many/{number}" for number in range(5)]
    assert link.done == ["ListObjectsV2", "ListObjectsV2"]


# -- our own write, when its answer is lost ----------------------------------------------------------


CREATED_TWICE = ["PutObject", "PutObject", "HeadObject", "HeadObject"]
"""The driver of SeaweedFS looks whether it is an object that is there, and the store whose it is."""


async def test_create_whose_answer_is_lost_knows_its_own_write(link: Link) -> None:
    link.proxy.arm(Cut("answer head"), method="PUT")
    info = await link.store.put(link.bucket, "key", SMALL, if_none_match="*")
    assert info.size == len(SMALL)
    assert link.done == CREATED_TWICE


async def test_create_whose_answer_is_lost_knows_anothers_write(link: Link) -> None:
    await link.place("key", b"another's")
    link.proxy.arm(Response(503, {"Retry-After": "0"}), method="PUT")
    with pytest.raises(ObjectExistsError):
        await link.store.put(link.bucket, "key", SMALL, if_none_match="*")
    assert link.done == CREATED_TWICE
    assert await link.stored("key") == b"another's"


async def test_replacing_whose_answer_is_lost_knows_its_own_write(link: Link) -> None:
    old = await link.store.put(link.bucket, "key", b"old")
    link.forget()
    link.proxy.arm(Cut("answer head"), method="PUT")
    await link.store.put(link.bucket, "key", SMALL, if_match=old)
    assert await link.stored("key") == SMALL
    assert link.done == ["PutObject", "PutObject", "HeadObject"]


async def test_large_create_whose_commit_is_lost_knows_its_own_write(link: Link) -> None:
    link.proxy.arm(Cut("answer head"), method="POST", target="*uploadId*")
    await link.store.put(link.bucket, "key", LARGE, if_none_match="*")
    assert await link.stored("key") == LARGE
    assert link.counted["CompleteMultipartUpload"] == 2
    assert await link.uploads() == []


# -- multipart uploads -------------------------------------------------------------------------------


async def put_large(link: Link) -> None:
    await link.store.put(link.bucket, "key", LARGE)
    assert await link.stored("key") == LARGE
    assert await link.uploads() == []


async def test_large_put_takes_one_request_a_part_and_two_more(link: Link) -> None:
    await put_large(link)
    assert link.counted == {
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
async def test_part_that_fails_is_the_only_one_sent_again(link: Link, fault: Any) -> None:
    link.proxy.arm(fault, method="PUT", target="*partNumber=2*")
    await put_large(link)
    assert link.counted["UploadPart"] == 4
    assert sum("partNumber=2" in request for request in link.proxy.seen) == 2


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_commit_answered_200_with_an_error_is_tried_again(link: Link, code: str) -> None:
    link.proxy.arm(Response(200, body=error(code)), method="POST", target="*uploadId*")
    await put_large(link)
    assert link.counted["CompleteMultipartUpload"] == 2


async def test_commit_answered_200_with_an_error_after_it_was_done_is_recognised(
    link: Link,
) -> None:
    answer = Response(200, body=error("InternalError"), served=True)
    link.proxy.arm(answer, method="POST", target="*uploadId*")
    await put_large(link)
    assert link.counted["CompleteMultipartUpload"] == 2


@pytest.mark.parametrize("body", [b"", b"<CompleteMultipartUploadResult>", b"\x00\xff"])
async def test_commit_answered_with_garbage_is_not_taken_for_done(link: Link, body: bytes) -> None:
    link.proxy.arm(Response(200, body=body), method="POST", target="*uploadId*")
    await put_large(link)
    assert link.counted["CompleteMultipartUpload"] == 2


async def test_upload_that_cannot_be_finished_is_aborted(link: Link) -> None:
    link.proxy.arm(Response(403, body=error("AccessDenied")), target="*partNumber=2*")
    with pytest.raises(PermissionError):
        await link.store.put(link.bucket, "key", LARGE)
    assert link.counted["AbortMultipartUpload"] == 1
    assert "CompleteMultipartUpload" not in link.done
    assert await link.uploads() == []
    assert await link.stored("key") is None


async def test_abort_that_fails_is_tried_again(link: Link) -> None:
    link.proxy.arm(Response(403, body=error("AccessDenied")), target="*partNumber=2*")
    link.proxy.arm(Response(503, {"Retry-After": "0"}), method="DELETE")
    with pytest.raises(PermissionError):
        await link.store.put(link.bucket, "key", LARGE)
    assert link.counted["AbortMultipartUpload"] == 2
    assert await link.uploads() == []


async def test_upload_whose_opening_was_lost_is_found_afterwards(link: Link) -> None:
    link.proxy.arm(Cut("answer head"), method="POST", target="*uploads*")
    await link.store.put(link.bucket, "key", LARGE)
    assert link.counted["CreateMultipartUpload"] == 2
    assert await link.uploads() == ["key"]  # whose id nobody was told
    assert await link.driver.gc_uploads(link.bucket, older_than=3600) == 0
    assert await link.driver.gc_uploads(link.bucket, older_than=0) == 1
    assert await link.uploads() == []
    assert await link.stored("key") == LARGE


async def test_copy_answered_200_with_an_error_is_tried_again(link: Link) -> None:
    await struck(link, "CopyObject", Response(200, body=error("InternalError")))


# -- bytes that are not what they were ---------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 50 * KiB, 100 * KiB - 1])
async def test_flipped_byte_of_a_get_is_an_error_before_its_end(link: Link, at: int) -> None:
    await link.store.put(link.bucket, "key", SMALL)
    link.proxy.arm(Flip("answer body", at), method="GET", times=None)
    got = b""
    with pytest.raises(IntegrityError):
        async with link.store.get(link.bucket, "key") as reader:
            async for chunk in reader:
                got += chunk
    assert len(got) < len(SMALL)


async def test_shortened_body_of_a_get_is_never_its_end(link: Link) -> None:
    await link.store.put(link.bucket, "key", SMALL)
    link.proxy.arm(Shorten(1), method="GET", times=None)
    with pytest.raises(IntegrityError):
        await link.store.read(link.bucket, "key")


async def test_flipped_byte_of_a_put_is_never_stored(link: Link) -> None:
    link.proxy.arm(Flip("request body", 50 * KiB), method="PUT", times=None)
    with pytest.raises(TroveError):
        await link.store.put(link.bucket, "key", SMALL)
    assert await link.stored("key") is None


async def test_flipped_byte_of_a_part_is_never_stored(link: Link) -> None:
    link.proxy.arm(Flip("request body", MiB), target="*partNumber=2*", times=None)
    with pytest.raises(TroveError):
        await link.store.put(link.bucket, "key", LARGE)
    assert await link.stored("key") is None
    assert await link.uploads() == []


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
async def test_garbage_is_never_an_empty_listing(link: Link, body: bytes) -> None:
    link.proxy.arm(Response(200, body=body), target="*list-type*", times=None)
    with pytest.raises(TroveError):
        await link.store.list(link.bucket).all()


# -- silence -----------------------------------------------------------------------------------------


@asynccontextmanager
async def impatient(server: S3Server, client: Any) -> AsyncIterator[Link]:
    async with linked(server, client, timeout=SOON) as link:
        yield link


@pytest.mark.parametrize("name", ["PutObject", "GetObject", "HeadObject", "ListObjectsV2"])
async def test_silence_instead_of_an_answer_is_timed_out_and_tried_again(
    seaweed: S3Server, client: Any, name: str
) -> None:
    async with impatient(seaweed, client) as link:
        await struck(link, name, Stall("answer head"))


async def test_silence_that_lasts_is_a_timeout(seaweed: S3Server, client: Any) -> None:
    async with linked(seaweed, client, timeout=SOON, retry=NEVER) as link:
        link.proxy.arm(Stall("answer head"))
        with pytest.raises(TimedOutError):
            await link.store.put(link.bucket, "key", SMALL)
        assert link.done == ["PutObject"]


async def test_silence_in_a_body_is_timed_out_and_resumed(seaweed: S3Server, client: Any) -> None:
    async with impatient(seaweed, client) as link:
        await link.place("key", SMALL)
        link.proxy.arm(Stall("answer body", 50 * KiB), method="GET")
        await get(link)
        assert link.done == ["GetObject", "GetObject"]


async def test_puts_never_wait_for_a_continue(link: Link) -> None:
    await put(link)
    await put_large(link)
    assert not any("expect" in request.headers for request in link.proxy.requests)


# -- where requests must not go ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_foreign_host_gets_no_request_and_no_credentials(
    link: Link, name: str, status: int
) -> None:
    work, method, target = WORKS[name]
    await link.place("key", SMALL)
    async with AsyncExitStack() as stack:
        foreign = await stack.enter_async_context(FaultProxy("http://127.0.0.1:1"))
        url = f"{foreign.endpoint_url}/elsewhere"
        answer = Response(status, {"Location": url}, error("TemporaryRedirect", Endpoint=url))
        link.proxy.arm(answer, method=method, target=target, times=None)
        with pytest.raises(TroveError):
            await work(link)
        assert foreign.requests == []


# -- clocks and credentials --------------------------------------------------------------------------


async def test_wrong_clock_is_learned_once(link: Link) -> None:
    skewed = Response(403, {"Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, error("RequestTimeTooSkewed"))
    link.proxy.arm(skewed, method="PUT")
    link.proxy.arm(Response(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}), times=2)
    for _ in range(2):
        await link.store.put(link.bucket, "key", b"")
    dates = [request.headers["x-amz-date"][:8] for request in link.proxy.requests]
    assert dates[0] != "20250101"
    assert dates[1:] == ["20250101", "20250101"]


async def test_expired_token_that_cannot_be_renewed_is_told_at_once(link: Link) -> None:
    link.proxy.arm(Response(400, body=error("ExpiredToken")), method="PUT", times=None)
    with pytest.raises(TroveError) as told:
        await link.store.put(link.bucket, "key", SMALL)
    assert not told.value.retryable
    assert len(link.done) <= 2


async def test_second_create_of_a_bucket_says_that_it_exists(
    moto_server: S3Server,
) -> None:
    async with linked(moto_server, boto(moto_server)) as link:  # answers 200, as us-east-1 does
        with pytest.raises(BucketExistsError):
            await link.store.create_bucket(link.bucket)


async def test_unread_readers_do_not_block_the_third(seaweed: S3Server, client: Any) -> None:
    async with linked(seaweed, client, max_connections=2) as link:
        await link.place("key", LARGE)
        async with (
            link.store.get(link.bucket, "key") as one,
            link.store.get(link.bucket, "key") as two,
        ):
            await one.read(KiB)
            await two.read(KiB)
            async with link.store.get(link.bucket, "key") as three:
                assert await three.read() == LARGE
            assert await one.read() == LARGE[KiB:]
            assert await two.read() == LARGE[KiB:]
