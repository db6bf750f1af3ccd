"""A root without write permission: mounted read-only, or owned by another user."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trove_async
from trove_async.errors import PermissionDeniedError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

PACKAGE = Path(trove_async.__file__).parent.parent

# The program of the child process. It reads the root, attempts to write to it, and prints the results.
READER = """
import asyncio, os, sys, tempfile
import trove_async
from trove_async import PermissionDeniedError, Trove
import trove_async.drivers.local

async def import_everything(root):
    # Some modules are imported when they are first used. The other user may not have access to them.
    async with Trove(trove_async.drivers.local.LocalDriver(root)) as store:
        await store.create_bucket("b")
        await store.put("b", "a", bytes(40 * 1024 * 1024))
        await store.copy("b", "a", "b", "c")
        await store.list("b").all()
        await store.read("b", "c")
        await store.health()
        await store.delete("b", "a")

with tempfile.TemporaryDirectory() as scratch:
    asyncio.run(import_everything(scratch))

root, user, xattrs = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)

async def denial(call):
    try:
        await call
    except PermissionDeniedError as error:
        return str(error)
    raise AssertionError("the call must raise PermissionDeniedError")

async def main():
    driver = trove_async.drivers.local.LocalDriver(root)._simulating(xattrs=xattrs)
    async with Trove(driver) as store:
        print([bucket.name for bucket in await store.list_buckets()])
        print([obj.key for obj in await store.list("b").all()])
        print(await store.read("b", "d/plain"), await store.read("b", "dir/"))
        print((await store.head("b", "d/plain")).metadata)
        print(len(await store.read("b", "large")))
        print((await store.read("b", "large", range=(0, 3))))
        print(all(health.ok for health in (await store.health()).values()))
        for call in (
            store.put("b", "new", b"x"),
            store.put("b", "d/plain", b"x"),
            store.put("b", "big", bytes(40 * 1024 * 1024)),
            store.delete("b", "d/plain"),
            store.copy("b", "d/plain", "b", "copy"),
            store.create_bucket("c"),
        ):
            message = await denial(call)
            assert "mounted read-only" in message or "owner and mode" in message, message
        print(await store.read("b", "d/plain"))

asyncio.run(main())
"""

EXPECTED = f"""\
['b']
['d/plain', 'dir/', 'large']
b'plain' b'overflow'
{{'by': 'me'}}
{3 * MiB}
b'\\x00\\x00\\x00'
True
b'plain'
"""


def snapshot(root: Path) -> list[tuple[str, int]]:
    """Return the root and every path below it, with the time of the last change of each."""
    return sorted((str(path), path.lstat().st_ctime_ns) for path in (root, *root.rglob("*")))


def run(*command: str) -> str:
    """Run a command, and return its output."""
    completed = subprocess.run(  # noqa: S603 - our own program
        command,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PYTHONPATH": str(PACKAGE), "PATH": os.environ["PATH"]},
    )
    assert (completed.returncode, completed.stderr) == (0, ""), completed.stdout + completed.stderr
    return completed.stdout


async def fill(root: Path, open_client: OpenClient, *, xattrs: bool) -> None:
    async with open_client(root, xattrs=xattrs, file_mode=0o644, dir_mode=0o755) as client:
        await client.put("d/plain", b"plain", metadata={"by": "me"})
        await client.put("dir/", b"overflow")  # no file can have this name
        await client.put("large", bytes(3 * MiB))


def in_read_only_mount(*command: str) -> str:
    """Mount a directory, the first argument, read-only in a new namespace. Run a command there.

    The command is in the other arguments.
    """
    # The root user needs only a mount namespace. Other users need a user namespace as well.
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return run(*unshare, "sh", "-c", mount, "sh", *command)


@pytest.mark.parametrize("xattrs", [True, False])
async def test_root_that_is_mounted_read_only_can_be_read(
    tmp_path: Path, open_client: OpenClient, *, xattrs: bool
) -> None:
    root = tmp_path / "root"
    await fill(root, open_client, xattrs=xattrs)
    before = snapshot(root)
    reader = [sys.executable, "-c", READER, str(root), "0", str(xattrs)]
    assert in_read_only_mount(str(root), *reader) == EXPECTED
    assert snapshot(root) == before


async def test_foreign_files_of_a_read_only_root_can_be_read(tmp_path: Path) -> None:
    """No driver has opened this root before, so it has no area."""
    bucket = tmp_path / "root" / "b"
    bucket.mkdir(parents=True)
    (bucket / "Note.txt").write_bytes(b"text")
    script = (
        "import asyncio; from trove_async import Trove\n"
        "async def main():\n"
        f"    async with Trove({f'file://{bucket.parent}'!r}) as store:\n"
        "        print([obj.key for obj in await store.list('b').all()])\n"
        "        print(await store.read('b', 'Note.txt'), await store.exists('b', 'note.txt'))\n"
        "asyncio.run(main())"
    )
    output = in_read_only_mount(str(bucket.parent), sys.executable, "-c", script)
    assert output == "['Note.txt']\nb'text' False\n"
    assert list(bucket.parent.iterdir()) == [bucket]


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Return a directory that other users can read. Pytest keeps the directories of tests private."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("xattrs", [True, False])
async def test_root_of_another_user_can_be_read(
    public_directory: Path, open_client: OpenClient, *, xattrs: bool
) -> None:
    root = public_directory / "root"
    await fill(root, open_client, xattrs=xattrs)
    # Only the root user can run a process as another user. Other users remove their own write
    # permission instead. Either way, the reader must change nothing.
    is_root = os.geteuid() == 0
    with nullcontext() if is_root else without_write_permission(root):
        before = snapshot(root)
        user = "65534" if is_root else "0"  # 0: the same user
        assert run(sys.executable, "-c", READER, str(root), user, str(xattrs)) == EXPECTED
        assert snapshot(root) == before


@contextmanager
def without_write_permission(root: Path) -> Iterator[None]:
    """Remove the owner's write permission from a root and the directories below it."""
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in directories:
            path.chmod(0o755)


async def test_area_that_cannot_be_read_is_an_error(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the error, the objects in the area would seem to be missing."""
    root = tmp_path / "root"
    await fill(root, open_client, xattrs=True)
    real = os.open

    def deny_area(path: object, *args: int, **kwargs: int) -> int:
        if path in {".trove", "overflow"}:
            raise PermissionError(errno.EACCES, "permission denied", path)
        return real(path, *args, **kwargs)  # type: ignore[arg-type] # a path, as os.open takes it

    monkeypatch.setattr(os, "open", deny_area)
    with pytest.raises(PermissionDeniedError):
        async with open_client(root):
            pass
