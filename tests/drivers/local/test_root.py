"""The root directory: unusable roots, links to roots, and a root inside another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trove_async import Trove
from trove_async.drivers.local import LocalDriver
from trove_async.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


async def test_unusable_root_is_a_config_error(tmp_path: Path, open_client: OpenClient) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root, settings in [("file", {}), ("file/x", {}), ("missing", {"mkdir": False})]:
        with pytest.raises(ConfigError, match=r"is not a directory|does not exist"):
            async with open_client(tmp_path / root, **settings):
                pass


async def test_root_can_be_a_symlink(tmp_path: Path, open_client: OpenClient) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with open_client(tmp_path / "link") as linked, open_client(tmp_path / "real") as real:
        await linked.put("k", b"x")
        assert await real.read("k") == b"x"
        assert linked.driver.place("b", "k") == real.driver.place("b", "k")
        async with open_client(tmp_path / "real" / "b") as nested:
            assert nested.driver.place("d", "k") == real.driver.place("b", "d/k")


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
