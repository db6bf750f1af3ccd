"""One root inside another: the area of a driver never appears as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trove_async import Trove
from trove_async.drivers import LocalDriver

if TYPE_CHECKING:
    from pathlib import Path


async def test_outer_root_lists_the_objects_of_an_inner_root_but_not_its_area(
    tmp_path: Path,
) -> None:
    inner = LocalDriver(tmp_path / "a", fsync=False)
    async with Trove(LocalDriver(tmp_path, fsync=False), backends={"inner": inner}) as store:
        nested = store.backend("inner")
        await nested.create_bucket("b")
        await nested.put("b", "k", b"plain")
        await nested.put("b", "other", b"keeps the directory, which is the bucket")
        await nested.put("b", "k/x", b"in the overflow")
        outer = [entry.key async for entry in store.list("a")]
        assert outer == ["b/k", "b/other"]
        await store.delete("a", "b/k")
        assert [entry.key async for entry in nested.list("b")] == ["k/x", "other"]
        assert await nested.read("b", "k/x") == b"in the overflow"


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
