"""Publishing a file: exclusive creation, and the mode and group of the file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from trove_async.errors import ObjectExistsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


async def test_create_fails_if_another_tool_creates_the_file_first(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link_after_creation(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        (client.bucket / "k").write_bytes(b"foreign")
        real(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", link_after_creation)
    with pytest.raises(ObjectExistsError):
        await client.put("k", b"new", if_none_match="*")
    assert await client.read("k") == b"foreign"
    assert client.own_files() == []


async def test_create_works_without_hard_links(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "hard links are not supported")

    monkeypatch.setattr(os, "link", fail)
    await client.put("k", b"new", if_none_match="*")
    assert await client.read("k") == b"new"


async def test_files_and_directories_have_the_configured_modes(
    tmp_path: Path, open_client: OpenClient
) -> None:
    mask = os.umask(0)
    try:
        async with open_client(tmp_path, file_mode=0o640, dir_mode=0o750) as client:
            await client.put("d/k", b"x")
            assert (client.bucket / "d/k").stat().st_mode & 0o777 == 0o640
            assert (client.bucket / "d").stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(mask)


@pytest.mark.parametrize("fsync", [True, False])
async def test_files_in_a_setgid_directory_get_its_group(
    tmp_path: Path, open_client: OpenClient, *, fsync: bool
) -> None:
    groups = os.getgroups() if os.geteuid() else [54_321]  # the root user may choose any group
    other_group = next((group for group in groups if group != os.getegid()), None)
    if other_group is None:
        pytest.skip("needs root, or a user in two groups: only they can change a file's group")
    root = tmp_path / "root"
    async with open_client(root, fsync=fsync, file_mode=0o640, dir_mode=0o750) as client:
        await client.put("before", b"x")
        os.chown(root / "b", -1, other_group)
        (root / "b").chmod(0o2750)
        await client.put("plain", b"x", metadata={"by": "me"})
        await client.put("d/e/below", b"x")
        await client.put("once", b"x", if_none_match="*")
        await client.put("before", b"y")
        for key in ("plain", "d/e/below", "once", "before"):
            assert (root / "b" / key).stat().st_gid == other_group, key
        assert (root / "b/d/e").stat().st_gid == other_group
        assert (await client.driver.head("b", "plain")).metadata == {"by": "me"}


async def test_files_outside_a_setgid_directory_get_the_group_of_the_process(
    client: BucketClient,
) -> None:
    await client.put("plain", b"x")
    assert (client.bucket / "plain").stat().st_gid == os.getegid()
