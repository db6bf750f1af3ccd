"""A network that breaks in one place: what is sent again, how often, and what comes of it."""

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
QUICK = RetryPolicy(base_delay=0.0)
SHORT = Timeout(first_byte=0.2, idle=0.2)
SECRETS = ("testsecret", "Signature=")


@pytest_asyncio.fixture
async def bucket(seaweed: S3Server) -> AsyncIterator[str]:
    name = f"faults-{uuid4().hex[:20]}"
    async with opened(_driver(seaweed, seaweed.endpoint_url)) as driver:
        await driver.create_bucket(name)
    yield name


@pytest_asyncio.fixture
async def proxy(seaweed: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(seaweed.endpoint_url) as proxy:
        yield proxy
        await proxy.deserted()


def _driver(server: S3Server, url: str) -> S3Driver:
    return S3Driver(
        region=server.region,
        endpoint_url=url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        dialect="seaweedfs",
    )


@asynccontextmanager
async def bare(
    server: S3Server, proxy: FaultProxy, timeout: Timeout | None = None
) -> AsyncIterator[Any]:
    """The driver as it is: nothing tries again around it."""
    async with opened(_driver(server, proxy.endpoint_url), timeout=timeout) as driver:
        yield driver


@asynccontextmanager
async def stored(
    server: S3Server, proxy: FaultProxy, timeout: Timeout | None = None
) -> AsyncIterator[Trove]:
    async with Trove(
        _driver(server, proxy.endpoint_url),
        retry=QUICK,
        timeout=timeout or Timeout(),
        pool=BufferPool(32 * MiB, part_size=8 * MiB),
    ) as store:
        yield store


def methods(proxy: FaultProxy) -> list[str]:
    return [request.method for request in proxy.requests]


async def put(driver: AsyncDriver, bucket: str, body: bytes = b"body", **options: Any) -> None:
    await driver.put(bucket, "key", [memoryview(body)], PutOptions(**options))


# -- each request is sent once ---------------------------------------------------------------------------

REQUESTS: list[tuple[str, Any]] = [
    ("PUT", lambda driver, bucket: driver.put(bucket, "key", [memoryview(BODY)], PutOptions())),
    ("PUT", lambda driver, bucket: driver.put(bucket, "key", [], PutOptions())),
    ("GET", lambda driver, bucket: driver.get(bucket, "key", GetOptions()).__aenter__()),
    ("HEAD", lambda driver, bucket: driver.head(bucket, "key")),
    ("DELETE", lambda driver, bucket: driver.delete(bucket, "key", DeleteOptions())),
    ("POST", lambda driver, bucket: driver.delete_many(bucket, ["key"])),
]


@pytest.mark.parametrize("way", ["reset", "closed"])
@pytest.mark.parametrize("number", range(len(REQUESTS)))
async def test_request_whose_answer_is_lost_is_not_sent_again_in_silence(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, number: int, way: str
) -> None:
    method, request = REQUESTS[number]
    async with bare(seaweed, proxy) as driver:
        await driver.head_bucket(bucket)  # a connection that has served before
        proxy.arm(
            Cut("response head", reset=way == "reset"),
            method=method,
            target="*key*" if method != "POST" else "*",
        )
        with pytest.raises(UnavailableError) as caught:
            await request(driver, bucket)
        assert caught.value.retryable
        for shown in (str(caught.value), repr(caught.value.__cause__)):
            assert not any(secret in shown for secret in SECRETS)
    assert methods(proxy) == ["HEAD", method]


async def test_put_whose_answer_is_lost_is_recognised_as_ours(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy) as store:
        proxy.arm(Cut("response head"), method="PUT")
        info = await store.put(bucket, "key", BODY, if_none_match="*")
        assert info.size == len(BODY)
        # The driver looks whether an object is there, and the store whose it is.
        assert methods(proxy) == ["PUT", "PUT", "HEAD", "HEAD"]
        with pytest.raises(ObjectExistsError):
            await store.put(bucket, "key", b"another", if_none_match="*")
        assert await store.read(bucket, "key") == BODY


@pytest.mark.parametrize("byte", [0, 1, 300_000])
async def test_put_that_breaks_in_its_body_is_sent_again(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, byte: int
) -> None:
    async with stored(seaweed, proxy) as store:
        proxy.arm(Cut("request body", byte), method="PUT")
        await store.put(bucket, "key", BODY)
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_service_that_is_busy_is_asked_again(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, status: int
) -> None:
    async with stored(seaweed, proxy) as store:
        proxy.arm(Response(status, body=b"<html>busy</html>"), method="PUT", times=3)
        await store.put(bucket, "key", b"body")
    assert methods(proxy) == ["PUT"] * 4


async def test_redirect_to_a_foreign_host_gets_nothing(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with FaultProxy(seaweed.endpoint_url) as foreign, stored(seaweed, proxy) as store:
        location = {"Location": f"{foreign.endpoint_url}/{bucket}/key"}
        for status in (301, 302, 307, 308):
            proxy.arm(Response(status, location), method="PUT")
            with pytest.raises(BackendError):
                await store.put(bucket, "key", b"body")
        assert foreign.seen == []
    assert methods(proxy) == ["PUT"] * 4


# -- what arrives is what was sent ------------------------------------------------------------------------


async def test_body_that_is_changed_on_its_way_there_is_sent_again(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy) as store:
        proxy.arm(Flip("request body", 1000), method="PUT")
        await store.put(bucket, "key", BODY)
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "PUT", "GET"]


async def test_body_that_is_changed_on_its_way_here_is_an_error(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Flip("response body", 1000), method="GET")
        with pytest.raises(IntegrityError, match="crc32c"):
            await store.read(bucket, "key")
        assert await store.read(bucket, "key") == BODY


@pytest.mark.parametrize("way", ["reset", "closed"])
@pytest.mark.parametrize("byte", [0, 1, 700_000, len(BODY) - 1])
async def test_body_that_breaks_goes_on_where_it_broke(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, byte: int, way: str
) -> None:
    async with stored(seaweed, proxy) as store:
        info = await store.put(bucket, "key", BODY)
        proxy.arm(Cut("response body", byte, reset=way == "reset"), method="GET")
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "GET", "GET"]
    again = proxy.requests[-1].headers
    assert again["if-match"] == f'"{info.etag}"'


async def test_body_that_is_short_and_says_so_is_not_taken_for_the_whole(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Shorten(5), method="GET")
        with pytest.raises(IntegrityError):
            await store.read(bucket, "key")


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"\xff\xfe", b"<ListBucketResult><Cont"])
async def test_listing_that_is_garbage_is_asked_for_again(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, garbage: bytes
) -> None:
    async with stored(seaweed, proxy) as store:
        await store.put(bucket, "key", b"body")
        proxy.arm(Response(200, body=garbage), method="GET")
        assert [info.key for info in await store.list(bucket).all()] == ["key"]
    assert methods(proxy) == ["PUT", "GET", "GET"]


async def test_answer_that_is_no_http_is_asked_for_again(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy) as store:
        proxy.arm(Response(200, {"Content-Length": "nonsense"}), method="HEAD")
        with pytest.raises(ObjectNotFoundError):
            await store.head(bucket, "key")


# -- what stands still ------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["request head", "response head"])
async def test_service_that_says_nothing_is_left(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, point: Any
) -> None:
    async with bare(seaweed, proxy, SHORT) as driver:
        stall = proxy.arm(Stall(point), method="PUT")
        with pytest.raises(TimedOutError):
            await put(driver, bucket)
        stall.release()
    assert methods(proxy) == ["PUT"]


async def test_service_that_takes_no_more_is_left(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    body = bytes(64 * MiB)  # more than sockets hold
    async with bare(seaweed, proxy, Timeout(first_byte=30, idle=0.2)) as driver:
        stall = proxy.arm(Stall("request body", 1000), method="PUT")
        with pytest.raises(TimedOutError, match="no more"):
            await driver.put(bucket, "key", [memoryview(body)], PutOptions())
        stall.release()


async def test_body_that_stands_still_is_left_and_goes_on(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with stored(seaweed, proxy, Timeout(first_byte=20, idle=0.2)) as store:
        await store.put(bucket, "key", BODY)
        proxy.arm(Stall("response body", 500_000), method="GET")
        assert await store.read(bucket, "key") == BODY
    assert methods(proxy) == ["PUT", "GET", "GET"]


# -- cancels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["request head", "request body", "response head"])
async def test_cancelled_put_holds_nothing(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, point: Any
) -> None:
    async with bare(seaweed, proxy) as driver:
        stall = proxy.arm(Stall(point), method="PUT")
        task = OwnedTask(driver.put(bucket, "key", [memoryview(bytes(8 * MiB))], PutOptions()))
        await stall.reached.wait()
        tasks = asyncio.all_tasks() - proxy.tasks
        await task.aclose()
        stall.release()
        await proxy.deserted()
        assert asyncio.all_tasks() - proxy.tasks < tasks
    assert methods(proxy) == ["PUT"]


async def test_cancelled_get_holds_nothing(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with bare(seaweed, proxy) as driver:
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
        await proxy.deserted()  # the driver is still open


@pytest.mark.parametrize(
    ("method", "target", "aborted"),
    [
        ("PUT", "*partNumber=1*", True),
        ("PUT", "*partNumber=2*", True),
        ("POST", "*uploadId=*", False),
    ],
    ids=["in the first part", "in a later part", "in the commit"],
)
async def test_cancelled_upload_is_aborted_unless_it_may_be_completed(
    seaweed: S3Server, proxy: FaultProxy, bucket: str, method: str, target: str, *, aborted: bool
) -> None:
    async with bare(seaweed, proxy) as driver:

        async def upload() -> None:
            async with driver.upload(bucket, "key", PutOptions()) as one:
                for number in (1, 2):
                    part = Part(
                        number=number, offset=(number - 1) * 5 * MiB, size=5 * MiB, last=number == 2
                    )
                    await one.send(part, [memoryview(bytes(5 * MiB))])
                await one.commit({})

        stall = proxy.arm(Stall("request head"), method=method, target=target)
        task = OwnedTask(upload())
        await stall.reached.wait()
        await task.aclose()
        stall.release()
        if not aborted:  # the completion may still get there
            assert "DELETE" not in methods(proxy)
            return
        assert methods(proxy)[-1] == "DELETE"
        page = await driver._plane.list_uploads(bucket, None)
        assert page.uploads == []
        with pytest.raises(ObjectNotFoundError):
            await driver.head(bucket, "key")


async def test_forgotten_uploads_are_found(
    seaweed: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    async with bare(seaweed, proxy) as driver:
        for number in range(3):
            await driver.upload(bucket, f"key{number}", PutOptions()).__aenter__()
        assert await driver.gc_uploads(bucket, older_than=3600) == 0
        assert await driver.gc_uploads(bucket, older_than=0) == 3
        assert await driver.gc_uploads(bucket, older_than=0) == 0
