"""Copies within the file system."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.drivers.local.system_calls import FailingCall
from trove_async.drivers.local import _copy
from trove_async.drivers.local._objects import find
from trove_async.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
)
from trove_async.options import CopyOptions, PutOptions

if TYPE_CHECKING:
    from tests.drivers.local.conftest import BucketClient


@pytest.mark.parametrize("unsupported", ["nothing", "ioctl", "copy_file_range", "both"])
async def test_copy_works_if_a_method_is_not_supported(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, unsupported: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if unsupported in {"ioctl", "both"}:
        monkeypatch.setattr(fcntl, "ioctl", fail)
    if unsupported in {"copy_file_range", "both"}:
        monkeypatch.setattr(os, "copy_file_range", fail)
    monkeypatch.setattr(_copy, "_MAX_COPY", 1000)
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
        await client.driver.copy(
            "b", "missing", "b", "l", CopyOptions(source=old, put=PutOptions())
        )
    options = CopyOptions(source=new, put=PutOptions(if_none_match="*"))
    await client.driver.copy("b", "k", "b", "l", options)
    with pytest.raises(ObjectExistsError):
        await client.driver.copy("b", "k", "b", "l", options)
    stale = CopyOptions(source=new, put=PutOptions(if_match=old.etag))
    with pytest.raises(PreconditionFailedError) as caught:
        await client.driver.copy("b", "k", "b", "k", stale)
    assert type(caught.value) is PreconditionFailedError
    assert client.own_files() == []


async def test_error_about_the_source_names_the_source(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await client.put("k", b"old")
    await client.put("k", b"new")
    options = CopyOptions(source=old, put=PutOptions())
    with pytest.raises(ObjectChangedError) as changed:
        await client.driver.copy("b", "k", "b", "copy", options)
    assert (changed.value.bucket, changed.value.key) == ("b", "k")
    monkeypatch.setattr(_copy, "find", FailingCall(find, errno.EACCES))
    with pytest.raises(PermissionDeniedError) as denied:
        await client.driver.copy("b", "k", "b", "copy", options)
    assert (denied.value.bucket, denied.value.key) == ("b", "k")


async def test_copy_onto_itself_fails_if_the_object_changes_during_the_copy(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await client.put("k", b"old")
    real = os.utime

    def overwrite_source(fd: int, *, ns: tuple[int, int]) -> None:
        real(fd, ns=ns)
        (client.bucket / "k").write_bytes(b"foreign")

    monkeypatch.setattr(os, "utime", overwrite_source)
    with pytest.raises(ObjectChangedError):
        await client.driver.copy(
            "b", "k", "b", "k", CopyOptions(source=source, put=PutOptions(metadata={"a": "b"}))
        )
    assert await client.read("k") == b"foreign"


async def test_copy_fails_if_the_source_is_truncated(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await client.put("k", bytes(5000))
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with pytest.raises(ObjectChangedError):
        await client.driver.copy("b", "k", "b", "l", CopyOptions(source=source, put=PutOptions()))
    assert (await client.keys(), client.own_files()) == (["k"], [])


async def test_copy_keeps_the_checksum_and_takes_the_new_metadata(
    any_client: BucketClient,
) -> None:
    source = await any_client.put("k", b"body", metadata={"a": "b"})
    for key in ["copy", "k/below", "k"]:
        copied = await any_client.driver.copy(
            "b",
            "k",
            "b",
            key,
            CopyOptions(source=source, put=PutOptions(metadata={"c": "d"}, write_id="w")),
        )
        head = await any_client.driver.head("b", key)
        assert head == copied
        assert (head.metadata, head.write_id, head.checksums) == ({"c": "d"}, "w", source.checksums)
        assert await any_client.read(key) == b"body"
