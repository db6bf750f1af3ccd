"""Multipart bodies of uploads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.gcs.in_memory_gcs_server import split_multipart
from trove_async.drivers.gcs._multipart import encode_related
from trove_async.errors import InvalidNameError
from trove_async.models import KiB


@given(body=st.binary(max_size=300), size=st.integers(1, 50))
def test_multipart_body_round_trips(body: bytes, size: int) -> None:
    views = [memoryview(body)[offset : offset + size] for offset in range(0, len(body), size)]
    content_type, sent = encode_related(b'{"name": "key"}', "text/plain; x=y", views)
    fields, media = split_multipart(content_type, b"".join(sent))
    assert fields == {"name": "key", "contentType": "text/plain; x=y"}
    assert media == body


def test_large_body_is_not_copied() -> None:
    body = bytearray(100 * KiB)
    views = [memoryview(body)[: 50 * KiB], memoryview(body)[50 * KiB :]]
    _, (head, *sent, tail) = encode_related(b"{}", "text/plain", views)
    assert all(sent_view is view for sent_view, view in zip(sent, views, strict=True))
    assert len(head) + len(tail) < 400


def test_boundary_is_unique() -> None:
    assert len({encode_related(b"{}", "text/plain", [])[0] for _ in range(100)}) == 100


@pytest.mark.parametrize("characters", ["\r", "\n", "\0", "\r\n"])
def test_content_type_with_line_break_or_nul_is_rejected(characters: str) -> None:
    with pytest.raises(InvalidNameError):
        encode_related(b"{}", f"text/plain{characters}X-Evil: 1", [])
