"""A root without write permission: mounted read-only, or owned by another user."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
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

# The program of the child process. It reads the root, attempts to write, and prints its findings.
LOOK = """
import asyncio, os, sys, tempfile
import trove_async
from trove_async import PermissionDeniedError, Trove
import trove_async.drivers.local

async def rehearse(root):
    # What is imported at its first use is imported now: the other user may not reach the packages.
    async with Trove(trove_async.drivers.local.LocalDriver(root)) as store:
        await store.create_bucket("b")
        await store.put("b", "a", bytes(40 * 1024 * 1024))
        await store.copy("b", "a", "b", "c")
        await store.list("b").all()
        await store.read("b", "c")
        await store.health()
        await store.delete("b", "a")

with tempfile.TemporaryDirectory() as scratch:
    asyncio.run(rehearse(scratch))

root, user, xattrs = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)

async def refused(work):
    try:
        await work
    except PermissionDeniedError as error:
        return str(error)
    raise AssertionError("it was not refused")

async def main():
    driver = trove_async.drivers.local.LocalDriver(root)._without(xattrs=xattrs)
    async with Trove(driver) as store:
        print([bucket.name for bucket in await store.list_buckets()])
        print([obj.key for obj in await store.list("b").all()])
        print(await store.read("b", "d/plain"), await store.read("b", "dir/"))
        print((await store.head("b", "d/plain")).metadata)
        print(len(await store.read("b", "large")))
        print((await store.read("b", "large", range=(0, 3))))
        print(all(health.ok for health in (await store.health()).values()))
        for work in (
            store.put("b", "new", b"x"),
            store.put("b", "d/plain", b"x"),
            store.put("b", "big", bytes(40 * 1024 * 1024)),
            store.delete("b", "d/plain"),
            store.copy("b", "d/plain", "b", "copy"),
            store.create_bucket("c"),
        ):
            message = await refused(work)
            assert "mounted read-only" in message or "owner and mode" in message, message
        print(await store.read("b", "d/plain"))

asyncio.run(main())
"""

SEEN = f"""\
['b']
['d/plain', 'dir/', 'large']
b'plain' b'hidden'
{{'by': 'me'}}
{3 * MiB}
b'\\x00\\x00\\x00'
True
b'plain'
"""


def tree(root: Path) -> list[tuple[str, int]]:
    """Return every path below the root and the time of its last change."""
    return sorted((str(path), path.lstat().st_ctime_ns) for path in root.rglob("*"))


def run(*command: str) -> str:
    ran = subprocess.run(  # noqa: S603 - our own program
        command,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PYTHONPATH": str(PACKAGE), "PATH": os.environ["PATH"]},
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


async def fill(root: Path, open_client: OpenClient, *, xattrs: bool) -> None:
    async with open_client(root, xattrs=xattrs, file_mode=0o644, dir_mode=0o755) as client:
        await client.put("d/plain", b"plain", metadata={"by": "me"})
        await client.put("dir/", b"hidden")  # no file can have this name
        await client.put("large", bytes(3 * MiB))


def in_read_only_mount(*command: str) -> str:
    """Run a command that sees a root, the argument before the command, mounted read-only."""
    # Root needs only a mount namespace; other users need a user namespace as well.
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    return run(*unshare, "sh", "-c", mount, "sh", *command)


@pytest.mark.parametrize("xattrs", [True, False])
async def test_root_that_is_mounted_read_only_can_be_read(
    tmp_path: Path, open_client: OpenClient, *, xattrs: bool
) -> None:
    root = tmp_path / "root"
    await fill(root, open_client, xattrs=xattrs)
    before = tree(root)
    look = [sys.executable, "-c", LOOK, str(root), "0", str(xattrs)]
    assert in_read_only_mount(str(root), *look) == SEEN
    assert tree(root) == before


async def test_foreign_files_of_a_read_only_root_can_be_read(tmp_path: Path) -> None:
    """The driver has never opened this root, so it has no area there."""
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
    said = in_read_only_mount(str(bucket.parent), sys.executable, "-c", script)
    assert said == "['Note.txt']\nb'text' False\n"
    assert list(bucket.parent.iterdir()) == [bucket]


@pytest.mark.parametrize("xattrs", [True, False])
async def test_root_of_another_user_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, open_client: OpenClient, *, xattrs: bool
) -> None:
    root = tmp_path_factory.mktemp("shared") / "root"
    await fill(root, open_client, xattrs=xattrs)
    before = tree(root)
    with reachable(root):
        if os.geteuid() == 0:
            assert run(sys.executable, "-c", LOOK, str(root), "65534", str(xattrs)) == SEEN
        else:  # remove the owner's write permission instead
            directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
            for path in directories:
                path.chmod(0o555)
            try:
                assert run(sys.executable, "-c", LOOK, str(root), "0", str(xattrs)) == SEEN
            finally:
                for path in directories:
                    path.chmod(0o755)
            return
    assert tree(root) == before


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Let other users reach a path: pytest makes its directories private to this user."""
    opened = [(above, above.stat().st_mode) for above in path.parents]
    closed = [(above, mode) for above, mode in opened if not mode & stat.S_IXOTH]
    for above, mode in closed:
        above.chmod(mode | stat.S_IXOTH)
    try:
        yield
    finally:
        for above, mode in closed:
            above.chmod(mode)


async def test_area_that_cannot_be_read_is_an_error(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the error, the objects in the area would be missing."""
    root = tmp_path / "root"
    await fill(root, open_client, xattrs=True)
    real = os.open

    def forbidden(path: object, *args: int, **named: int) -> int:
        if path in {".trove", "overflow"}:
            raise PermissionError(errno.EACCES, "no", path)
        return real(path, *args, **named)  # type: ignore[arg-type] # a path, as os.open takes it

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(PermissionDeniedError):
        async with open_client(root):
            pass


@pytest.mark.parametrize("fsync", [True, False])
async def test_files_in_a_setgid_directory_get_its_group(
    tmp_path: Path, open_client: OpenClient, *, fsync: bool
) -> None:
    groups = os.getgroups() if os.geteuid() else [54_321]  # root may give files to any group
    other = next(group for group in groups if group != os.getegid())
    root = tmp_path / "root"
    async with open_client(root, fsync=fsync, file_mode=0o640, dir_mode=0o750) as client:
        await client.put("before", b"x")
        os.chown(root / "b", -1, other)
        (root / "b").chmod(0o2750)
        await client.put("plain", b"x", metadata={"by": "me"})
        await client.put("d/e/below", b"x")
        await client.put("once", b"x", if_none_match="*")
        await client.put("before", b"y")
        for key in ("plain", "d/e/below", "once", "before"):
            assert (root / "b" / key).stat().st_gid == other, key
        assert (root / "b/d/e").stat().st_gid == other
        assert (await client.driver.head("b", "plain")).metadata == {"by": "me"}


async def test_files_outside_a_setgid_directory_get_the_group_of_the_process(
    client: BucketClient,
) -> None:
    await client.put("plain", b"x")
    assert (client.bucket / "plain").stat().st_gid == os.getegid()
