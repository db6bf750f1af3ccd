"""Parts larger than half of the pool: streamed from a file, and read again on a retry."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.s3.proxied_store import boto3_client, operation_name, proxied_store
from tests.fakes import assert_idle
from tests.http_faults import Cut, Flip, Response, Stall
from tests.listening import behind_tls
from trove_async import BufferPool, IntegrityError, NotSupportedError, Trove, TroveError
from trove_async._concurrency import OwnedTask
from trove_async._engine.body_file import BodyFile
from trove_async.drivers import S3Driver
from trove_async.models import MiB

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.drivers.s3.proxied_store import ProxiedStore
    from trove_async.driver import Capabilities
    from trove_async.drivers.s3._dialects import Dialect
    from trove_async.testing.servers import S3Server

POOL = 16 * MiB
OLD = b"old"


class ThreePartDriver(S3Driver):
    """S3 with few parts, so that parts must be large as for objects of many terabytes."""

    part_limit = 3

    def _capabilities_of(self, dialect: Dialect) -> Capabilities:
        return replace(super()._capabilities_of(dialect), max_parts=self.part_limit)


class SixPartDriver(ThreePartDriver):
    part_limit = 6


def write_file(path: Path, size: int) -> bytes:
    """Write a file without repetitions, so that a shifted body is detected."""
    body = hashlib.shake_128(b"large").digest(size)
    path.write_bytes(body)
    return body


@pytest.fixture(scope="module")
def client(seaweed: S3Server) -> Any:
    return boto3_client(seaweed)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("streamed") / "large"
    return path, write_file(path, 27 * MiB + 1)  # three parts of slightly more than 9 MiB


@pytest_asyncio.fixture
async def proxied(seaweed: S3Server, client: Any) -> AsyncIterator[ProxiedStore]:
    pool = BufferPool(POOL, 5 * MiB)
    async with proxied_store(seaweed, client, driver_class=ThreePartDriver, pool=pool) as proxied:
        await proxied.put_directly("key", OLD)
        yield proxied
        assert pool.statistics().peak <= 8 * MiB
        assert pool.statistics().spilled_total == 0


async def test_file_is_sent_in_parts_larger_than_the_pool_holds(
    seaweed: S3Server, client: Any, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    body = await asyncio.to_thread(write_file, path, 60 * MiB)
    async with proxied_store(
        seaweed, client, driver_class=SixPartDriver, pool=BufferPool(POOL, 5 * MiB)
    ) as proxied:
        info = await proxied.store.put(proxied.bucket, "key", path)
        assert info.size == len(body)
        parts = [
            request for request in proxied.proxy.requests if operation_name(request) == "UploadPart"
        ]
        assert [int(request.headers["content-length"]) for request in parts] == [10 * MiB] * 6
        assert all(request.headers["x-amz-checksum-crc32c"] for request in parts)
        digests = {
            hashlib.sha256(body[at : at + 10 * MiB]).hexdigest()
            for at in range(0, len(body), 10 * MiB)
        }
        assert {request.headers["x-amz-content-sha256"] for request in parts} == digests
        assert await proxied.stored_body("key") == body
        assert proxied.store.pool.statistics().peak <= POOL


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_last_part_may_have_one_byte(
    seaweed: S3Server, client: Any, tmp_path: Path, over: int
) -> None:
    class Multiple(ThreePartDriver):
        def _capabilities_of(self, dialect: Dialect) -> Capabilities:
            return replace(super()._capabilities_of(dialect), part_multiple=9 * MiB)

    path = tmp_path / "large"
    body = await asyncio.to_thread(write_file, path, 18 * MiB + over)
    async with proxied_store(
        seaweed, client, driver_class=Multiple, pool=BufferPool(POOL, 5 * MiB)
    ) as proxied:
        await proxied.store.put(proxied.bucket, "key", path)
        assert proxied.operation_counts["UploadPart"] == (3 if over > 0 else 2)
        assert await proxied.stored_body("key") == body


@pytest.mark.parametrize(
    "fault",
    [
        Cut("request head"),
        Cut("request body", 0),
        Cut("request body", 5 * MiB),
        Cut("request body", 5 * MiB, reset=False),
        Cut("response head"),
        Response(503, {"Retry-After": "0"}),
    ],
    ids=["before", "at the first byte", "within", "closed within", "after", "error response"],
)
async def test_only_the_failed_part_is_resent(
    proxied: ProxiedStore, large: tuple[Path, bytes], fault: Any
) -> None:
    path, body = large
    reported: list[tuple[int, int | None]] = []
    proxied.proxy.arm(fault, method="PUT", target="*partNumber=2*")
    await proxied.store.put(
        proxied.bucket, "key", path, progress=lambda *figures: reported.append(figures)
    )
    numbers = sorted(
        request.query["partNumber"]
        for request in proxied.proxy.requests
        if operation_name(request) == "UploadPart"
    )
    assert numbers == ["1", "2", "2", "3"]
    assert await proxied.stored_body("key") == body
    assert reported == sorted(set(reported))
    assert reported[-1] == (len(body), len(body))
    assert len(reported) >= 27, "progress is reported while bytes are sent"


async def test_flipped_byte_of_a_part_is_never_stored(
    proxied: ProxiedStore, large: tuple[Path, bytes]
) -> None:
    proxied.proxy.arm(Flip("request body", 7 * MiB), target="*partNumber=2*", times=None)
    with pytest.raises(TroveError):
        await proxied.store.put(proxied.bucket, "key", large[0])
    assert await proxied.stored_body("key") == OLD
    assert await proxied.unfinished_uploads() == []


@pytest.mark.parametrize("at", ["request body", "response head"])
async def test_cancel_in_a_part_leaves_nothing(
    proxied: ProxiedStore, large: tuple[Path, bytes], at: Any
) -> None:
    byte = 5 * MiB if at == "request body" else 0
    stall = proxied.proxy.arm(Stall(at, byte), method="PUT", target="*partNumber=2*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", large[0]))
    await stall.reached.wait()
    await task.aclose()
    stall.release()
    await proxied.proxy.quiet()
    assert_idle(proxied.store)
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["CompleteMultipartUpload"] == 0


@pytest.mark.parametrize(
    "restore_time", [True, False], ids=["modification time restored", "modification time changed"]
)
async def test_file_that_changes_during_a_part_raises(
    proxied: ProxiedStore, tmp_path: Path, *, restore_time: bool
) -> None:
    path = tmp_path / "large"

    def change() -> None:
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(17 * MiB)  # in the second part, after the bytes already read
            file.write(b"changed")
        os.utime(path, ns=(1, status.st_mtime_ns if restore_time else status.st_mtime_ns + 1))

    await asyncio.to_thread(write_file, path, 27 * MiB + 1)
    stall = proxied.proxy.arm(Stall("request body", 1 * MiB), method="PUT", target="*partNumber=2*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", path))
    await stall.reached.wait()
    await asyncio.to_thread(change)
    stall.release()
    with pytest.raises(IntegrityError, match="changed while"):
        await task.result()
    await proxied.proxy.quiet()
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["CompleteMultipartUpload"] == 0


@pytest.mark.uvloop
async def test_file_is_read_twice_over_tls(
    seaweed: S3Server,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    large: tuple[Path, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, body = large
    offsets: list[int] = []
    read = BodyFile.read

    def recording_read(self: BodyFile, offset: int, view: memoryview) -> None:
        offsets.append(offset)
        read(self, offset, view)

    monkeypatch.setattr(BodyFile, "read", recording_read)
    server_tls, client_tls = tls
    async with behind_tls(seaweed.endpoint_url, server_tls) as url:
        driver = ThreePartDriver(
            region=seaweed.region,
            endpoint_url=url,
            access_key_id=seaweed.access_key_id,
            secret_access_key=seaweed.secret_access_key,
            tls=client_tls,
        )
        async with Trove(driver, pool=BufferPool(POOL, 5 * MiB)) as store:
            await store.create_bucket("streamed", exist_ok=True)
            info = await store.put("streamed", "key", path)
            assert info.checksums.keys() == {"crc32c"}
            assert set(Counter(offsets).values()) == {
                2
            }  # one pass for the checksum, one to send; no pass for a SHA-256
            assert await store.read("streamed", "key") == body
            assert_idle(store)


async def test_stream_that_needs_such_parts_is_refused_before_any_request(
    proxied: ProxiedStore,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("the stream is read")
        yield b""

    proxied.clear_requests()
    with pytest.raises(NotSupportedError, match="at most 25165824 bytes can be sent: pass a path"):
        await proxied.store.put(proxied.bucket, "key", body(), size=27 * MiB)
    assert proxied.operations == []


async def test_sdk_plane_refuses_such_parts(
    moto_server: S3Server, large: tuple[Path, bytes]
) -> None:
    driver = ThreePartDriver(
        region=moto_server.region,
        endpoint_url=moto_server.endpoint_url,
        access_key_id=moto_server.access_key_id,
        secret_access_key=moto_server.secret_access_key,
        data_plane="sdk",
    )
    async with Trove(driver, pool=BufferPool(POOL, 5 * MiB)) as store:
        await store.create_bucket("streamed", exist_ok=True)
        with pytest.raises(NotSupportedError, match="BufferPool"):
            await store.put("streamed", "refused", large[0])
        assert not await store.exists("streamed", "refused")


async def test_service_without_checksums_receives_the_same_bytes(
    moto_server: S3Server, large: tuple[Path, bytes]
) -> None:
    path, body = large
    driver = ThreePartDriver(
        region=moto_server.region,
        endpoint_url=moto_server.endpoint_url,
        access_key_id=moto_server.access_key_id,
        secret_access_key=moto_server.secret_access_key,
        checksums=False,
    )
    async with Trove(driver, pool=BufferPool(POOL, 5 * MiB)) as store:
        await store.create_bucket("streamed", exist_ok=True)
        await store.put("streamed", "key", path)
        assert await store.read("streamed", "key") == body
        assert_idle(store)
