"""Puts and deletes of single objects, and deletes of many."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from trove_async.errors import IntegrityError, ObjectExistsError, PreconditionFailedError
from trove_async.models import MiB
from trove_async.options import DeleteOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


async def test_many_views_are_joined_into_one_body(client: BucketClient) -> None:
    chunks = [os.urandom(1 + number % 7) for number in range(3000)]
    chunks += [os.urandom(3 * MiB) for _ in range(3)]
    await client.driver.put("b", "k", [memoryview(chunk) for chunk in chunks], PutOptions())
    assert await client.read("k") == b"".join(chunks)


async def test_short_writes_are_continued(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: real(fd, [views[0][:5]], offset))
    await client.driver.put("b", "k", [memoryview(b"0123456789"), memoryview(b"abc")], PutOptions())
    assert await client.read("k") == b"0123456789abc"


@pytest.mark.parametrize("key", ["k", "d/k", "dir/"])
async def test_conditions_of_put_get_and_delete_are_checked(
    any_client: BucketClient, key: str
) -> None:
    driver = any_client.driver
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"0", if_match="x")
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match="x"))
    assert list(any_client.bucket.iterdir()) == []
    first = await any_client.put(key, b"1", if_none_match="*")
    with pytest.raises(ObjectExistsError):
        await any_client.put(key, b"2", if_none_match="*")
    second = await any_client.put(key, b"2", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"3", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"3", if_none_match=second.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.read(key, if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.read(key, if_none_match=second.etag)
    assert await any_client.read(key, if_match=second.etag, if_none_match=first.etag) == b"2"
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match=first.etag))
    await driver.delete("b", key, DeleteOptions(if_match=second.etag))
    await driver.delete("b", key, DeleteOptions())
    assert any_client.own_files() == []


async def test_body_with_a_wrong_checksum_is_rejected(client: BucketClient) -> None:
    with pytest.raises(IntegrityError):
        await client.put("k", b"body", checksums={"crc32c": "AAAAAA=="})
    assert await client.keys() == []
    assert client.own_files() == []


async def test_delete_many_reports_each_key(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ["a", "b/c", "dir/", "immutable"]:
        await client.put(key, b"x")
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "immutable":
            raise PermissionError(errno.EPERM, "immutable")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    results = await client.driver.delete_many("b", ["a", "missing", "b/c", "dir/", "immutable"])
    assert [(result.key, type(result.error).__name__) for result in results] == [
        ("a", "NoneType"),
        ("missing", "NoneType"),
        ("b/c", "NoneType"),
        ("dir/", "NoneType"),
        ("immutable", "PermissionDeniedError"),
    ]
    assert await client.keys() == ["immutable"]
