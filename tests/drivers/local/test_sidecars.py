"""Metadata records in sidecars."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.drivers.local._metadata import Metadata
from trove_async.drivers.local._openat2 import ConfinedDirectory
from trove_async.drivers.local._sidecars import Sidecars
from trove_async.errors import ObjectNotFoundError
from trove_async.options import DeleteOptions, GetOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

LARGE = {f"name-{number}": "v" * 1000 for number in range(8)}


async def test_record_too_large_for_an_attribute_is_kept_in_a_sidecar(
    any_client: BucketClient,
) -> None:
    await any_client.put("k", b"1", metadata=LARGE)
    assert (await any_client.driver.head("b", "k")).metadata == LARGE
    await any_client.put("k", b"2", metadata={**LARGE, "more": "x"})
    assert (await any_client.driver.head("b", "k")).metadata == {**LARGE, "more": "x"}
    assert await any_client.read("k") == b"2"
    await any_client.put("k", b"3")
    assert (await any_client.driver.head("b", "k")).metadata == {}
    await any_client.driver.delete("b", "k", DeleteOptions())
    assert any_client.own_files() == []


async def test_body_is_readable_if_its_sidecar_is_lost_or_corrupt(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
        (sidecar,) = (tmp_path / ".trove/meta").iterdir()
        sidecar.write_bytes(b"corrupt")
        assert (await client.driver.head("b", "k")).metadata == {}
        sidecar.unlink()
        assert (await client.driver.head("b", "k")).metadata == {}
        assert await client.read("k") == b"body"


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_concurrent_replace_or_delete_of_a_sidecar_is_noticed(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    async with (
        open_client(tmp_path, xattrs=False) as client,
        open_client(tmp_path, xattrs=False) as other,
    ):
        await client.put("k", b"old", metadata={"a": "old"})
        read, loop = Sidecars.read, asyncio.get_running_loop()

        def read_after_change(*arguments: Any) -> Metadata:
            """Change the object after its file is opened and before its record is read."""
            monkeypatch.setattr(Sidecars, "read", read)
            call = (
                other.put("k", b"new", metadata={"a": "new"})
                if change == "replaced"
                else other.driver.delete("b", "k", DeleteOptions())
            )
            asyncio.run_coroutine_threadsafe(call, loop).result(10)
            return read(*arguments)

        monkeypatch.setattr(Sidecars, "read", read_after_change)
        if change == "deleted":
            with pytest.raises(ObjectNotFoundError):
                await client.read("k")
            return
        async with client.driver.get("b", "k", GetOptions()) as reader:
            assert (await reader.read(10), reader.info.metadata) == (b"new", {"a": "new"})


async def test_backup_keeps_the_sidecar_of_each_file(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path / "root", xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    async with open_client(tmp_path / "copy", xattrs=False) as client:
        assert (await client.driver.head("b", "k")).metadata == {"a": "b"}


async def test_copy_by_another_tool_does_not_share_the_sidecar(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
        shutil.copy2(client.bucket / "k", client.bucket / "copy")
        assert (await client.driver.head("b", "copy")).metadata == {}
        await client.put("copy", b"new")
        await client.driver.delete("b", "copy", DeleteOptions())
        assert (await client.driver.head("b", "k")).metadata == {"a": "b"}


async def test_files_with_equal_times_have_separate_sidecars(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([1_000_000_000, 1_000_000_000, 1_000_000_001])
    async with open_client(tmp_path, xattrs=False) as client:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: next(moments))
            await client.put("k", b"1", metadata={"a": "1"})
            await client.put("l", b"2", metadata={"a": "2"})
        for key, number in [("k", "1"), ("l", "2")]:
            assert (await client.driver.head("b", key)).metadata == {"a": number}


async def test_sidecars_without_their_file_are_removed(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        for key in ["existing", "dir/", "removed", "changed", "recent"]:
            await client.put(key, key.encode(), metadata={"k": key})
        (client.bucket / "removed").unlink()
        (client.bucket / "changed").write_bytes(b"foreign")
        (client.bucket / "recent").unlink()
        (tmp_path / ".trove/meta/garbage").write_bytes(b"garbage")
        old = time.time() - 3600
        for sidecar in (tmp_path / ".trove/meta").iterdir():
            if b"recent" not in sidecar.read_bytes():
                os.utime(sidecar, (old, old))
    async with open_client(tmp_path, xattrs=False) as client:
        # A recent sidecar stays, because its file may still be staged.
        assert len(list((tmp_path / ".trove/meta").iterdir())) == 3
        for key in ["existing", "dir/"]:
            assert (await client.driver.head("b", key)).metadata == {"k": key}


async def test_sidecar_of_a_file_that_cannot_be_opened_is_kept(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
    (sidecar,) = (tmp_path / ".trove/meta").iterdir()
    old = time.time() - 3600
    os.utime(sidecar, (old, old))
    real = ConfinedDirectory.open

    def fail_to_open_the_file(directory: ConfinedDirectory, path: str, flags: int) -> int:
        if path == "b/k":
            raise OSError(errno.EMFILE, "too many open files")
        return real(directory, path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(ConfinedDirectory, "open", fail_to_open_the_file)
        async with open_client(tmp_path, xattrs=False):
            pass
    async with open_client(tmp_path, xattrs=False) as client:
        assert (await client.driver.head("b", "k")).metadata == {"a": "b"}
