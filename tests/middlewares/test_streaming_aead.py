"""Bodies are encrypted in Tink's format. Tink itself is the reference."""

from __future__ import annotations

import random

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from tests.middlewares.tink_streams import TinkStreams
from trove_async._secrets import Secret
from trove_async.errors import IntegrityError, NotSupportedError
from trove_async.middlewares._streaming_aead import MAX_SEGMENTS, Layout, SegmentCipher

KEY = bytes(range(32))
SALT = bytes(range(100, 139))
NOISE = random.Random(1).randbytes(3 * 2**20)

SMALL = [
    (size, segment_size)
    for segment_size in (57, 64, 100, 4096)
    for size in sorted({
        max(0, border + offset)
        for count in range(4)
        for border in (0, count * (segment_size - 16) - 40)
        for offset in (-1, 0, 1)
    })
]  # fmt: skip
LARGE = [
    (count * (2**20 - 16) - 40 + offset, 2**20)
    for count in (1, 2)
    for offset in (-1, 0, 1)
]  # fmt: skip


def encrypt(body: bytes, segment_size: int, associated_data: bytes, salt: bytes = SALT) -> bytes:
    layout = Layout(segment_size)
    cipher = SegmentCipher(Secret(KEY), salt, associated_data)
    count = layout.block_count(len(body))
    encoded = cipher.header
    for index in range(count):
        start, last = layout.block_start(index), index == count - 1
        end = len(body) if last else start + layout.block_size(index)
        encoded += cipher.encrypt(index, memoryview(body)[start:end], last=last)
    return encoded


def decrypt(encoded: bytes, segment_size: int, associated_data: bytes) -> bytes:
    layout = Layout(segment_size)
    count = layout.block_count(layout.body_size(len(encoded)))
    cipher = SegmentCipher(Secret(KEY), encoded[1:40], associated_data)
    assert encoded[:40] == cipher.header
    body = b""
    for index in range(count):
        start, end = layout.segment_span(index, index, len(encoded))
        body += cipher.decrypt(index, memoryview(encoded)[start:end], last=index == count - 1)
    return body


@pytest.mark.parametrize("associated_data", [b"", b"any bytes \x00\xff"])
@pytest.mark.parametrize(("size", "segment_size"), SMALL + LARGE)
def test_tink_decrypts_what_is_encrypted_here(
    size: int, segment_size: int, associated_data: bytes
) -> None:
    encoded = encrypt(NOISE[:size], segment_size, associated_data)
    assert len(encoded) == Layout(segment_size).encoded_size(size)
    assert TinkStreams(KEY, segment_size).decrypt(encoded, associated_data) == NOISE[:size]


@pytest.mark.parametrize("associated_data", [b"", b"any bytes \x00\xff"])
@pytest.mark.parametrize(("size", "segment_size"), SMALL + LARGE)
def test_what_tink_encrypts_is_decrypted_here(
    size: int, segment_size: int, associated_data: bytes
) -> None:
    encoded = TinkStreams(KEY, segment_size).encrypt(NOISE[:size], associated_data)
    assert len(encoded) == Layout(segment_size).encoded_size(size)
    assert decrypt(encoded, segment_size, associated_data) == NOISE[:size]


def test_a_known_object_has_the_same_bytes_forever() -> None:
    encoded = encrypt(b"hello", 64, b"world")
    assert encoded.hex() == "28" + SALT.hex() + "d0f34915e625f064952224c3ad406fa3687df2376e"
    assert TinkStreams(KEY, 64).decrypt(encoded, b"world") == b"hello"


def test_header_is_its_length_the_salt_and_the_nonce_prefix() -> None:
    encoded = encrypt(b"", 4096, b"")
    assert encoded[:40] == b"\x28" + SALT
    assert len(encoded) == 40 + 16  # an empty body is one empty segment


def test_different_associated_data_fails() -> None:
    encoded = encrypt(b"body", 4096, b"one name")
    with pytest.raises(InvalidTag):
        decrypt(encoded, 4096, b"another name")


def test_segment_does_not_decrypt_at_another_index_or_as_the_last() -> None:
    cipher = SegmentCipher(Secret(KEY), SALT, b"")
    segment = memoryview(cipher.encrypt(3, memoryview(b"body"), last=False))
    assert cipher.decrypt(3, segment, last=False) == b"body"
    for index, last in ((2, False), (4, False), (3, True), (3 + 256, False), (3 + 2**24, False)):
        with pytest.raises(InvalidTag):
            cipher.decrypt(index, segment, last=last)


def test_encrypting_into_memory_gives_the_same_bytes() -> None:
    cipher = SegmentCipher(Secret(KEY), SALT, b"")
    for size in (0, 1, 15, 16, 17, 4096, 2**20 - 16):
        out = bytearray(size + 16)
        cipher.encrypt_into(1, memoryview(NOISE)[:size], memoryview(out), last=False)
        assert out == cipher.encrypt(1, memoryview(NOISE)[:size], last=False)


def test_the_last_possible_index_is_usable() -> None:
    cipher = SegmentCipher(Secret(KEY), SALT, b"")
    segment = cipher.encrypt(MAX_SEGMENTS - 1, memoryview(b"body"), last=True)
    assert cipher.decrypt(MAX_SEGMENTS - 1, memoryview(segment), last=True) == b"body"


@given(st.integers(57, 5000), st.integers(0, 2**60))
def test_sizes_convert_both_ways(segment_size: int, size: int) -> None:
    layout = Layout(segment_size)
    if layout.block_count(size) > MAX_SEGMENTS:
        with pytest.raises(NotSupportedError, match="segment_size"):
            layout.encoded_size(size)
    else:
        assert layout.body_size(layout.encoded_size(size)) == size


@given(st.integers(57, 300), st.integers(0, 3000))
def test_a_size_has_a_body_or_is_refused(segment_size: int, encoded_size: int) -> None:
    layout = Layout(segment_size)
    try:
        size = layout.body_size(encoded_size)
    except IntegrityError:
        possible = {layout.encoded_size(size) for size in range(encoded_size + 1)}
        assert encoded_size not in possible
    else:
        assert layout.encoded_size(size) == encoded_size


@pytest.mark.parametrize("encoded_size", [-1, 0, 1, 39, 40, 55, 100 + 1, 100 + 16, 200 + 16])
def test_impossible_sizes_are_refused(encoded_size: int) -> None:
    with pytest.raises(IntegrityError, match="truncated"):
        Layout(100).body_size(encoded_size)


def test_too_many_segments_are_refused() -> None:
    layout = Layout(4096)
    largest = MAX_SEGMENTS * 4080 - 40
    assert layout.body_size(layout.encoded_size(largest)) == largest
    with pytest.raises(NotSupportedError, match="at most 2\\*\\*32 segments"):
        layout.encoded_size(largest + 1)
    with pytest.raises(IntegrityError):
        layout.body_size(layout.encoded_size(largest) + 17)


@given(st.integers(57, 200), st.integers(1, 2000), st.data())
def test_a_plan_covers_a_range_and_no_segment_more(
    segment_size: int, size: int, data: st.DataObject
) -> None:
    layout = Layout(segment_size)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    encoded_size = layout.encoded_size(size)
    count = layout.block_count(size)
    starts = [layout.block_start(index) for index in range(count)]
    assert starts == [
        0,
        *(layout.block_size(0) + n * layout.block_size(1) for n in range(count - 1)),
    ]
    ends = [*starts[1:], size]
    needed = [i for i in range(count) if starts[i] < end and start < ends[i]]

    plan = layout.plan(start, end, encoded_size)
    assert plan.first == needed[0]
    assert plan.skip == start - starts[needed[0]]
    assert plan.encoded == layout.segment_span(needed[0], needed[-1], encoded_size)
