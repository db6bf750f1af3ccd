"""The table from errno to our errors, and that nothing is left behind after any of them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.local._errors import ERRORS, translate_error
from trove_async.drivers.local._threads import FileExecutor
from trove_async.errors import BackendError, TroveError, UnavailableError
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import Shop

    OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]


class Failing:
    """A call of the system that fails from the n-th time on."""

    def __init__(self, real: Callable[..., object], code: int, after: int = 0) -> None:
        self.real = real
        self.code = code
        self.left = after

    def __call__(self, *args: object, **named: object) -> object:
        if self.left:
            self.left -= 1
            return self.real(*args, **named)
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [*ERRORS, errno.EPROTO], ids=errno.errorcode.get)
def test_table(code: int) -> None:
    kind = ERRORS.get(code, (BackendError,))[0]
    error = translate_error(OSError(code, "x"), "b", "k")
    assert type(error) is kind
    assert (error.bucket, error.key) == ("b", "k")
    assert "\n" not in str(error)
    assert errno.errorcode[code] in str(error)


def test_error_without_errno_is_a_backend_error() -> None:
    assert type(translate_error(OSError("x"))) is BackendError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["pwritev", "utime", "rename", "fsync", "mkdir"])
@pytest.mark.parametrize("key", ["d/k", "dir/"])
async def test_failed_put_leaves_nothing(  # noqa: PLR0917 - fixtures and parameters
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    open_files: Callable[[], int],
    code: int,
    call: str,
    key: str,
) -> None:
    object.__setattr__(shop.driver._root.staging, "fsync", True)  # type: ignore[union-attr]
    await shop.put("warm")
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, Failing(getattr(os, call), code))
        with pytest.raises(ERRORS[code][0]) as caught:
            await shop.put(key, b"x" * 5000)
    assert isinstance(caught.value, TroveError)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.bucket, caught.value.key) == ("b", key)
    assert await shop.keys() == ["warm"]
    assert shop.own_files() == []
    assert list((shop.root / ".trove/overflow").rglob("*")) == []
    assert [path.name for path in shop.bucket.iterdir()] == ["warm"]
    assert open_files() == before
    await shop.put(key, b"x")
    assert await shop.read(key) == b"x"


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_failed_sidecar_leaves_nothing(
    tmp_path: Path, open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with open_shop(tmp_path, xattrs=False, fsync=True) as shop:
        await shop.put("k", b"old", metadata={"a": "b"})
        kept = shop.own_files()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, Failing(getattr(os, call), errno.ENOSPC))
            with pytest.raises(ERRORS[errno.ENOSPC][0]):
                await shop.put("k", b"new", metadata={"a": "c"})
        assert shop.own_files() == kept
        assert (await shop.read("k"), (await shop.driver.head("b", "k")).metadata) == (
            b"old",
            {"a": "b"},
        )


async def test_failed_rename_forgets_the_sidecar(
    tmp_path: Path, open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_shop(tmp_path, xattrs=False) as shop:
        monkeypatch.setattr(os, "rename", Failing(os.rename, errno.EIO))
        with pytest.raises(BackendError):
            await shop.put("k", b"new")
        assert shop.own_files() == []


async def test_xattr_that_fails_for_another_reason_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "setxattr", Failing(os.setxattr, errno.EIO))
    with pytest.raises(BackendError):
        await shop.put("k", b"x")
    assert shop.own_files() == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("call", ["open", "fstat"])
async def test_failed_reads_are_told_and_close_what_they_opened(  # noqa: PLR0917 - as above
    tmp_path: Path,
    open_shop: OpenShop,
    monkeypatch: pytest.MonkeyPatch,
    open_files: Callable[[], int],
    code: int,
    call: str,
) -> None:
    async with open_shop(tmp_path, openat2=False) as shop:
        info = await shop.put("d/k", b"x")
        await shop.keys()
        before = open_files()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, Failing(getattr(os, call), code))
            reads: list[Callable[[], Awaitable[object]]] = [
                lambda: shop.read("d/k"),
                lambda: shop.driver.head("b", "d/k"),
                lambda: shop.driver.copy(
                    "b", "d/k", "b", "l", CopyOptions(source=info, put=PutOptions())
                ),
                shop.keys,
            ]
            for read in reads:
                with pytest.raises(ERRORS[code][0]):
                    await read()
        assert open_files() == before
        assert await shop.keys() == ["d/k"]


async def test_failed_stream_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.put("big", bytes(1024 * 1024))
    real = FileExecutor.submit
    failing = Failing(os.read, errno.EIO)
    async with shop.driver.get("b", "big", GetOptions()) as reader:
        with monkeypatch.context() as patch:
            patch.setattr(FileExecutor, "submit", lambda self, *_: real(self, failing))
            with pytest.raises(BackendError) as caught:
                await reader.read(1000)
            assert caught.value.key == "big"


async def test_failed_delete_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.put("k", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", Failing(os.unlink, errno.EROFS))
        with pytest.raises(ERRORS[errno.EROFS][0]):
            await shop.driver.delete("b", "k", DeleteOptions())
    assert await shop.read("k") == b"x"


async def test_failed_part_may_be_sent_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop.driver.upload("b", "k", PutOptions()) as upload:
        part = Part(number=1, offset=0, size=3, last=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", Failing(os.pwritev, errno.ENOSPC))
            with pytest.raises(ERRORS[errno.ENOSPC][0]):
                await upload.send(part, [memoryview(b"abc")])
        await upload.send(part, [memoryview(b"abc")])
        await upload.commit({})
    assert await shop.read("k") == b"abc"


async def test_failed_clearing_keeps_the_new_record(
    tmp_path: Path, open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_shop(tmp_path, xattrs=False) as shop:
        await shop.put("a", b"file")
        await shop.put("a/b", b"hidden")
        await shop.driver.delete("b", "a", DeleteOptions())
        (shop.bucket / "a").mkdir()
        (shop.bucket / "a/b").write_bytes(b"theirs")
        real = os.unlink

        def unlink(name: str, *, dir_fd: int) -> None:
            if name.endswith(".o"):
                raise OSError(errno.EIO, "x")
            real(name, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            with pytest.raises(BackendError):
                await shop.put("a/b", b"ours", metadata={"a": "b"})
        assert (await shop.driver.head("b", "a/b")).metadata == {"a": "b"}


async def test_open_that_fails_midway_lets_go_of_everything(
    tmp_path: Path,
    open_shop: OpenShop,
    monkeypatch: pytest.MonkeyPatch,
    open_files: Callable[[], int],
) -> None:
    async with open_shop(tmp_path):
        pass
    before = open_files()
    for call in ["mkdir", "open", "write"]:
        for after in range(12):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, Failing(getattr(os, call), errno.EIO, after))
                try:
                    async with open_shop(tmp_path):
                        pass
                except TroveError as error:
                    assert isinstance(error, BackendError)  # noqa: PT017 - it may succeed, too
            assert open_files() == before, (call, after)
    async with open_shop(tmp_path) as shop:
        await shop.put("k", b"x")
    assert list((tmp_path / ".trove/staging").iterdir()) == []


async def test_directory_that_vanishes_for_ever_is_unavailable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "rename", Failing(os.rename, errno.ENOENT))
    with pytest.raises(UnavailableError):
        await shop.put("k", b"x")
    assert shop.own_files() == []
