"""Heads of requests and responses."""

from __future__ import annotations

import pytest

from trove_async._http import Origin
from trove_async._http.http11 import (
    _fields,
    _names,
    _statuses,
    check_request_head,
    parse_head,
    request_head,
)
from trove_async.errors import InvalidNameError, UnavailableError


@pytest.mark.parametrize(
    "lengths", ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"]
)
def test_repeated_equal_content_length_is_accepted(lengths: str) -> None:
    head = parse_head(f"HTTP/1.1 200 OK\r\n{lengths}\r\nETag: x".encode(), has_body=True)
    assert head.headers["content-length"] == "5"
    assert head.length == 5


def test_conflicting_content_lengths_are_rejected() -> None:
    with pytest.raises(UnavailableError, match="two different Content-Length"):
        parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6", has_body=True)


UNSENDABLE = [
    ("/a\nb", "c"),
    ("/a", "b\r\nc: d"),
    ("/a", "b\rc"),
    ("/a", "b\ud800"),
    ("/\udfff", "b"),
]


@pytest.mark.parametrize(("target", "value"), UNSENDABLE, ids=ascii)
def test_unsendable_request_head_is_rejected(target: str, value: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        request_head("GET", Origin("http", "h", 80), target, {"x-a": value}, 0)
    assert caught.value.__context__ is None  # a UnicodeError would contain the headers
    with pytest.raises(InvalidNameError):
        check_request_head(target, {"x-a": value})
    with pytest.raises(InvalidNameError):
        check_request_head("/", {value + target: ""})


@pytest.mark.parametrize("value", ["\0", "a\x01", "\x1b[31m", "\x7f"], ids=ascii)
def test_control_characters_are_rejected_for_every_transport(value: str) -> None:
    with pytest.raises(InvalidNameError):
        request_head("GET", Origin("http", "h", 80), "/", {"x-a": value}, 0)
    with pytest.raises(InvalidNameError):
        check_request_head("/", {"x-a": value})


def test_tabs_and_non_ascii_text_are_accepted() -> None:
    headers = {"x-a": "a\tb", "x-b": "\u00fc\u65e5\x85"}
    check_request_head("/", headers)
    head = request_head("GET", Origin("http", "h", 80), "/", headers, 0)
    assert head.endswith("x-a: a\tb\r\nx-b: \u00fc\u65e5\x85\r\n\r\n".encode())


def parsed(*lines: str, has_body: bool = True) -> object:
    return parse_head("\r\n".join(("HTTP/1.1 200 OK", *lines)).encode(), has_body=has_body)


def test_cached_lines_are_parsed_as_new_ones() -> None:
    head = (
        "Content-Length: 5",
        "content-type:  text/plain\t",
        "Server: a",
        "Date: today",
        "ETag: x",
    )
    first = parsed(*head)
    assert parsed(*head) == first
    assert parsed(*head, "Content-Length: 5") == first
    assert parsed(*head, has_body=False) != first
    assert parsed(*head) == first


def test_caches_are_bounded() -> None:
    """A server that sends ever new lines must not fill the memory."""
    for n in range(3000):
        parse_head(f"HTTP/1.1 200 {n}\r\nServer: {n}\r\nx-{n}: 1".encode(), has_body=True)
        parse_head(b"HTTP/1.1 200 OK\r\nServer: " + b"a" * 200 + b"%d" % n, has_body=True)
    for cache, maximum in ((_statuses, 64), (_fields, 1024), (_names, 1024)):
        assert 0 < len(cache) <= maximum
        assert max(map(len, cache)) <= 128


def test_only_lines_that_repeat_are_cached() -> None:
    parsed("ETag: unique", "x-amz-request-id: unique", "Content-Type: caf\xe9", "Vary: repeated")
    parsed("ETag: unique", "x-amz-request-id: unique", "Vary: repeated")
    assert "Vary: repeated" in _fields
    assert not any("unique" in line or "caf" in line for line in _fields)
