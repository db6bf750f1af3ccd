"""Files that other tools create or change in the root."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from trove_async.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError
from trove_async.options import DeleteOptions

if TYPE_CHECKING:
    from tests.drivers.local.conftest import BucketClient


async def test_foreign_file_is_an_object(any_client: BucketClient) -> None:
    (any_client.bucket / "d").mkdir()
    (any_client.bucket / "d/f.txt").write_bytes(b"foreign")
    assert await any_client.keys() == ["d/f.txt"]
    info = await any_client.driver.head("b", "d/f.txt")
    assert (info.size, info.checksums, info.metadata) == (7, {}, {})
    assert await any_client.read("d/f.txt", if_match=info.etag) == b"foreign"
    with pytest.raises(ObjectExistsError):
        await any_client.put("d/f.txt", b"new", if_none_match="*")
    await any_client.put("d/f.txt", b"new", if_match=info.etag, metadata={"a": "b"})
    assert (await any_client.driver.head("b", "d/f.txt")).metadata == {"a": "b"}


async def test_file_changed_in_place_has_no_metadata(any_client: BucketClient) -> None:
    before = await any_client.put("f", b"new", metadata={"a": "b"})
    with (any_client.bucket / "f").open("r+b") as file:
        file.write(b"NEW")
    after = await any_client.driver.head("b", "f")
    assert after.etag != before.etag
    assert (after.metadata, after.checksums, after.write_id) == ({}, {}, None)
    assert await any_client.read("f") == b"NEW"
    with pytest.raises(PreconditionFailedError):
        await any_client.put("f", b"", if_match=before.etag)


async def test_listing_and_head_return_the_same_etag(any_client: BucketClient) -> None:
    await any_client.put("own", b"1")
    (any_client.bucket / "foreign").write_bytes(b"2")
    for entry in await any_client.objects():
        info = await any_client.driver.head("b", entry.key)
        assert (entry.etag, entry.last_modified) == (info.etag, info.last_modified)
        assert (entry.complete, info.complete) == (False, True)


async def test_only_regular_files_are_objects(any_client: BucketClient) -> None:
    bucket = any_client.bucket
    outside = any_client.root.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    (bucket / "link").symlink_to(outside / "f")
    (bucket / "broken").symlink_to(outside / "missing")
    (bucket / "dir").symlink_to(outside)
    os.mkfifo(bucket / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(bucket / "socket"))
    (bucket / os.fsdecode(b"bad\xff")).write_bytes(b"")
    (bucket / "empty").mkdir()
    assert await any_client.keys() == []
    assert await any_client.keys(delimiter="/") == []
    for key in ["link", "broken", "dir", "dir/f", "fifo", "socket", "empty", "fifo/x"]:
        with pytest.raises(ObjectNotFoundError):
            await any_client.driver.head("b", key)
        with pytest.raises(ObjectNotFoundError):
            await any_client.read(key)
        await any_client.driver.delete("b", key, DeleteOptions())
    for key in ["link", "dir/f", "fifo", "socket", "empty"]:
        await any_client.put(key, key.encode(), if_none_match="*")
        assert await any_client.read(key) == key.encode()
    assert (outside / "f").read_bytes() == b"secret"
    assert (bucket / "link").readlink() == outside / "f"
    assert await any_client.keys() == sorted(["link", "dir/f", "fifo", "socket", "empty"])


async def test_foreign_path_longer_than_a_key_is_not_listed(client: BucketClient) -> None:
    deep = client.bucket
    for _ in range(5):
        deep = deep / ("d" * 250)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"")
    (deep.parent.parent / "ok").write_bytes(b"")
    assert await client.keys() == ["/".join(["d" * 250] * 3) + "/ok"]


async def test_file_with_a_time_in_the_far_future_is_listed(client: BucketClient) -> None:
    (client.bucket / "f").write_bytes(b"")
    os.utime(client.bucket / "f", ns=(0, 2**62 * 2 - 1))
    info = await client.driver.head("b", "f")
    assert info.last_modified.year in {2262, 9999}
    assert [entry.key for entry in await client.entries()] == ["f"]
