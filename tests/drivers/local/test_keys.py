"""Keys that a file system cannot hold as they are, beside those it can."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.local import _root
from trove_async.errors import ObjectExistsError, ObjectNotFoundError
from trove_async.options import DeleteOptions

if TYPE_CHECKING:
    from tests.drivers.local.conftest import Shop

ODD = [
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


async def test_odd_keys_coexist(any_shop: Shop) -> None:
    order = random.sample(ODD, len(ODD))
    for key in order:
        await any_shop.put(key, key.encode(), metadata={"k": key.encode().hex()[:600]})
    for key in ODD:
        assert await any_shop.read(key) == key.encode()
        info = await any_shop.driver.head("b", key)
        assert info.metadata == {"k": key.encode().hex()[:600]}
    assert await any_shop.keys() == sorted(ODD)
    for key in random.sample(ODD, len(ODD)):
        await any_shop.driver.delete("b", key, DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await any_shop.read(key)
    assert await any_shop.keys() == []
    assert list(any_shop.bucket.iterdir()) == []
    assert list((any_shop.root / ".trove" / "overflow").rglob("*.o")) == []
    assert any_shop.own_files() == []


async def test_plain_key_is_a_plain_file(shop: Shop) -> None:
    await shop.put("logs/2024/app.log", b"line")
    assert (shop.bucket / "logs/2024/app.log").read_bytes() == b"line"


async def test_deep_keys_leave_no_directories(shop: Shop) -> None:
    key = "/".join("d" * 300)
    await shop.put(key, b"deep")
    assert await shop.keys() == [key]
    assert await shop.read(key) == b"deep"
    await shop.driver.delete("b", key, DeleteOptions())
    assert list(shop.bucket.iterdir()) == []


async def test_key_in_the_overflow_stays_there_while_it_exists(shop: Shop) -> None:
    await shop.put("a", b"file")
    await shop.put("a/b", b"hidden")
    await shop.driver.delete("b", "a", DeleteOptions())
    await shop.put("a/b", b"hidden still")
    assert not (shop.bucket / "a").exists()
    assert await shop.read("a/b") == b"hidden still"
    await shop.driver.delete("b", "a/b", DeleteOptions())
    await shop.put("a/b", b"plain")
    assert (shop.bucket / "a/b").read_bytes() == b"plain"


async def test_overflow_is_found_where_every_directory_has_two_links(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.put("a", b"file")
    await shop.put("a/b", b"hidden")
    root = shop.driver._root
    assert root is not None
    monkeypatch.setattr(root, "is_local", False)
    links = (shop.root / ".trove" / "overflow").stat().st_nlink
    monkeypatch.setattr(_root, "_NO_SUBDIRECTORIES", links)  # as if it told nothing
    with pytest.raises(ObjectExistsError):
        await shop.put("a/b", b"once more", if_none_match="*")
    await shop.driver.delete("b", "a/b", DeleteOptions())
    assert await shop.keys() == ["a"]


async def test_file_of_another_tool_wins_over_the_overflow(shop: Shop) -> None:
    await shop.put("a", b"file")
    await shop.put("a/b", b"hidden")
    await shop.driver.delete("b", "a", DeleteOptions())
    (shop.bucket / "a").mkdir()
    (shop.bucket / "a/b").write_bytes(b"theirs")
    assert await shop.read("a/b") == b"theirs"
    assert await shop.keys() == ["a/b"]
    await shop.put("a/b", b"ours")
    assert (shop.bucket / "a/b").read_bytes() == b"ours"
    assert list((shop.root / ".trove" / "overflow").rglob("*.o")) == []


async def test_delete_removes_both_places(shop: Shop) -> None:
    await shop.put("a", b"file")
    await shop.put("a/b", b"hidden")
    await shop.driver.delete("b", "a", DeleteOptions())
    (shop.bucket / "a").mkdir()
    (shop.bucket / "a/b").write_bytes(b"theirs")
    await shop.driver.delete("b", "a/b", DeleteOptions())
    assert await shop.keys() == []
    with pytest.raises(ObjectNotFoundError):
        await shop.read("a/b")


async def test_places_are_paths(shop: Shop) -> None:
    driver, top = shop.driver, shop.root.resolve()
    assert driver.place("b", "x/y") == ("file", f"{top}/b/x/y")
    assert driver.place("b", "x//y") == ("file", f"{top}/.trove/overflow/b/x%2f%2fy.o")
