"""Gets, puts, uploads and copies: their conditions, ranges and parts."""

from __future__ import annotations

import errno
import fcntl
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from crc32c import crc32c

from trove_async.driver import DriverContext
from trove_async.drivers.local import LocalDriver, _copy
from trove_async.errors import (
    BackendError,
    ClosedError,
    ConfigError,
    IntegrityError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    StreamError,
)
from trove_async.models import ByteRange
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 4096, 256 * 1024, 256 * 1024 + 1, 3 * MIB])
async def test_get_returns_the_body_that_was_put(any_client: BucketClient, size: int) -> None:
    body = os.urandom(size)
    await any_client.put("k", body)
    assert await any_client.read("k") == body
    async with any_client.driver.get("b", "k", GetOptions()) as reader:
        assert reader.range == (0, size)
        got = b""
        while chunk := await reader.read(size + 10):
            got += chunk
        assert got == body
        assert await reader.read(10) == b""


@pytest.mark.parametrize("size", [1000, MIB])
async def test_range_returns_the_same_bytes_as_a_slice(any_client: BucketClient, size: int) -> None:
    body = os.urandom(size)
    await any_client.put("k", body)
    for span in [ByteRange(10, 20), ByteRange(0), ByteRange(size - 5, size + 5), ByteRange.last(7)]:
        start, end = span.resolve(size)
        assert await any_client.read("k", range=span) == body[start:end]
    for key in ["k", "empty"]:
        await any_client.put("empty")
        with pytest.raises(RangeError):
            await any_client.read(key, range=ByteRange(size))


async def test_many_views_are_joined_into_one_body(client: BucketClient) -> None:
    pieces = [os.urandom(1 + number % 7) for number in range(3000)]
    big = [os.urandom(3 * MIB) for _ in range(3)]
    views = [memoryview(piece) for piece in pieces + big]
    await client.driver.put("b", "k", views, PutOptions())
    assert await client.read("k") == b"".join(pieces + big)


async def test_short_writes_are_continued(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: real(fd, [views[0][:5]], at))
    await client.driver.put("b", "k", [memoryview(b"0123456789"), memoryview(b"abc")], PutOptions())
    assert await client.read("k") == b"0123456789abc"


@pytest.mark.parametrize("key", ["k", "d/k", "dir/"])
async def test_conditions_of_put_get_and_delete_are_checked(
    any_client: BucketClient, key: str
) -> None:
    driver = any_client.driver
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"0", if_match="x")
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match="x"))
    assert list(any_client.bucket.iterdir()) == []
    first = await any_client.put(key, b"1", if_none_match="*")
    with pytest.raises(ObjectExistsError):
        await any_client.put(key, b"2", if_none_match="*")
    second = await any_client.put(key, b"2", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"3", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.put(key, b"3", if_none_match=second.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.read(key, if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_client.read(key, if_none_match=second.etag)
    assert await any_client.read(key, if_match=second.etag, if_none_match=first.etag) == b"2"
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match=first.etag))
    await driver.delete("b", key, DeleteOptions(if_match=second.etag))
    await driver.delete("b", key, DeleteOptions())
    assert any_client.own_files() == []


async def test_create_fails_if_a_foreign_file_appears_at_the_last_moment(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def late(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        (client.bucket / "k").write_bytes(b"theirs")
        real(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ObjectExistsError):
        await client.put("k", b"ours", if_none_match="*")
    assert await client.read("k") == b"theirs"
    assert client.own_files() == []


async def test_create_works_without_hard_links(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    await client.put("k", b"ours", if_none_match="*")
    assert await client.read("k") == b"ours"


def _part(number: int, offset: int, size: int) -> Part:
    return Part(number=number, offset=offset, size=size, last=False)


async def test_upload_accepts_parts_in_any_order_and_repeated(any_client: BucketClient) -> None:
    body = os.urandom(3 * MIB)
    whole = b64encode(crc32c(body).to_bytes(4)).decode()
    options = PutOptions(content_type="a/b", size=len(body), write_id="w")
    async with any_client.driver.upload("b", "d/k", options) as upload:
        for number in [3, 1, 2, 1]:
            at = (number - 1) * MIB
            await upload.send(_part(number, at, MIB), [memoryview(body)[at : at + MIB]])
        assert await any_client.keys() == []
        info = await upload.commit({"crc32c": whole})
        assert await upload.commit({}) == info
        with pytest.raises(StreamError):
            await upload.send(_part(1, 0, 1), [memoryview(b"x")])
    assert await any_client.read("d/k") == body
    assert (info.checksums, info.content_type) == ({"crc32c": whole}, "a/b")
    assert await any_client.driver.head("b", "d/k") == info
    assert (await any_client.driver.head("b", "d/k")).write_id == "w"
    if any_client.driver._settings.xattrs:
        assert any_client.own_files() == []


async def test_upload_left_without_commit_leaves_nothing(
    client: BucketClient, open_files: Callable[[], int]
) -> None:
    before = open_files()
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        await upload.send(_part(1, 0, 3), [memoryview(b"abc")])
    assert (await client.keys(), client.own_files(), open_files()) == ([], [], before)
    with pytest.raises(StreamError):
        await upload.commit({})


async def test_upload_without_parts_creates_an_empty_object(client: BucketClient) -> None:
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        await upload.commit({})
    assert await client.read("k") == b""


async def test_upload_with_a_gap_or_a_wrong_size_is_refused(client: BucketClient) -> None:
    async with client.driver.upload("b", "k", PutOptions(size=7)) as upload:
        with pytest.raises(IntegrityError):
            await upload.send(_part(1, 0, 4), [memoryview(b"abc")])
        await upload.send(_part(2, 4, 3), [memoryview(b"abc")])
        with pytest.raises(BackendError, match="must start at offset"):
            await upload.commit({})
        await upload.send(_part(1, 0, 4), [memoryview(b"abcd")])
        await upload.send(_part(3, 7, 1), [memoryview(b"e")])
        with pytest.raises(IntegrityError):
            await upload.commit({})
    assert (await client.keys(), client.own_files()) == ([], [])


@pytest.mark.parametrize("missing", ["nothing", "clone", "copy_file_range", "both"])
async def test_copy_works_with_each_copy_method_missing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    if missing in {"clone", "both"}:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    if missing in {"copy_file_range", "both"}:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(_copy, "_COPY_AT_ONCE", 1000)
    body = os.urandom(5001)
    source = await client.put("k", body)
    options = CopyOptions(source=source, put=PutOptions())
    await client.driver.copy("b", "k", "b", "l", options)
    assert await client.read("l") == body


async def test_copy_checks_its_source_version_and_its_conditions(client: BucketClient) -> None:
    old = await client.put("k", b"old")
    new = await client.put("k", b"new")
    for target in ["l", "k"]:
        with pytest.raises(ObjectChangedError):
            await client.driver.copy(
                "b", "k", "b", target, CopyOptions(source=old, put=PutOptions())
            )
    with pytest.raises(ObjectNotFoundError):
        await client.driver.copy("b", "no", "b", "l", CopyOptions(source=old, put=PutOptions()))
    options = CopyOptions(source=new, put=PutOptions(if_none_match="*"))
    await client.driver.copy("b", "k", "b", "l", options)
    with pytest.raises(ObjectExistsError):
        await client.driver.copy("b", "k", "b", "l", options)
    stale = CopyOptions(source=new, put=PutOptions(if_match=old.etag))
    with pytest.raises(PreconditionFailedError) as caught:
        await client.driver.copy("b", "k", "b", "k", stale)
    assert type(caught.value) is PreconditionFailedError
    assert client.own_files() == []


async def test_copy_onto_itself_fails_if_the_object_changes_during_the_copy(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await client.put("k", b"old")
    real = os.utime

    def late(fd: int, *, ns: tuple[int, int]) -> None:
        real(fd, ns=ns)
        (client.bucket / "k").write_bytes(b"faster")

    monkeypatch.setattr(os, "utime", late)
    with pytest.raises(ObjectChangedError):
        await client.driver.copy(
            "b", "k", "b", "k", CopyOptions(source=source, put=PutOptions(metadata={"a": "b"}))
        )
    assert await client.read("k") == b"faster"


async def test_copy_fails_if_the_source_is_truncated(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await client.put("k", bytes(5000))
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with pytest.raises(ObjectChangedError):
        await client.driver.copy("b", "k", "b", "l", CopyOptions(source=source, put=PutOptions()))
    assert (await client.keys(), client.own_files()) == (["k"], [])


async def test_delete_many_reports_each_key(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ["a", "b/c", "dir/", "stuck"]:
        await client.put(key, b"x")
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "stuck":
            raise PermissionError(errno.EPERM, "immutable")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    results = await client.driver.delete_many("b", ["a", "no", "b/c", "dir/", "stuck"])
    assert [(one.key, type(one.error).__name__) for one in results] == [
        ("a", "NoneType"),
        ("no", "NoneType"),
        ("b/c", "NoneType"),
        ("dir/", "NoneType"),
        ("stuck", "PermissionDeniedError"),
    ]
    assert await client.keys() == ["stuck"]


async def test_version_id_is_not_supported(client: BucketClient) -> None:
    await client.put("k")
    with pytest.raises(NotSupportedError):
        await client.driver.head("b", "k", "v1")
    with pytest.raises(NotSupportedError):
        await client.read("k", version_id="v1")
    with pytest.raises(NotSupportedError):
        await client.driver.delete("b", "k", DeleteOptions(version_id="v1"))


async def test_ping_fails_if_the_root_was_removed(client: BucketClient) -> None:
    await client.driver.ping()
    moved = client.root.with_name("moved")
    client.root.rename(moved)
    with pytest.raises(BackendError, match="removed"):
        await client.driver.ping()
    moved.rename(client.root)


async def test_closed_driver_raises_closed_error(tmp_path: Path, open_client: OpenClient) -> None:
    never = LocalDriver(tmp_path)
    with pytest.raises(ClosedError):
        await never.ping()
    await never.aclose()
    async with open_client(tmp_path) as client:
        await client.put("k")
    await client.driver.aclose()
    with pytest.raises(ClosedError):
        await client.driver.head("b", "k")
    with pytest.raises(ClosedError):
        client.driver.get("b", "k", GetOptions())
    assert set(os.listdir(tmp_path)) == {".trove", "b"}  # noqa: PTH208 - shorter
    assert client.own_files() == []


async def test_reader_of_a_closed_driver_closes_its_file(
    tmp_path: Path, open_client: OpenClient, open_files: Callable[[], int]
) -> None:
    before = open_files()
    async with open_client(tmp_path) as client:
        await client.put("big", bytes(MIB))
        opening = client.driver.get("b", "big", GetOptions())
        reader = await opening.__aenter__()
    with pytest.raises(ClosedError):
        await reader.read(10)
    await opening.__aexit__(None, None, None)
    assert open_files() == before


async def test_driver_cannot_be_opened_twice(client: BucketClient) -> None:
    with pytest.raises(ClosedError):
        await client.driver.open(DriverContext.__new__(DriverContext))


async def test_unusable_root_is_a_config_error(tmp_path: Path, open_client: OpenClient) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root, settings in [("file", {}), ("file/x", {}), ("no", {"mkdir": False})]:
        with pytest.raises(ConfigError, match=r"is not a directory|does not exist"):
            async with open_client(tmp_path / root, **settings):
                pass


async def test_root_can_be_a_symlink(tmp_path: Path, open_client: OpenClient) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with open_client(tmp_path / "link") as one, open_client(tmp_path / "real") as other:
        await one.put("k", b"x")
        assert await other.read("k") == b"x"
        assert one.driver.place("b", "k") == other.driver.place("b", "k")
        async with open_client(tmp_path / "real" / "b") as nested:
            assert nested.driver.place("d", "k") == other.driver.place("b", "d/k")


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"max_reads": 0}, {"file_mode": 0o444}, {"dir_mode": 0o600}, {"root": ""}],
)
def test_invalid_settings_are_refused_by_the_constructor(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LocalDriver(**({"root": "/x"} | settings))  # type: ignore[arg-type] # of many types
    with pytest.raises(TypeError):
        LocalDriver(b"/x")  # type: ignore[arg-type] # the point of the test


@pytest.mark.parametrize(
    ("setting", "value", "kind"),
    [
        ("threads", "3", "an int, got str"),
        ("max_reads", 1.5, "an int, got float"),
        ("file_mode", "0640", "an int, got str"),
        ("dir_mode", "0750", "an int, got str"),
        ("fsync", "no", "a bool, got str"),
        ("mkdir", 0, "a bool, got int"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(setting: str, value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{setting} must be {kind}"):
        LocalDriver("objects", **{setting: value})


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
