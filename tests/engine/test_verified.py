"""Verification of a body against its recorded checksums while it is read."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from trove_async import IntegrityError, ObjectInfo
from trove_async._checksums import crc32c_of
from trove_async._engine.verified import VerifiedBody, WholeBody
from trove_async.models import KiB

BODY = hashlib.shake_128(b"verified").digest(600 * KiB)
CHECKSUMS = {
    kind: b64encode(digest).decode()
    for kind, digest in {
        "md5": hashlib.md5(BODY, usedforsecurity=False).digest(),
        "sha1": hashlib.sha1(BODY, usedforsecurity=False).digest(),
        "sha256": hashlib.sha256(BODY).digest(),
        "crc32": zlib.crc32(BODY).to_bytes(4),
    }.items()
}


class Reader:
    """A reader of an object with the recorded checksums of `BODY`, but possibly a different body."""

    def __init__(self, *kinds: str, body: bytes = BODY) -> None:
        self.info = ObjectInfo(
            bucket="data",
            key="key",
            size=len(body),
            etag="e",
            last_modified=datetime.now(UTC),
            checksums={kind: CHECKSUMS[kind] for kind in kinds},
        )
        self.range = (0, len(body))
        self._body = body

    async def read(self, size: int) -> bytes:
        data, self._body = self._body[:size], self._body[size:]
        return data


async def read_all(body: VerifiedBody, size: int) -> bytes:
    pieces = []
    while piece := await body.read(size):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1000, 256 * KiB, 300 * KiB, 700 * KiB])
@pytest.mark.parametrize("kind", CHECKSUMS)
async def test_body_is_verified_against_each_kind_of_checksum_besides_crc32c(
    kind: str, size: int
) -> None:
    assert await read_all(VerifiedBody(Reader(kind)), size) == BODY
    corrupt = BODY[:-1] + bytes([BODY[-1] ^ 1])
    with pytest.raises(IntegrityError, match=f"the {kind} of the body must be"):
        await read_all(VerifiedBody(Reader(kind, body=corrupt)), size)


async def test_requested_kinds_are_computed_for_a_whole_body_but_not_for_a_range() -> None:
    body = VerifiedBody(Reader(), {"sha256", "md5", "unknown"})
    assert await read_all(body, 100_000) == BODY
    assert body.checksums == {kind: CHECKSUMS[kind] for kind in ("sha256", "md5")}
    reader = Reader("md5")
    reader.range = (0, 10)
    part = VerifiedBody(reader, {"sha256"})
    assert await read_all(part, 100) == BODY[:10]
    assert part.checksums == {}


async def test_read_cancelled_during_hashing_loses_nothing() -> None:
    body = VerifiedBody(Reader("sha256"))
    first = await body.read(1000)
    read = asyncio.get_running_loop().create_task(body.read(300 * KiB))
    await asyncio.sleep(0)  # the read has received its bytes and waits for the thread
    read.cancel()
    await asyncio.wait([read])
    assert read.cancelled()
    assert first + await body.read(7) + await read_all(body, 300 * KiB) == BODY


async def test_only_the_preferred_recorded_kind_and_requested_kinds_are_verified() -> None:
    def open_reader() -> Reader:
        reader = Reader(*CHECKSUMS)
        reader.info = replace(reader.info, checksums={**CHECKSUMS, "sha256": "wrong"})
        return reader

    assert await read_all(VerifiedBody(open_reader()), 1000) == BODY  # verifies the crc32 only
    with pytest.raises(IntegrityError, match="sha256"):
        await read_all(VerifiedBody(open_reader(), {"sha256"}), 1000)


def whole(body: bytes, checksum: str | None, *, span: tuple[int, int] | None = None) -> WholeBody:
    reader = Reader(body=body)
    if checksum is not None:
        reader.info = replace(reader.info, checksums={"crc32c": checksum})
    if span is not None:
        reader.info = replace(reader.info, size=10 * len(body))
        reader.range = span
    return WholeBody(reader, body)


def test_whole_body_is_verified_before_any_byte_is_returned() -> None:
    assert whole(b"body", crc32c_of([b"body"])).data == b"body"
    with pytest.raises(IntegrityError, match="crc32c of the body must be"):
        whole(b"BODY", crc32c_of([b"body"]))


def test_whole_body_without_a_checksum_or_of_a_range_is_not_verified() -> None:
    assert whole(b"body", None).data == b"body"
    assert whole(b"body", crc32c_of([b"all"]), span=(4, 8)).data == b"body"


async def test_whole_body_is_read_in_pieces() -> None:
    body = whole(b"0123456789", None)
    assert [await body.read(4), body.remaining] == [b"0123", 6]
    assert [await body.read(100), body.remaining] == [b"456789", 0]
    assert await body.read(1) == b""
