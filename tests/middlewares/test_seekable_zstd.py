"""Frames and seek tables of the Zstandard Seekable Format."""

from __future__ import annotations

import struct
import subprocess
import tracemalloc
from itertools import accumulate, pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from trove_async.errors import IntegrityError
from trove_async.middlewares import _seekable_zstd as zstd

MAGIC = bytes.fromhex("28 b5 2f fd")
TEXT = b"".join(b"%d bottles of beer\n" % number for number in range(60_000))


def compressed(content: bytes, level: int = 3) -> bytes:
    return zstd.compress(memoryview(content), level)


def decompressed(frame: bytes, size: int) -> bytes:
    return zstd.decompress(memoryview(frame), size)


def random_bytes(size: int) -> bytes:
    return bytes(value * value * 7 >> 5 & 0xFF for value in range(size))


# Frames


@pytest.mark.parametrize("level", [-7, 1, 3, 9, 19])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_791, 65_792, 131_072, 131_073, 1_048_576])
def test_frame_is_measured_and_decompressed(level: int, size: int) -> None:
    frame = compressed(TEXT[:size], level)
    header = zstd.check_header(frame, size)
    assert header is not None
    assert (header.content_size, header.has_checksum, header.dictionary_id) == (size, True, 0)
    assert len(frame) <= zstd.max_frame_size(size)
    assert zstd.measure_frame(frame, zstd.max_frame_size(size)) == len(frame)
    assert zstd.measure_frame(memoryview(frame + frame), len(frame)) == len(frame)
    assert decompressed(frame, size) == TEXT[:size]


@given(st.binary(max_size=2000), st.integers(1, 50), st.sampled_from([-5, 1, 3, 6, 19]))
def test_any_content_makes_a_round_trip(content: bytes, repeats: int, level: int) -> None:
    content *= repeats
    frame = compressed(content, level)
    assert zstd.MIN_FRAME <= len(frame) <= zstd.max_frame_size(len(content))
    assert zstd.measure_frame(frame, zstd.max_frame_size(len(content))) == len(frame)
    assert decompressed(frame, len(content)) == content
    assert zstandard.decompress(frame) == content


@pytest.mark.parametrize("content", [b"", b"a", bytes(5000), TEXT[:5000], random_bytes(5000)])
def test_prefix_of_a_frame_needs_more_bytes(content: bytes) -> None:
    frame = compressed(content)
    sizes = {zstd.measure_frame(frame[:end], len(frame)) for end in range(len(frame))}
    assert sizes <= {None, len(frame)}
    assert zstd.measure_frame(b"", len(frame)) is None
    header = zstd.read_header(frame)
    assert header is not None
    for end in range(header.size):
        assert zstd.read_header(frame[:end]) is None
        assert zstd.check_header(frame[:end], len(content)) is None


@pytest.mark.parametrize("size", [1, 5000, 300_000, len(TEXT)])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
def test_streamed_frame_is_measured(size: int, declared: bool, checksum: bool) -> None:  # noqa: FBT001
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    stream = compressor.compressobj(size if declared else -1)
    frame = stream.compress(TEXT[: size // 2]) + stream.compress(TEXT[size // 2 : size])
    frame += stream.flush()
    header = zstd.read_header(frame)
    assert header is not None
    assert header.content_size == (size if declared else None)
    assert header.has_checksum is checksum
    assert zstd.measure_frame(frame + b"more", len(frame)) == len(frame)
    if not (declared and checksum):
        with pytest.raises(IntegrityError):
            decompressed(frame, size)


@pytest.mark.commands
@pytest.mark.parametrize("options", [[], ["--stream-size=1000000"], ["--no-check"], ["-19"]])
def test_frame_of_the_zstd_command_is_measured(options: list[str]) -> None:
    command = ["zstd", "-c", *options]
    content = TEXT[:1_000_000]
    frame = subprocess.run(command, input=content, capture_output=True, check=True).stdout  # noqa: S603
    header = zstd.read_header(frame)
    assert header is not None
    assert header.content_size == (1_000_000 if "--stream-size=1000000" in options else None)
    assert zstd.measure_frame(frame + frame, len(frame)) == len(frame)


@pytest.mark.parametrize(
    ("descriptor", "fields", "content_size", "window", "dictionary"),
    [
        # RFC 8878, 3.1.1.1
        (0x20, "05", 5, 5, 0),
        (0x60, "00 01", 512, 512, 0),
        (0xA0, "00 00 01 00", 65_536, 65_536, 0),
        (0xE0, "00 00 00 00 01 00 00 00", 1 << 32, 1 << 32, 0),
        (0x00, "00", None, 1024, 0),
        (0x00, "0b", None, 2816, 0),
        (0x40, "08 01 00", 257, 2048, 0),
        (0x21, "07 05", 5, 5, 7),
        (0x22, "01 01 05", 5, 5, 257),
        (0x23, "01 00 01 00 05", 5, 5, 65_537),
        (0x30, "05", 5, 5, 0),  # the unused bit
    ],
)
def test_header_fields(
    descriptor: int, fields: str, content_size: int | None, window: int, dictionary: int
) -> None:
    data = MAGIC + bytes([descriptor]) + bytes.fromhex(fields)
    expected = zstd.FrameHeader(len(data), content_size, window, False, dictionary)  # noqa: FBT003
    assert zstd.read_header(data + b"more") == expected
    assert zstd.read_header(data[:-1]) is None


@pytest.mark.parametrize(
    "header",
    [
        MAGIC + bytes.fromhex("60 00 03"),  # no checksum
        MAGIC + bytes.fromhex("64 01 03"),  # 1025 bytes
        MAGIC + bytes.fromhex("e4 00 04 00 00 00 00 00 80"),  # far more bytes
        MAGIC + bytes.fromhex("04 00"),  # no size
        MAGIC + bytes.fromhex("65 01 00 03"),  # a dictionary
        MAGIC + bytes.fromhex("44 58 00 03"),  # a window of 2 MiB
        MAGIC + bytes.fromhex("6c 00 03"),  # a reserved bit
        bytes.fromhex("5e 2a 4d 18 00 00 00 00"),  # a skippable frame
        bytes.fromhex("27 b5 2f fd 64 00 03"),  # a frame of zstd 0.7
        b"PK",
    ],
)
def test_other_frames_are_rejected(header: bytes) -> None:
    with pytest.raises(IntegrityError):
        zstd.check_header(header, 1024)
    with pytest.raises(IntegrityError):
        decompressed(header + bytes.fromhex("03 20 00 61 00 00 00 00"), 1024)


def test_header_of_the_expected_size_is_accepted() -> None:
    assert zstd.check_header(MAGIC + bytes.fromhex("64 00 03"), 1024) is not None


@pytest.mark.parametrize(
    "blocks",
    [
        "07 00 00",  # the reserved type
        "01 00 08 ",  # a block of more than its frame's window
        "ff ff ff",
        "00 00 00" * 100,  # more blocks than content
        "00 20 00" + "00" * 1024 + "00 20 00",  # larger than the limit
    ],
)
def test_malformed_blocks_are_rejected(blocks: str) -> None:
    frame = MAGIC + bytes.fromhex("64 00 03" + blocks)
    with pytest.raises(IntegrityError):
        zstd.measure_frame(frame, zstd.max_frame_size(1024))


def test_last_block_past_the_limit_is_rejected() -> None:
    frame = compressed(random_bytes(1000))
    for limit in range(len(frame)):
        with pytest.raises(IntegrityError):
            zstd.measure_frame(frame, limit)


@given(st.binary(max_size=300))
def test_garbage_is_rejected(data: bytes) -> None:
    for frame in (data, MAGIC + data, MAGIC + b"\x24" + data, MAGIC + b"\x64\x00\x03" + data):
        try:
            size = zstd.measure_frame(frame, 400)
        except IntegrityError:
            size = None
        assert size is None or size <= 400
        for content_size in (0, 1024):
            with pytest.raises(IntegrityError):
                decompressed(frame, content_size)


def test_garbage_after_a_frame_is_rejected() -> None:
    frame = compressed(TEXT[:1000])
    for data in (frame + b"\0", frame + frame, frame[:-1], frame[:10], b""):
        with pytest.raises(IntegrityError):
            decompressed(data, 1000)


def test_only_the_intact_empty_frame_is_accepted() -> None:
    frame = compressed(b"")
    assert len(frame) == zstd.MIN_FRAME
    for index in range(len(frame)):
        altered = bytearray(frame)
        altered[index] ^= 1
        with pytest.raises(IntegrityError):
            decompressed(bytes(altered), 0)


BOMB = compressed(bytes(64 << 20))
BLOCKS = BOMB[len(MAGIC) + 6 :]  # after the descriptor, the window, and the size of 4 bytes


@pytest.mark.parametrize(
    "bomb",
    [
        BOMB,
        MAGIC + bytes.fromhex("64 00 03") + BLOCKS,  # declares 1024 bytes
        MAGIC + bytes.fromhex("44 50 00 03") + BLOCKS,  # with a window of 1 MiB
        MAGIC + bytes.fromhex("44 f8 00 03") + BLOCKS,  # with a window of 2 TiB
        MAGIC + bytes.fromhex("e4 00 04 00 00 00 00 00 00") + BLOCKS,
    ],
)
def test_bomb_is_rejected_without_allocating_its_size(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            decompressed(bomb, 1024)
        with pytest.raises(IntegrityError):
            zstd.measure_frame(bomb, zstd.max_frame_size(1024))
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()


# Seek tables

SIZES = [100, 200, 50]
BODY = 1024 * 2 + 10


def table(
    sizes: list[int] | None = None,
    contents: list[int] | None = None,
    *,
    magic: int = 0x184D2A5E,
    length: int | None = None,
    count: int | None = None,
    descriptor: int = 0,
    seekable: int = 0x8F92EAB1,
) -> bytes:
    sizes = SIZES if sizes is None else sizes
    contents = [1024, 1024, 10] if contents is None else contents
    entries = b"".join(struct.pack("<II", *entry) for entry in zip(sizes, contents, strict=True))
    length = len(entries) + 9 if length is None else length
    count = len(sizes) if count is None else count
    footer = struct.pack("<IBI", count, descriptor, seekable)
    return struct.pack("<II", magic, length) + entries + footer


def parse(data: bytes, encoded_size: int | None = None) -> zstd.SeekTable:
    return zstd.SeekTable.parse(
        data, 1024, sum(SIZES) + len(data) if encoded_size is None else encoded_size
    )


def test_table_is_that_of_the_specification() -> None:
    assert zstd.write_table(SIZES, BODY, 1024) == table()
    assert zstd.write_table((13,), 0, 1024) == table([13], [0])
    assert zstd.table_size(3) == len(table())
    assert len(table([13], [0])) == zstd.MIN_TABLE


def test_table_is_parsed() -> None:
    parsed = parse(table())
    assert parsed.size == BODY
    assert [parsed.position(index) for index in range(4)] == [0, 100, 300, 350]
    assert [parsed.frame_size(index) for index in range(3)] == [100, 200, 50]
    one = zstd.SeekTable.of_one_frame(1000, 125)
    assert (one.position(0), one.position(1), one.frame_size(0)) == (0, 100, 100)
    assert parse(table([13], [0]), 13 + 25).size == 0
    assert parse(table([99], [1024]), 99 + 25).size == 1024


@given(st.lists(st.integers(13, 1024), min_size=1, max_size=50), st.integers(1, 1024))
def test_any_table_makes_a_round_trip(sizes: list[int], last: int) -> None:
    size = 1024 * (len(sizes) - 1) + last
    data = zstd.write_table(sizes, size, 1024)
    encoded_size = sum(sizes) + len(data)
    assert zstd.frame_count(size, 1024) == len(sizes)
    assert zstd.read_table_size(b"more" + data, encoded_size) == len(data)
    parsed = parse(data, encoded_size)
    assert parsed.size == size
    positions = [parsed.position(index) for index in range(len(sizes) + 1)]
    assert [end - start for start, end in pairwise(positions)] == sizes
    assert [parsed.frame_size(index) for index in range(len(sizes))] == sizes


@pytest.mark.parametrize(
    "count", [1023, 1024, 1025, 2048, 8191, 8192, 8193, 2 * 8192, 2 * 8192 + 1, 20_000]
)
def test_long_table_makes_a_round_trip(count: int) -> None:
    sizes = [13 + index % 1000 for index in range(count)]
    size = 1024 * (count - 1) + 7
    data = zstd.write_table(sizes, size, 1024)
    parsed = parse(data, sum(sizes) + len(data))
    assert parsed.size == size
    expected = list(accumulate(sizes, initial=0))
    assert [parsed.position(index) for index in range(count + 1)] == expected
    assert [parsed.frame_size(index) for index in range(count)] == sizes


@pytest.mark.parametrize("at", [0, 8191, 8192, 19_998, 19_999])
def test_long_forged_table_is_rejected(at: int) -> None:
    sizes = [500] * 20_000
    data = zstd.write_table(sizes, 1024 * 20_000, 1024)
    contents = 8 + 8 * at + 4
    for forged in [
        data[: contents - 4] + struct.pack("<I", 501) + data[contents:],
        data[:contents] + struct.pack("<I", 1025) + data[contents + 4 :],
        data[:contents] + struct.pack("<I", 0) + data[contents + 4 :],
    ]:
        with pytest.raises(IntegrityError):
            parse(forged, sum(sizes) + len(data))


@pytest.mark.parametrize(
    "forged",
    [
        table(magic=0x184D2A5D),
        table(seekable=0x8F92EAB0),
        table(length=32),
        table(length=34),
        table(count=2),
        table(count=4),
        table(count=0),
        table(count=0xFFFF_FFFF),
        table([], []),
        table(descriptor=0x80),
        table(descriptor=1),
        table([100, 200, 51]),
        table([100, 200, 0xFFFF_FFFF]),
        table([0, 300, 50]),
        table([12, 288, 50]),
        table([100, 2000, 50]),
        table(contents=[1024, 1023, 10]),
        table(contents=[1025, 1023, 10]),
        table(contents=[0, 1024, 10]),
        table(contents=[1024, 1024, 0]),
        table(contents=[1024, 1024, 1025]),
        table() + b"\0",
        b"\0" + table(),
        table()[1:],
        table()[-9:],
        table()[-8:],
        b"",
    ],
)
def test_forged_table_is_rejected(forged: bytes) -> None:
    for encoded_size in (sum(SIZES) + len(forged), sum(SIZES) + len(table())):
        with pytest.raises(IntegrityError):
            parsed = parse(forged, encoded_size)
            for index in range(3):
                parsed.frame_size(index)


def test_altered_table_is_rejected_or_has_other_offsets() -> None:
    # One bit changes the sum of the compressed sizes, so only the size of the last frame's content can
    # be another one without contradiction.
    data = table()
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            parsed = parse(bytes(altered))
        except IntegrityError:
            continue
        assert parsed.size != BODY


@pytest.mark.parametrize(
    ("size", "frames"), [(0, 1), (1, 1), (1023, 1), (1024, 1), (1025, 2), (2048, 2), (2049, 3)]
)
def test_frame_count(size: int, frames: int) -> None:
    assert zstd.frame_count(size, 1024) == frames


def test_table_of_too_many_frames_is_rejected() -> None:
    for count, accepted in ((0x8000000, True), (0x8000001, False)):
        footer = struct.pack("<IBI", count, 0, 0x8F92EAB1)
        if accepted:
            assert zstd.read_table_size(footer, 1 << 62) == zstd.table_size(count)
        else:
            with pytest.raises(IntegrityError):
                zstd.read_table_size(footer, 1 << 62)
