"""Faults and cancels: which requests are sent again, and which uploads are aborted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.fault_proxy import FaultProxy
from tests.http_faults import Cut, Flip, Response, Shorten, Stall
from trove_async import Trove
from trove_async._concurrency import OwnedTask
from trove_async.drivers.s3 import S3Driver
from trove_async.errors import (
    BackendError,
    IntegrityError,
    ObjectExistsError,
    ObjectNotFoundError,
    TimedOutError,
    UnavailableError,
)
from trove_async.models import MiB, Timeout
from trove_async.options import DeleteOptions, GetOptions, Part, PutOptions
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import S3Server

BODY = bytes(range(256)) * 4096  # 1 MiB
IMMEDIATE_RETRY = RetryPolicy(base_delay=0.0)
SHORT_TIMEOUT = Timeout(first_byte=0.2, idle=0.2)
SECRETS = ("testsecret", "Signature=")


@pytest_asyncio.fixture
async def bucket(seaweed: S3Server) -> AsyncIterator[str]:
    name = f"faults-{uuid4().hex[:20]}"
    async with opened(driver_at(seaweed, seaweed.endpoint_url)) as driver:
        await driver.create_bucket(name)
    yield name


@pytest_asyncio.fixture
async def proxy(seaweed: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(seaweed.endpoint_url) as proxy:
        yield proxy
        await proxy.wait_until_disconnected()


def driver_at(server: S3Server, url: str) -> S3Driver:
    return S3Driver(
        region=server.region,
        endpoint_url=url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        dialect="seaweedfs",
    )


@asynccontextmanager
async def bare_driver(
    server: S3Server, proxy: FaultProxy, timeout: Timeout | None = None
) -> AsyncIterator[Any]:
    """Open a driver without a store, so that no request is retried."""
    async with opened(driver_at(server, proxy.endpoint_url), timeout=timeout) as driver:
        yield driver


@asynccontextmanager
async def open_store(
    server: S3Server, proxy: FaultProxy, timeout: Timeout | None = None
) -> AsyncIterator[Trove]:
    async with Trove(
        driver_at(server, proxy.endpoint_url),
        retry=IMMEDIATE_RETRY,
        timeout=timeout or Timeout(),
        pool=BufferPool(32 * MiB, part_size=8 * MiB),
    ) as store:
        yield store


def methods(proxy: FaultProxy) -> list[str]:
    return [request.method for request in proxy.requests]


async def put(driver: AsyncDriver, bucket: str, body: bytes = b"body", **options: Any) -> None:
    await driver.put(bucket, "key", [memoryview(body)], PutOptions(**options))


# -- lost responses --------------------------------------------------------------------------------

OPERATIONS: list[tuple[str, Any]] = [
    ("PUT", lambda driver, bucket: driver.put(bucket, "key", [memoryview(BODY)], PutOptions())),
    ("PUT", lambda driver, bucket: driver.put(bucket, "key", [], PutOptions())),
    ("GET", lambda driver, bucket: driver.get(bucket, "key", GetOptions()).__aenter__()),
    ("HEAD", lambda driver, bucket: driver.head(bucket, "key")),
    ("DELETE", lambda driver, bucket: driver.delete(bucket, "key", DeleteOptions())),
    ("POST", lambda driver, bucket: driver.delete_many(bucket, ["key"])),
]


@pytest.mark.parametrize("end", ["reset", "closed"])
@pytest.mark.parametrize(
    ("method", "operation"),
    OPERATIONS,
    ids=["put", "empty put", "get", "head", "delete", "delete many"],
)
async def test_driver_does_not_resend_a_request_whose_response_is_lost(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, method: str, operation: Any, *, end: str
) -> None:
    async with bare_driver(seaweed, proxy) as driver:
        await driver.head_bucket(bucket)  # so that a connection is reused
        proxy.arm(
            Cut("response head", reset=end == "reset"),
            method=method,
            target="*key*" if method != "POST" else "*",
        )
        with pytest.raises(UnavailableError) as caught:
            await operation(driver, bucket)
        assert caught.value.retryable
        for text in (str(caught.value), repr(caught.value.__cause__)):
            assert not any(secret in text for secret in SECRETS)
    assert methods(proxy) == ["HEAD", method]


async def test_create_whose_response_is_lost_recognises_its_own_write(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        proxy.arm(Cut("response head"), method="PUT")
        info = await store.put(bucket, "key", BODY, if_none_match="*")
        assert info.size == len(BODY)
        # The driver's HEAD finds an object. The store's HEAD shows which write created it.
        assert methods(proxy) == ["PUT", "PUT", "HEAD", "HEAD"]
        with pytest.raises(ObjectExistsError):
            await store.put(bucket, "key", b"other", if_none_match="*")
        assert await store.read(bucket, "key") == BODY


@pytest.mark.parametrize("byte", [0, 1, 300_000])
async def test_put_whose_body_breaks_is_retried(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, byte: int
) -> None:
    async with open_store(seaweed, proxy) as store:
        proxy.arm(Cut("request body", byte), method="PUT")
        await store.put(bucket, "key", BODY)
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_busy_service_is_retried(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, status: int
) -> None:
    async with open_store(seaweed, proxy) as store:
        proxy.arm(Response(status, body=b"<html>busy</html>"), method="PUT", times=3)
        await store.put(bucket, "key", b"body")
    assert methods(proxy) == ["PUT"] * 4


async def test_redirect_to_another_host_is_not_followed(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with FaultProxy(seaweed.endpoint_url) as foreign, open_store(seaweed, proxy) as store:
        location = {"Location": f"{foreign.endpoint_url}/{bucket}/key"}
        for status in (301, 302, 307, 308):
            proxy.arm(Response(status, location), method="PUT")
            with pytest.raises(BackendError):
                await store.put(bucket, "key", b"body")
        assert foreign.request_lines == []
    assert methods(proxy) == ["PUT"] * 4


# -- damaged and broken bodies ---------------------------------------------------------------------


async def test_put_whose_body_is_corrupted_is_retried(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        proxy.arm(Flip("request body", 1000), method="PUT")
        await store.put(bucket, "key", BODY)
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "PUT", "GET"]


async def test_get_whose_body_is_corrupted_raises(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Flip("response body", 1000), method="GET")
        with pytest.raises(IntegrityError, match="crc32c"):
            await store.read(bucket, "key")
        assert await store.read(bucket, "key") == BODY


@pytest.mark.parametrize("end", ["reset", "closed"])
@pytest.mark.parametrize("byte", [0, 1, 700_000, len(BODY) - 1])
async def test_get_whose_body_breaks_resumes_at_the_break(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, byte: int, end: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        info = await store.put(bucket, "key", BODY)
        proxy.arm(Cut("response body", byte, reset=end == "reset"), method="GET")
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "GET", "GET"]
    assert proxy.requests[-1].headers["if-match"] == f'"{info.etag}"'


async def test_get_with_a_shortened_content_length_raises(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Shorten(5), method="GET")
        with pytest.raises(IntegrityError):
            await store.read(bucket, "key")


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"\xff\xfe", b"<ListBucketResult><Cont"])
async def test_malformed_listing_is_retried(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, garbage: bytes
) -> None:
    async with open_store(seaweed, proxy) as store:
        await store.put(bucket, "key", b"body")
        proxy.arm(Response(200, body=garbage), method="GET")
        assert [info.key for info in await store.list(bucket).all()] == ["key"]
    assert methods(proxy) == ["PUT", "GET", "GET"]


async def test_malformed_http_response_is_retried(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy) as store:
        proxy.arm(Response(200, {"Content-Length": "nonsense"}), method="HEAD")
        with pytest.raises(ObjectNotFoundError):
            await store.head(bucket, "key")


# -- stalls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_put_times_out_when_no_response_arrives(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, point: Any
) -> None:
    async with bare_driver(seaweed, proxy, SHORT_TIMEOUT) as driver:
        stall = proxy.arm(Stall(point), method="PUT")
        with pytest.raises(TimedOutError):
            await put(driver, bucket)
        stall.release()
    assert methods(proxy) == ["PUT"]


async def test_put_times_out_when_the_service_stops_reading(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    body = bytes(64 * MiB)  # more than socket buffers hold
    async with bare_driver(seaweed, proxy, Timeout(first_byte=30, idle=0.2)) as driver:
        stall = proxy.arm(Stall("request body", 1000), method="PUT")
        with pytest.raises(TimedOutError, match="no more"):
            await driver.put(bucket, "key", [memoryview(body)], PutOptions())
        stall.release()


async def test_get_whose_body_stalls_is_resumed(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with open_store(seaweed, proxy, Timeout(first_byte=20, idle=0.2)) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Stall("response body", 500_000), method="GET")
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "GET", "GET"]


# -- cancels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["request head", "request body", "response head"])
async def test_cancelled_put_leaves_no_task_or_connection(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, point: Any
) -> None:
    async with bare_driver(seaweed, proxy) as driver:
        stall = proxy.arm(Stall(point), method="PUT")
        task = OwnedTask(driver.put(bucket, "key", [memoryview(bytes(8 * MiB))], PutOptions()))
        await stall.reached.wait()
        tasks = asyncio.all_tasks() - proxy.tasks
        await task.aclose()
        stall.release()
        await proxy.wait_until_disconnected()
        assert asyncio.all_tasks() - proxy.tasks < tasks
    assert methods(proxy) == ["PUT"]


async def test_cancelled_get_leaves_no_connection(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with bare_driver(seaweed, proxy) as driver:
        await put(driver, bucket, BODY)
        stall = proxy.arm(Stall("response body", 100_000), method="GET")

        async def get() -> None:
            async with driver.get(bucket, "key", GetOptions()) as reader:
                while await reader.read(MiB):
                    pass

        task = OwnedTask(get())
        await stall.reached.wait()
        await task.aclose()
        stall.release()
        await proxy.wait_until_disconnected()  # while the driver is still open


@pytest.mark.parametrize(
    ("method", "target", "aborted"),
    [
        ("PUT", "*partNumber=1*", True),
        ("PUT", "*partNumber=2*", True),
        ("POST", "*uploadId=*", False),
    ],
    ids=["first part", "later part", "completion"],
)
async def test_cancelled_upload_is_aborted_unless_its_completion_was_sent(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, method: str, target: str, *, aborted: bool
) -> None:
    async with bare_driver(seaweed, proxy) as driver:

        async def upload() -> None:
            async with driver.upload(bucket, "key", PutOptions()) as session:
                for number in (1, 2):
                    part = Part(
                        number=number, offset=(number - 1) * 5 * MiB, size=5 * MiB, last=number == 2
                    )
                    await session.send(part, [memoryview(bytes(5 * MiB))])
                await session.commit({})

        stall = proxy.arm(Stall("request head"), method=method, target=target)
        task = OwnedTask(upload())
        await stall.reached.wait()
        await task.aclose()
        stall.release()
        if not aborted:  # the server may still receive the completion
            assert "DELETE" not in methods(proxy)
            return
        assert methods(proxy)[-1] == "DELETE"
        page = await driver._plane.list_uploads(bucket, None)
        assert page.uploads == []
        with pytest.raises(ObjectNotFoundError):
            await driver.head(bucket, "key")


async def test_gc_uploads_aborts_unfinished_uploads(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with bare_driver(seaweed, proxy) as driver:
        for number in range(3):
            await driver.upload(bucket, f"key{number}", PutOptions()).__aenter__()
        assert await driver.gc_uploads(bucket, older_than=3600) == 0
        assert await driver.gc_uploads(bucket, older_than=0) == 3
        assert await driver.gc_uploads(bucket, older_than=0) == 0
