"""Metadata records and their encoding."""

from __future__ import annotations

import os
import struct
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.local._metadata import Metadata, decode, decode_owner, modified_at

if TYPE_CHECKING:
    from tests.drivers.local.conftest import BucketClient

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
def test_record_of_a_changed_file_is_ignored(status: os.stat_result) -> None:
    assert decode(Metadata(fields={"content_type": "a/b"}).encode(_status()), status) is None


@given(st.binary(max_size=80))
def test_garbage_is_decoded_without_an_error(raw: bytes) -> None:
    decode(raw, _status())
    decode_owner(raw)
    head = struct.pack("<BBBqQI", 1, 1, len(raw) % 7, 1, 2, 0)
    record = decode(head + raw, _status())
    assert record is None or isinstance(record[0], Metadata)
    decode_owner(head + raw)


def test_usual_record_fits_in_an_inode() -> None:
    raw = Metadata(crc32c="AAAAAA==", write_id="0" * 32).encode(_status())
    assert len(raw) <= 60


def test_time_out_of_range_becomes_the_nearest_datetime() -> None:
    assert modified_at(1e20).year == 9999
    assert modified_at(-1e20).year == 1


async def test_head_returns_every_option_of_the_put(any_client: BucketClient) -> None:
    options = {
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
    put = await any_client.put("k", b"body", **options)
    head = await any_client.driver.head("b", "k")
    assert put == head
    assert put.metadata == head.metadata == {"a": "ä"}
    assert {name: getattr(head, name) for name in options} == options
    assert head.checksums == {"crc32c": b64encode(crc32c(b"body").to_bytes(4)).decode()}
