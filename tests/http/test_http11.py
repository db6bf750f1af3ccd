"""Parsing of response heads."""

from __future__ import annotations

import pytest

from trove_async._http.http11 import body_length, parse_head
from trove_async.errors import UnavailableError


@pytest.mark.parametrize(
    "lengths", ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"]
)
def test_repeated_equal_content_length_is_accepted(lengths: str) -> None:
    _, _, headers = parse_head(f"HTTP/1.1 200 OK\r\n{lengths}\r\nETag: x".encode())
    assert headers["content-length"] == "5"
    assert body_length(headers) == 5


def test_conflicting_content_lengths_are_rejected() -> None:
    _, _, headers = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6")
    with pytest.raises(UnavailableError, match="two different lengths"):
        body_length(headers)
