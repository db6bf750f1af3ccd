"""A bucket that keeps versions: each is read, looked at and deleted by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3._lean import LeanPlane
from trove_async.errors import ObjectNotFoundError
from trove_async.models import DeleteOptions, GetOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from trove_async.testing.servers import S3Server

ENABLED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


async def test_versions_are_told_apart(seaweed: S3Server) -> None:
    bucket = f"versions-{uuid4().hex[:20]}"
    driver = S3Driver(
        region=seaweed.region,
        endpoint_url=seaweed.endpoint_url,
        access_key_id=seaweed.access_key_id,
        secret_access_key=seaweed.secret_access_key,
        dialect="seaweedfs",
    )

    async def read(version_id: str | None) -> bytes:
        async with driver.get(bucket, "key", GetOptions(version_id=version_id)) as reader:
            return await reader.read(100)

    async with opened(driver):
        await driver.create_bucket(bucket)
        plane = driver._plane
        assert isinstance(plane, LeanPlane)
        answer = await plane._client.send(
            "PUT", bucket, query="versioning", headers={}, views=[memoryview(ENABLED)]
        )
        answer.close()
        old, new = [
            await driver.put(bucket, "key", [memoryview(body)], PutOptions())
            for body in (b"old", b"new one")
        ]
        assert old.version_id
        assert new.version_id not in {None, old.version_id}
        assert [await read(None), await read(old.version_id)] == [b"new one", b"old"]
        assert (await driver.head(bucket, "key", old.version_id)).size == 3
        await driver.delete(bucket, "key", DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await driver.head(bucket, "key")
        assert await read(new.version_id) == b"new one"
        await driver.delete(bucket, "key", DeleteOptions(version_id=new.version_id))
        with pytest.raises(ObjectNotFoundError):
            await read(new.version_id)
        assert await read(old.version_id) == b"old"
