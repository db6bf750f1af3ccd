"""Keys that cannot be file paths, and how they coexist with keys that can."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from trove_async import Trove
from trove_async.drivers.local import LocalDriver, _root
from trove_async.errors import ObjectExistsError, ObjectNotFoundError
from trove_async.options import DeleteOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

ODD_KEYS = [
    "a",
    "a/b",
    "a/b/c",
    "a/",
    "a//b",
    "/a",
    "/",
    "//",
    "dir/",
    "x.meta.json",
    "..foo",
    "foo..",
    "foo.",
    "foo. ",
    " ",
    "k" * 300,
    "k" * 300 + "/" + "l" * 300,
    "\u00e9",
    "e\u0301",
    "A",
    "%61",
    ".trove",
    ".trove/staging/0",
    "a\nb",
    "a\\b",
    "a:b*?",
    "con",
    "\u20ac" * 341,
    "z" * 1024,
    "\U0010ffff",
]


async def test_odd_keys_coexist(any_client: BucketClient) -> None:
    for key in random.sample(ODD_KEYS, len(ODD_KEYS)):
        await any_client.put(key, key.encode(), metadata={"k": key.encode().hex()[:600]})
    for key in ODD_KEYS:
        assert await any_client.read(key) == key.encode()
        info = await any_client.driver.head("b", key)
        assert info.metadata == {"k": key.encode().hex()[:600]}
    assert await any_client.keys() == sorted(ODD_KEYS)
    for key in random.sample(ODD_KEYS, len(ODD_KEYS)):
        await any_client.driver.delete("b", key, DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await any_client.read(key)
    assert await any_client.keys() == []
    assert list(any_client.bucket.iterdir()) == []
    assert list((any_client.root / ".trove" / "overflow").rglob("*.o")) == []
    assert any_client.own_files() == []


async def test_plain_key_is_a_plain_file(client: BucketClient) -> None:
    await client.put("logs/2024/app.log", b"line")
    assert (client.bucket / "logs/2024/app.log").read_bytes() == b"line"


async def test_delete_of_a_deep_key_leaves_no_directories(client: BucketClient) -> None:
    key = "/".join("d" * 300)
    await client.put(key, b"deep")
    assert await client.keys() == [key]
    assert await client.read(key) == b"deep"
    await client.driver.delete("b", key, DeleteOptions())
    assert list(client.bucket.iterdir()) == []


async def test_key_in_the_overflow_stays_there_while_it_exists(client: BucketClient) -> None:
    await client.put("a", b"file")
    await client.put("a/b", b"overflow")
    await client.driver.delete("b", "a", DeleteOptions())
    await client.put("a/b", b"still overflow")
    assert not (client.bucket / "a").exists()
    assert await client.read("a/b") == b"still overflow"
    await client.driver.delete("b", "a/b", DeleteOptions())
    await client.put("a/b", b"plain")
    assert (client.bucket / "a/b").read_bytes() == b"plain"


async def test_overflow_is_found_if_link_counts_do_not_show_subdirectories(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put("a", b"file")
    await client.put("a/b", b"overflow")
    root = client.driver._root
    assert root is not None
    monkeypatch.setattr(root, "is_local", False)
    links = (client.root / ".trove" / "overflow").stat().st_nlink
    monkeypatch.setattr(_root, "_NO_SUBDIRECTORIES", links)  # as if link counts were constant
    with pytest.raises(ObjectExistsError):
        await client.put("a/b", b"once more", if_none_match="*")
    await client.driver.delete("b", "a/b", DeleteOptions())
    assert await client.keys() == ["a"]


async def test_file_of_another_tool_takes_precedence_over_the_overflow(
    client: BucketClient,
) -> None:
    await client.put("a", b"file")
    await client.put("a/b", b"overflow")
    await client.driver.delete("b", "a", DeleteOptions())
    (client.bucket / "a").mkdir()
    (client.bucket / "a/b").write_bytes(b"foreign")
    assert await client.read("a/b") == b"foreign"
    assert await client.keys() == ["a/b"]
    await client.put("a/b", b"new")
    assert (client.bucket / "a/b").read_bytes() == b"new"
    assert list((client.root / ".trove" / "overflow").rglob("*.o")) == []


async def test_delete_removes_the_plain_file_and_the_one_in_the_overflow(
    client: BucketClient,
) -> None:
    await client.put("a", b"file")
    await client.put("a/b", b"overflow")
    await client.driver.delete("b", "a", DeleteOptions())
    (client.bucket / "a").mkdir()
    (client.bucket / "a/b").write_bytes(b"foreign")
    await client.driver.delete("b", "a/b", DeleteOptions())
    assert await client.keys() == []
    with pytest.raises(ObjectNotFoundError):
        await client.read("a/b")


async def test_place_returns_the_path_of_the_file(client: BucketClient) -> None:
    driver, root = client.driver, client.root.resolve()
    assert driver.place("b", "x/y") == ("file", f"{root}/b/x/y")
    assert driver.place("b", "x//y") == ("file", f"{root}/.trove/overflow/b/x%2f%2fy.o")


async def test_key_with_the_name_of_the_area_is_an_ordinary_object(tmp_path: Path) -> None:
    async with Trove(LocalDriver(tmp_path, fsync=False)) as store:
        await store.create_bucket("b")
        for key in (".trove", ".trove/locks", "a/.trove/x", "a/.trove2"):
            await store.put("b", key, key.encode())
        listed = [entry.key async for entry in store.list("b")]
        assert listed == sorted([".trove", ".trove/locks", "a/.trove/x", "a/.trove2"])
        for key in listed:
            assert await store.read("b", key) == key.encode()
        assert not (tmp_path / "b" / "a" / ".trove").exists()
