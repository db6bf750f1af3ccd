"""Versions through both kinds of `Mapped`, under logical names."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.versioned_memory import VersionedMemory
from trove_async.drivers import MemoryDriver
from trove_async.errors import BucketNotFoundError, NotSupportedError
from trove_async.layers import Mapped
from trove_async.options import ListOptions
from trove_async.testing import DriverVersions, opened
from trove_async.testing._harness import delete, versions, write

if TYPE_CHECKING:
    from trove_async.driver import AsyncDriver


class TestIntoOneBucket(DriverVersions):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        self.inner = VersionedMemory()
        return Mapped(self.inner, into="everything", prefix="team")

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        del backend, bucket
        self.inner.versioned_buckets.add("everything")


class TestRenamedBuckets(DriverVersions):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        self.inner, self.numbers = VersionedMemory(), count()
        self.buckets = {f"b{n}": f"acme-b{9 - n}" for n in range(10)}
        return Mapped(self.inner, buckets=self.buckets)

    def bucket_name(self) -> str:
        return f"b{next(self.numbers)}"

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        del backend
        self.inner.versioned_buckets.add(self.buckets[bucket])


async def test_deleted_bucket_is_missing_although_versions_remain() -> None:
    inner = VersionedMemory()
    inner.versioned_buckets.add("all")
    async with opened(Mapped(inner, into="all")) as layer:
        for bucket in ("gone", "other"):
            await layer.create_bucket(bucket)
            await write(layer, bucket, "key")
        await delete(layer, "gone", "key")
        await layer.delete_bucket("gone")
        with pytest.raises(BucketNotFoundError) as caught:
            await versions(layer, "gone")
        assert caught.value.bucket == "gone"
        assert [(version.bucket, version.key) for version in await versions(layer, "other")] == [
            ("other", "key")
        ]


async def test_inner_driver_without_versions_is_not_supported() -> None:
    async with opened(Mapped(MemoryDriver(), into="all")) as layer:
        assert isinstance(layer, Mapped)
        with pytest.raises(NotSupportedError):
            await layer.version_page("data", ListOptions())
