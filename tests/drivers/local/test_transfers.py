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

    from tests.drivers.local.conftest import Shop

    OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 4096, 256 * 1024, 256 * 1024 + 1, 3 * MIB])
async def test_body_comes_back(any_shop: Shop, size: int) -> None:
    body = os.urandom(size)
    await any_shop.put("k", body)
    assert await any_shop.read("k") == body
    async with any_shop.driver.get("b", "k", GetOptions()) as reader:
        assert reader.range == (0, size)
        got = b""
        while chunk := await reader.read(size + 10):
            got += chunk
        assert got == body
        assert await reader.read(10) == b""


@pytest.mark.parametrize("size", [1000, MIB])
async def test_ranges(any_shop: Shop, size: int) -> None:
    body = os.urandom(size)
    await any_shop.put("k", body)
    for span in [ByteRange(10, 20), ByteRange(0), ByteRange(size - 5, size + 5), ByteRange.last(7)]:
        start, end = span.resolve(size)
        assert await any_shop.read("k", range=span) == body[start:end]
    for key in ["k", "empty"]:
        await any_shop.put("empty")
        with pytest.raises(RangeError):
            await any_shop.read(key, range=ByteRange(size))


async def test_many_views_are_one_body(shop: Shop) -> None:
    pieces = [os.urandom(1 + number % 7) for number in range(3000)]
    big = [os.urandom(3 * MIB) for _ in range(3)]
    views = [memoryview(piece) for piece in pieces + big]
    await shop.driver.put("b", "k", views, PutOptions())
    assert await shop.read("k") == b"".join(pieces + big)


async def test_short_writes_are_finished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: real(fd, [views[0][:5]], at))
    await shop.driver.put("b", "k", [memoryview(b"0123456789"), memoryview(b"abc")], PutOptions())
    assert await shop.read("k") == b"0123456789abc"


@pytest.mark.parametrize("key", ["k", "d/k", "dir/"])
async def test_conditions(any_shop: Shop, key: str) -> None:
    driver = any_shop.driver
    with pytest.raises(PreconditionFailedError):
        await any_shop.put(key, b"0", if_match="x")
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match="x"))
    assert list(any_shop.bucket.iterdir()) == []
    first = await any_shop.put(key, b"1", if_none_match="*")
    with pytest.raises(ObjectExistsError):
        await any_shop.put(key, b"2", if_none_match="*")
    second = await any_shop.put(key, b"2", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_shop.put(key, b"3", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_shop.put(key, b"3", if_none_match=second.etag)
    with pytest.raises(PreconditionFailedError):
        await any_shop.read(key, if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        await any_shop.read(key, if_none_match=second.etag)
    assert await any_shop.read(key, if_match=second.etag, if_none_match=first.etag) == b"2"
    with pytest.raises(PreconditionFailedError):
        await driver.delete("b", key, DeleteOptions(if_match=first.etag))
    await driver.delete("b", key, DeleteOptions(if_match=second.etag))
    await driver.delete("b", key, DeleteOptions())
    assert any_shop.own_files() == []


async def test_create_only_beside_a_foreign_file_made_just_then(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def late(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        (shop.bucket / "k").write_bytes(b"theirs")
        real(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ObjectExistsError):
        await shop.put("k", b"ours", if_none_match="*")
    assert await shop.read("k") == b"theirs"
    assert shop.own_files() == []


async def test_create_only_where_there_are_no_links(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    await shop.put("k", b"ours", if_none_match="*")
    assert await shop.read("k") == b"ours"


def _part(number: int, offset: int, size: int) -> Part:
    return Part(number=number, offset=offset, size=size, last=False)


async def test_upload_takes_parts_in_any_order_and_again(any_shop: Shop) -> None:
    body = os.urandom(3 * MIB)
    whole = b64encode(crc32c(body).to_bytes(4)).decode()
    options = PutOptions(content_type="a/b", size=len(body), write_id="w")
    async with any_shop.driver.upload("b", "d/k", options) as upload:
        for number in [3, 1, 2, 1]:
            at = (number - 1) * MIB
            await upload.send(_part(number, at, MIB), [memoryview(body)[at : at + MIB]])
        assert await any_shop.keys() == []
        info = await upload.commit({"crc32c": whole})
        assert await upload.commit({}) == info
        with pytest.raises(StreamError):
            await upload.send(_part(1, 0, 1), [memoryview(b"x")])
    assert await any_shop.read("d/k") == body
    assert (info.checksums, info.content_type) == ({"crc32c": whole}, "a/b")
    assert await any_shop.driver.head("b", "d/k") == info
    assert (await any_shop.driver.head("b", "d/k")).write_id == "w"
    if any_shop.driver._settings.xattrs:
        assert any_shop.own_files() == []


async def test_upload_left_without_commit_leaves_nothing(
    shop: Shop, open_files: Callable[[], int]
) -> None:
    before = open_files()
    async with shop.driver.upload("b", "k", PutOptions()) as upload:
        await upload.send(_part(1, 0, 3), [memoryview(b"abc")])
    assert (await shop.keys(), shop.own_files(), open_files()) == ([], [], before)
    with pytest.raises(StreamError):
        await upload.commit({})


async def test_upload_of_nothing_is_an_empty_object(shop: Shop) -> None:
    async with shop.driver.upload("b", "k", PutOptions()) as upload:
        await upload.commit({})
    assert await shop.read("k") == b""


async def test_upload_with_a_gap_or_another_size_is_refused(shop: Shop) -> None:
    async with shop.driver.upload("b", "k", PutOptions(size=7)) as upload:
        with pytest.raises(IntegrityError):
            await upload.send(_part(1, 0, 4), [memoryview(b"abc")])
        await upload.send(_part(2, 4, 3), [memoryview(b"abc")])
        with pytest.raises(BackendError, match="must start at offset"):
            await upload.commit({})
        await upload.send(_part(1, 0, 4), [memoryview(b"abcd")])
        await upload.send(_part(3, 7, 1), [memoryview(b"e")])
        with pytest.raises(IntegrityError):
            await upload.commit({})
    assert (await shop.keys(), shop.own_files()) == ([], [])


@pytest.mark.parametrize("missing", ["nothing", "clone", "copy_file_range", "both"])
async def test_copies_by_every_way(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    if missing in {"clone", "both"}:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    if missing in {"copy_file_range", "both"}:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(_copy, "_COPY_AT_ONCE", 1000)
    body = os.urandom(5001)
    source = await shop.put("k", body)
    options = CopyOptions(source=source, put=PutOptions())
    await shop.driver.copy("b", "k", "b", "l", options)
    assert await shop.read("l") == body


async def test_copy_is_pinned_to_its_source(shop: Shop) -> None:
    old = await shop.put("k", b"old")
    new = await shop.put("k", b"new")
    for target in ["l", "k"]:
        with pytest.raises(ObjectChangedError):
            await shop.driver.copy("b", "k", "b", target, CopyOptions(source=old, put=PutOptions()))
    with pytest.raises(ObjectNotFoundError):
        await shop.driver.copy("b", "no", "b", "l", CopyOptions(source=old, put=PutOptions()))
    options = CopyOptions(source=new, put=PutOptions(if_none_match="*"))
    await shop.driver.copy("b", "k", "b", "l", options)
    with pytest.raises(ObjectExistsError):
        await shop.driver.copy("b", "k", "b", "l", options)
    stale = CopyOptions(source=new, put=PutOptions(if_match=old.etag))
    with pytest.raises(PreconditionFailedError) as caught:
        await shop.driver.copy("b", "k", "b", "k", stale)
    assert type(caught.value) is PreconditionFailedError
    assert shop.own_files() == []


async def test_copy_onto_itself_gives_way_to_a_faster_put(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await shop.put("k", b"old")
    real = os.utime

    def late(fd: int, *, ns: tuple[int, int]) -> None:
        real(fd, ns=ns)
        (shop.bucket / "k").write_bytes(b"faster")

    monkeypatch.setattr(os, "utime", late)
    with pytest.raises(ObjectChangedError):
        await shop.driver.copy(
            "b", "k", "b", "k", CopyOptions(source=source, put=PutOptions(metadata={"a": "b"}))
        )
    assert await shop.read("k") == b"faster"


async def test_copy_of_a_source_cut_short_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await shop.put("k", bytes(5000))
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with pytest.raises(ObjectChangedError):
        await shop.driver.copy("b", "k", "b", "l", CopyOptions(source=source, put=PutOptions()))
    assert (await shop.keys(), shop.own_files()) == (["k"], [])


async def test_many_deletes_tell_of_each(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ["a", "b/c", "dir/", "stuck"]:
        await shop.put(key, b"x")
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "stuck":
            raise PermissionError(errno.EPERM, "immutable")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    results = await shop.driver.delete_many("b", ["a", "no", "b/c", "dir/", "stuck"])
    assert [(one.key, type(one.error).__name__) for one in results] == [
        ("a", "NoneType"),
        ("no", "NoneType"),
        ("b/c", "NoneType"),
        ("dir/", "NoneType"),
        ("stuck", "PermissionDeniedError"),
    ]
    assert await shop.keys() == ["stuck"]


async def test_versions_are_refused(shop: Shop) -> None:
    await shop.put("k")
    with pytest.raises(NotSupportedError):
        await shop.driver.head("b", "k", "v1")
    with pytest.raises(NotSupportedError):
        await shop.read("k", version_id="v1")
    with pytest.raises(NotSupportedError):
        await shop.driver.delete("b", "k", DeleteOptions(version_id="v1"))


async def test_ping_tells_that_the_root_is_gone(shop: Shop) -> None:
    await shop.driver.ping()
    moved = shop.root.with_name("moved")
    shop.root.rename(moved)
    with pytest.raises(BackendError, match="removed"):
        await shop.driver.ping()
    moved.rename(shop.root)


async def test_closed_driver_says_so(tmp_path: Path, open_shop: OpenShop) -> None:
    never = LocalDriver(tmp_path)
    with pytest.raises(ClosedError):
        await never.ping()
    await never.aclose()
    async with open_shop(tmp_path) as shop:
        await shop.put("k")
    await shop.driver.aclose()
    with pytest.raises(ClosedError):
        await shop.driver.head("b", "k")
    with pytest.raises(ClosedError):
        shop.driver.get("b", "k", GetOptions())
    assert set(os.listdir(tmp_path)) == {".trove", "b"}  # noqa: PTH208 - shorter
    assert shop.own_files() == []


async def test_reader_of_a_closed_driver_lets_its_file_go(
    tmp_path: Path, open_shop: OpenShop, open_files: Callable[[], int]
) -> None:
    before = open_files()
    async with open_shop(tmp_path) as shop:
        await shop.put("big", bytes(MIB))
        opening = shop.driver.get("b", "big", GetOptions())
        reader = await opening.__aenter__()
    with pytest.raises(ClosedError):
        await reader.read(10)
    await opening.__aexit__(None, None, None)
    assert open_files() == before


async def test_driver_opens_once(shop: Shop) -> None:
    with pytest.raises(ClosedError):
        await shop.driver.open(DriverContext.__new__(DriverContext))


async def test_root_that_can_never_be_is_a_config_error(
    tmp_path: Path, open_shop: OpenShop
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root, settings in [("file", {}), ("file/x", {}), ("no", {"mkdir": False})]:
        with pytest.raises(ConfigError, match=r"is not a directory|does not exist"):
            async with open_shop(tmp_path / root, **settings):
                pass


async def test_root_may_be_reached_by_a_link(tmp_path: Path, open_shop: OpenShop) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with open_shop(tmp_path / "link") as one, open_shop(tmp_path / "real") as other:
        await one.put("k", b"x")
        assert await other.read("k") == b"x"
        assert one.driver.place("b", "k") == other.driver.place("b", "k")
        async with open_shop(tmp_path / "real" / "b") as nested:
            assert nested.driver.place("d", "k") == other.driver.place("b", "d/k")


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"max_reads": 0}, {"file_mode": 0o444}, {"dir_mode": 0o600}, {"root": ""}],
)
def test_nonsense_is_refused_when_it_is_said(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LocalDriver(**({"root": "/x"} | settings))  # type: ignore[arg-type] # of many types
    with pytest.raises(TypeError):
        LocalDriver(b"/x")  # type: ignore[arg-type] # what the test is about


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
def test_settings_of_another_type_are_refused(setting: str, value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{setting} must be {kind}"):
        LocalDriver("objects", **{setting: value})


async def test_modes_are_those_asked_for(tmp_path: Path, open_shop: OpenShop) -> None:
    mask = os.umask(0)
    try:
        async with open_shop(tmp_path, file_mode=0o640, dir_mode=0o750) as shop:
            await shop.put("d/k", b"x")
            assert (shop.bucket / "d/k").stat().st_mode & 0o777 == 0o640
            assert (shop.bucket / "d").stat().st_mode & 0o777 == 0o750
    finally:
        os.umask(mask)
