"""Faults of the network and the service, and the requests that recover from them."""

from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.proxied_store import NEVER, linked
from tests.http_faults import Cut, Flip, Response, Shorten, Stall
from trove_async import (
    BucketExistsError,
    IntegrityError,
    ObjectChangedError,
    ObjectExistsError,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._resilience import upload as upload_module
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from tests.drivers.gcs.proxied_store import Link
    from tests.http_faults import Fault

SMALL = hashlib.shake_128(b"small").digest(100 * KiB)
LARGE = hashlib.shake_128(b"large").digest(3 * MiB - 7)  # three parts


@pytest_asyncio.fixture
async def link() -> AsyncIterator[Link]:
    async with linked() as link:
        yield link


async def stream(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100_000):
        yield body[at : at + 100_000]


# -- public operations -----------------------------------------------------------------------------


async def put(link: Link) -> None:
    await link.store.put(link.bucket, "key", SMALL)
    assert link.stored("key") == SMALL


async def upload(link: Link) -> None:
    await link.store.put(link.bucket, "key", stream(LARGE))
    assert link.stored("key") == LARGE


async def get(link: Link) -> None:
    link.place("key", SMALL)
    assert await link.store.read(link.bucket, "key") == SMALL


async def head(link: Link) -> None:
    link.place("key", SMALL)
    assert (await link.store.head(link.bucket, "key")).size == len(SMALL)


async def delete(link: Link) -> None:
    link.place("key", SMALL)
    await link.store.delete(link.bucket, "key")
    assert link.stored("key") is None


async def delete_many(link: Link) -> None:
    link.place("key", SMALL)
    await link.store.delete_many(link.bucket, ["key", "none"])
    assert link.stored("key") is None


async def copy(link: Link) -> None:
    link.place("key", SMALL)
    await link.store.copy(link.bucket, "key", link.bucket, "copy")
    assert link.stored("copy") == SMALL


async def listing(link: Link) -> None:
    link.place("key", SMALL)
    assert [info.key for info in await link.store.list(link.bucket).all()] == ["key"]


async def create_bucket(link: Link) -> None:
    await link.store.create_bucket("fresh")
    assert "fresh" in link.cloud.buckets


async def delete_bucket(link: Link) -> None:
    link.cloud.create_bucket("stale")
    await link.store.delete_bucket("stale")
    assert "stale" not in link.cloud.buckets


OPERATIONS = [
    put, upload, get, head, delete, delete_many, copy, listing, create_bucket, delete_bucket,
]  # fmt: skip

BREAKS: dict[str, Callable[[], Fault]] = {
    "broken before it": lambda: Cut("request head", 0),
    "broken in its head": lambda: Cut("request head", 20),
    "answer lost": lambda: Cut("response head"),
    "answer lost in order": lambda: Cut("response head", reset=False),
    "answer broken": lambda: Cut("response head", 20),
    "503": lambda: Response(503),
    "503 but done": lambda: Response(503, served=True),
    "429": lambda: Response(429, {"Retry-After": "0"}),
    "408": lambda: Response(408),
}


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("operate", OPERATIONS)
async def test_operation_recovers_from_one_fault(
    link: Link, operate: Callable[[Link], Awaitable[None]], fault: str
) -> None:
    link.proxy.arm(BREAKS[fault]())
    await operate(link)


@pytest.mark.parametrize("operate", [put, get, head, delete, listing, copy])
async def test_permanent_fault_raises(operate: Callable[[Link], Awaitable[None]]) -> None:
    async with linked(retry=NEVER) as link:
        link.proxy.arm(Response(503, body=b'{"error": {"message": "no"}}'), times=None)
        with pytest.raises(UnavailableError, match="no"):
            await operate(link)
        assert len(link.proxy.requests) == 1


# -- batches with failed parts ---------------------------------------------------------------------

PARTLY = (
    b"--x\r\nContent-ID: <response-delete+0>\r\n\r\nHTTP/1.1 %d Busy\r\n\r\n{}\r\n"
    b"--x\r\nContent-ID: <response-delete+1>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n--x--\r\n"
)
BATCH = {"Content-Type": "multipart/mixed; boundary=x"}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retryable_failure_in_batch_is_retried_alone(link: Link, status: int) -> None:
    link.place("key", SMALL)
    link.proxy.arm(Response(200, BATCH, PARTLY % status), method="POST")
    await link.store.delete_many(link.bucket, ["key", "none"])
    assert link.stored("key") is None
    deleted = [one.path for one in link.proxy.requests if one.method == "DELETE"]
    assert deleted == [f"/storage/v1/b/{link.bucket}/o/key"]


async def test_repeated_failure_of_one_batch_key_is_reported(link: Link) -> None:
    link.place("key", SMALL)
    link.proxy.arm(Response(200, BATCH, PARTLY % 503), method="POST")
    link.proxy.arm(Response(503), method="DELETE", times=None)
    told = {
        one.key: one.error async for one in link.store.delete_many(link.bucket, ["key", "none"])
    }
    assert isinstance(told["key"], UnavailableError)
    assert told["none"] is None
    assert link.stored("key") == SMALL


async def test_batch_key_is_not_retried_without_retries() -> None:
    async with linked(retry=NEVER) as link:
        link.proxy.arm(Response(200, BATCH, PARTLY % 503), method="POST")
        with pytest.raises(UnavailableError):
            await link.store.delete_many(link.bucket, ["key", "none"])
        assert link.done == ["POST batch"]


# -- lost responses to writes ----------------------------------------------------------------------


async def test_lost_response_to_create_only_put_is_recognized_as_own_write(link: Link) -> None:
    link.proxy.arm(Cut("response head"), method="POST")
    info = await link.store.put(link.bucket, "key", SMALL, if_none_match="*")
    assert link.stored("key") == SMALL
    assert info.write_id is not None
    assert link.done == ["POST multipart", "POST multipart", "GET storage"]


async def test_object_of_another_client_is_not_taken_for_own_write(link: Link) -> None:
    link.proxy.arm(Response(503), method="POST")
    link.place("key", b"theirs")
    with pytest.raises(ObjectExistsError):
        await link.store.put(link.bucket, "key", SMALL, if_none_match="*")
    assert link.stored("key") == b"theirs"


async def test_lost_response_to_commit_is_queried(link: Link) -> None:
    link.proxy.arm(Cut("response head"), method="PUT", skip=3)
    info = await link.store.put(link.bucket, "key", stream(LARGE), if_none_match="*")
    assert link.stored("key") == LARGE
    assert info.size == len(LARGE)
    assert link.ranges[-1] == "bytes */*"


async def test_existing_bucket_is_not_created_again(link: Link) -> None:
    with pytest.raises(BucketExistsError):
        await link.store.create_bucket(link.bucket)


async def test_inaccessible_bucket_is_not_taken_for_own_after_lost_response(
    link: Link,
) -> None:
    link.proxy.arm(Response(503), method="POST")
    link.proxy.arm(Response(403), method="GET", times=None)
    with pytest.raises(BucketExistsError):
        await link.store.create_bucket(link.bucket)


# -- uploads ---------------------------------------------------------------------------------------


async def test_upload_sends_each_byte_once(link: Link) -> None:
    await upload(link)
    assert link.ranges == [
        "bytes 0-1048575/*",
        "bytes 1048576-2097151/*",
        "bytes 2097152-2883583/*",
        "bytes 2883584-3145720/3145721",
    ]


async def test_interrupted_upload_resumes_at_persisted_offset(link: Link) -> None:
    link.proxy.arm(Cut("request body", 600 * KiB), method="PUT", skip=1)
    await upload(link)
    assert link.ranges[2] == "bytes */*"
    assert link.ranges[3] in {"bytes 1572864-2097151/*", "bytes 1048576-2097151/*"}


async def test_upload_resends_bytes_that_were_not_persisted(link: Link) -> None:
    link.cloud.keeps_at_most = 512 * KiB
    await upload(link)
    assert link.ranges[:3] == [
        "bytes 0-1048575/*",
        "bytes 524288-1048575/*",
        "bytes 1048576-2097151/*",
    ]


async def test_upload_with_lost_session_raises(link: Link) -> None:
    link.proxy.arm(Response(410), method="PUT", skip=1, times=None)
    with pytest.raises(Exception, match="session does not exist"):
        await link.store.put(link.bucket, "key", stream(LARGE))
    assert link.stored("key") is None


async def test_upload_from_failing_source_leaves_no_session(link: Link) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await link.store.put(link.bucket, "key", broken())
    assert link.stored("key") is None
    assert link.cloud.sessions == {}
    assert link.done[-1] == "DELETE resumable"


# -- bodies ----------------------------------------------------------------------------------------


async def test_body_corrupted_in_upload_is_sent_again(link: Link) -> None:
    link.proxy.arm(Flip("request body", 50_000), method="POST")
    await put(link)
    assert link.done == ["POST multipart"] * 2


async def test_body_corrupted_in_download_raises(link: Link) -> None:
    link.place("key", SMALL)
    link.proxy.arm(Flip("response body", 50_000), method="GET", times=None)
    with pytest.raises(IntegrityError):
        await link.store.read(link.bucket, "key")


@pytest.mark.parametrize("fault", [Cut("response body", 50_000), Shorten(1)], ids=["cut", "short"])
async def test_truncated_download_resumes_at_its_offset(fault: Fault) -> None:
    async with linked() as link:
        link.place("key", SMALL)
        link.proxy.arm(fault, method="GET")
        assert await link.store.read(link.bucket, "key") == SMALL
        asked = [request.headers.get("range") for request in link.proxy.requests]
        assert asked[0] is None
        assert len(asked) == 2
        pinned = link.proxy.requests[1]
        assert "generation" in pinned.query or "x-goog-if-generation-match" in pinned.headers


async def test_download_does_not_resume_on_replaced_object(link: Link) -> None:
    link.place("key", LARGE)
    link.proxy.arm(Cut("response body", 2 * MiB), method="GET")
    async with link.store.get(link.bucket, "key") as reader:
        await reader.read(1000)
        link.place("key", LARGE[::-1])
        with pytest.raises(ObjectChangedError):
            await reader.read()


async def test_gzip_object_is_read_without_decompression(link: Link) -> None:
    packed = gzip.compress(SMALL)
    await link.store.put(link.bucket, "key", packed, content_encoding="gzip")
    async with link.store.get(link.bucket, "key") as reader:
        assert reader.info.content_encoding == "gzip"
        assert await reader.read() == packed
    assert await link.store.read(link.bucket, "key", range=(1, 9)) == packed[1:9]


async def test_metadata_with_many_names_is_read(link: Link) -> None:
    metadata = {f"{n:x}": "v" for n in range(1500)}
    await link.store.put(link.bucket, "key", SMALL, metadata=metadata)
    async with link.store.get(link.bucket, "key") as reader:
        assert dict(reader.info.metadata) == metadata
        assert await reader.read() == SMALL


# -- copies ----------------------------------------------------------------------------------------


async def test_interrupted_copy_resumes_with_its_token(link: Link) -> None:
    link.cloud.rewrites_at_most = MiB
    link.place("key", LARGE)
    link.proxy.arm(Cut("request head", 0), method="POST", skip=1)
    await link.store.copy(link.bucket, "key", link.bucket, "copy")
    assert link.stored("copy") == LARGE
    rewrites = [request for request in link.proxy.requests if request.method == "POST"]
    assert ["rewriteToken" in one.query for one in rewrites] == [False, True, True, True]


# -- cancels ---------------------------------------------------------------------------------------


async def cancelled(link: Link, stall: Stall, work: Coroutine[Any, Any, object]) -> None:
    task = OwnedTask(work)
    task.when_done(stall.reached.set)
    await stall.reached.wait()
    assert not task.done, "it ended before it came to the stall"
    await task.aclose()
    stall.release()
    await link.proxy.quiet()


@pytest.mark.parametrize("skip", range(5))
@pytest.mark.parametrize("at", ["request head", "response head"])
async def test_cancelled_upload_leaves_no_session_and_the_old_object(
    link: Link, at: Any, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.1)
    link.place("key", b"old")
    stall = link.proxy.arm(Stall(at), skip=skip)
    await cancelled(link, stall, link.store.put(link.bucket, "key", stream(LARGE)))
    committed = (skip, at) == (4, "response head")
    assert link.stored("key") == (LARGE if committed else b"old")
    if skip and not committed:  # at skip 0 the client has no session URI to cancel
        assert link.cloud.sessions == {}


@pytest.mark.parametrize("at", ["request head", "response head"])
@pytest.mark.parametrize("operate", OPERATIONS)
async def test_cancelled_operation_leaves_nothing_behind(
    link: Link, operate: Callable[[Link], Coroutine[Any, Any, None]], at: Any
) -> None:
    stall = link.proxy.arm(Stall(at))
    await cancelled(link, stall, operate(link))
