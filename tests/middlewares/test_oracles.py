"""Other implementations read the stored bytes of every driver, and a store reads theirs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pyzstd

from tests.middlewares.tink_streams import TinkStreams
from tests.transformed_objects import compressible, stream
from trove_async import BufferPool, Trove
from trove_async._engine.records import Applied, format_records
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.middlewares._seekable_zstd import write_table
from trove_async.models import RECORDS, KiB, MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async import AsyncDriver, Middleware
    from trove_async.testing.servers import GCSServer, S3Server

KEY = bytes(range(32))
BODY = compressible(20 * MiB)
SMALL_SIZES = [0, 1, 64 * KiB - 57, 64 * KiB - 56, 64 * KiB - 55, 64 * KiB, 64 * KiB + 1]


@pytest.fixture(params=["memory", "local", "s3", "gcs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncDriver:
    match request.param:
        case "memory":
            return MemoryDriver()
        case "local":
            return LocalDriver(tmp_path)
        case "s3":
            s3: S3Server = request.getfixturevalue("seaweed")
            return S3Driver(
                region=s3.region,
                endpoint_url=s3.endpoint_url,
                access_key_id=s3.access_key_id,
                secret_access_key=s3.secret_access_key,
            )
        case _:
            gcs: GCSServer = request.getfixturevalue("fake_gcs")
            return GCSDriver(endpoint_url=gcs.endpoint_url, project=gcs.project)


async def test_zstd_reads_a_body_that_was_sent_in_parts(driver: AsyncDriver) -> None:
    bucket = f"oracle-{uuid4()}"
    pool = BufferPool(32 * MiB, part_size=5 * MiB)
    async with Trove(driver, middleware=[Compression()], pool=pool) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "known", BODY)
        await store.put(bucket, "unknown", stream(BODY))
        for key in ("known", "unknown"):
            stored = await store.read(bucket, key, decode=False)
            assert pyzstd.decompress(stored) == BODY
            with pyzstd.SeekableZstdFile(io.BytesIO(stored)) as file:
                file.seek(15_000_000)
                assert file.read(100) == BODY[15_000_000:15_000_100]
            assert await store.read(bucket, key) == BODY


async def test_tink_reads_a_body_that_was_sent_in_parts(driver: AsyncDriver) -> None:
    bucket = f"oracle-{uuid4()}"
    encryption = Encryption(Keyring({"key": KEY}))
    pool = BufferPool(32 * MiB, part_size=5 * MiB)
    async with Trove(driver, middleware=[encryption], pool=pool) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "known", BODY)
        await store.put(bucket, "unknown", stream(BODY))
        for key in ("known", "unknown"):
            stored = await store.read(bucket, key, decode=False)
            assert TinkStreams(KEY, MiB).decrypt(stored, b"") == BODY
            assert await store.read(bucket, key) == BODY


async def test_tink_and_zstd_read_a_body_that_was_compressed_and_encrypted(
    driver: AsyncDriver,
) -> None:
    bucket = f"oracle-{uuid4()}"
    stack: list[Middleware] = [
        Compression(frame_size=64 * KiB),
        Encryption(Keyring({"key": KEY})),
    ]
    async with Trove(driver, middleware=stack) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "key", BODY[: 3 * MiB])
        stored = await store.read(bucket, "key", decode=False)
        compressed = TinkStreams(KEY, MiB).decrypt(stored, b"")
        assert pyzstd.decompress(compressed) == BODY[: 3 * MiB]


@pytest.mark.parametrize("size", SMALL_SIZES)
async def test_store_reads_what_tink_has_encrypted(driver: AsyncDriver, size: int) -> None:
    bucket = f"oracle-{uuid4()}"
    encrypted = TinkStreams(KEY, 64 * KiB).encrypt(BODY[:size], b"")
    salt = base64.b64encode(encrypted[1:40]).decode()
    record: dict[str, str | int | bool] = {"segment_size": 64 * KiB, "key_id": "key", "salt": salt}
    records = format_records([Applied("aes256-gcm-hkdf", record)])
    async with Trove(driver, middleware=[Encryption(Keyring({"key": KEY}))]) as store:
        await store.create_bucket(bucket)
        await driver.put(
            bucket, "key", [memoryview(encrypted)], PutOptions(metadata={RECORDS: records})
        )
        assert (await store.head(bucket, "key")).size == size
        assert await store.read(bucket, "key") == BODY[:size]


async def test_store_reads_frames_that_another_library_has_compressed(driver: AsyncDriver) -> None:
    bucket = f"oracle-{uuid4()}"
    options: dict[int, int] = {
        pyzstd.CParameter.checksumFlag: 1,
        pyzstd.CParameter.compressionLevel: 9,
    }
    body = BODY[: 200 * KiB]
    frames = [
        pyzstd.compress(body[at : at + 64 * KiB], options) for at in range(0, 200 * KiB, 64 * KiB)
    ]
    table = write_table([len(frame) for frame in frames], len(body), 64 * KiB)
    data = b"".join([*frames, table])
    records = format_records([Applied("zstd", {"frame_size": 64 * KiB})])
    async with Trove(driver) as store:
        await store.create_bucket(bucket)
        await driver.put(bucket, "key", [memoryview(data)], PutOptions(metadata={RECORDS: records}))
        assert (await store.head(bucket, "key")).size == len(body)
        assert await store.read(bucket, "key") == body
        assert await store.read(bucket, "key", range=(100_000, 100_010)) == body[100_000:100_010]
