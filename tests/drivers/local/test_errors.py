"""Each errno maps to one of the library's errors, and a failed call leaves nothing behind."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.drivers.local.system_calls import FailingCall
from trove_async.drivers.local._errors import ERRORS, translate_error
from trove_async.drivers.local._threads import FileExecutor
from trove_async.errors import BackendError, TroveError, UnavailableError
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


@pytest.mark.parametrize("code", [*ERRORS, errno.EPROTO], ids=errno.errorcode.get)
def test_each_errno_maps_to_its_error(code: int) -> None:
    error_class = ERRORS.get(code, (BackendError,))[0]
    error = translate_error(OSError(code, "x"), "b", "k")
    assert type(error) is error_class
    assert (error.bucket, error.key) == ("b", "k")
    assert "\n" not in str(error)
    assert errno.errorcode[code] in str(error)


def test_error_without_errno_is_a_backend_error() -> None:
    assert type(translate_error(OSError("x"))) is BackendError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["pwritev", "utime", "rename", "fsync", "mkdir"])
@pytest.mark.parametrize("key", ["d/k", "dir/"])
async def test_failed_put_leaves_nothing(  # noqa: PLR0917 - fixtures and parameters
    client: BucketClient,
    monkeypatch: pytest.MonkeyPatch,
    count_open_files: Callable[[], int],
    code: int,
    call: str,
    key: str,
) -> None:
    client.driver._root.staging.fsync = True  # type: ignore[union-attr] # the driver is open
    await client.put("existing")
    before = count_open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, FailingCall(getattr(os, call), code))
        with pytest.raises(ERRORS[code][0]) as caught:
            await client.put(key, b"x" * 5000)
    assert isinstance(caught.value, TroveError)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.bucket, caught.value.key) == ("b", key)
    assert await client.keys() == ["existing"]
    assert client.own_files() == []
    assert list((client.root / ".trove/overflow").rglob("*")) == []
    assert [path.name for path in client.bucket.iterdir()] == ["existing"]
    assert count_open_files() == before
    await client.put(key, b"x")
    assert await client.read(key) == b"x"


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_failed_write_of_a_sidecar_keeps_the_old_object(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with open_client(tmp_path, xattrs=False, fsync=True) as client:
        await client.put("k", b"old", metadata={"a": "b"})
        own_files = client.own_files()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, FailingCall(getattr(os, call), errno.ENOSPC))
            with pytest.raises(ERRORS[errno.ENOSPC][0]):
                await client.put("k", b"new", metadata={"a": "c"})
        assert client.own_files() == own_files
        assert (await client.read("k"), (await client.driver.head("b", "k")).metadata) == (
            b"old",
            {"a": "b"},
        )


async def test_failed_rename_removes_the_sidecar(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        monkeypatch.setattr(os, "rename", FailingCall(os.rename, errno.EIO))
        with pytest.raises(BackendError):
            await client.put("k", b"new")
        assert client.own_files() == []


async def test_unexpected_xattr_error_raises_and_leaves_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "setxattr", FailingCall(os.setxattr, errno.EIO))
    with pytest.raises(BackendError):
        await client.put("k", b"x")
    assert client.own_files() == []


async def test_unreadable_metadata_raises_and_does_not_seem_to_be_missing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    await client.put("k", b"x", metadata={"a": "b"})
    before = count_open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getxattr", FailingCall(os.getxattr, errno.EIO))
        with pytest.raises(BackendError):
            await client.driver.head("b", "k")
        with pytest.raises(BackendError):
            await client.read("k")
    assert (await client.driver.head("b", "k")).metadata == {"a": "b"}
    assert count_open_files() == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("call", ["open", "fstat"])
async def test_failed_reads_raise_and_close_their_files(  # noqa: PLR0917 - as above
    tmp_path: Path,
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
    count_open_files: Callable[[], int],
    code: int,
    call: str,
) -> None:
    async with open_client(tmp_path, openat2=False) as client:
        info = await client.put("d/k", b"x")
        await client.keys()
        before = count_open_files()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, FailingCall(getattr(os, call), code))
            reads: list[Callable[[], Awaitable[object]]] = [
                lambda: client.read("d/k"),
                lambda: client.driver.head("b", "d/k"),
                lambda: client.driver.copy(
                    "b", "d/k", "b", "l", CopyOptions(source=info, put=PutOptions())
                ),
                client.keys,
            ]
            for read in reads:
                with pytest.raises(ERRORS[code][0]):
                    await read()
        assert count_open_files() == before
        assert await client.keys() == ["d/k"]


async def test_failed_read_of_a_stream_raises(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put("big", bytes(1024 * 1024))
    real = FileExecutor.submit
    failing = FailingCall(os.read, errno.EIO)
    async with client.driver.get("b", "big", GetOptions()) as reader:
        with monkeypatch.context() as patch:
            patch.setattr(FileExecutor, "submit", lambda self, *_: real(self, failing))
            with pytest.raises(BackendError) as caught:
                await reader.read(1000)
            assert caught.value.key == "big"


async def test_failed_delete_raises_and_keeps_the_object(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put("k", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", FailingCall(os.unlink, errno.EROFS))
        with pytest.raises(ERRORS[errno.EROFS][0]):
            await client.driver.delete("b", "k", DeleteOptions())
    assert await client.read("k") == b"x"


async def test_failed_part_can_be_sent_again(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        part = Part(number=1, offset=0, size=3, last=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", FailingCall(os.pwritev, errno.ENOSPC))
            with pytest.raises(ERRORS[errno.ENOSPC][0]):
                await upload.send(part, [memoryview(b"abc")])
        await upload.send(part, [memoryview(b"abc")])
        await upload.commit({})
    assert await client.read("k") == b"abc"


async def test_failed_removal_of_the_overflow_file_keeps_the_new_metadata(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("a", b"file")
        await client.put("a/b", b"overflow")
        await client.driver.delete("b", "a", DeleteOptions())
        (client.bucket / "a").mkdir()
        (client.bucket / "a/b").write_bytes(b"foreign")
        real = os.unlink

        def unlink(name: str, *, dir_fd: int) -> None:
            if name.endswith(".o"):
                raise OSError(errno.EIO, "x")
            real(name, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            with pytest.raises(BackendError):
                await client.put("a/b", b"new", metadata={"a": "b"})
        assert (await client.driver.head("b", "a/b")).metadata == {"a": "b"}


async def test_failed_open_closes_all_files(
    tmp_path: Path,
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
    count_open_files: Callable[[], int],
) -> None:
    async with open_client(tmp_path):
        pass
    before = count_open_files()
    for call in ["mkdir", "open", "write"]:
        for successes in range(12):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, FailingCall(getattr(os, call), errno.EIO, successes))
                try:
                    async with open_client(tmp_path):
                        pass
                except TroveError as error:
                    assert isinstance(error, BackendError)  # noqa: PT017 - it may also succeed
            assert count_open_files() == before, (call, successes)
    async with open_client(tmp_path) as client:
        await client.put("k", b"x")
    assert list((tmp_path / ".trove/staging").iterdir()) == []


async def test_put_whose_directory_is_removed_repeatedly_raises_unavailable(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "rename", FailingCall(os.rename, errno.ENOENT))
    with pytest.raises(UnavailableError):
        await client.put("k", b"x")
    assert client.own_files() == []
