"""The custom time of an object, which can only move forward."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS, RejectedError
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async import Trove
from trove_async.drivers.gcs import GCSDriver
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    NotSupportedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.options import CopyOptions, DeleteOptions, PutOptions
from trove_async.testing import opened
from trove_async.testing._harness import write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.drivers.gcs.in_memory_gcs import StoredObject
    from trove_async.testing.servers import GCSServer

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def open_driver(service: InMemoryGCS) -> AsyncIterator[GCSDriver]:
    async with gcs_server(service) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        await write(driver, "bucket", "a/key", metadata={"old": "yes"})
        yield driver


def custom_time(service: InMemoryGCS) -> datetime | None:
    value = service.buckets["bucket"]["a/key"].fields.get("customTime")
    return None if value is None else datetime.fromisoformat(value)


async def test_custom_time_is_set_and_moves_forward() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        before = await driver.head("bucket", "a/key")
        local_noon = NOON.astimezone(timezone(timedelta(hours=2)))
        for when in (NOON, local_noon, NOON + timedelta(microseconds=1), NOON + timedelta(days=1)):
            await driver.set_custom_time("bucket", "a/key", when)
            assert custom_time(service) == when
        assert await driver.head("bucket", "a/key") == before


async def test_custom_time_never_moves_back() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        await driver.set_custom_time("bucket", "a/key", NOON)
        with pytest.raises(
            NotSupportedError, match="must not be before the current custom time, 2026-06-01T12"
        ):
            await driver.set_custom_time("bucket", "a/key", NOON - timedelta(seconds=1))
        assert custom_time(service) == NOON


async def test_custom_time_honours_if_match() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        info = await driver.head("bucket", "a/key")
        await driver.set_custom_time("bucket", "a/key", NOON, if_match=info)
        await driver.set_custom_time("bucket", "a/key", NOON, if_match=info.etag)
        await write(driver, "bucket", "a/key")
        with pytest.raises(PreconditionFailedError):
            await driver.set_custom_time("bucket", "a/key", NOON, if_match=info)
        assert custom_time(service) is None


async def test_if_match_of_object_without_etag_raises() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        info = replace(await driver.head("bucket", "a/key"), etag=None)
        with pytest.raises(ValueError, match="has no etag"):
            await driver.set_custom_time("bucket", "a/key", NOON, if_match=info)
        assert custom_time(service) is None


@pytest.mark.parametrize("dst_key", ["copy", "a/key"])
async def test_copy_keeps_custom_time_of_source(dst_key: str) -> None:
    service = InMemoryGCS()
    async with gcs_server(service) as url, Trove(GCSDriver(endpoint_url=url)) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "a/key", b"body", metadata={"old": "yes"})
        service.patch("bucket", "a/key", {"customTime": "2026-06-01T12:00:00.5Z"}, {})
        copied = await store.copy("bucket", "a/key", "bucket", dst_key, metadata={"new": "yes"})
        assert copied.metadata == {"new": "yes"}
        assert service.buckets["bucket"][dst_key].fields["customTime"] == "2026-06-01T12:00:00.5Z"
        await store.move("bucket", dst_key, "bucket", "moved")
        assert service.buckets["bucket"]["moved"].fields["customTime"] == "2026-06-01T12:00:00.5Z"


async def test_copy_without_custom_time_has_none_and_without_source_raises() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        source = await driver.head("bucket", "a/key")
        options = CopyOptions(source=source, put=PutOptions())
        await driver.copy("bucket", "a/key", "bucket", "copy", options)
        assert "customTime" not in service.buckets["bucket"]["copy"].fields
        await driver.delete("bucket", "a/key", DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await driver.copy("bucket", "a/key", "bucket", "copy", options)
        with pytest.raises(BucketNotFoundError):
            await driver.copy("no-bucket", "a/key", "bucket", "copy", options)


class RacingGCS(InMemoryGCS):
    """A service on which another client changes or replaces an object just before a patch."""

    def __init__(self, *, replaces: bool) -> None:
        super().__init__()
        self.replaces = replaces

    def patch(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        if self.replaces:
            self.insert(bucket, {"name": name}, b"other", {})
        else:
            super().patch(bucket, name, {"cacheControl": "no-store"}, {})
        return super().patch(bucket, name, fields, query)


@pytest.mark.parametrize("replaces", [True, False])
async def test_custom_time_of_concurrently_changed_object_is_not_set(replaces: bool) -> None:  # noqa: FBT001 - a parameter
    service = RacingGCS(replaces=replaces)
    async with open_driver(service) as driver:
        with pytest.raises(ObjectChangedError, match="its custom time was not set"):
            await driver.set_custom_time("bucket", "a/key", NOON)
        assert custom_time(service) is None


async def test_missing_object_naive_time_and_closed_driver_raise() -> None:
    async with open_driver(InMemoryGCS()) as driver:
        with pytest.raises(ObjectNotFoundError):
            await driver.set_custom_time("bucket", "none", NOON)
        with pytest.raises(BucketNotFoundError):
            await driver.set_custom_time("no-bucket", "a/key", NOON)
        with pytest.raises(ValueError, match="time zone"):
            await driver.set_custom_time("bucket", "a/key", datetime(2026, 6, 1))  # noqa: DTZ001 - the time must be naive
    with pytest.raises(ClosedError):
        await driver.set_custom_time("bucket", "a/key", NOON)


async def test_malformed_custom_time_is_unavailable() -> None:
    service = InMemoryGCS()
    async with open_driver(service) as driver:
        service.patch("bucket", "a/key", {"customTime": "noon"}, {})
        with pytest.raises(UnavailableError, match="is malformed"):
            await driver.set_custom_time("bucket", "a/key", NOON)


def test_in_memory_service_rejects_earlier_custom_time() -> None:
    service = InMemoryGCS()
    service.create_bucket("bucket")
    service.insert("bucket", {"name": "key"}, b"", {})
    service.patch("bucket", "key", {"customTime": NOON.isoformat()}, {})
    with pytest.raises(RejectedError):
        service.patch("bucket", "key", {"customTime": "2026-01-01T00:00:00Z"}, {})


async def test_emulator_stores_custom_time(fake_gcs: GCSServer) -> None:
    async with opened(driver := GCSDriver(endpoint_url=fake_gcs.endpoint_url)):
        await driver.create_bucket("custom-times")
        await write(driver, "custom-times", "a/key")
        await driver.set_custom_time("custom-times", "a/key", NOON)
        await driver.set_custom_time("custom-times", "a/key", NOON + timedelta(hours=1))
        with pytest.raises(NotSupportedError, match="2026-06-01T13"):
            await driver.set_custom_time("custom-times", "a/key", NOON)
