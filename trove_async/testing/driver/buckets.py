"""Conformance tests of bucket calls, and of other calls on a missing bucket.

A call that needs an existing bucket must raise BucketNotFoundError if the bucket is missing. It must
not report a missing object instead, and must not create the bucket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trove_async.driver import AsyncDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    InvalidNameError,
    ObjectNotFoundError,
)
from trove_async.options import CopyOptions, ListOptions, PutOptions
from trove_async.testing._harness import (
    bulk_deleting,
    copying,
    delete,
    keys,
    read,
    upload,
    uploading,
    write,
)
from trove_async.testing.driver._base import DriverTopic, needs

Call = Callable[[AsyncDriver, str], Awaitable[Any]]

CALLS: list[tuple[str, Call]] = [
    ("head_bucket", lambda driver, bucket: driver.head_bucket(bucket)),
    ("delete_bucket", lambda driver, bucket: driver.delete_bucket(bucket)),
    ("put", lambda driver, bucket: write(driver, bucket, "key")),
    ("empty put", lambda driver, bucket: write(driver, bucket, "key", b"")),
    ("get", lambda driver, bucket: read(driver, bucket, "key")),
    ("head", lambda driver, bucket: driver.head(bucket, "dir/key")),
    ("delete", lambda driver, bucket: delete(driver, bucket, "key")),
    ("list_page", lambda driver, bucket: driver.list_page(bucket, ListOptions())),
    ("list_page with a prefix", lambda driver, bucket: keys(driver, bucket, prefix="a/")),
]


class DriverBuckets(DriverTopic):
    """`create_bucket`, `delete_bucket`, `head_bucket` and `list_buckets`."""

    @pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
    async def test_missing_bucket_raises_bucket_not_found(
        self, backend: AsyncDriver, call: Call
    ) -> None:
        missing = self.bucket_name()
        with pytest.raises(BucketNotFoundError) as caught:
            await call(backend, missing)
        assert not caught.value.retryable
        # The call must not have created the bucket.
        with pytest.raises(BucketNotFoundError):
            await backend.head_bucket(missing)

    async def test_upload_into_a_missing_bucket_raises_on_entering(
        self, backend: AsyncDriver
    ) -> None:
        needs(backend, "upload")
        # It must raise on entering, so that the store does not read a body that cannot be stored.
        context = uploading(backend).upload(self.bucket_name(), "key", PutOptions())
        with pytest.raises(BucketNotFoundError):
            await context.__aenter__()

    async def test_bulk_delete_in_a_missing_bucket_raises(self, backend: AsyncDriver) -> None:
        needs(backend, "bulk_delete")
        with pytest.raises(BucketNotFoundError):
            await bulk_deleting(backend).delete_many(self.bucket_name(), ["key"])

    async def test_copy_from_or_into_a_missing_bucket_raises(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "server_copy")
        options = CopyOptions(source=await write(backend, bucket, "key"), put=PutOptions())
        missing = self.bucket_name()
        with pytest.raises(BucketNotFoundError):
            await copying(backend).copy(bucket, "key", missing, "key", options)
        with pytest.raises(BucketNotFoundError):
            await copying(backend).copy(missing, "key", bucket, "other", options)
        assert await keys(backend, bucket) == ["key"]

    async def test_new_bucket_exists_and_is_empty(self, backend: AsyncDriver, bucket: str) -> None:
        info = await backend.head_bucket(bucket)
        assert info.name == bucket
        assert info.created is None or info.created.utcoffset() is not None
        assert await keys(backend, bucket) == []
        with pytest.raises(ObjectNotFoundError):
            await backend.head(bucket, "key")

    async def test_creating_an_existing_bucket_raises(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key")
        with pytest.raises(BucketExistsError):
            await backend.create_bucket(bucket)
        assert await read(backend, bucket, "key") == b"body"

    async def test_buckets_are_listed_by_name(
        self, backend: AsyncDriver, bucket: str, other_bucket: str
    ) -> None:
        names = [info.name for info in await backend.list_buckets()]
        assert names == sorted(set(names), key=str.encode)
        assert {bucket, other_bucket} <= set(names)

    async def test_deleted_bucket_is_gone_and_can_be_created_again(
        self, backend: AsyncDriver
    ) -> None:
        name = self.bucket_name()
        # Twice: a deleted bucket must not affect a later bucket with the same name.
        for _ in range(2):
            await backend.create_bucket(name)
            await write(backend, name, "dir/key")
            await delete(backend, name, "dir/key")
            await backend.delete_bucket(name)
            assert name not in [info.name for info in await backend.list_buckets()]
            with pytest.raises(BucketNotFoundError):
                await backend.head_bucket(name)

    # A driver on a file system may treat a directory without visible files as empty.
    @pytest.mark.parametrize("key", ["key", "dir/key", ".hidden", "dir/.hidden"])
    async def test_bucket_with_an_object_is_not_deleted(
        self, backend: AsyncDriver, bucket: str, key: str
    ) -> None:
        await write(backend, bucket, key)
        with pytest.raises(BucketNotEmptyError):
            await backend.delete_bucket(bucket)
        assert await read(backend, bucket, key) == b"body"
        await backend.head_bucket(bucket)

    async def test_bucket_with_only_an_aborted_upload_can_be_deleted(
        self, backend: AsyncDriver
    ) -> None:
        needs(backend, "upload")
        name = self.bucket_name()
        await backend.create_bucket(name)
        with pytest.raises(ZeroDivisionError):
            async with uploading(backend).upload(name, "dir/key", PutOptions()):
                raise ZeroDivisionError
        await upload(backend, name, "other/key", b"body")
        await delete(backend, name, "other/key")
        await backend.delete_bucket(name)

    async def test_same_key_in_two_buckets_is_two_objects(
        self, backend: AsyncDriver, bucket: str, other_bucket: str
    ) -> None:
        await write(backend, bucket, "key", b"one")
        await write(backend, other_bucket, "key", b"two")
        await delete(backend, other_bucket, "key")
        assert await read(backend, bucket, "key") == b"one"
        with pytest.raises(ObjectNotFoundError):
            await backend.head(other_bucket, "key")

    @pytest.mark.parametrize(
        "name", ["Upper", "with space", "dots.in.it", "..dots", "%2F", "bücher", "a+b", "_"]
    )
    async def test_odd_bucket_name_is_kept_or_refused(
        self, backend: AsyncDriver, name: str
    ) -> None:
        # Services have special rules for the start and the end of a name, so the odd part is at both.
        name = f"{name}-{self.bucket_name()}-{name}"
        try:
            await backend.create_bucket(name)
        except InvalidNameError:
            with pytest.raises((BucketNotFoundError, InvalidNameError)):
                await backend.head_bucket(name)
            return
        assert name in [info.name for info in await backend.list_buckets()]
        await write(backend, name, "key")
        assert await keys(backend, name) == ["key"]
        await delete(backend, name, "key")
        await backend.delete_bucket(name)
