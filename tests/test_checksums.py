"""CRC-32C checksums of concatenated pieces."""

from __future__ import annotations

from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from trove_async._checksums import combine_crc32c, rest_crc32c, running_crc32c


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_combined_checksum_is_that_of_the_concatenation(first: bytes, second: bytes) -> None:
    assert combine_crc32c(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksum_of_the_rest_is_that_of_the_second_body(first: bytes, second: bytes) -> None:
    assert rest_crc32c(crc32c(first), crc32c(first + second), len(second)) == crc32c(second)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3_000_000))
def test_checksum_combined_with_zeros(first: int, size: int) -> None:
    zeros = bytes(size)
    assert combine_crc32c(first, crc32c(zeros), size) == crc32c(zeros, first)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_running_checksum_is_that_of_the_joined_views(pieces: list[bytes]) -> None:
    assert running_crc32c([memoryview(piece) for piece in pieces]) == crc32c(b"".join(pieces))
