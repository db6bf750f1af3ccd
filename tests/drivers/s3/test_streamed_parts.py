"""Parts larger than half of the pool: they are streamed from a file, and read again for a retry."""

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
    """Allows few parts, so that each is large, like the parts of an object of many terabytes."""

    part_limit = 3

    def _capabilities_of(self, dialect: Dialect) -> Capabilities:
        return replace(super()._capabilities_of(dialect), max_parts=self.part_limit)


class SixPartDriver(ThreePartDriver):
    part_limit = 6


def write_file(path: Path, size: int) -> bytes:
    """Write and return a body without repetitions, so that shifted bytes are detected."""
    body = hashlib.shake_128(b"large").digest(size)
    path.write_bytes(body)
    return body


@pytest.fixture(scope="module")
def client(seaweed: S3Server) -> Any:
    return boto3_client(seaweed)


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
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


async def test_file_is_sent_in_parts_larger_than_half_of_the_pool(
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
            hashlib.sha256(body[offset : offset + 10 * MiB]).hexdigest()
            for offset in range(0, len(body), 10 * MiB)
        }
        assert {request.headers["x-amz-content-sha256"] for request in parts} == digests
        assert await proxied.stored_body("key") == body
        assert proxied.store.pool.statistics().peak <= POOL


@pytest.mark.parametrize("extra_bytes", [-1, 0, 1])
async def test_last_part_may_have_one_byte(
    seaweed: S3Server, client: Any, tmp_path: Path, extra_bytes: int
) -> None:
    class PartMultipleDriver(ThreePartDriver):
        def _capabilities_of(self, dialect: Dialect) -> Capabilities:
            return replace(super()._capabilities_of(dialect), part_multiple=9 * MiB)

    path = tmp_path / "large"
    body = await asyncio.to_thread(write_file, path, 18 * MiB + extra_bytes)
    async with proxied_store(
        seaweed, client, driver_class=PartMultipleDriver, pool=BufferPool(POOL, 5 * MiB)
    ) as proxied:
        await proxied.store.put(proxied.bucket, "key", path)
        assert proxied.operation_counts["UploadPart"] == (3 if extra_bytes > 0 else 2)
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
    ids=["head", "first byte", "in the body", "closed in the body", "response", "error response"],
)
async def test_only_the_failed_part_is_resent(
    proxied: ProxiedStore, large_file: tuple[Path, bytes], fault: Any
) -> None:
    path, body = large_file
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
    proxied: ProxiedStore, large_file: tuple[Path, bytes]
) -> None:
    proxied.proxy.arm(Flip("request body", 7 * MiB), target="*partNumber=2*", times=None)
    with pytest.raises(TroveError):
        await proxied.store.put(proxied.bucket, "key", large_file[0])
    assert await proxied.stored_body("key") == OLD
    assert await proxied.unfinished_uploads() == []


@pytest.mark.parametrize("point", ["request body", "response head"])
async def test_cancel_in_a_part_leaves_the_old_object(
    proxied: ProxiedStore, large_file: tuple[Path, bytes], point: Any
) -> None:
    byte = 5 * MiB if point == "request body" else 0
    stall = proxied.proxy.arm(Stall(point, byte), method="PUT", target="*partNumber=2*")
    task = OwnedTask(proxied.store.put(proxied.bucket, "key", large_file[0]))
    await stall.reached.wait()
    await task.aclose()
    stall.release()
    await proxied.proxy.wait_until_idle()
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
            file.seek(17 * MiB)  # in the second part, after the bytes read so far
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
    await proxied.proxy.wait_until_idle()
    assert await proxied.unfinished_uploads() == []
    assert await proxied.stored_body("key") == OLD
    assert proxied.operation_counts["CompleteMultipartUpload"] == 0


@pytest.mark.uvloop
async def test_file_is_read_twice_over_tls(
    seaweed: S3Server,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    large_file: tuple[Path, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, body = large_file
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
            # Each block is read once for the checksum and once to send it, but not for a SHA-256.
            assert set(Counter(offsets).values()) == {2}
            assert await store.read("streamed", "key") == body
            assert_idle(store)


async def test_stream_that_requires_larger_parts_raises_before_any_request(
    proxied: ProxiedStore,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("the stream is read")
        yield b""

    proxied.clear_requests()
    with pytest.raises(NotSupportedError, match="at most 25165824 bytes can be sent: pass a path"):
        await proxied.store.put(proxied.bucket, "key", body(), size=27 * MiB)
    assert proxied.operations == []


async def test_sdk_plane_does_not_stream_parts(
    moto_server: S3Server, large_file: tuple[Path, bytes]
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
            await store.put("streamed", "unsupported", large_file[0])
        assert not await store.exists("streamed", "unsupported")


async def test_parts_are_streamed_to_a_service_without_checksums(
    moto_server: S3Server, large_file: tuple[Path, bytes]
) -> None:
    path, body = large_file
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
