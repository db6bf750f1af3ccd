"""Compression of whole bodies, its settings and its records."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple, TypeVar

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from trove_async.errors import ConfigError, IntegrityError, NotSupportedError, PatternError
from trove_async.middleware import (
    MAX_BLOCK,
    Decoder,
    Encoder,
    Middleware,
    ObjectContext,
    Record,
)
from trove_async.middlewares import _seekable_zstd as zstd
from trove_async.middlewares.compression import COMPRESSED, Compression
from trove_async.models import KiB, MiB

TEXT = b"".join(b"%d bottles of beer\n" % number for number in range(120_000))
SMALL = Compression(frame_size=1 * KiB, min_size=0)

T = TypeVar("T")


class Encoded(NamedTuple):
    record: Record
    data: bytes


def context(content_type: str | None = None, size: int | None = None) -> ObjectContext:
    return ObjectContext(
        bucket="data", key="key", backend="memory", content_type=content_type, size=size
    )


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits. A loop for each of thousands of objects would be slow."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the coroutine waits")


def encoder_of(compression: Compression, size: int | None = None) -> Encoder:
    encoder = result_of(compression.encoder(context(size=size)))
    assert encoder is not None
    return encoder


def decoder_of(encoded: Encoded) -> Decoder:
    return result_of(SMALL.decoder(context(), encoded.record, len(encoded.data)))


def blocks_of(body: bytes, size: int) -> Iterator[tuple[int, memoryview, bool]]:
    for index in count():
        block = memoryview(body)[index * size : (index + 1) * size]
        last = (index + 1) * size >= len(body)
        yield index, block, last
        if last:
            break


def encode(compression: Compression, body: bytes, *, size_known: bool = True) -> Encoded | None:
    """Return what a put would store. None: the body as it is."""
    encoder = encoder_of(compression, len(body) if size_known else None)
    frames = []
    for index, block, last in blocks_of(body, encoder.block_size(0)):
        frame = encoder.encode(index, block, last=last)
        if frame is None:
            assert index == 0
            return None
        frames.append(bytes(frame))
    trailer = encoder.trailer([len(frame) for frame in frames], len(body))
    record = encoder.record(len(body) if size_known else None)
    return Encoded(record, b"".join((encoder.header, *frames, trailer)))


def small_object(body: bytes, *, size_known: bool = True) -> Encoded:
    """Return an object in frames of 1 KiB, even if compressing it was not worthwhile."""
    frames = [zstd.compress(block, 3) for _, block, _ in blocks_of(body, KiB)]
    data = b"".join(frames) + zstd.write_table([len(frame) for frame in frames], len(body), KiB)
    return Encoded(
        {"frame_size": KiB, "size": len(body)} if size_known else {"frame_size": KiB}, data
    )


def load_index(decoder: Decoder, data: bytes) -> list[tuple[int, int]]:
    """Load the index. Return the ranges that were needed."""
    spans: list[tuple[int, int]] = []
    while (span := decoder.index) is not None:
        assert len(spans) < 2
        spans.append(span)
        decoder.load_index(data[slice(*span)])
    return spans


def read_whole(encoded: Encoded, *, piece: int = 100) -> bytes:
    """Read an object from its first byte to its last, as a get of the whole object does."""
    decoder = decoder_of(encoded)
    if decoder.size is None:
        load_index(decoder, encoded.data)
    assert decoder.header == b""
    body, sizes, start = [], [], 0
    for index in range(decoder.block_count):
        received = piece
        while True:
            view = memoryview(encoded.data)[start : start + received]
            size = decoder.encoded_block_size(index, view)
            if size is not None and size <= len(view):
                break
            if len(view) < received:
                raise IntegrityError("the object ends inside a block")
            received += piece
        body.append(decoder.decode(index, view[:size]))
        sizes.append(size)
        start += size
    if encoded.data[start:] != decoder.trailer(sizes):
        raise IntegrityError("wrong trailer")
    return b"".join(body)


def read_range(decoder: Decoder, data: bytes, start: int, end: int) -> bytes:
    """Read a range of an object whose index is loaded."""
    plan = decoder.plan(start, end)
    at, stop = plan.encoded
    body = b""
    for index in count(plan.first):
        if at == stop:
            break
        size = decoder.encoded_block_size(index, memoryview(data)[at:stop])
        assert size is not None
        body += decoder.decode(index, memoryview(data)[at : at + size])
        at += size
    assert at == stop
    return body[plan.skip : plan.skip + end - start]


# Round trips


@pytest.mark.parametrize("size_known", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 1023, 1024, 1025, 2047, 2048, 2049, 10_000])
def test_body_makes_a_round_trip(size: int, size_known: bool) -> None:  # noqa: FBT001
    body = TEXT[:size]
    encoded = small_object(body, size_known=size_known)
    assert read_whole(encoded) == body
    assert read_whole(encoded, piece=1) == body
    if size >= 1023:
        assert encode(SMALL, body, size_known=size_known) == encoded


@pytest.mark.parametrize("level", [-7, 1, 3, 19])
@pytest.mark.parametrize("size", [MiB - 1, MiB, MiB + 1, 2 * MiB + 5])
def test_body_in_default_frames_makes_a_round_trip(level: int, size: int) -> None:
    encoded = encode(Compression(level), TEXT[:size])
    assert encoded is not None
    assert len(encoded.data) < size / 2
    assert read_whole(encoded, piece=64 * KiB) == TEXT[:size]


def test_incompressible_blocks_after_the_first_are_kept() -> None:
    body = TEXT[: 64 * KiB] + random.Random(1).randbytes(200 * KiB)
    encoded = encode(Compression(frame_size=64 * KiB), body)
    assert encoded is not None
    assert read_whole(encoded) == body


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 3000])
def test_stream_reader_of_zstandard_decodes_what_was_written(size: int) -> None:
    encoded = small_object(TEXT[:size])
    reader = zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(encoded.data), read_across_frames=True
    )
    assert reader.read() == TEXT[:size]


@pytest.mark.commands
@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 3000])
def test_zstd_command_decodes_what_was_written(size: int) -> None:
    encoded = small_object(TEXT[:size])
    process = subprocess.run(
        ["zstd", "-d", "-c"],  # noqa: S607 - wherever it is installed
        input=encoded.data,
        capture_output=True,
        check=True,
    )
    assert process.stdout == TEXT[:size]


@pytest.mark.parametrize("level", [3, 9])
def test_threads_that_share_an_encoder_write_the_same_bytes(level: int) -> None:
    encoder = encoder_of(Compression(level, frame_size=128 * KiB))

    def frame_of(item: tuple[int, memoryview, bool]) -> bytes | bytearray | memoryview | None:
        index, block, last = item
        return encoder.encode(index, block, last=last)

    blocks = list(blocks_of(TEXT[: 2 * MiB - 7], 128 * KiB))
    expected = [frame_of(item) for item in blocks]
    shuffled = random.Random(level).choices(blocks, k=100)
    with ThreadPoolExecutor(4) as executor:
        frames = list(executor.map(frame_of, shuffled))
    assert frames == [expected[index] for index, _, _ in shuffled]


def test_threads_that_share_a_decoder_read_the_same_bytes() -> None:
    encoded = small_object(TEXT[:20_000])
    decoder = decoder_of(encoded)
    load_index(decoder, encoded.data)
    ranges = [(start, start + 3000) for start in range(0, 17_000, 100)]
    with ThreadPoolExecutor(4) as executor:
        bodies = list(executor.map(lambda span: read_range(decoder, encoded.data, *span), ranges))
    assert bodies == [TEXT[start:end] for start, end in ranges]


# Ranges and the index

RANGED = small_object(TEXT[:9_999])


@given(st.integers(0, 9_998), st.integers(1, 9_999), st.booleans())
def test_range_is_a_slice(start: int, length: int, size_known: bool) -> None:  # noqa: FBT001
    end = min(9_999, start + length)
    encoded = RANGED if size_known else Encoded({"frame_size": KiB}, RANGED.data)
    decoder = decoder_of(encoded)
    load_index(decoder, encoded.data)
    assert read_range(decoder, encoded.data, start, end) == TEXT[start:end]
    plan = decoder.plan(start, end)
    assert plan.skip < KiB
    frames = (end - 1) // KiB - plan.first + 1
    assert plan.encoded[1] - plan.encoded[0] <= zstd.max_frame_size(KiB) * frames


def test_index_of_a_known_size_is_exactly_the_table() -> None:
    decoder = decoder_of(RANGED)
    assert decoder.size == 9_999
    assert decoder.block_count == 10
    assert load_index(decoder, RANGED.data) == [
        (len(RANGED.data) - zstd.table_size(10), len(RANGED.data))
    ]


def test_index_of_an_unknown_size_is_the_last_bytes() -> None:
    small = Encoded({"frame_size": KiB}, RANGED.data)
    decoder = decoder_of(small)
    assert decoder.size is None
    assert load_index(decoder, small.data) == [(0, len(small.data))]
    assert decoder.size == 9_999

    large = small_object(TEXT[: 500 * KiB], size_known=False)
    assert load_index(decoder_of(large), large.data) == [
        (len(large.data) - 16 * KiB, len(large.data))
    ]


def test_index_larger_than_the_last_bytes_is_loaded_in_a_second_request() -> None:
    body = bytes(3000 * KiB)
    encoded = small_object(body, size_known=False)
    size = len(encoded.data)
    decoder, other = decoder_of(encoded), decoder_of(encoded)
    assert load_index(decoder, encoded.data) == [
        (size - 16 * KiB, size),
        (size - zstd.table_size(3000), size),
    ]
    assert decoder.size == len(body)
    assert read_range(decoder, encoded.data, 2_000_000, 2_000_100) == bytes(100)

    # Two readers may load the index of a shared decoder at the same time.
    for _ in range(2):
        other.load_index(encoded.data[-16 * KiB :])
    for _ in range(2):
        other.load_index(encoded.data[-zstd.table_size(3000) :])
    assert other.size == len(body)


def test_table_that_changes_between_requests_is_rejected() -> None:
    encoded = small_object(bytes(3000 * KiB), size_known=False)
    decoder = decoder_of(encoded)
    decoder.load_index(encoded.data[-16 * KiB :])
    footer = struct.pack("<IBI", 3001, 0, 0x8F92EAB1)
    for data in (
        encoded.data[-zstd.table_size(3000) : -9] + footer,
        encoded.data[-100:],
        encoded.data[-zstd.table_size(3000) + 1 :],
    ):
        with pytest.raises(IntegrityError):
            decoder.load_index(data)
    assert decoder.size is None


def test_truncated_index_is_rejected() -> None:
    # One that is as long as the first request of an unknown size as well.
    encoded = small_object(bytes(3000 * KiB))
    for size in (0, 8, 9, 100, 16 * KiB, zstd.table_size(3000) - 1):
        with pytest.raises(IntegrityError):
            decoder_of(encoded).load_index(encoded.data[len(encoded.data) - size :])


def test_one_frame_needs_no_index() -> None:
    for size in (0, 1, 1000, 1024):
        encoded = small_object(TEXT[:size])
        decoder = decoder_of(encoded)
        assert decoder.index is None
        assert decoder.block_count == 1
        if size:
            assert decoder.plan(0, size) == (0, (0, len(encoded.data) - 25), 0)
            assert read_range(decoder, encoded.data, size // 2, size) == TEXT[size // 2 : size]


def test_whole_body_of_a_known_size_is_planned_without_index() -> None:
    decoder = decoder_of(RANGED)
    table_size = zstd.table_size(10)
    assert decoder.plan(0, 9_999) == (0, (0, len(RANGED.data) - table_size), 0)
    with pytest.raises(RuntimeError, match="index"):
        decoder.plan(0, 9_998)


def test_nothing_is_planned_before_the_index_is_loaded() -> None:
    decoder = decoder_of(Encoded({"frame_size": KiB}, RANGED.data))
    with pytest.raises(RuntimeError, match="index"):
        decoder.plan(0, 9_999)
    with pytest.raises(RuntimeError, match="index"):
        _ = decoder.block_count


# Altered objects

ORIGINAL = TEXT[: 2 * KiB + 100]


def check_altered(altered: Encoded) -> None:
    """Read an altered object in whole and in ranges: no byte may be wrong."""
    try:
        body = read_whole(altered)
    except IntegrityError:
        pass
    else:
        assert body == ORIGINAL
    for start in range(0, len(ORIGINAL), 1000):
        end = min(len(ORIGINAL), start + 500)
        try:
            decoder = decoder_of(altered)
            load_index(decoder, altered.data)
            if decoder.size == len(ORIGINAL):
                assert read_range(decoder, altered.data, start, end) == ORIGINAL[start:end]
        except IntegrityError:
            pass


@pytest.mark.parametrize("size_known", [False, True])
def test_altered_bits_are_detected(size_known: bool) -> None:  # noqa: FBT001
    encoded = small_object(ORIGINAL, size_known=size_known)
    for bit in range(len(encoded.data) * 8):
        altered = bytearray(encoded.data)
        altered[bit // 8] ^= 1 << bit % 8
        check_altered(Encoded(encoded.record, bytes(altered)))


@pytest.mark.parametrize("size_known", [False, True])
def test_truncated_object_is_detected(size_known: bool) -> None:  # noqa: FBT001
    encoded = small_object(ORIGINAL, size_known=size_known)
    for size in range(len(encoded.data)):
        with pytest.raises(IntegrityError):
            read_whole(Encoded(encoded.record, encoded.data[:size]))
        check_altered(Encoded(encoded.record, encoded.data[:size]))
    for more in (b"\0", encoded.data, encoded.data[-25:]):
        if size_known or more != encoded.data:
            with pytest.raises(IntegrityError):
                read_whole(Encoded(encoded.record, encoded.data + more))


@pytest.mark.parametrize("size_known", [False, True])
@given(data=st.data())
def test_replaced_bytes_are_detected(size_known: bool, data: st.DataObject) -> None:  # noqa: FBT001
    encoded = small_object(ORIGINAL, size_known=size_known)
    start = data.draw(st.integers(0, len(encoded.data)))
    end = data.draw(st.integers(start, len(encoded.data)))
    check_altered(
        Encoded(
            encoded.record,
            encoded.data[:start] + data.draw(st.binary(max_size=40)) + encoded.data[end:],
        )
    )


def test_frame_of_another_length_than_in_the_table_is_rejected() -> None:
    encoded = small_object(ORIGINAL)
    decoder = decoder_of(encoded)
    load_index(decoder, encoded.data)
    frame = zstd.compress(memoryview(ORIGINAL[:KiB]), -7)
    with pytest.raises(IntegrityError, match="expected"):
        decoder.decode(0, memoryview(frame))


def test_frame_of_another_size_is_rejected() -> None:
    decoder = decoder_of(small_object(ORIGINAL))
    for size in (0, 1, KiB - 1, KiB + 1, 100_000):
        frame = memoryview(zstd.compress(memoryview(TEXT[:size]), 3))
        with pytest.raises(IntegrityError):
            decoder.encoded_block_size(0, frame)
        with pytest.raises(IntegrityError):
            decoder.decode(0, frame)


def test_table_that_contradicts_the_record_is_rejected() -> None:
    encoded = small_object(ORIGINAL)
    decoder = decoder_of(Encoded({**encoded.record, "size": len(ORIGINAL) - 1}, encoded.data))
    with pytest.raises(IntegrityError, match="record"):
        load_index(decoder, encoded.data)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"size": 2148},
        {"frame_size": KiB, "size": 2148, "level": 3},
        {"frame_size": KiB, "dictionary": "x"},
        {"frame_size": "1024"},
        {"frame_size": True},
        {"frame_size": KiB - 1},
        {"frame_size": 0},
        {"frame_size": -KiB},
        {"frame_size": MAX_BLOCK + 1},
        {"frame_size": KiB, "size": "2148"},
        {"frame_size": KiB, "size": False},
        {"frame_size": KiB, "size": -1},
        {"frame_size": KiB, "size": 1 << 70},
        {"frame_size": KiB, "size": 1 << 40},  # a table larger than the object
        {"frame_size": KiB, "size": 40 * KiB},  # frames smaller than any
        {"frame_size": KiB, "size": 1},  # frames larger than any
    ],
)
def test_forged_record_is_rejected(record: Record) -> None:
    encoded = Encoded(record, small_object(ORIGINAL).data)
    with pytest.raises(IntegrityError):
        SMALL.decoded_size(record, len(encoded.data))
    with pytest.raises(IntegrityError):
        decoder_of(encoded)


def test_object_without_room_for_a_frame_is_rejected() -> None:
    for record in ({"frame_size": KiB}, {"frame_size": KiB, "size": 0}):
        for size in range(38):
            with pytest.raises(IntegrityError):
                SMALL.decoded_size(record, size)
    assert SMALL.decoded_size({"frame_size": KiB}, 38) is None
    assert SMALL.decoded_size({"frame_size": KiB, "size": 0}, 38) == 0


@pytest.mark.parametrize("change", [1, -1, KiB, -KiB, 10_000])
def test_forged_size_is_detected(change: int) -> None:
    encoded = small_object(ORIGINAL)
    with pytest.raises(IntegrityError):
        read_whole(Encoded({"frame_size": KiB, "size": len(ORIGINAL) + change}, encoded.data))
    with pytest.raises(IntegrityError):
        read_whole(Encoded({"frame_size": 2 * KiB, "size": len(ORIGINAL)}, encoded.data))


# Which objects are compressed


def test_record_contains_the_sizes() -> None:
    encoder = encoder_of(Compression(frame_size=64 * KiB))
    assert encoder.record(None) == {"frame_size": 64 * KiB}
    assert encoder.record(100_000) == {"frame_size": 64 * KiB, "size": 100_000}
    assert encoder.encoded_size(100_000) is None
    assert SMALL.decoded_size(encoder.record(100_000), 5000) == 100_000


@pytest.mark.parametrize("size", [10, 1023, 1024, 1025, 50_000])
def test_body_that_does_not_shrink_is_not_compressed(size: int) -> None:
    assert encode(SMALL, random.Random(1).randbytes(size)) is None


def test_body_that_shrinks_too_little_is_not_compressed() -> None:
    body = random.Random(1).randbytes(64 * KiB)
    for zeros, worthwhile in ((1 * KiB, False), (6 * KiB, True)):
        encoded = encode(Compression(frame_size=64 * KiB), bytes(zeros) + body[zeros:])
        assert (encoded is not None) is worthwhile


def test_seek_table_of_one_frame_counts() -> None:
    for size in (0, 1, 25, 38):
        assert encode(SMALL, bytes(size)) is None
    assert len(zstd.compress(memoryview(bytes(38)), 3)) < 0.9 * 38
    encoded = encode(SMALL, bytes(50))
    assert encoded is not None
    assert len(encoded.data) < 50


@pytest.mark.parametrize(
    ("size", "compressed"), [(0, False), (4095, False), (4096, True), (1 << 40, True), (None, True)]
)
async def test_small_bodies_are_not_compressed(size: int | None, compressed: bool) -> None:  # noqa: FBT001
    compression = Compression()
    assert (await compression.encoder(context(size=size)) is not None) is compressed
    assert await compression.is_current(context(size=size), None, renamed=False) is not compressed


def test_small_body_of_unknown_size_is_not_compressed() -> None:
    assert encode(Compression(), bytes(4095), size_known=False) is None
    assert encode(Compression(), bytes(4096), size_known=False) is not None


@pytest.mark.parametrize(
    ("content_type", "compressed"),
    [
        (None, True),
        ("text/csv", True),
        ("application/octet-stream", True),
        ("image/svg+xml", True),
        ("image/jpeg", False),
        ("video/mp4", False),
        ("application/gzip", False),
        ("application/zstd", False),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", False),
    ],
)
async def test_compressed_media_types_are_skipped(
    content_type: str | None,
    compressed: bool,  # noqa: FBT001
) -> None:
    compression = Compression()
    for size in (None, 1 * MiB):
        place = context(content_type, size)
        assert (await compression.encoder(place) is not None) is compressed
        assert await compression.is_current(place, None, renamed=True) is not compressed


async def test_skip_is_a_setting() -> None:
    compression = Compression(skip=["Text/*", "application/x-[ab]"])
    for content_type, compressed in {
        "text/csv": False,
        "application/x-a": False,
        "application/x-c": True,
        "image/jpeg": True,
    }.items():
        assert (await compression.encoder(context(content_type)) is not None) is compressed
    assert await Compression(skip=()).encoder(context("image/jpeg")) is not None


async def test_compressed_object_is_current_whatever_its_settings() -> None:
    for record in ({"frame_size": KiB}, {"frame_size": MiB, "size": 5}):
        for renamed in (False, True):
            assert await Compression(19).is_current(context(size=5), record, renamed=renamed)


async def test_body_of_too_many_frames_is_refused() -> None:
    most = KiB << 27
    encoder = await SMALL.encoder(context(size=most))
    assert encoder is not None
    with pytest.raises(NotSupportedError, match="larger frame_size"):
        await SMALL.encoder(context(size=most + 1))
    assert encoder.encode((1 << 27) - 1, memoryview(b"a"), last=True)
    with pytest.raises(NotSupportedError, match="larger frame_size"):
        encoder.encode(1 << 27, memoryview(b"a"), last=True)


# Settings


def test_it_is_a_middleware() -> None:
    middleware: Middleware = Compression()
    assert isinstance(middleware, Middleware)
    assert middleware.name == "zstd"
    assert not middleware.required


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "Compression()"),
        ({"level": 3, "frame_size": MiB, "min_size": 4096, "skip": COMPRESSED}, "Compression()"),
        ({"level": 9}, "Compression(level=9)"),
        ({"frame_size": KiB, "min_size": 0}, "Compression(frame_size=1024, min_size=0)"),
        ({"skip": ["Image/PNG"]}, "Compression(skip=('image/png',))"),
    ],
)
def test_repr_shows_what_is_not_default(settings: dict[str, Any], expected: str) -> None:
    assert repr(Compression(**settings)) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"level": 0},
        {"level": 20},
        {"level": -8},
        {"frame_size": KiB - 1},
        {"frame_size": MAX_BLOCK + 1},
        {"min_size": -1},
        {"skip": ["zip"]},
        {"skip": ["image/png; q=1"]},
        {"skip": ["a/b/c"]},
    ],
)
def test_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Compression(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"level": "3"},
        {"level": True},
        {"frame_size": 1.5 * MiB},
        {"min_size": None},
        {"skip": "image/png"},
        {"skip": None},
        {"skip": [b"image/png"]},
    ],
)
def test_setting_of_wrong_type_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Compression(**settings)


def test_malformed_pattern_is_refused() -> None:
    with pytest.raises(PatternError):
        Compression(skip=["image/[a"])


def test_missing_extra_is_named_in_error() -> None:
    script = """
import sys
sys.modules["zstandard"] = None
try:
    import trove_async.middlewares.compression
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    process = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stdout == (
        "zstandard trove_async.middlewares.compression needs zstandard: "
        "pip install 'trove-async[zstd]'\n"
    )
