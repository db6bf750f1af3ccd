"""Probes that detect ignored features before an object is stored."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tests.drivers.s3.proxied_store import boto3_client
from tests.drivers.s3.scripted_transport import (
    OBJECT_HEADERS,
    FakeResponse,
    error_response,
    response,
)
from tests.drivers.s3.test_conformance import driver_of
from trove_async import BufferPool, Timeout, Trove, _http
from trove_async.drivers.s3 import _components as components_module
from trove_async.drivers.s3 import _dialects, _trials
from trove_async.drivers.s3._copy import Copier
from trove_async.drivers.s3._credentials import Endpoint
from trove_async.drivers.s3._dialects import AMAZON, CEPH, S3, SEAWEEDFS, UNRECOGNISED, Service
from trove_async.drivers.s3._features import ALL, Feature, features_of
from trove_async.drivers.s3._object_settings import ObjectSettings
from trove_async.drivers.s3._unusual_keys import sibling
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.layers import Mapped
from trove_async.models import MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trove_async._http import Origin, Response, Transport
    from trove_async.testing.servers import S3Server

LARGE = bytes(6 * MiB)
TAGS = {"team": "blue"}
SSE = "x-amz-server-side-encryption"


class HeaderDroppingTransport:
    """A transport that drops headers, to imitate a service that ignores them.

    The requests are signed with the dropped headers. moto does not verify signatures.

    Attributes:
        ignores: Returns whether to drop a header. Called with its name and all headers.
        requests: The number of requests so far.
        target: The target of the last request.
        closed: Whether the transport was closed.
        hang_at: The number of the request that gets no response. None if every request gets one.
        hanging: Set when that request hangs.
        fault: Called with the method and target of each request. It may wait, and may return a
            response, which replaces the service's.
    """

    def __init__(self, inner: Transport, ignores: Callable[[str, Mapping[str, str]], bool]) -> None:
        self.inner = inner
        self.ignores = ignores
        self.requests = 0
        self.target = ""
        self.closed = False
        self.hang_at: int | None = None
        self.hanging = asyncio.Event()
        self.fault: Callable[[str, str], Awaitable[FakeResponse | None]] | None = None

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Any = (),
        *,
        patient: bool = False,
    ) -> Response:
        self.requests += 1
        number, self.target = self.requests, target
        sent = {name: value for name, value in headers.items() if not self.ignores(name, headers)}
        fault = await self.fault(method, target) if self.fault is not None else None
        if fault is not None:
            return fault
        response = await self.inner.send(method, origin, target, sent, views, patient=patient)
        if number == self.hang_at:
            response.close()
            self.hanging.set()
            await asyncio.Event().wait()
        return response

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


def drop_nothing(_name: str, _headers: Mapping[str, str]) -> bool:
    return False


@pytest.fixture
def drop_headers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[HeaderDroppingTransport]]:
    """Return a function that makes the service ignore headers and returns the list of transports."""

    def start(
        ignores: str | Callable[[str, Mapping[str, str]], bool],
    ) -> list[HeaderDroppingTransport]:
        transports: list[HeaderDroppingTransport] = []
        predicate = (lambda name, _: name == ignores) if isinstance(ignores, str) else ignores

        def make_transport(*args: Any, **settings: Any) -> HeaderDroppingTransport:
            transports.append(
                HeaderDroppingTransport(_http.transport_over(*args, **settings), predicate)
            )
            return transports[-1]

        monkeypatch.setattr(components_module, "transport_over", make_transport)
        return transports

    return start


@pytest.fixture
def bucket(moto_server: S3Server) -> str:
    """A bucket on moto with one object, ``old``."""
    name = f"features-{uuid4().hex[:20]}"
    client = boto3_client(moto_server)
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="old", Body=b"old")
    return name


def stored_bodies(server: S3Server, bucket: str) -> dict[str, bytes]:
    """Return the bodies of all objects by key. Each unfinished upload adds an empty body."""
    client = boto3_client(server)
    bodies = {
        entry["Key"]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket=bucket).get("Contents", ())
    }
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    return bodies | {f"upload of {upload['Key']}": b"" for upload in uploads}


def store_of(server: S3Server, **settings: Any) -> Trove:
    return Trove(
        driver_of(server, **settings), pool=BufferPool(max_bytes=40 * MiB, part_size=5 * MiB)
    )


WRITES: Mapping[str, Callable[[Trove, str], Any]] = {
    "create": lambda store, bucket: store.put(bucket, "new", b"x", if_none_match="*"),
    "replace": lambda store, bucket: store.put(bucket, "old", b"x", if_match="0" * 32),
    "tags of a put": lambda store, bucket: store.put(bucket, "new", b"x", tags=TAGS),
    "tags of an upload": lambda store, bucket: store.put(bucket, "new", LARGE, tags=TAGS),
    "tags of a copy": lambda store, bucket: store.copy(bucket, "old", bucket, "new", tags=TAGS),
    "put": lambda store, bucket: store.put(bucket, "new", b"x"),
    "upload": lambda store, bucket: store.put(bucket, "new", LARGE),
    "copy": lambda store, bucket: store.copy(bucket, "old", bucket, "new"),
}


@pytest.mark.parametrize(
    ("header", "write", "settings"),
    [
        ("if-none-match", "create", {}),
        ("if-match", "replace", {}),
        ("x-amz-tagging", "tags of a put", {}),
        ("x-amz-tagging", "tags of an upload", {}),
        ("x-amz-tagging", "tags of a copy", {}),
        *(
            (SSE, write, {"server_side_encryption": "AES256"})
            for write in ("put", "upload", "copy")
        ),
    ],
)
async def test_write_with_an_ignored_feature_is_refused_and_stores_nothing(  # noqa: PLR0917
    moto_server: S3Server,
    bucket: str,
    drop_headers: Any,
    header: str,
    write: str,
    settings: dict[str, Any],
) -> None:
    drop_headers(header)
    await assert_refused(store_of(moto_server, **settings), moto_server, bucket, write)


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize("write", ["put", "upload", "copy"])
async def test_write_with_an_ignored_customer_key_is_refused(
    moto_server: S3Server, bucket: str, write: str, plane: str
) -> None:
    store = store_of(moto_server, data_plane=plane, sse_customer_key=bytes(range(32)))
    await assert_refused(store, moto_server, bucket, write)  # moto does not support SSE-C


async def assert_refused(store: Trove, server: S3Server, bucket: str, write: str) -> None:
    async with store:
        for _ in range(2):
            with pytest.raises(NotSupportedError, match="the service ignores"):
                await WRITES[write](store, bucket)
    assert await asyncio.to_thread(stored_bodies, server, bucket) == {"old": b"old"}


async def test_copy_whose_tags_are_ignored_streams_through_the_client(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    drop_headers(lambda name, headers: name == "x-amz-tagging" and "x-amz-copy-source" in headers)
    async with store_of(moto_server) as store:
        await store.copy(bucket, "old", bucket, "new", tags=TAGS)
        assert (await store.head(bucket, "new")).tags == TAGS
    assert await asyncio.to_thread(stored_bodies, moto_server, bucket) == {
        "old": b"old",
        "new": b"old",
    }


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize("write", WRITES)
async def test_honoured_feature_is_probed_once_and_leaves_nothing_behind(
    moto_server: S3Server, bucket: str, drop_headers: Any, write: str, plane: str
) -> None:
    transports = drop_headers(drop_nothing)
    settings = {} if "tags" in write else {"server_side_encryption": "aws:kms", "kms_key_id": "id"}
    async with store_of(moto_server, data_plane=plane, **settings) as store:
        request_counts = []
        for _ in range(2):
            before = transports[0].requests
            if write == "replace":
                with pytest.raises(PreconditionFailedError):
                    await WRITES[write](store, bucket)
            else:
                await WRITES[write](store, bucket)
                await store.delete(bucket, "new")
            request_counts.append(transports[0].requests - before)
    assert plane == "sdk" or request_counts[0] > request_counts[1]
    assert await asyncio.to_thread(stored_bodies, moto_server, bucket) == {"old": b"old"}


async def test_plain_put_is_not_probed(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    async with store_of(moto_server) as store:
        before = transports[0].requests
        await store.put(bucket, "new", b"x", metadata={"a": "b"}, content_type="text/plain")
        assert transports[0].requests - before == 1


async def test_dialect_s3_is_not_probed(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    settings = {"server_side_encryption": "AES256", "dialect": "s3"}
    async with store_of(moto_server, **settings) as store:
        before = transports[0].requests
        await store.put(bucket, "new", b"x", tags=TAGS, if_none_match="*")
        assert transports[0].requests - before == 1


async def test_concurrent_writes_probe_a_feature_once(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    async with store_of(moto_server) as store:
        before = transports[0].requests
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(store.put(bucket, f"new/{number}", b"x", tags=TAGS))
        # The probe: PUT, HEAD, GET tags, list versions, DELETE. Then the eight puts.
        assert transports[0].requests - before == 5 + 8


async def test_probe_leaves_no_version(moto_server: S3Server, bucket: str) -> None:
    client = boto3_client(moto_server)
    await asyncio.to_thread(
        client.put_bucket_versioning,
        Bucket=bucket,
        VersioningConfiguration={"Status": "Enabled"},
    )
    async with store_of(moto_server, server_side_encryption="AES256") as store:
        await store.put(bucket, "new", b"x", tags=TAGS, if_none_match="*")
        await store.put(bucket, "large", LARGE, tags=TAGS)
        await store.copy(bucket, "old", bucket, "copy", tags=TAGS)
    remaining = await asyncio.to_thread(client.list_object_versions, Bucket=bucket)
    assert {version["Key"] for version in remaining["Versions"]} == {"old", "new", "large", "copy"}
    assert "DeleteMarkers" not in remaining


@pytest.mark.parametrize(
    ("write", "requests"),
    [
        ("tags of a put", range(1, 5)),
        ("tags of an upload", range(1, 7)),
        ("tags of a copy", range(2, 9)),  # the store sends a HEAD of the source first
    ],
)
async def test_write_cancelled_during_a_probe_leaves_no_object(
    moto_server: S3Server,
    bucket: str,
    drop_headers: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    write: str,
    requests: range,
) -> None:
    # The request that hangs would use all of it.
    monkeypatch.setattr(_trials, "_GRACE_SECONDS", 0.01)
    transports = drop_headers(drop_nothing)
    loop = asyncio.get_running_loop()
    unfinished: set[str] = set()
    for number in requests:
        async with store_of(moto_server) as store:
            transport = transports[-1]
            transport.hang_at = transport.requests + number
            write_task = loop.create_task(WRITES[write](store, bucket))
            await transport.hanging.wait()
            assert "trove-probe-" in transport.target
            write_task.cancel()
            await asyncio.wait({write_task})
            assert write_task.cancelled()
        remaining = await asyncio.to_thread(stored_bodies, moto_server, bucket)
        unfinished |= {key for key in remaining if key.startswith("upload of")}
        assert remaining.keys() - unfinished == {"old"}, number
    # `gc_uploads` removes an upload whose id never arrived.
    assert len(unfinished) <= 1
    assert not unfinished or write == "tags of an upload"


def is_probe(target: str) -> bool:
    return "/trove-probe-" in target


@pytest.mark.parametrize("key", ["new", "new/"], ids=["tags", "unusual key"])
async def test_cancel_is_raised_when_the_cleanup_of_a_probe_hangs(
    moto_server: S3Server, bucket: str, drop_headers: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(_trials, "_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(_trials, "_CLEANUP_SECONDS", 0.01)
    transports = drop_headers(drop_nothing)
    stalled = asyncio.Event()

    async def stall(method: str, target: str) -> None:
        if is_probe(target) and method in {"HEAD", "DELETE"}:
            stalled.set()
            await asyncio.Event().wait()

    async with store_of(moto_server) as store:
        transports[-1].fault = stall
        tags = TAGS if key == "new" else None
        put_task = asyncio.get_running_loop().create_task(store.put(bucket, key, b"x", tags=tags))
        await stalled.wait()
        put_task.cancel()
        await asyncio.wait({put_task})
        assert put_task.cancelled()
        transports[-1].fault = None
        assert not await store.exists(bucket, "new")


async def test_probe_has_its_own_timeout(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)

    async def slow(_method: str, target: str) -> None:
        if is_probe(target):
            await asyncio.sleep(0.1)

    driver = driver_of(moto_server)
    async with Trove(driver, timeout=Timeout(first_byte=0.3)) as store:
        transports[-1].fault = slow
        await store.put(bucket, "new", b"", tags=TAGS)  # the probe takes 0.4 s
        assert (await store.head(bucket, "new")).tags == TAGS


async def test_closing_the_store_cancels_a_probe_and_deletes_its_objects(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    head_sent = asyncio.Event()

    async def stall(method: str, target: str) -> None:
        if is_probe(target) and method == "HEAD":
            head_sent.set()
            await asyncio.Event().wait()

    store = await store_of(moto_server).open()
    transports[-1].fault = stall
    put_task = asyncio.get_running_loop().create_task(store.put(bucket, "new", b"x", tags=TAGS))
    await head_sent.wait()
    await store.aclose()
    await asyncio.wait({put_task})
    assert isinstance(put_task.exception(), ClosedError)
    assert await asyncio.to_thread(stored_bodies, moto_server, bucket) == {"old": b"old"}


async def test_cancelled_close_during_a_probe_closes_the_connections(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    head_sent, deleting = asyncio.Event(), asyncio.Event()

    async def stall(method: str, target: str) -> None:
        if is_probe(target) and method == "HEAD":
            head_sent.set()
            await asyncio.Event().wait()
        if is_probe(target) and method == "DELETE":
            deleting.set()
            await asyncio.sleep(0.1)

    driver, loop = driver_of(moto_server), asyncio.get_running_loop()
    async with opened(driver):
        transports[-1].fault = stall
        put_task = loop.create_task(driver.put(bucket, "new", [], PutOptions(size=0, tags=TAGS)))
        await head_sent.wait()
        close_task = loop.create_task(driver.aclose())
        await deleting.wait()
        close_task.cancel()
        await asyncio.wait({close_task, put_task})
        assert close_task.cancelled()
        assert isinstance(put_task.exception(), ClosedError)
        assert transports[-1].closed


@pytest.mark.parametrize("status", [405, 501])
@pytest.mark.parametrize("write", ["put", "upload", "copy"])
async def test_rejected_head_of_a_probe_makes_the_write_fail(
    moto_server: S3Server, bucket: str, drop_headers: Any, write: str, status: int
) -> None:
    transports = drop_headers(drop_nothing)  # moto does not support SSE-C

    async def reject(method: str, target: str) -> FakeResponse | None:
        return response(status) if is_probe(target) and method == "HEAD" else None

    async with store_of(moto_server, sse_customer_key=bytes(32)) as store:
        transports[-1].fault = reject
        with pytest.raises(NotSupportedError, match="rejected a request that tests whether"):
            await WRITES[write](store, bucket)
    assert await asyncio.to_thread(stored_bodies, moto_server, bucket) == {"old": b"old"}


async def test_failed_delete_of_a_probe_is_retried(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    failed: set[str] = set()

    async def fail_once(method: str, target: str) -> FakeResponse | None:
        if method != "DELETE" or target in failed:
            return None
        failed.add(target)
        return response(503)

    async with store_of(moto_server) as store:
        transports[-1].fault = fail_once
        await store.put(bucket, "new", b"x", tags=TAGS)
    assert failed
    remaining = await asyncio.to_thread(stored_bodies, moto_server, bucket)
    assert remaining == {"old": b"old", "new": b"x"}


@pytest.mark.parametrize(
    ("ignored", "settings"),
    [(SSE, {"server_side_encryption": "AES256"}), ("x-amz-tagging", {})],
)
async def test_multipart_copy_probes_the_features_of_an_upload(
    moto_server: S3Server, bucket: str, drop_headers: Any, ignored: str, settings: dict[str, Any]
) -> None:
    async with store_of(moto_server) as plain_store:
        await plain_store.put(bucket, "large", LARGE, tags=TAGS)

    def ignores(name: str, headers: Mapping[str, str]) -> bool:
        # Only CreateMultipartUpload has the second header.
        return name == ignored and "x-amz-checksum-algorithm" in headers

    drop_headers(ignores)
    driver = driver_of(moto_server, **settings)
    pool = BufferPool(max_bytes=40 * MiB, part_size=5 * MiB)
    async with Trove(driver, pool=pool) as store:
        copier = Copier(
            driver._plane,
            driver._open_components.known_buckets.exists,
            max_single_copy=MiB,
            part_size=5 * MiB,
        )
        driver._components = replace(driver._open_components, copier=copier)
        for call in (store.copy, store.move):
            with pytest.raises(NotSupportedError, match="a multipart upload"):
                await call(bucket, "large", bucket, "new")
        assert not await store.exists(bucket, "new")
        assert (await store.head(bucket, "large")).tags == TAGS


async def test_conditions_are_probed_per_bucket_and_again_after_a_change_of_versioning(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers("if-none-match")
    other = f"{bucket}-2"
    driver = driver_of(moto_server)
    async with Trove(driver) as store:
        await store.create_bucket(other)
        transports[-1].ignores = drop_nothing
        await store.put(bucket, "new", b"x", if_none_match="*")
        transports[-1].ignores = lambda name, _: name == "if-none-match"
        with pytest.raises(NotSupportedError):
            await store.put(other, "new", b"x", if_none_match="*")
        await driver.set_versioning(bucket, enabled=True)
        with pytest.raises(NotSupportedError):
            await store.put(bucket, "newer", b"x", if_none_match="*")


@pytest.mark.parametrize(
    "event", ["versioning during a probe", "versioning with a lost response", "recreation"]
)
async def test_changed_bucket_is_probed_again(
    moto_server: S3Server, bucket: str, drop_headers: Any, event: str
) -> None:
    transports = drop_headers(drop_nothing)
    driver = driver_of(moto_server)
    name = f"{bucket}-2"
    async with Trove(driver) as store:
        await store.create_bucket(name)

        async def change(method: str, target: str) -> FakeResponse | None:
            if event == "versioning with a lost response" and "?versioning" in target:
                raise UnavailableError("lost")
            if event == "versioning during a probe" and is_probe(target) and method == "DELETE":
                transports[-1].fault = None
                transports[-1].ignores = lambda header, _: header == "if-none-match"
                await driver.set_versioning(name, enabled=True)
            return None

        transports[-1].fault = change
        if event != "versioning during a probe":
            await store.put(name, "first", b"x", if_none_match="*")
            transports[-1].ignores = lambda header, _: header == "if-none-match"
        if event == "versioning with a lost response":
            with pytest.raises(UnavailableError):
                await driver.set_versioning(name, enabled=True)
        if event == "recreation":
            await store.delete(name, "first")
            await asyncio.to_thread(boto3_client(moto_server).delete_bucket, Bucket=name)
            await store.create_bucket(name)
        with pytest.raises(NotSupportedError):
            await store.put(name, "new", b"x", if_none_match="*")


async def test_driver_whose_probe_failed_opens_in_another_event_loop(
    moto_server: S3Server, bucket: str
) -> None:
    driver = driver_of(moto_server)

    async def write(tags: Mapping[str, str]) -> None:
        async with Trove(driver) as store, asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(store.put(bucket, f"new/{number}", b"x", tags=tags))

    missing = f"{bucket}-missing"

    async def fail() -> None:
        loop = asyncio.get_running_loop()
        async with Trove(driver, create_missing_buckets=False) as store:
            puts = [loop.create_task(store.put(missing, "new", b"x", tags=TAGS)) for _ in range(4)]
            await asyncio.wait(puts)
            assert all(isinstance(put.exception(), BucketNotFoundError) for put in puts)
            assert not driver._open_components.write_checks._trials._locks

    await asyncio.to_thread(asyncio.run, fail())
    await asyncio.to_thread(asyncio.run, write(TAGS))


async def test_probe_object_with_an_undeletable_version_is_hidden(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)

    async def deny(method: str, target: str) -> FakeResponse | None:
        deletes_version = method == "DELETE" and "versionId" in target
        return error_response(403, "AccessDenied") if deletes_version else None

    driver = driver_of(moto_server)
    async with Trove(driver) as store:
        await driver.set_versioning(bucket, enabled=True)
        transports[-1].fault = deny
        await store.put(bucket, "new", b"x", tags=TAGS, if_none_match="*")
        assert [entry.key for entry in await store.list(bucket).all()] == ["new", "old"]


async def test_service_that_rejects_every_if_match_is_detected(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)
    async with store_of(moto_server) as store:
        info = await store.head(bucket, "old")
        sent: list[str] = []

        async def reject_matching_put(method: str, target: str) -> FakeResponse | None:
            sent.append(target)
            # The third put of the probe has the object's own ETag, so it should succeed.
            is_third_put = method == "PUT" and is_probe(target) and sent.count(target) == 3
            return error_response(412, "PreconditionFailed") if is_third_put else None

        transports[-1].fault = reject_matching_put
        with pytest.raises(NotSupportedError, match="if_match on a put"):
            await store.put(bucket, "old", b"x", if_match=info)


async def test_long_key_is_probed_with_a_shorter_one(moto_server: S3Server, bucket: str) -> None:
    for key in ("a/" * 511 + "ab", "é" * 512, f"{'b' * 1000}/{'c' * 23}"):
        async with store_of(moto_server) as store:
            await store.put(bucket, key, b"x", tags=TAGS)
            assert (await store.head(bucket, key)).tags == TAGS


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a", "NAME"),
        ("a/b", "a/NAME"),
        ("a/" * 511 + "ab", "a/" * 502 + "NAME"),
        (f"top/{'b' * 1000}/c", "top/NAME"),
        (f"{'é' * 505}/c", "NAME"),
    ],
)
def test_probe_key_is_next_to_the_key_if_it_fits(key: str, expected: str) -> None:
    assert sibling(key, "NAME") == expected


async def test_copy_with_a_rejected_option_is_not_repeated(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    transports = drop_headers(drop_nothing)

    async def reject(_method: str, target: str) -> FakeResponse | None:
        return error_response(400, "InvalidStorageClass") if target.endswith("/new") else None

    async with store_of(moto_server) as store:
        transports[-1].fault = reject
        before = transports[-1].requests
        with pytest.raises(NotSupportedError, match="InvalidStorageClass"):
            await store.copy(bucket, "old", bucket, "new", storage_class="BOGUS")
        assert transports[-1].requests - before == 2  # the HEAD of the source and the copy


async def test_metadata_change_is_refused_when_the_version_cannot_be_pinned(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    drop_headers(
        lambda name, headers: (
            name == "if-match" or (name == "x-amz-tagging" and "x-amz-copy-source" in headers)
        )
    )
    async with store_of(moto_server) as store:
        await store.put(bucket, "new", b"x", tags=TAGS)
        with pytest.raises(NotSupportedError, match="the version that was read"):
            await store.copy(bucket, "new", bucket, "new", metadata={"a": "b"})
        assert (await store.head(bucket, "new")).metadata == {}


@pytest.mark.parametrize(
    ("host", "is_amazon"),
    [
        ("s3.us-east-1.amazonaws.com", True),
        ("bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com", True),
        ("s3-accelerate.amazonaws.com", True),
        ("ap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", True),
        ("s3.cn-north-1.amazonaws.com.cn", True),
        ("s3express-use1-az4.us-east-1.amazonaws.com", False),
        ("amazonaws.com.example", False),
        ("notamazonaws.com", False),
        ("minio.example", False),
    ],
)
def test_amazon_is_recognised_by_its_host(host: str, is_amazon: bool) -> None:  # noqa: FBT001 - a parameter of the test
    endpoint = Endpoint.from_url(f"https://{host}", "us-east-1")
    service = Service("auto", endpoint, cast("Any", None))
    assert (service.dialect is AMAZON) is is_amazon


async def test_denied_probe_suggests_the_dialect(scripted_driver: Any) -> None:
    root, put = error_response(403, "AccessDenied"), error_response(403, "AccessDenied")
    _, opened_driver = scripted_driver(root, put, endpoint_url="http://h:9")
    async with opened_driver as driver:
        with pytest.raises(PermissionDeniedError, match=r"tags on a put.*dialect='s3'"):
            await driver.put("data", "key", [], PutOptions(tags=TAGS))


def cleanup_responses() -> list[FakeResponse]:
    """Return the responses to a listing of versions, which is rejected, a HEAD and a DELETE."""
    return [error_response(501, "NotImplemented"), response(headers=OBJECT_HEADERS), response(204)]


async def test_error_in_a_probe_makes_the_write_fail_and_is_not_cached(
    scripted_driver: Any,
) -> None:
    transport, opened_driver = scripted_driver(
        error_response(403, "AccessDenied"),
        *(
            response(headers=OBJECT_HEADERS),
            error_response(501, "NotImplemented"),
            *cleanup_responses(),
        ),
        *(
            response(headers=OBJECT_HEADERS),
            error_response(412, "PreconditionFailed"),
            *cleanup_responses(),
        ),
        response(headers=OBJECT_HEADERS),
        endpoint_url="http://h:9",
    )
    async with opened_driver as driver:
        with pytest.raises(NotSupportedError, match="501 NotImplemented"):
            await driver.put("data", "key", [], PutOptions(if_none_match="*"))
        assert not any(request.endswith("/data/key") for request in transport.request_lines)
        await driver.put("data", "key", [], PutOptions(if_none_match="*"))
    assert transport.request_lines[-1] == "PUT http://h:9/data/key"


@pytest.mark.parametrize("rejected", ["part", "completion"])
async def test_rejected_upload_request_does_not_prove_that_tags_are_honoured(
    moto_server: S3Server, bucket: str, drop_headers: Any, rejected: str
) -> None:
    transports = drop_headers("x-amz-tagging")

    async def reject(method: str, target: str) -> FakeResponse | None:
        is_part = method == "PUT" and "partNumber" in target
        is_completion = method == "POST" and "uploadId" in target
        is_rejected = is_part if rejected == "part" else is_completion
        return error_response(400, "EntityTooSmall") if is_rejected and is_probe(target) else None

    async with store_of(moto_server) as store:
        transports[-1].fault = reject
        with pytest.raises(NotSupportedError):
            await store.put(bucket, "new", LARGE, tags=TAGS)
    assert await asyncio.to_thread(stored_bodies, moto_server, bucket) == {"old": b"old"}


async def test_mapped_bucket_is_created_on_a_service_that_ignores_conditions(
    moto_server: S3Server, bucket: str, drop_headers: Any
) -> None:
    drop_headers("if-none-match")
    async with Trove(Mapped(driver_of(moto_server), into=bucket)) as store:
        await store.create_bucket("logical")
        await store.put("logical", "key", b"x")
        assert await store.read("logical", "key") == b"x"


@pytest.mark.parametrize(
    ("options", "etag"),
    [
        (GetOptions(if_match="old"), '"new"'),
        (GetOptions(if_none_match="old"), '"old"'),
    ],
)
async def test_ignored_condition_of_a_get_is_checked_by_the_driver(
    scripted_driver: Any, options: GetOptions, etag: str
) -> None:
    get_response = response(200, b"body", {**OBJECT_HEADERS, "etag": etag, "content-length": "4"})
    transport, opened_driver = scripted_driver(
        get_response, endpoint_url="http://h:9", dialect="s3"
    )
    async with opened_driver as driver:
        with pytest.raises(PreconditionFailedError, match="the current version has"):
            async with driver.get("data", "key", options):
                pytest.fail("the reader was opened")
    assert transport.returned_responses[0].closed


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("key", ["new", "a//b"])
async def test_probe_leaves_no_version_and_no_marker_on_seaweedfs(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, key: str, *, suspended: bool
) -> None:
    monkeypatch.setattr(_dialects, "_RECOGNISED_BY", ())
    name = f"features-{uuid4().hex[:20]}"
    driver = driver_of(seaweed)
    async with Trove(driver) as store:
        await store.create_bucket(name)
        await driver.set_versioning(name, enabled=True)
        if suspended:
            await driver.set_versioning(name, enabled=False)
        with contextlib.suppress(InvalidNameError):
            await store.put(name, key, b"x", tags=TAGS, if_none_match="*")
        remaining = [version.key async for version in store.list_versions(name)]
    assert remaining == (["new"] if key == "new" else [])


# -- SeaweedFS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 6 * MiB])
async def test_create_over_a_directory_of_seaweedfs_is_refused(
    seaweed: S3Server, size: int
) -> None:
    name = f"features-{uuid4().hex[:20]}"
    body = bytes(size)
    async with store_of(seaweed) as store:
        await store.create_bucket(name)
        await store.put(name, "a/b", b"x")
        with pytest.raises(NotSupportedError, match="treats a directory of that name"):
            await store.put(name, "a", body, if_none_match="*")
        await store.put(name, "a", b"y")
        with pytest.raises(ObjectExistsError):
            await store.put(name, "a", body, if_none_match="*")
        assert await store.read(name, "a/b") == b"x"


@pytest.mark.parametrize("status", [403, 503])
async def test_failed_create_raises_object_exists_when_the_head_fails(
    scripted_driver: Any, status: int
) -> None:
    rejected = error_response(412, "PreconditionFailed")
    _, opened_driver = scripted_driver(
        rejected, response(status), endpoint_url="http://h:9", dialect="seaweedfs"
    )
    async with opened_driver as driver:
        with pytest.raises(ObjectExistsError):
            await driver.put("data", "key", [], PutOptions(if_none_match="*"))


@pytest.mark.parametrize("write", ["put", "upload", "copy"])
async def test_seaweedfs_encrypts_or_the_write_is_refused(seaweed: S3Server, write: str) -> None:
    name = f"features-{uuid4().hex[:20]}"
    async with store_of(seaweed) as plain_store:
        await plain_store.create_bucket(name)
        await plain_store.put(name, "old", b"old")
    async with store_of(seaweed, server_side_encryption="AES256") as store:
        try:
            await WRITES[write](store, name)
        except NotSupportedError:
            assert [entry.key for entry in await store.list(name).all()] == ["old"]
        else:
            client = boto3_client(seaweed)
            head = await asyncio.to_thread(client.head_object, Bucket=name, Key="new")
            assert head["ServerSideEncryption"] == "AES256"


# -- pure functions --------------------------------------------------------------------------------


def test_features_of_a_write() -> None:
    everything = PutOptions(tags=TAGS, if_none_match="*")
    assert features_of("put", PutOptions(), encrypts=False) == frozenset()
    assert features_of("put", PutOptions(if_match="e"), encrypts=False) == {Feature.IF_MATCH}
    assert features_of("put", everything, encrypts=True) == {
        Feature.IF_NONE_MATCH, Feature.PUT_TAGS, Feature.PUT_ENCRYPTION
    }  # fmt: skip
    assert features_of("upload", everything, encrypts=True) == {
        Feature.UPLOAD_TAGS, Feature.UPLOAD_ENCRYPTION
    }  # fmt: skip
    assert features_of("copy", everything, encrypts=True) == {
        Feature.COPY_TAGS, Feature.COPY_ENCRYPTION
    }  # fmt: skip


def test_known_features_of_dialects() -> None:
    assert S3.honours == ALL
    assert not UNRECOGNISED.honours | UNRECOGNISED.ignores
    encryption = {feature for feature in Feature if "ENCRYPTION" in feature.name}
    # Ceph ignores conditions in versioned buckets.
    assert not CEPH.honours & {Feature.IF_MATCH, Feature.IF_NONE_MATCH}
    for dialect in (SEAWEEDFS, CEPH):
        # Whether the service encrypts depends on its configuration.
        assert not encryption & (dialect.honours | dialect.ignores)


ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd"
CUSTOMER_KEY = ObjectSettings(sse_customer_key=bytes(32))


@pytest.mark.parametrize(
    ("object_settings", "headers", "matches"),
    [
        ({"server_side_encryption": "AES256"}, {SSE: "AES256"}, True),
        ({"server_side_encryption": "AES256"}, {}, False),
        ({"server_side_encryption": "aws:kms"}, {SSE: "AES256"}, False),
        ({"server_side_encryption": "aws:kms"}, {SSE: "aws:kms"}, True),
        ({"kms_key_id": "1234abcd"}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": ARN}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": "alias/mine"}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": "alias/mine"}, {}, False),
        ({"kms_key_id": "1234abcd"}, {}, False),
        ({"kms_key_id": "1234abcd"}, {f"{SSE}-aws-kms-key-id": f"{ARN}ef"}, False),
        ({"kms_key_id": "abcd"}, {f"{SSE}-aws-kms-key-id": ARN}, False),
        ({"kms_key_id": ARN}, {f"{SSE}-aws-kms-key-id": "1234abcd"}, True),
        ({"kms_key_id": "mine"}, {f"{SSE}-aws-kms-key-id": "arn:aws:kms:mine"}, True),
        ({"bucket_key_enabled": True}, {}, True),
        ({"sse_customer_key": bytes(32)}, {}, False),
        ({"sse_customer_key": bytes(32)}, CUSTOMER_KEY.customer_key_headers, True),
        ({"sse_customer_key": bytes(range(32))}, CUSTOMER_KEY.customer_key_headers, False),
    ],
)
def test_encryption_headers_are_compared(
    object_settings: dict[str, Any],
    headers: Mapping[str, str],
    matches: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert ObjectSettings(**object_settings).encryption_matches(headers) is matches
