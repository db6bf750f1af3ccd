"""No path leads out of the root, even while another thread replaces directories with links."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest

from trove_async.drivers.local import _openat2
from trove_async.drivers.local._openat2 import DIRECTORY, READ, ConfinedDirectory
from trove_async.errors import TroveError
from trove_async.options import DeleteOptions, ListOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def confined(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ConfinedDirectory]:
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/d/f").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_bytes(b"outside")
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/in").symlink_to("d")
    (tmp_path / "root/d/link").symlink_to("f")
    fd = os.open(tmp_path / "root", DIRECTORY)
    yield ConfinedDirectory(fd, openat2=request.param)
    os.close(fd)


def test_file_inside_the_root_is_opened(confined: ConfinedDirectory) -> None:
    fd = confined.open("d/f", READ)
    assert os.read(fd, 10) == b"inside"
    os.close(fd)
    assert confined.is_directory("d")
    assert not confined.is_directory("no/no")


@pytest.mark.parametrize("path", ["out/f", "out", "in/f", "d/link"])
def test_links_are_never_followed(confined: ConfinedDirectory, path: str) -> None:
    with pytest.raises(OSError, match=r".*") as caught:
        confined.open(path, READ)
    assert caught.value.errno in {errno.ELOOP, errno.ENOTDIR}
    assert not confined.is_directory(path)
    assert confined.open_cached(path) < 0


def test_open_or_create_never_follows_a_link(
    confined: ConfinedDirectory, tmp_path: Path, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    for path in ["out/new", "d/f/new", "d/link/new"]:
        with pytest.raises(OSError, match=r".*"):
            confined.open_or_create(path, 0o700, existing=1)
    with pytest.raises(FileNotFoundError):
        confined.open_or_create("no/new", 0o700, existing=1)
    assert count_open_files() == before
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["f"]


def test_open_or_create_returns_how_many_directories_existed(confined: ConfinedDirectory) -> None:
    for expected in [1, 4]:
        fd, existed = confined.open_or_create("d/x/y/z", 0o700, existing=1)
        os.close(fd)
        assert existed == expected


def test_is_directory_raises_other_errors(
    confined: ConfinedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(ConfinedDirectory, "open", deny)
    with pytest.raises(PermissionError):
        confined.is_directory("d")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_walk_is_used_if_openat2_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(_openat2, "_syscall", lambda _: fail)
    (tmp_path / "f").write_bytes(b"x")
    fd = os.open(tmp_path, DIRECTORY)
    confined = ConfinedDirectory(fd)
    assert not confined.has_cached
    os.close(confined.open("f", READ))
    os.close(fd)


def test_lookup_gives_up_after_repeated_eagain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, DIRECTORY)
    confined = ConfinedDirectory(fd)
    calls: list[object] = []

    def fail_with_eagain(*call: object) -> int:
        calls.append(call)
        ctypes.set_errno(errno.EAGAIN)
        return -1

    monkeypatch.setattr(confined, "_syscall", fail_with_eagain)
    with pytest.raises(BlockingIOError):
        confined.open("f", READ)
    os.close(fd)
    assert 1 < len(calls) < 1000


class SwappingThread:
    """A thread that repeatedly exchanges a directory with a link that leads out of the root."""

    def __init__(self, inside: Path, outside: Path) -> None:
        self.link = inside.with_name("link")
        self.link.symlink_to(outside)
        self.swaps = 0
        self._stopped = threading.Event()
        self._names = (os.fsencode(inside), os.fsencode(self.link))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self.swaps % 2:
            self._swap()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._swap()

    def _swap(self) -> None:
        # The exchange is atomic: otherwise the driver could find no directory and create one.
        at_cwd, exchange = -100, 2  # linux/fcntl.h, linux/fs.h: AT_FDCWD, RENAME_EXCHANGE
        inside, link = self._names
        assert ctypes.CDLL(None).renameat2(at_cwd, inside, at_cwd, link, exchange) == 0
        self.swaps += 1


@pytest.mark.parametrize("openat2", [True, False])
@pytest.mark.parametrize("level", ["bucket", "directory"])
async def test_link_swapped_with_a_directory_is_never_followed(
    tmp_path: Path, open_client: OpenClient, level: str, *, openat2: bool
) -> None:
    outside = tmp_path / "outside"
    for name in ["k", "d/k", "target"]:
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_bytes(b"outside")
    before = sorted(path.relative_to(outside) for path in outside.rglob("*"))
    async with open_client(tmp_path / "root", openat2=openat2) as client:
        await client.put("d/k", b"inside")
        await client.put("d/other", b"inside")
        inside = client.bucket if level == "bucket" else client.bucket / "d"
        succeeded = 0
        with SwappingThread(inside, outside) as swapping:
            for number in range(150):
                for work in (
                    lambda: client.put("d/k", b"inside"),
                    lambda number=number: client.put(f"d/new{number}", b"inside"),
                    lambda number=number: client.driver.delete(
                        "b", f"d/new{number}", DeleteOptions()
                    ),
                    lambda: client.driver.delete("b", "d/target", DeleteOptions()),
                ):
                    with suppress(TroveError):
                        await work()
                        succeeded += 1
                with suppress(TroveError):
                    assert await client.read("d/k") == b"inside"
                with suppress(TroveError):
                    page = await client.driver.list_page("b", ListOptions())
                    assert not {"k", "target", "d/target"} & {entry.key for entry in page.entries}
                with suppress(TroveError):
                    await client.driver.put("link", "d/k", [memoryview(b"inside")], PutOptions())
        assert succeeded
        assert swapping.swaps
    assert sorted(path.relative_to(outside) for path in outside.rglob("*")) == before
    assert {path.read_bytes() for path in outside.rglob("k*") if path.is_file()} == {b"outside"}
