"""Ranges and sizes of chunks in resumable uploads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.gcs._resumable import (
    QUANTUM,
    chunk_range,
    persisted_size,
    slice_views,
    tail_size,
)
from trove_async.errors import UnavailableError


@given(pieces=st.lists(st.binary(min_size=1, max_size=9), max_size=9), data=st.data())
def test_slice_of_views_equals_slice_of_joined_bytes(
    pieces: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(pieces)
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    views = slice_views([memoryview(piece) for piece in pieces], start, end)
    assert b"".join(views) == body[start:end]
    assert all(len(view) for view in views)


@given(st.integers(1, 1 << 45))
def test_tail_is_not_empty_and_the_rest_is_a_multiple_of_the_quantum(size: int) -> None:
    tail = tail_size(size)
    assert 1 <= tail <= QUANTUM
    assert (size - tail) % QUANTUM == 0


def test_empty_body_has_no_tail() -> None:
    assert tail_size(0) == 0


def test_ranges_are_formatted_and_parsed_as_documented() -> None:
    assert chunk_range(0, 524_288) == "bytes 0-524287/*"
    assert chunk_range(524_288, 2_000_000, 2_000_000) == "bytes 524288-1999999/2000000"
    assert chunk_range(5, 5, 5) == "bytes */5"
    assert persisted_size({"range": "bytes=0-42"}) == 43
    assert persisted_size({}) == 0


@pytest.mark.parametrize("value", ["", "bytes=1-2", "bytes=0-", "0-42", "bytes=0--1"])
def test_malformed_range_is_unavailable(value: str) -> None:
    with pytest.raises(UnavailableError):
        persisted_size({"range": value})
