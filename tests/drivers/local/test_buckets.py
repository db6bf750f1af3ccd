"""Buckets are directories of the root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async.errors import BucketExistsError, BucketNotEmptyError, BucketNotFoundError
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, ListOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient
    from trove_async.drivers.local import LocalDriver

    Open = Callable[..., AbstractAsyncContextManager[LocalDriver]]


@pytest.mark.parametrize("folding", [False, True])
async def test_buckets_named_like_the_area_are_separate_from_it(
    tmp_path: Path, open_driver: Open, *, folding: bool
) -> None:
    names = [".trove", ".trove2", "%", "%.trove", "%=x", "B", "b", "=x", "\u00e9"]
    async with open_driver(tmp_path, folding=folding) as driver:
        for name in names:
            await driver.create_bucket(name)
            await driver.put(name, "staging", [memoryview(name.encode())], PutOptions())
        assert [bucket.name for bucket in await driver.list_buckets()] == sorted(names)
        for name in names:
            async with driver.get(name, "staging", GetOptions()) as reader:
                assert await reader.read(100) == name.encode()
            await driver.delete(name, "staging", DeleteOptions())
            await driver.delete_bucket(name)
        assert list(await driver.list_buckets()) == []


async def test_existing_bucket_cannot_be_created_again(client: BucketClient) -> None:
    with pytest.raises(BucketExistsError):
        await client.driver.create_bucket("b")


async def test_file_is_not_a_bucket(client: BucketClient) -> None:
    (client.root / "file").write_bytes(b"")
    with pytest.raises(BucketExistsError):
        await client.driver.create_bucket("file")
    with pytest.raises(BucketNotFoundError):
        await client.driver.head_bucket("file")
    assert [bucket.name for bucket in await client.driver.list_buckets()] == ["b"]


@pytest.mark.parametrize("key", ["plain", "dir/", "a//b"])
async def test_bucket_with_an_object_is_not_deleted(client: BucketClient, key: str) -> None:
    await client.put(key, b"x")
    with pytest.raises(BucketNotEmptyError):
        await client.driver.delete_bucket("b")
    assert await client.read(key) == b"x"


async def test_bucket_with_only_empty_directories_can_be_deleted(any_client: BucketClient) -> None:
    (any_client.bucket / "x/y/z").mkdir(parents=True)
    (any_client.root / ".trove/overflow/b/x").mkdir(parents=True)
    assert await any_client.keys() == []
    await any_client.driver.delete_bucket("b")
    assert not any_client.bucket.exists()


async def test_bucket_with_files_that_are_not_objects_is_not_deleted(client: BucketClient) -> None:
    (client.bucket / "x").mkdir()
    (client.bucket / "x/link").symlink_to("/etc/passwd")
    with pytest.raises(BucketNotEmptyError, match="not objects"):
        await client.driver.delete_bucket("b")


async def test_overflow_of_a_removed_bucket_does_not_come_back(client: BucketClient) -> None:
    await client.put("dir/", b"old")
    client.bucket.rmdir()
    with pytest.raises(BucketNotFoundError):
        await client.read("dir/")
    await client.driver.create_bucket("b")
    assert await client.keys() == []


@pytest.mark.parametrize("key", ["k", "d/k", "dir/"])
async def test_calls_raise_if_the_bucket_does_not_exist(client: BucketClient, key: str) -> None:
    driver = client.driver
    info = await client.put("k", b"x")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: driver.put("missing", key, [], PutOptions()),
        lambda: driver.head("missing", key),
        lambda: driver.get("missing", key, GetOptions()).__aenter__(),
        lambda: driver.delete("missing", key, DeleteOptions()),
        lambda: driver.delete_many("missing", [key]),
        lambda: driver.list_page("missing", ListOptions()),
        lambda: driver.head_bucket("missing"),
        lambda: driver.delete_bucket("missing"),
        lambda: driver.upload("missing", key, PutOptions()).__aenter__(),
        lambda: driver.copy("b", "k", "missing", key, CopyOptions(source=info, put=PutOptions())),
    ]
    for call in calls:
        with pytest.raises(BucketNotFoundError) as caught:
            await call()
        assert caught.value.bucket == "missing"
    assert client.own_files() == []
    assert not (client.root / "missing").exists()


async def test_own_area_is_not_a_bucket(client: BucketClient) -> None:
    with pytest.raises(BucketNotFoundError):
        await client.driver.head_bucket(".trove")
