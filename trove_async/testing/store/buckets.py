"""Conformance tests of bucket calls and deletes.

A call that needs an existing bucket must raise BucketNotFoundError with the name of the bucket if it
is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from trove_async import (
    BackendNotFoundError,
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    InvalidNameError,
    Trove,
    TroveError,
)
from trove_async.testing.store._base import StoreTopic
from trove_async.testing.store.bodies import async_chunks

Call = Callable[[Trove, str], Awaitable[Any]]


async def _delete_many(store: Trove, bucket: str) -> None:
    await store.delete_many(bucket, ["key"])


CALLS: list[tuple[str, Call]] = [
    ("put", lambda store, bucket: store.put(bucket, "key", b"body")),
    ("empty put", lambda store, bucket: store.put(bucket, "key", b"")),
    (
        "put of an async iterator",
        lambda store, bucket: store.put(bucket, "key", async_chunks(b"body")),
    ),
    (
        "put of several parts",
        lambda store, bucket: store.put(bucket, "key", bytes(store.pool.part_size + 1)),
    ),
    ("get", lambda store, bucket: store.get(bucket, "key").__aenter__()),
    ("read", lambda store, bucket: store.read(bucket, "key")),
    ("head", lambda store, bucket: store.head(bucket, "key")),
    ("exists", lambda store, bucket: store.exists(bucket, "key")),
    ("delete", lambda store, bucket: store.delete(bucket, "key")),
    ("delete_many", _delete_many),
    ("list", lambda store, bucket: store.list(bucket).all()),
    ("copy", lambda store, bucket: store.copy(bucket, "key", bucket, "other")),
    ("move", lambda store, bucket: store.move(bucket, "key", bucket, "other")),
    ("delete_bucket", lambda store, bucket: store.delete_bucket(bucket)),
]


class StoreBuckets(StoreTopic):
    """`create_bucket`, `delete_bucket`, `list_buckets`, `delete`, `delete_many` and `health`."""

    @pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
    async def test_missing_bucket_raises_bucket_not_found(self, store: Trove, call: Call) -> None:
        missing = self.bucket_name()
        with pytest.raises(BucketNotFoundError) as caught:
            await call(store, missing)
        assert caught.value.bucket == missing
        # The call must not have created the bucket.
        assert missing not in [info.name for info in await store.list_buckets()]

    async def test_creating_an_existing_bucket_raises(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"body")
        with pytest.raises(BucketExistsError):
            await store.create_bucket(bucket)
        await store.create_bucket(bucket, exist_ok=True)
        assert await store.read(bucket, "key") == b"body"

    async def test_bucket_is_created_on_the_chosen_backends(self, store: Trove) -> None:
        name = self.bucket_name()
        with pytest.raises(BackendNotFoundError):
            await store.create_bucket(name, backends=["nowhere"])
        await store.create_bucket(name, backends="all")
        (info,) = [bucket for bucket in await store.list_buckets() if bucket.name == name]
        assert set(info.backends) == set(await store.health())
        await store.delete_bucket(name)
        with pytest.raises(BucketNotFoundError):
            await store.list(name).all()

    async def test_buckets_are_listed_by_name(
        self, store: Trove, bucket: str, other_bucket: str
    ) -> None:
        names = [info.name for info in await store.list_buckets()]
        assert names == sorted(set(names))
        assert {bucket, other_bucket} <= set(names)

    async def test_bucket_with_an_object_is_not_deleted(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "dir/key", b"body")
        with pytest.raises(BucketNotEmptyError):
            await store.delete_bucket(bucket)
        assert await store.read(bucket, "dir/key") == b"body"

    async def test_deleted_bucket_can_be_created_again(self, store: Trove) -> None:
        name = self.bucket_name()
        for _ in range(2):
            await store.create_bucket(name)
            await store.put(name, "key", b"body")
            await store.delete(name, "key")
            await store.delete_bucket(name)
            with pytest.raises(BucketNotFoundError):
                await store.exists(name, "key")

    async def test_delete_is_idempotent(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"body")
        await store.put(bucket, "key/below", b"body")
        # The second delete finds no object. On a file system it may find a directory.
        for _ in range(2):
            await store.delete(bucket, "key")
            assert [entry.key for entry in await store.list(bucket).all()] == ["key/below"]

    async def test_delete_many_reports_every_key(self, store: Trove, bucket: str) -> None:
        names = [f"{number:04}" for number in range(30)]
        for key in [*names, "other"]:
            await store.put(bucket, key, b"")
        # Deleting a missing object succeeds, and a bad key must not stop the other deletes.
        requested = [*names[:20], "missing", "bad\0"]
        results = [result async for result in store.delete_many(bucket, requested)]
        assert [result.key for result in results] == requested
        errors = {result.key: result.error for result in results if result.error is not None}
        assert errors.keys() == {"bad\0"}
        assert isinstance(errors["bad\0"], InvalidNameError)
        remaining = [entry.key for entry in await store.list(bucket).all()]
        assert sorted(remaining) == [*names[20:], "other"]

    async def test_awaited_delete_many_raises_its_errors(self, store: Trove, bucket: str) -> None:
        for key in ("a", "b", "c"):
            await store.put(bucket, key, b"")

        async def two_keys() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        await store.delete_many(bucket, two_keys())
        assert [entry.key for entry in await store.list(bucket).all()] == ["c"]
        with pytest.raises(InvalidNameError):
            await store.delete_many(bucket, ["c", ""])
        with pytest.raises(ExceptionGroup) as caught:
            await store.delete_many(bucket, ["", "x\0"])
        assert all(isinstance(error, TroveError) for error in caught.value.exceptions)
        await store.delete_many(bucket, [])
        # A str is refused: its characters would be taken as keys.
        with pytest.raises(TypeError):
            store.delete_many(bucket, "key")
        assert await store.list(bucket).all() == []

    async def test_health_reports_healthy_backends(self, store: Trove) -> None:
        health = await store.health()
        assert health
        assert all(status.ok and status.error is None for status in health.values())
