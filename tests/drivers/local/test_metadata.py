"""Metadata records, in the extended attributes of a file or in a sidecar beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.local._metadata import Metadata, decode, decode_owner, modified_at
from trove_async.drivers.local._sidecars import Sidecars
from trove_async.errors import IntegrityError, ObjectNotFoundError
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

BIG = {f"name-{number}": "v" * 1000 for number in range(8)}

texts = st.text(st.characters(codec="utf-8"), max_size=40)
records = st.builds(
    Metadata,
    crc32c=st.none() | st.binary(min_size=4, max_size=4).map(lambda raw: b64encode(raw).decode()),
    write_id=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=400),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "content_type": texts,
            "cache_control": texts,
            "content_disposition": texts,
            "content_encoding": texts,
            "content_language": texts,
            "expires": st.datetimes(timezones=st.just(UTC)),
            "metadata": st.dictionaries(texts, texts, max_size=3),
            "tags": st.dictionaries(texts, texts, max_size=3),
        },
    ),
)


def _status(*, mtime_ns: int = 1, size: int = 2, ino: int = 3) -> os.stat_result:
    return os.stat_result(
        (0o100600, ino, 0, 1, 0, 0, size, 0, 0, 0), {"st_mtime_ns": mtime_ns, "st_mtime": 0.0}
    )


@given(records, st.none() | st.tuples(texts, texts))
def test_decode_reverses_encode(record: Metadata, owner: tuple[str, str] | None) -> None:
    status = _status()
    raw = record.encode(status, owner)
    assert decode(raw, status) == (record, owner)
    assert decode_owner(raw) == owner


@pytest.mark.parametrize("status", [_status(mtime_ns=2), _status(size=3)])
def test_record_of_another_file_state_is_ignored(status: os.stat_result) -> None:
    assert decode(Metadata(fields={"content_type": "a/b"}).encode(_status()), status) is None


@given(st.binary(max_size=80))
def test_garbage_is_decoded_without_an_error(raw: bytes) -> None:
    decode(raw, _status())
    decode_owner(raw)
    head = struct.pack("<BBBqQI", 1, 1, len(raw) % 7, 1, 2, 0)
    found = decode(head + raw, _status())
    assert found is None or isinstance(found[0], Metadata)
    decode_owner(head + raw)


def test_usual_record_fits_an_inode() -> None:
    raw = Metadata(crc32c="AAAAAA==", write_id="0" * 32).encode(_status())
    assert len(raw) <= 60


def test_time_out_of_range_becomes_the_nearest_datetime() -> None:
    assert modified_at(1e20).year == 9999
    assert modified_at(-1e20).year == 1


async def test_head_returns_every_option_of_the_put(any_client: BucketClient) -> None:
    said = {
        "content_type": "text/plain",
        "metadata": {"a": "ä"},
        "tags": {"t": "u"},
        "cache_control": "no-store",
        "content_disposition": "inline",
        "content_encoding": "identity",
        "content_language": "de",
        "expires": datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC),
        "write_id": "w1",
    }
    put = await any_client.put("k", b"body", **said)
    head = await any_client.driver.head("b", "k")
    assert put == head
    assert put.metadata == head.metadata == {"a": "ä"}
    assert {name: getattr(head, name) for name in said} == said
    assert head.checksums == {"crc32c": b64encode(crc32c(b"body").to_bytes(4)).decode()}


async def test_record_too_large_for_an_attribute_is_kept_in_a_sidecar(
    any_client: BucketClient,
) -> None:
    await any_client.put("k", b"1", metadata=BIG)
    assert (await any_client.driver.head("b", "k")).metadata == BIG
    await any_client.put("k", b"2", metadata={**BIG, "more": "x"})
    assert (await any_client.driver.head("b", "k")).metadata == {**BIG, "more": "x"}
    assert await any_client.read("k") == b"2"
    await any_client.put("k", b"3")
    assert (await any_client.driver.head("b", "k")).metadata == {}
    await any_client.driver.delete("b", "k", DeleteOptions())
    assert any_client.own_files() == []


async def test_body_is_readable_if_its_sidecar_is_lost_or_corrupt(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
        (sidecar,) = (tmp_path / ".trove/meta").iterdir()
        sidecar.write_bytes(b"spoilt")
        assert (await client.driver.head("b", "k")).metadata == {}
        sidecar.unlink()
        assert (await client.driver.head("b", "k")).metadata == {}
        assert await client.read("k") == b"body"


@pytest.mark.parametrize("then", ["replaced", "deleted"])
async def test_concurrent_replace_or_delete_of_a_sidecar_is_noticed(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    async with (
        open_client(tmp_path, xattrs=False) as client,
        open_client(tmp_path, xattrs=False) as other,
    ):
        await client.put("k", b"old", metadata={"a": "old"})
        read, loop = Sidecars.read, asyncio.get_running_loop()

        def late(*arguments: Any) -> Metadata:
            """Run the other driver's call after the file is opened, before its record is read."""
            monkeypatch.setattr(Sidecars, "read", read)
            act = (
                other.put("k", b"new", metadata={"a": "new"})
                if then == "replaced"
                else other.driver.delete("b", "k", DeleteOptions())
            )
            asyncio.run_coroutine_threadsafe(act, loop).result(10)
            return read(*arguments)

        monkeypatch.setattr(Sidecars, "read", late)
        if then == "deleted":
            with pytest.raises(ObjectNotFoundError):
                await client.read("k")
            return
        async with client.driver.get("b", "k", GetOptions()) as reader:
            assert (await reader.read(10), reader.info.metadata) == (b"new", {"a": "new"})


async def test_backup_keeps_the_sidecar_of_each_file(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path / "root", xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    async with open_client(tmp_path / "copy", xattrs=False) as client:
        assert (await client.driver.head("b", "k")).metadata == {"a": "b"}


async def test_copy_by_another_tool_does_not_share_the_sidecar(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        await client.put("k", b"body", metadata={"a": "b"})
        shutil.copy2(client.bucket / "k", client.bucket / "copy")
        assert (await client.driver.head("b", "copy")).metadata == {}
        await client.put("copy", b"ours")
        await client.driver.delete("b", "copy", DeleteOptions())
        assert (await client.driver.head("b", "k")).metadata == {"a": "b"}


async def test_files_with_equal_times_have_separate_sidecars(
    tmp_path: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([1_000_000_000, 1_000_000_000, 1_000_000_001])
    async with open_client(tmp_path, xattrs=False) as client:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: next(moments))
            await client.put("k", b"1", metadata={"a": "1"})
            await client.put("l", b"2", metadata={"a": "2"})
        for key, number in [("k", "1"), ("l", "2")]:
            assert (await client.driver.head("b", key)).metadata == {"a": number}


async def test_sidecars_without_their_file_are_removed(
    tmp_path: Path, open_client: OpenClient
) -> None:
    async with open_client(tmp_path, xattrs=False) as client:
        for key in ["kept", "dir/", "gone", "changed", "young"]:
            await client.put(key, key.encode(), metadata={"k": key})
        (client.bucket / "gone").unlink()
        (client.bucket / "changed").write_bytes(b"theirs")
        (client.bucket / "young").unlink()
        (tmp_path / ".trove/meta/rubbish").write_bytes(b"rubbish")
        old = time.time() - 3600
        for sidecar in (tmp_path / ".trove/meta").iterdir():
            if b"young" not in sidecar.read_bytes():
                os.utime(sidecar, (old, old))
    async with open_client(tmp_path, xattrs=False) as client:
        kept = sorted(path.read_bytes()[-60:] for path in (tmp_path / ".trove/meta").iterdir())
        assert len(kept) == 3
        for key in ["kept", "dir/"]:
            assert (await client.driver.head("b", key)).metadata == {"k": key}


async def test_body_with_a_wrong_checksum_is_refused(client: BucketClient) -> None:
    with pytest.raises(IntegrityError):
        await client.put("k", b"body", checksums={"crc32c": "AAAAAA=="})
    assert await client.keys() == []
    assert client.own_files() == []


async def test_copy_keeps_the_checksum_and_has_the_new_metadata(
    any_client: BucketClient,
) -> None:
    source = await any_client.put("k", b"body", metadata={"a": "b"})
    for key in ["copy", "k/under", "k"]:
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
