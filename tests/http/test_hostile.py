"""Malicious response heads, over both transports."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.http.peers import answering, body_of, serving
from trove_async._http import retry_after
from trove_async._http.http11 import request_head
from trove_async._http.transport import Origin
from trove_async.errors import InvalidNameError, UnavailableError

if TYPE_CHECKING:
    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop

HEADS = {
    "a length that is not ASCII": b"Content-Length: \xff",
    "a length in superscript": "Content-Length: \u00b2".encode(),
    "a length in Arabic digits": "Content-Length: \u0663".encode(),
    "a length without an end": b"Content-Length: " + b"9" * 400,
    "a bare CR": b"x-a: b\rc\r\nContent-Length: 0",
    "a NUL": b"x-a: b\0c\r\nContent-Length: 0",
}


@pytest.mark.parametrize("kind", HEADS)
async def test_invalid_head_is_rejected(transport: Transport, kind: str) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n" + HEADS[kind] + b"\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await body_of(await transport.send("GET", server.origin, "/", {}))


async def test_bare_line_feed_is_not_part_of_header_value(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-a: b\nc: d\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(head)) as server:
        # RFC 9112, 2.2: a recipient may treat it as a line end or reject the message.
        with suppress(UnavailableError):
            answer = await transport.send("GET", server.origin, "/", {})
            answer.close()
            assert answer.headers["x-a"] == "b"


async def test_excessive_chunk_size_is_rejected(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(answering(head + b"f" * 400 + b"\r\nx\r\n0\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await body_of(await transport.send("GET", server.origin, "/", {}))


async def test_undecodable_header_values_can_be_encoded(transport: Transport) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "\xff"\r\nx-amz-version-id: \xff\r\nContent-Length: 0\r\n\r\n'
    async with serving(answering(head)) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        answer.close()
    assert answer.headers["x-amz-version-id"].encode()
    assert "etag" not in answer.headers  # it could not be sent back unchanged


@pytest.mark.parametrize(("target", "value"), [("/a\nb", "c"), ("/a", "b\r\nc: d"), ("/a", "b\rc")])
def test_request_with_line_breaks_is_rejected(target: str, value: str) -> None:
    with pytest.raises(InvalidNameError):
        request_head("GET", Origin("http", "h", 80), target, {"x-a": value}, 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, 999_999_999.0),
        ("\u0663", None),
        ("-1", None),
        ("1e400", None),
        ("x" * 50_000, None),
    ],
)
def test_retry_after_is_parsed_as_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds
