"""How a response's head is read."""

from __future__ import annotations

import pytest

from trove_async._http.http11 import body_length, parse_head
from trove_async.errors import UnavailableError


@pytest.mark.parametrize(
    "lengths", ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"]
)
def test_length_that_is_told_twice_counts_once(lengths: str) -> None:
    _, _, headers = parse_head(f"HTTP/1.1 200 OK\r\n{lengths}\r\nETag: x".encode())
    assert headers["content-length"] == "5"
    assert body_length(headers) == 5


def test_two_lengths_are_no_length() -> None:
    _, _, headers = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6")
    with pytest.raises(UnavailableError, match="two different lengths"):
        body_length(headers)
