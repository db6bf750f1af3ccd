"""Heads that are made to break what reads them, over either transport."""

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
async def test_head_that_is_no_http_is_refused(transport: Transport, kind: str) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n" + HEADS[kind] + b"\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await body_of(await transport.send("GET", server.origin, "/", {}))


async def test_bare_line_feed_is_no_part_of_a_value(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-a: b\nc: d\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(head)) as server:
        # RFC 9112, 2.2: a recipient may take it for the end of a line, or refuse it.
        with suppress(UnavailableError):
            answer = await transport.send("GET", server.origin, "/", {})
            answer.close()
            assert answer.headers["x-a"] == "b"


async def test_size_of_a_chunk_has_an_end(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(answering(head + b"f" * 400 + b"\r\nx\r\n0\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await body_of(await transport.send("GET", server.origin, "/", {}))


async def test_values_that_are_no_text_can_be_shown_and_sent(transport: Transport) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "\xff"\r\nx-amz-version-id: \xff\r\nContent-Length: 0\r\n\r\n'
    async with serving(answering(head)) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        answer.close()
    assert answer.headers["x-amz-version-id"].encode()
    assert "etag" not in answer.headers  # it could not be sent back as it came


@pytest.mark.parametrize(("target", "value"), [("/a\nb", "c"), ("/a", "b\r\nc: d"), ("/a", "b\rc")])
def test_request_that_would_say_more_than_it_should_is_refused(target: str, value: str) -> None:
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
def test_wait_that_a_server_asks_for_is_a_number_of_seconds(
    value: str, seconds: float | None
) -> None:
    assert retry_after({"retry-after": value}) == seconds
