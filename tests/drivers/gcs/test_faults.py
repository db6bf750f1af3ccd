"""Recovery from faults of the network and the service."""

from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.drivers.gcs.proxied_store import NO_RETRY, proxied_store
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

    from tests.drivers.gcs.proxied_store import ProxiedStore
    from tests.http_faults import Fault

SMALL = hashlib.shake_128(b"small").digest(100 * KiB)
LARGE = hashlib.shake_128(b"large").digest(3 * MiB - 7)  # three parts


@pytest_asyncio.fixture
async def proxied() -> AsyncIterator[ProxiedStore]:
    async with proxied_store() as proxied:
        yield proxied


async def stream(body: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(body), 100_000):
        yield body[offset : offset + 100_000]


# -- one fault in every operation ----------------------------------------------------------------


async def put(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", SMALL)
    assert proxied.stored_body("key") == SMALL


async def upload(proxied: ProxiedStore) -> None:
    await proxied.store.put(proxied.bucket, "key", stream(LARGE))
    assert proxied.stored_body("key") == LARGE


async def get(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    assert await proxied.store.read(proxied.bucket, "key") == SMALL


async def head(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    assert (await proxied.store.head(proxied.bucket, "key")).size == len(SMALL)


async def delete(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    await proxied.store.delete(proxied.bucket, "key")
    assert proxied.stored_body("key") is None


async def delete_many(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    await proxied.store.delete_many(proxied.bucket, ["key", "none"])
    assert proxied.stored_body("key") is None


async def copy(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    await proxied.store.copy(proxied.bucket, "key", proxied.bucket, "copy")
    assert proxied.stored_body("copy") == SMALL


async def listing(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    assert [info.key for info in await proxied.store.list(proxied.bucket).all()] == ["key"]


async def create_bucket(proxied: ProxiedStore) -> None:
    await proxied.store.create_bucket("fresh")
    assert "fresh" in proxied.service.buckets


async def delete_bucket(proxied: ProxiedStore) -> None:
    proxied.service.create_bucket("stale")
    await proxied.store.delete_bucket("stale")
    assert "stale" not in proxied.service.buckets


OPERATIONS = [
    put, upload, get, head, delete, delete_many, copy, listing, create_bucket, delete_bucket,
]  # fmt: skip

FAULTS: dict[str, Callable[[], Fault]] = {
    "cut before request": lambda: Cut("request head", 0),
    "cut in request head": lambda: Cut("request head", 20),
    "response lost": lambda: Cut("response head"),
    "response lost by orderly close": lambda: Cut("response head", reset=False),
    "cut in response head": lambda: Cut("response head", 20),
    "503": lambda: Response(503),
    "503 after success": lambda: Response(503, served=True),
    "429": lambda: Response(429, {"Retry-After": "0"}),
    "408": lambda: Response(408),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operation_recovers_from_one_fault(
    proxied: ProxiedStore, operation: Callable[[ProxiedStore], Awaitable[None]], fault: str
) -> None:
    proxied.proxy.arm(FAULTS[fault]())
    await operation(proxied)


@pytest.mark.parametrize("operation", [put, get, head, delete, listing, copy])
async def test_fault_raises_if_retries_are_disabled(
    operation: Callable[[ProxiedStore], Awaitable[None]],
) -> None:
    async with proxied_store(retry=NO_RETRY) as proxied:
        proxied.proxy.arm(Response(503, body=b'{"error": {"message": "no"}}'), times=None)
        with pytest.raises(UnavailableError, match="no"):
            await operation(proxied)
        assert len(proxied.proxy.requests) == 1


# -- lost responses to writes ----------------------------------------------------------------------


async def test_create_only_put_recognises_its_object_after_lost_response(
    proxied: ProxiedStore,
) -> None:
    proxied.proxy.arm(Cut("response head"), method="POST")
    info = await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert proxied.stored_body("key") == SMALL
    assert info.write_id is not None
    assert proxied.requests == ["POST multipart", "POST multipart", "GET storage"]


async def test_create_only_put_rejects_object_of_another_client(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(503), method="POST")
    proxied.put_directly("key", b"other")
    with pytest.raises(ObjectExistsError):
        await proxied.store.put(proxied.bucket, "key", SMALL, if_none_match="*")
    assert proxied.stored_body("key") == b"other"


async def test_upload_queries_its_progress_after_lost_response_to_commit(
    proxied: ProxiedStore,
) -> None:
    proxied.proxy.arm(Cut("response head"), method="PUT", skip=3)
    info = await proxied.store.put(proxied.bucket, "key", stream(LARGE), if_none_match="*")
    assert proxied.stored_body("key") == LARGE
    assert info.size == len(LARGE)
    assert proxied.content_ranges[-1] == "bytes */*"


async def test_existing_bucket_is_not_created_again(proxied: ProxiedStore) -> None:
    with pytest.raises(BucketExistsError):
        await proxied.store.create_bucket(proxied.bucket)


async def test_retried_create_of_inaccessible_bucket_raises(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(503), method="POST")
    proxied.proxy.arm(Response(403), method="GET", times=None)
    with pytest.raises(BucketExistsError):
        await proxied.store.create_bucket(proxied.bucket)


# -- uploads ---------------------------------------------------------------------------------------


async def test_upload_sends_each_byte_once(proxied: ProxiedStore) -> None:
    await upload(proxied)
    assert proxied.content_ranges == [
        "bytes 0-1048575/*",
        "bytes 1048576-2097151/*",
        "bytes 2097152-2883583/*",
        "bytes 2883584-3145720/3145721",
    ]


async def test_interrupted_upload_resumes_at_persisted_offset(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Cut("request body", 600 * KiB), method="PUT", skip=1)
    await upload(proxied)
    assert proxied.content_ranges[2] == "bytes */*"
    assert proxied.content_ranges[3] in {"bytes 1572864-2097151/*", "bytes 1048576-2097151/*"}


async def test_upload_resends_bytes_that_were_not_persisted(proxied: ProxiedStore) -> None:
    proxied.service.max_persisted = 512 * KiB
    await upload(proxied)
    assert proxied.content_ranges[:3] == [
        "bytes 0-1048575/*",
        "bytes 524288-1048575/*",
        "bytes 1048576-2097151/*",
    ]


async def test_upload_whose_session_was_removed_raises(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Response(410), method="PUT", skip=1, times=None)
    with pytest.raises(Exception, match="session does not exist"):
        await proxied.store.put(proxied.bucket, "key", stream(LARGE))
    assert proxied.stored_body("key") is None


async def test_upload_from_failing_source_leaves_no_session(proxied: ProxiedStore) -> None:
    async def failing_source() -> AsyncIterator[bytes]:
        yield LARGE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await proxied.store.put(proxied.bucket, "key", failing_source())
    assert proxied.stored_body("key") is None
    assert proxied.service.sessions == {}
    assert proxied.requests[-1] == "DELETE resumable"


# -- bodies ----------------------------------------------------------------------------------------


async def test_body_corrupted_in_upload_is_sent_again(proxied: ProxiedStore) -> None:
    proxied.proxy.arm(Flip("request body", 50_000), method="POST")
    await put(proxied)
    assert proxied.requests == ["POST multipart"] * 2


async def test_body_corrupted_in_download_raises(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", SMALL)
    proxied.proxy.arm(Flip("response body", 50_000), method="GET", times=None)
    with pytest.raises(IntegrityError):
        await proxied.store.read(proxied.bucket, "key")


@pytest.mark.parametrize("fault", [Cut("response body", 50_000), Shorten(1)], ids=["cut", "short"])
async def test_truncated_download_resumes_at_its_offset(fault: Fault) -> None:
    async with proxied_store() as proxied:
        proxied.put_directly("key", SMALL)
        proxied.proxy.arm(fault, method="GET")
        assert await proxied.store.read(proxied.bucket, "key") == SMALL
        requested_ranges = [request.headers.get("range") for request in proxied.proxy.requests]
        assert requested_ranges[0] is None
        assert len(requested_ranges) == 2
        pinned = proxied.proxy.requests[1]
        assert "generation" in pinned.query or "x-goog-if-generation-match" in pinned.headers


async def test_download_does_not_resume_on_replaced_object(proxied: ProxiedStore) -> None:
    proxied.put_directly("key", LARGE)
    proxied.proxy.arm(Cut("response body", 2 * MiB), method="GET")
    async with proxied.store.get(proxied.bucket, "key") as reader:
        await reader.read(1000)
        proxied.put_directly("key", LARGE[::-1])
        with pytest.raises(ObjectChangedError):
            await reader.read()


async def test_gzip_object_is_read_without_decompression(proxied: ProxiedStore) -> None:
    compressed = gzip.compress(SMALL)
    await proxied.store.put(proxied.bucket, "key", compressed, content_encoding="gzip")
    async with proxied.store.get(proxied.bucket, "key") as reader:
        assert reader.info.content_encoding == "gzip"
        assert await reader.read() == compressed
    assert await proxied.store.read(proxied.bucket, "key", range=(1, 9)) == compressed[1:9]


async def test_metadata_with_many_names_is_read(proxied: ProxiedStore) -> None:
    metadata = {f"{n:x}": "v" for n in range(1500)}
    await proxied.store.put(proxied.bucket, "key", SMALL, metadata=metadata)
    async with proxied.store.get(proxied.bucket, "key") as reader:
        assert dict(reader.info.metadata) == metadata
        assert await reader.read() == SMALL


# -- copies ----------------------------------------------------------------------------------------


async def test_interrupted_copy_resumes_with_its_token(proxied: ProxiedStore) -> None:
    proxied.service.max_rewritten = MiB
    proxied.put_directly("key", LARGE)
    proxied.proxy.arm(Cut("request head", 0), method="POST", skip=1)
    await proxied.store.copy(proxied.bucket, "key", proxied.bucket, "copy")
    assert proxied.stored_body("copy") == LARGE
    rewrites = [request for request in proxied.proxy.requests if request.method == "POST"]
    assert ["rewriteToken" in request.query for request in rewrites] == [False, True, True, True]


# -- cancels ---------------------------------------------------------------------------------------


async def cancel_at(proxied: ProxiedStore, stall: Stall, work: Coroutine[Any, Any, object]) -> None:
    """Run `work` until a request reaches the stall, and cancel it there."""
    task = OwnedTask(work)
    task.when_done(stall.reached.set)
    await stall.reached.wait()
    assert not task.done, "the operation ended before the stall"
    await task.aclose()
    stall.release()
    await proxied.proxy.wait_until_idle()


@pytest.mark.parametrize("skip", range(5))
@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_cancelled_upload_leaves_no_session_and_the_old_object(
    proxied: ProxiedStore, point: Any, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.1)
    proxied.put_directly("key", b"old")
    stall = proxied.proxy.arm(Stall(point), skip=skip)
    await cancel_at(proxied, stall, proxied.store.put(proxied.bucket, "key", stream(LARGE)))
    is_committed = (skip, point) == (4, "response head")
    assert proxied.stored_body("key") == (LARGE if is_committed else b"old")
    if skip and not is_committed:  # at skip 0 the client has no session URI to cancel
        assert proxied.service.sessions == {}


@pytest.mark.parametrize("point", ["request head", "response head"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_operation_leaves_nothing_behind(
    proxied: ProxiedStore,
    operation: Callable[[ProxiedStore], Coroutine[Any, Any, None]],
    point: Any,
) -> None:
    stall = proxied.proxy.arm(Stall(point))
    await cancel_at(proxied, stall, operation(proxied))
