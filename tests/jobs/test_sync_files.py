"""The files of a sync: hostile keys, links, special files, changes meanwhile, full disks and cancels."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle
from tests.jobs.trees import OLD, make, objects, read, store_with
from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.errors import InvalidNameError, PermissionDeniedError
from trove_async.jobs import sync
from trove_async.jobs._sync import source_files, target_files, walk
from trove_async.jobs._sync.paths import (
    FolderConflicts,
    check_path,
    is_temporary,
    temporary_name,
)
from trove_async.models import MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LARGE = b"large" * MiB


@pytest.fixture
async def fake() -> Fake:
    return Fake()


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[Trove]:
    async with store_with(fake) as opened:
        yield opened


async def put_raw(driver: MemoryDriver, key: str, body: bytes) -> None:
    """Store an object under a key that the store refuses."""
    await driver.put("data", key, [memoryview(body)] if body else [], PutOptions())


# -- hostile keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "../evil",
        "a/../../evil",
        "a/..",
        "..",
        ".",
        "a/./b",
        "/etc/evil",
        "//evil",
        "a//b",
        "folder/.trove-sync-0123456789abcdef.part",
    ],
)
async def test_keys_that_are_no_paths_are_errors(
    fake: Fake, store: Trove, tmp_path: Path, key: str
) -> None:
    await store.put("data", "good", b"1")
    await put_raw(fake, "x/" + key, b"evil")
    await put_raw(fake, "x/good", b"1")
    out = tmp_path / "deep" / "out"

    report = await sync(store.bucket("data"), out, source_prefix="x")

    assert report.errors["InvalidNameError"].keys == (key,)
    assert report.failed == 1
    assert read(tmp_path) == {"deep/out/good": b"1"}


@pytest.mark.parametrize(
    "key", ["a\\b", "c:x", "C:/x", "con", "x/NUL.txt", "a.", "b ", "a?b", "x:y"]
)
def test_keys_that_windows_reads_differently_are_refused_there(key: str) -> None:
    check_path(key, windows=False)
    with pytest.raises(InvalidNameError):
        check_path(key, windows=True)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        *((key, "'.' or '..' segment") for key in [".", "./a", "a/.", "a/./b"]),
        *((key, "'.' or '..' segment") for key in ["..", "../a", "a/..", "a/../b", "a/../../b"]),
        *((key, "absolute") for key in ["/", "/a", "//a", "/../a"]),
        *((key, "empty segment") for key in ["", "a/", "a//b"]),
        *((key, "temporary file") for key in [temporary_name(), "a/" + temporary_name()]),
    ],
    ids=lambda value: None if "trove-sync" not in value else "temporary",
)
def test_keys_that_lead_elsewhere_are_refused_by_themselves(key: str, reason: str) -> None:
    # The store refuses some of them as well.
    with pytest.raises(InvalidNameError, match=reason):
        check_path(key)


@pytest.mark.parametrize("key", ["a\0b", "a/\ud800"])
def test_keys_that_no_file_can_have_are_refused(key: str) -> None:
    with pytest.raises(InvalidNameError):
        check_path(key)


@pytest.mark.parametrize("key", ["console", "a/b.c/d", "...", "..a", "a..", "-", "~", "a b", "\n"])
def test_odd_keys_that_are_paths_are_allowed(key: str) -> None:
    check_path(key)


async def test_odd_names_survive_both_directions(store: Trove, tmp_path: Path) -> None:
    names = [
        "...",
        "..a",
        "-rf",
        "~",
        "a b",
        " ",
        "#?%2F&",
        "\n",
        "\\",
        "\x7f",
        "\u202e",
        "é" * 100,
    ]
    files = {f"{name}/{name}": name.encode() for name in names}
    make(tmp_path / "in", files)

    up = await sync(tmp_path / "in", store.bucket("data"))
    down = await sync(store.bucket("data"), tmp_path / "out")

    assert (up.ok, down.ok) == (True, True), (up, down)
    assert read(tmp_path / "out") == files


async def test_key_that_is_a_file_and_a_folder_is_an_error(store: Trove, tmp_path: Path) -> None:
    for key in ["a", "a-b", "a/b", "a/c/d", "b/c", "b/c/d", "b/c.d"]:
        await store.put("data", key, key.encode())

    first = await sync(store.bucket("data"), tmp_path)
    second = await sync(store.bucket("data"), tmp_path)

    assert first.errors["NotADirectoryError"].keys == ("a/b", "a/c/d", "b/c/d")
    assert (first.changed, second.unchanged, second.failed) == (4, 4, 3)
    assert set(read(tmp_path)) == {"a", "a-b", "b/c", "b/c.d"}


def test_folder_conflicts_are_found_far_apart() -> None:
    conflicts = FolderConflicts()
    keys = ["a", "a!", "a!/x", "a-", "a.b", "a/b", "a/b/c", "a0", "b"]
    assert [conflicts.file_above(key) for key in keys] == [
        None,
        None,
        "a!",
        None,
        None,
        "a",
        "a",
        None,
        None,
    ]
    assert len(conflicts._starts) == 1


async def test_names_that_a_file_system_treats_as_equal_are_an_error(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_files, "_folds_names", lambda _directory: True)
    exists = target_files._exists
    monkeypatch.setattr(
        target_files,
        "_exists",
        lambda name, directory: any(
            exists(variant, directory) for variant in (name, name.lower(), name.upper())
        ),
    )
    await store.put("data", "README", b"1")
    await store.put("data", "readme", b"2")

    report = await sync(store.bucket("data"), tmp_path, concurrency=1)

    assert report.errors["FileExistsError"].keys == ("readme",)
    assert read(tmp_path) == {"README": b"1"}


def test_file_system_that_keeps_case_is_recognised(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not target_files._folds_names(descriptor)
    finally:
        os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


async def test_name_that_is_too_long_is_an_error(store: Trove, tmp_path: Path) -> None:
    await store.put("data", "x" * 256, b"1")
    await store.put("data", "y/" + "x" * 300 + "/z", b"1")
    await store.put("data", "good", b"1")

    report = await sync(store.bucket("data"), tmp_path)

    assert report.failed == 2
    assert read(tmp_path) == {"good": b"1"}


# -- links in the target ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"evil", LARGE])
@pytest.mark.parametrize("delete", [False, True])
async def test_download_never_writes_through_a_link(
    store: Trove,
    tmp_path: Path,
    body: bytes,
    delete: bool,  # noqa: FBT001 - a parameter
) -> None:
    outside = make(tmp_path / "outside", {"file": b"mine", "kept": b"mine"})
    target = make(tmp_path / "target", {"x/y": b""})
    (target / "folder").symlink_to(outside)
    (target / "deep").mkdir()
    (target / "deep" / "link").symlink_to("../../outside")
    (target / "single").symlink_to(outside / "file")
    for key in ["folder/file", "deep/link/new", "deep/link/sub/new", "single"]:
        await store.put("data", key, body)

    report = await sync(store.bucket("data"), target, delete=delete)

    assert read(outside) == {"file": b"mine", "kept": b"mine"}
    assert (target / "single").read_bytes() == body
    assert not (target / "single").is_symlink()
    if (
        delete
    ):  # the links are deleted, because no object has their keys, and directories take their places
        assert report.ok, report
        assert read(target) == {
            "folder/file": body,
            "deep/link/new": body,
            "deep/link/sub/new": body,
            "single": body,
        }
    else:
        assert report.errors["NotADirectoryError"].count == 3
        assert (target / "folder").is_symlink()


async def test_delete_never_follows_a_link(store: Trove, tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", {"file": b"mine"})
    target = make(tmp_path / "target", {"x": b"1"})
    (target / "folder").symlink_to(outside)
    (target / "dangling").symlink_to("nowhere")

    report = await sync(store.bucket("data"), target, delete=True, allow_empty=True)

    assert (report.deleted, report.ok) == (3, True)
    assert read(outside) == {"file": b"mine"}
    assert list(target.iterdir()) == []


async def test_directory_replaced_by_a_link_during_the_sync_is_not_followed(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    outside = make(tmp_path / "outside", {})
    target = make(tmp_path / "target", {"folder/x": b"1"})
    await store.put("data", "folder/new", b"evil")

    def replace() -> None:
        (target / "folder" / "x").unlink()
        (target / "folder").rmdir()
        (target / "folder").symlink_to(outside)

    async def replace_in_thread() -> None:
        await asyncio.to_thread(replace)

    fake.before["get"] = replace_in_thread

    report = await sync(store.bucket("data"), target)

    assert report.errors["NotADirectoryError"].count == 1
    assert list(outside.iterdir()) == []


async def test_target_itself_may_be_a_link(store: Trove, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    await store.put("data", "a", b"1")

    await sync(store.bucket("data"), tmp_path / "link")

    assert read(tmp_path / "real") == {"a": b"1"}


# -- files and directories in each other's place ----------------------------------------------------------


@pytest.mark.parametrize("delete", [False, True])
async def test_file_where_a_directory_is_needed(
    store: Trove,
    tmp_path: Path,
    delete: bool,  # noqa: FBT001 - a parameter
) -> None:
    make(tmp_path, {"a": b"file"})
    await store.put("data", "a/b", b"1")

    report = await sync(store.bucket("data"), tmp_path, delete=delete)

    assert read(tmp_path) == ({"a/b": b"1"} if delete else {"a": b"file"})
    assert report.ok is delete
    assert report.examined == report.changed + report.failed


@pytest.mark.parametrize("delete", [False, True])
async def test_directory_where_a_file_is_needed(
    store: Trove,
    tmp_path: Path,
    delete: bool,  # noqa: FBT001 - a parameter
) -> None:
    make(tmp_path, {"a/b/c": b"1", "a/d": b"2"})
    (tmp_path / "empty").mkdir()
    await store.put("data", "a", b"file")
    await store.put("data", "empty", b"file")

    report = await sync(store.bucket("data"), tmp_path, delete=delete)

    if delete:
        assert report.ok, report
        assert read(tmp_path) == {"a": b"file", "empty": b"file"}
    else:
        assert report.errors["IsADirectoryError"].count == 2
        assert read(tmp_path) == {"a/b/c": b"1", "a/d": b"2"}


async def test_special_file_in_the_target_is_not_replaced(store: Trove, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "other")
    await store.put("data", "fifo", b"1")

    report = await sync(store.bucket("data"), tmp_path, delete=True)

    assert report.errors["FileExistsError"].keys == ("fifo",)
    assert report.skips["special file"].keys == ("other",)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


# -- links and special files in the source -----------------------------------------------------------------


async def test_links_in_the_source_are_followed(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"real/a": b"1"})
    make(tmp_path / "elsewhere", {"b": b"2"})
    (folder / "file").symlink_to("real/a")
    (folder / "folder").symlink_to("../elsewhere")
    (folder / "real" / "loop").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "dangling").symlink_to("nowhere")
    for key in ["self", "dangling", "gone"]:
        await store.put("data", key, b"old")

    report = await sync(folder, store.bucket("data"), delete=True)

    assert await objects(store) == {
        "real/a": b"1",
        "file": b"1",
        "folder/b": b"2",
        "self": b"old",  # what cannot be read is not deleted
        "dangling": b"old",
        "gone": b"old",  # nor anything else
    }
    assert report.skips["directory loop"].keys == ("real/loop/",)
    assert report.errors["FileNotFoundError"].keys == ("dangling",)
    assert report.errors["OSError"].keys == ("self",)


@pytest.mark.parametrize("include", [[], ["link/**"]])
async def test_nothing_is_deleted_below_a_link_whose_disk_is_not_mounted(
    store: Trove, tmp_path: Path, include: list[str]
) -> None:
    make(tmp_path / "disk", {"d/f": b"1", "g": b"1"})
    folder = make(tmp_path / "in", {"x": b"1"})
    (folder / "link").symlink_to(tmp_path / "disk")
    await sync(folder, store.bucket("data"))
    before = await objects(store)
    (tmp_path / "disk").rename(tmp_path / "gone")

    report = await sync(folder, store.bucket("data"), delete=True, include=include)

    assert await objects(store) == before
    assert report.errors["FileNotFoundError"].keys == ("link",)
    assert report.skips["not deleted: the source is incomplete"].count == 2


async def test_broken_links_that_are_excluded_do_not_prevent_deletions(
    store: Trove, tmp_path: Path
) -> None:
    folder = make(tmp_path / "in", {"x": b"1"})
    (folder / "link").symlink_to("nowhere")
    await store.put("data", "old", b"")

    report = await sync(folder, store.bucket("data"), delete=True, exclude=["link", "link/**"])

    assert report.ok
    assert await objects(store) == {"x": b"1"}


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), OSError(errno.EIO, "no")])
@pytest.mark.parametrize("name", ["d", "d/sub", "d/f"])
async def test_nothing_is_deleted_if_a_name_of_the_source_cannot_be_examined(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError
) -> None:
    folder = make(tmp_path / "in", {"a": b"1", "d/f": b"1", "d/sub/f": b"1"})
    await sync(folder, store.bucket("data"))
    await store.put("data", "old", b"")
    before = await objects(store)
    original = os.stat

    def fail(path: Any, *arguments: Any, **options: Any) -> Any:
        if path == f"{folder}/{name}":
            raise error
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", fail)

    report = await sync(folder, store.bucket("data"), delete=True)

    assert await objects(store) == before
    (finding,) = report.errors.values()
    assert [key.rstrip("/") for key in finding.keys] == [name]


NOT_SEARCHABLE = """
import asyncio, os, sys
from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs import sync

async def main():
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("data")
        os.chmod(sys.argv[1], 0o755)
        await sync(sys.argv[1], store.bucket("data"))
        os.chmod(sys.argv[1] + "/d", 0o444)
        if not os.geteuid():
            os.chown(sys.argv[1] + "/d", 65534, -1)
            os.seteuid(65534)
        report = await sync(sys.argv[1], store.bucket("data"), delete=True)
        print(report.deleted, sorted(report.errors["PermissionError"].keys))
        print(sorted([info.key async for info in store.list("data")]))

asyncio.run(main())
"""


def test_nothing_is_deleted_below_a_directory_that_cannot_be_searched() -> None:
    with tempfile.TemporaryDirectory() as folder:  # other users cannot enter `tmp_path`
        Path(folder).chmod(0o755)
        make(Path(folder) / "in", {"d/f": b"1", "d/sub/f": b"1"})
        command = [sys.executable, "-c", NOT_SEARCHABLE, f"{folder}/in"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
        (Path(folder) / "in" / "d").chmod(0o755)

    assert ended.stdout == "0 ['d/f', 'd/sub/']\n['d/f', 'd/sub/f']\n", ended.stderr


@pytest.mark.parametrize("place", ["in", "in/link", "in/d"])
async def test_nothing_is_deleted_if_a_directory_is_replaced_while_it_is_listed(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    make(tmp_path / "disk", {"sub/f": b"1", "g": b"1"})
    folder = make(tmp_path / "in", {"d/sub/f": b"1", "d/g": b"1", "x": b"1"})
    (folder / "link").symlink_to(tmp_path / "disk")
    await sync(folder, store.bucket("data"))
    before = await objects(store)
    listed = walk.Walk._list_names

    def replace_once_listed(self: Any, path: str, *arguments: Any) -> None:
        listed(self, path, *arguments)
        if path == f"{tmp_path}/{place}":
            if place == "in/link":
                (tmp_path / "disk").rename(tmp_path / "gone")
            else:
                Path(path).rename(tmp_path / "gone")
                Path(path).mkdir()  # the mount point

    monkeypatch.setattr(walk.Walk, "_list_names", replace_once_listed)

    report = await sync(folder, store.bucket("data"), delete=True)

    assert await objects(store) == before
    assert not report.ok


async def test_directory_that_is_removed_while_it_is_listed_is_deleted(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "in", {"d/e/f": b"1", "d/g": b"1", "x": b"1"})
    await sync(folder, store.bucket("data"))
    listed = walk.Walk._list_names

    def remove_once_listed(self: Any, path: str, *arguments: Any) -> None:
        listed(self, path, *arguments)
        if path.endswith("/d"):
            shutil.rmtree(path)

    monkeypatch.setattr(walk.Walk, "_list_names", remove_once_listed)

    report = await sync(folder, store.bucket("data"), delete=True)

    assert (report.ok, report.deleted) == (True, 2)
    assert await objects(store) == {"x": b"1"}


@pytest.mark.parametrize("becomes", ["file", "directory"])
async def test_nothing_is_deleted_if_a_name_changes_its_kind_while_it_is_listed(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    folder = make(tmp_path / "in", {"a": b"1", "x": b"1"})
    if becomes == "file":
        (folder / "a").unlink()
        (folder / "a").mkdir()
    await store.put("data", "a/b", b"old")
    listed = walk.Walk._list_names

    def replace_once_listed(self: Any, path: str, *arguments: Any) -> None:
        listed(self, path, *arguments)
        if becomes == "file":
            (folder / "a").rmdir()
            (folder / "a").write_bytes(b"")
        else:
            (folder / "a").unlink()
            make(folder, {"a/b": b"new"})

    monkeypatch.setattr(walk.Walk, "_list_names", replace_once_listed)

    report = await sync(folder, store.bucket("data"), delete=True)

    assert await objects(store) == {"a/b": b"old", "x": b"1"}
    assert report.errors["ObjectChangedError"].keys == ("a/",)


async def test_links_in_the_source_are_skipped_on_request(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"real/a": b"1"})
    (folder / "file").symlink_to("real/a")
    (folder / "folder").symlink_to("real")

    report = await sync(folder, store.bucket("data"), follow_symlinks=False)

    assert await objects(store) == {"real/a": b"1"}
    assert report.skips["symbolic link"].keys == ("file", "folder")


async def test_special_files_are_skipped_and_never_opened(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "in", {"a": b"1"})
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the path of a socket is short
        listener.bind("socket")
    await store.put("data", "fifo", b"old")

    report = await sync(folder, store.bucket("data"), delete=True)

    assert report.skips["special file"].keys == ("fifo", "link", "socket")
    assert await objects(store) == {"a": b"1", "fifo": b"old"}


@pytest.fixture
def no_waits_for_fifos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a call fail that would wait for the other end of a FIFO: a thread that waits for it cannot be ended."""
    original = os.open

    def check(path: Any, flags: int, *arguments: Any, dir_fd: int | None = None) -> int:
        with suppress(FileNotFoundError):
            mode = os.stat(path, dir_fd=dir_fd).st_mode
            assert not stat.S_ISFIFO(mode) or flags & os.O_NONBLOCK, "this would wait"
        return original(path, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", check)


@pytest.mark.usefixtures("no_waits_for_fifos")
@pytest.mark.parametrize("size", [1, len(LARGE)])
async def test_file_that_becomes_a_fifo_does_not_hang(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    folder = make(tmp_path, {"a": b"1" * size})
    open_file = source_files.SourceFiles._open

    def replace_first(self: Any, key: str) -> Any:
        (folder / "a").unlink()
        os.mkfifo(folder / "a")
        return open_file(self, key)

    monkeypatch.setattr(source_files.SourceFiles, "_open", replace_first)

    report = await sync(folder, store.bucket("data"))

    assert report.errors["OSError"].keys == ("a",)
    assert await objects(store) == {}
    assert not any(str(tmp_path) in name for name in _open_files())


@pytest.mark.usefixtures("no_waits_for_fifos")
def test_file_that_becomes_a_fifo_is_not_adopted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    directory = target_files.TargetDirectory(str(tmp_path), clear_folders=False)
    try:
        with pytest.raises(OSError, match="was changed"):
            directory.adopt("a", 1, target_files.Version(0, 1, 0, None))
    finally:
        directory.close()


@pytest.mark.usefixtures("no_waits_for_fifos")
async def test_fifo_with_a_temporary_name_is_kept(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / temporary_name()
    os.mkfifo(path)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)

    assert (await sync(store.bucket("data"), tmp_path)).ok

    assert path.is_fifo()


async def test_names_that_are_not_utf8_are_errors(store: Trove, tmp_path: Path) -> None:
    folder = make(tmp_path / "in", {"a": b"1"})
    (folder / os.fsdecode(b"bad\xff")).write_bytes(b"x")
    (folder / os.fsdecode(b"dir\xff")).mkdir()
    (folder / os.fsdecode(b"dir\xff") / "b").write_bytes(b"x")

    up = await sync(folder, store.bucket("data"))
    down = await sync(store.bucket("data"), folder, delete=True)

    assert await objects(store) == {"a": b"1"}
    assert sorted(up.errors["InvalidNameError"].keys) == ["bad\\xff", "dir\\xff"]
    assert (down.ok, down.skips["not a key"].count, down.deleted) == (True, 2, 0)
    assert str(up)


async def test_paths_that_are_too_long_for_a_key_are_errors(store: Trove, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    current = os.open(folder, os.O_RDONLY)
    for _ in range(600):  # deeper than Python's stack, and than PATH_MAX
        os.mkdir("directory", dir_fd=current)
        below = os.open("directory", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    make(folder, {"a": b"1", "x" * 200 + "/" + "y" * 200 + "/" + "z" * 200: b"1"})

    report = await sync(folder, store.bucket("data"), target_prefix="p" * 500)

    assert report.changed == 1
    assert report.errors["InvalidNameError"].count == 2
    subprocess.run(["/bin/rm", "-rf", str(folder)], check=True)  # noqa: S603, ASYNC221 - too deep for shutil


# -- files that change meanwhile ---------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"before", LARGE])
async def test_file_that_vanishes_is_skipped(
    fake: Fake, store: Trove, tmp_path: Path, body: bytes
) -> None:
    folder = make(tmp_path, {"a": b"first", "b": body})

    async def remove() -> None:
        await asyncio.to_thread((folder / "b").unlink, missing_ok=True)

    fake.before["put"] = fake.before["upload"] = remove

    report = await sync(folder, store.bucket("data"), concurrency=1)

    assert report.ok
    assert set(await objects(store)) <= {"a", "b"}
    assert report.changed + report.skipped == 2


@pytest.mark.parametrize("size", [1000, len(LARGE)])
async def test_file_that_changes_while_it_is_stored_is_stored_again(
    fake: Fake, store: Trove, tmp_path: Path, size: int
) -> None:
    folder = make(tmp_path, {"a": b"1" * size})
    changed = False

    async def change() -> None:
        nonlocal changed
        if not changed:
            changed = True
            await asyncio.to_thread(make, folder, {"a": b"2" * size}, at=OLD + 1)

    fake.before["put.done"] = fake.before["commit.done"] = change

    report = await sync(folder, store.bucket("data"))

    assert report.ok
    assert await objects(store) == {"a": b"2" * size}
    assert (await sync(folder, store.bucket("data"))).unchanged == 1


@pytest.mark.parametrize("size", [1000, len(LARGE)])
async def test_file_that_always_changes_is_an_error(
    fake: Fake, store: Trove, tmp_path: Path, size: int
) -> None:
    folder = make(tmp_path, {"a": b"1" * size})
    count = 0

    async def change() -> None:
        nonlocal count
        count += 1
        await asyncio.to_thread(make, folder, {"a": b"2" * size}, at=OLD + count)

    fake.before["put.done"] = fake.before["commit.done"] = change

    report = await sync(folder, store.bucket("data"))

    assert report.errors["ObjectChangedError"].keys == ("a",)


@pytest.mark.parametrize("change", ["overwrite", "truncate", "grow"])
async def test_file_that_changes_while_it_is_read_is_never_stored_torn(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = make(tmp_path, {"a": LARGE})
    path = folder / "a"
    pread = os.pread
    done = False

    def read_then_change(descriptor: int, size: int, position: int) -> bytes:
        nonlocal done
        data = pread(descriptor, size, position)
        if position >= 2 * MiB and not done:
            done = True
            if change == "truncate":
                os.truncate(path, 2 * MiB + 5)
            elif change == "grow":
                with path.open("ab") as file:
                    file.write(b"more")
            else:
                with path.open("r+b") as file:
                    file.write(b"other")
        return data

    monkeypatch.setattr(os, "pread", read_then_change)

    report = await sync(folder, store.bucket("data"))

    assert report.errors["ObjectChangedError"].keys == ("a",)
    assert await objects(store) == {}
    assert (await sync(folder, store.bucket("data"))).changed == 1
    assert await objects(store) == {"a": path.read_bytes()}


async def test_small_file_that_changes_while_it_is_read_is_an_error(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, {"a": b"old", "b": b"fine"})
    original = os.read

    def read_then_change(descriptor: int, size: int) -> bytes:
        data = original(descriptor, size)
        if data == b"old":
            (folder / "a").write_bytes(b"new")
        return data

    monkeypatch.setattr(os, "read", read_then_change)

    report = await sync(folder, store.bucket("data"))

    assert report.errors["ObjectChangedError"].keys == ("a",)
    assert await objects(store) == {"b": b"fine"}


@pytest.mark.parametrize("age_ns", [0, 19_999_999, 20_000_000, -1])
def test_file_that_was_just_changed_is_read_once_a_change_gives_it_a_new_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int
) -> None:
    make(tmp_path, {"a": b"1"})
    path = tmp_path / "a"
    changed_at = path.stat().st_mtime_ns
    waits: list[float] = []

    def change(seconds: float) -> None:
        waits.append(seconds)
        path.write_bytes(b"later")
        os.utime(path, ns=(changed_at, changed_at))  # in the same tick of the clock

    monkeypatch.setattr(time, "time_ns", lambda: changed_at + age_ns)
    monkeypatch.setattr(time, "sleep", change)

    (small,) = source_files.SourceFiles(str(tmp_path), follow=True).read_small(["a"])

    is_new = 0 <= age_ns < 20_000_000
    assert waits == ([0.02] if is_new else [])
    assert isinstance(small, source_files.SmallFile)
    assert small.content == (b"later" if is_new else b"1")


async def test_object_that_vanishes_or_grows_meanwhile(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    await store.put("data", "a", b"1")
    await store.put("data", "b", b"2")
    await store.put("data", "c", b"3")
    done = False

    async def change() -> None:
        nonlocal done
        if not done:
            done = True
            await store.put("data", "c", LARGE)
            await store.delete("data", "b")

    fake.before["get"] = change

    report = await sync(store.bucket("data"), tmp_path, concurrency=1)

    assert (report.changed, report.skips["deleted during the sync"].keys) == (2, ("b",))
    assert read(tmp_path) == {"a": b"1", "c": LARGE}


async def test_object_that_is_replaced_during_the_download_is_seen_by_the_next(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    await store.put("data", "a", b"old")
    done = False

    async def change() -> None:
        nonlocal done
        if not done:
            done = True
            await store.put("data", "a", b"new")

    fake.before["get.done"] = change

    await sync(store.bucket("data"), tmp_path)
    assert read(tmp_path) == {"a": b"old"}
    await sync(store.bucket("data"), tmp_path)
    assert read(tmp_path) == {"a": b"new"}


# -- errors of the disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"small", LARGE])
async def test_full_disk_is_collected_and_leaves_nothing(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    make(tmp_path, {"b": b"old version"})
    for key in "abc":
        await store.put("data", key, body + key.encode())
    original = os.write

    def write(descriptor: int, data: bytes) -> int:
        if bytes(data[-1:]) == b"b" or (len(data) == MiB and body is LARGE):
            raise OSError(errno.ENOSPC, "no space left")
        return original(descriptor, data)

    monkeypatch.setattr(os, "write", write)

    report = await sync(store.bucket("data"), tmp_path)

    if body is LARGE:
        assert report.errors["OSError"].count == 3
        assert read(tmp_path) == {"b": b"old version"}
    else:
        assert report.errors["OSError"].keys == ("b",)
        assert read(tmp_path) == {"a": b"smalla", "b": b"old version", "c": b"smallc"}


async def test_short_writes_are_completed(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("data", "a", b"0123456789")
    original = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: original(fd, data[:3]))

    await sync(store.bucket("data"), tmp_path)

    assert read(tmp_path) == {"a": b"0123456789"}


@pytest.mark.parametrize("body", [b"small", LARGE])
@pytest.mark.parametrize("step", ["open", "utime", "fstat", "rename"])
async def test_error_of_every_call_leaves_the_old_file(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, step: str
) -> None:
    make(tmp_path, {"folder/a": b"old version"})
    await store.put("data", "folder/a", body)
    original = getattr(os, step)

    def fail(*arguments: Any, **options: Any) -> Any:
        if step != "open" or str(arguments[0]).startswith(".trove-sync-"):
            raise OSError(errno.EIO, "broken")
        return original(*arguments, **options)

    monkeypatch.setattr(os, step, fail)
    report = await sync(store.bucket("data"), tmp_path)
    monkeypatch.undo()

    if step == "utime":  # the file's time is lost, not its content
        assert read(tmp_path) == {"folder/a": body}
    else:
        assert report.failed == 1
        assert read(tmp_path) == {"folder/a": b"old version"}


def test_lack_of_descriptors_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = target_files.TargetDirectory(str(tmp_path), clear_folders=False)

    def fail(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", fail)
    with pytest.raises(OSError, match="too many"):
        directory.create("a/b")
    directory.close()

    assert read(tmp_path) == {}
    assert not any(str(tmp_path) in name for name in _open_files())


@pytest.mark.parametrize("key", ["a/b/c/d", "a/missing/x"])
def test_path_that_cannot_be_entered_leaves_no_descriptor(tmp_path: Path, key: str) -> None:
    make(tmp_path, {"a/b": b"1"})
    directory = target_files.TargetDirectory(str(tmp_path), clear_folders=False)

    directory.delete([key])
    directory.close()

    assert not any(str(tmp_path) in name for name in _open_files())


async def test_broken_download_leaves_the_old_file(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    make(tmp_path, {"a": b"old version"})
    await store.put("data", "a", LARGE)
    fake.flips.append(2 * MiB)

    report = await sync(store.bucket("data"), tmp_path)

    assert report.errors["IntegrityError"].keys == ("a",)
    assert read(tmp_path) == {"a": b"old version"}


# -- temporary files ----------------------------------------------------------------------------------------


def test_temporary_names() -> None:
    assert is_temporary(temporary_name())
    for name in [".trove-sync-.part", ".trove-sync-0123.part", "x" + temporary_name(), "a.part"]:
        assert not is_temporary(name)


async def test_temporary_files_are_never_uploaded(store: Trove, tmp_path: Path) -> None:
    make(tmp_path, {"a": b"1", temporary_name(): b"x", f"b/{temporary_name()}": b"x"})

    assert (await sync(tmp_path, store.bucket("data"))).changed == 1
    assert await objects(store) == {"a": b"1"}


async def test_orphaned_temporary_files_are_removed(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, {temporary_name(): b"x", f"b/{temporary_name()}": b"x"})

    await sync(store.bucket("data"), tmp_path)
    assert len(read(tmp_path)) == 2  # too young: their process may not have locked them yet
    await sync(store.bucket("data"), tmp_path, dry_run=True)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    await sync(store.bucket("data"), tmp_path, dry_run=True)
    assert len(read(tmp_path)) == 2
    await sync(store.bucket("data"), tmp_path)
    assert read(tmp_path) == {}


async def test_temporary_files_in_use_are_kept(
    fake: Fake, store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("data", "large", LARGE)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        names = await asyncio.to_thread(os.listdir, tmp_path)
        if any(map(is_temporary, names)):
            opened.set()
            await go_on.wait()

    fake.before["read"] = wait
    async with asyncio.TaskGroup() as group:
        first = group.create_task(sync(store.bucket("data"), tmp_path))
        await opened.wait()
        await sync(store.bucket("data"), tmp_path, exclude=["**"])
        go_on.set()
    assert first.result().ok
    assert read(tmp_path) == {"large": LARGE}


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from trove_async import Trove
from trove_async.drivers import LocalDriver
from trove_async.jobs import sync
from trove_async.jobs._sync import target_files

async def main():
    async with Trove(LocalDriver(sys.argv[1])) as store:
        await sync(store.bucket("data"), sys.argv[2])

def die(descriptor, data):
    os.write(descriptor, data)
    os.kill(os.getpid(), signal.SIGKILL)
target_files._write_all = die
asyncio.run(main())
"""


async def test_killed_process_leaves_no_torn_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trove_async.drivers import LocalDriver  # noqa: PLC0415 - of this test

    async with Trove(LocalDriver(tmp_path / "store")) as store:
        await store.create_bucket("data")
        await store.put("data", "a", LARGE)
    out = make(tmp_path / "out", {"a": b"old"})
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(out)]
    await asyncio.to_thread(subprocess.run, command, check=False)
    left = read(out)
    assert left.pop("a") == b"old"
    assert len(left) == 1
    assert is_temporary(next(iter(left)))

    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    async with Trove(LocalDriver(tmp_path / "store")) as store:
        await sync(store.bucket("data"), out)
    assert read(out) == {"a": LARGE}


# -- cancels -------------------------------------------------------------------------------------------------

BODIES = {"a": b"1", "b/c": b"2" * 1000, "large": LARGE, "z": b""}


def _open_files() -> set[str]:
    names = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        try:
            names.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115 - numbers
        except OSError:
            continue
    return names


@pytest.mark.parametrize("direction", ["up", "down", "copy"])
async def test_cancel_at_every_request_leaves_nothing(tmp_path: Path, direction: str) -> None:
    step = 0
    while await _cancelled_at(step, tmp_path / str(step), direction):
        step += 1
    assert step > 8


async def _cancelled_at(step: int, folder: Path, direction: str) -> bool:
    """Cancel a sync at a step of the driver. Return False if it has fewer steps."""
    fake = Fake()
    async with store_with(fake) as store:
        source = make(folder / "in", BODIES)
        out = make(folder / "out", {"b/c": b"old", "old": b"x"})
        await store.create_bucket("source")
        for key, body in BODIES.items():
            await store.put("source", key, body)
        await store.put("data", "old", b"x")
        await store.put("data", "b/c", b"old")
        left: Any = store.bucket("source") if direction != "up" else source
        right: Any = out if direction == "down" else store.bucket("data")
        fake.steps.clear()
        fake.hang_at = step
        task = asyncio.create_task(sync(left, right, delete=True))  # noqa: TID251 - cancelled below
        reached = asyncio.create_task(fake.reached.wait())  # noqa: TID251 - cancelled below
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        fake.hang_at = None
        assert_idle(store, fake)
        assert not any(str(folder) in name for name in _open_files())
        after = read(out) if direction == "down" else await objects(store)
        assert set(after) <= {*BODIES, "old"}
        for key, body in after.items():
            assert body in {BODIES.get(key), b"old", b"x"}, key
        if ended:
            assert task.result().ok
        # Running it again completes it.
        report = await sync(left, right, delete=True)
        assert report.ok, report
        assert (read(out) if direction == "down" else await objects(store)) == BODIES
        return not ended


class _Gate:
    """Holds the n-th call in a thread until it is opened."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self._lock = threading.Lock()
        self._open = threading.Event()
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                number, self._count = self._count, self._count + 1
            if number == self._at:
                self._loop.call_soon_threadsafe(self.reached.set)
                assert self._open.wait(30)
            return call(*arguments, **options)

        return wait

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_cancel_at_every_call_in_a_thread_leaves_nothing(
    tmp_path: Path, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 0
    while await _cancelled_in_thread(step, tmp_path / str(step), direction, monkeypatch):
        step += 1
    assert step > 4


async def _cancelled_in_thread(
    step: int, folder: Path, direction: str, monkeypatch: pytest.MonkeyPatch
) -> bool:
    async with store_with(MemoryDriver()) as store:
        make(folder / "in", BODIES)
        for key, body in BODIES.items():
            await store.put("data", "x/" + key, body)
        out = make(folder / "out", {"b/c": b"old", "old": b"x"})
        gate = _Gate(step)
        with monkeypatch.context() as patch:
            for owner, names in {
                walk.Walk: ["next", "close"],
                source_files.SourceFiles: ["_open", "read_small", "states"],
                target_files.TargetDirectory: [
                    "write_small",
                    "create",
                    "publish",
                    "delete",
                    "close",
                ],
                target_files.OpenFile: ["write", "discard"],
            }.items():
                for name in names:
                    patch.setattr(owner, name, gate.wrap(getattr(owner, name)))
            patch.setattr(source_files, "_read_chunk", gate.wrap(source_files._read_chunk))
            pair: Any = (folder / "in", store.bucket("data"))
            options: Any = {"target_prefix": "y"}
            if direction == "down":
                pair, options = (store.bucket("data"), out), {"source_prefix": "x", "delete": True}
            task = asyncio.create_task(sync(*pair, **options))  # noqa: TID251 - cancelled below
            reached = asyncio.create_task(gate.reached.wait())  # noqa: TID251 - cancelled below
            await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            ended = task.done()
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            gate.open()
            await asyncio.wait([task])
        assert_idle(store)
        assert not any(str(folder) in name for name in _open_files())
        if ended:
            assert task.result().ok
        for key, body in read(out).items():
            assert body in {BODIES.get(key), b"old", b"x"}, key
        for key, body in (await objects(store, prefix="y/")).items():
            assert body == BODIES[key]
        return not ended


async def test_failure_of_a_listing_leaves_nothing(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    for index in range(1500):
        await store.put("data", f"{index:04}", b"x")
    pages = 0

    async def fail() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise PermissionDeniedError("no")

    fake.before["list_page"] = fail

    with pytest.raises(PermissionDeniedError):
        await sync(store.bucket("data"), tmp_path)

    assert not any(is_temporary(name) for name in read(tmp_path))
    assert_idle(store, fake)


# -- deletions beside writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"new", LARGE])
@pytest.mark.parametrize("times", [1, 100])
async def test_directory_that_is_removed_while_a_file_is_written_is_made_again(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, times: int
) -> None:
    await store.put("data", "a/b/c", body)
    create = target_files._create
    removed = 0

    def remove_first(name: str, directory: int, key: str) -> int:
        nonlocal removed
        if removed < times:
            removed += 1
            (tmp_path / "a" / "b").rmdir()
            (tmp_path / "a").rmdir()
        return create(name, directory, key)

    monkeypatch.setattr(target_files, "_create", remove_first)

    report = await sync(store.bucket("data"), tmp_path)

    if times == 1:
        assert read(tmp_path) == {"a/b/c": body}
    else:
        assert report.errors["FileNotFoundError"].keys == ("a/b/c",)
    assert not any(str(tmp_path) in name for name in _open_files())


async def test_files_replaced_by_others_in_the_same_directories(
    store: Trove, tmp_path: Path
) -> None:
    out = make(tmp_path / "out", {f"{number:03}/old": b"x" for number in range(300)})
    for number in range(300):
        await store.put("data", f"{number:03}/new", b"y")

    report = await sync(store.bucket("data"), out, delete=True)

    assert report.ok, report
    assert read(out) == {f"{number:03}/new": b"y" for number in range(300)}


async def test_failed_deletion_of_a_batch_is_collected(
    fake: Fake, store: Trove, tmp_path: Path
) -> None:
    await store.put("data", "a", b"1")
    await store.put("data", "b", b"1")
    make(tmp_path, {"new": b"1"})

    async def fail() -> None:
        raise PermissionDeniedError("no")

    fake.before["delete_many"] = fail

    report = await sync(tmp_path, store.bucket("data"), delete=True)

    assert (report.changed, report.deleted) == (1, 0)
    assert report.errors["PermissionDeniedError"].count == 2
