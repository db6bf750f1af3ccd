"""The cache of buckets that exist, which distinguishes a missing object from a missing bucket."""

from __future__ import annotations

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async.drivers.gcs import GCSDriver
from trove_async.errors import BucketNotFoundError, ObjectNotFoundError
from trove_async.testing import opened


async def test_bucket_found_during_its_deletion_is_not_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gcs_server(InMemoryGCS()) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        buckets = driver._components.buckets
        delete = buckets.delete

        async def delete_after_another_request(bucket: str) -> None:
            with pytest.raises(ObjectNotFoundError):
                await driver.head(bucket, "key")
            await delete(bucket)

        monkeypatch.setattr(buckets, "delete", delete_after_another_request)
        await driver.delete_bucket("bucket")
        with pytest.raises(BucketNotFoundError):
            await driver.head("bucket", "key")
