"""Malformed heads and framing of responses, over both transports."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import read_body, respond_with, serving
from trove_async.errors import UnavailableError

if TYPE_CHECKING:
    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop

HEADS = {
    "length that is not ASCII": b"Content-Length: \xff",
    "length in superscript": "Content-Length: \u00b2".encode(),
    "length in Arabic digits": "Content-Length: \u0663".encode(),
    "length of 400 digits": b"Content-Length: " + b"9" * 400,
    "bare CR": b"x-a: b\rc\r\nContent-Length: 0",
    "NUL": b"x-a: b\0c\r\nContent-Length: 0",
}


@pytest.mark.parametrize("kind", HEADS)
async def test_invalid_head_is_rejected(transport: Transport, kind: str) -> None:
    async with serving(respond_with(b"HTTP/1.1 200 OK\r\n" + HEADS[kind] + b"\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await read_body(await transport.send("GET", server.origin, "/", {}))


async def test_bare_line_feed_is_not_part_of_header_value(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-a: b\nc: d\r\nContent-Length: 0\r\n\r\n"
    async with serving(respond_with(head)) as server:
        # RFC 9112, 2.2: a recipient may treat it as a line end or reject the message.
        with suppress(UnavailableError):
            response = await transport.send("GET", server.origin, "/", {})
            response.close()
            assert response.headers["x-a"] == "b"


async def test_excessive_chunk_size_is_rejected(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(respond_with(head + b"f" * 400 + b"\r\nx\r\n0\r\n\r\n")) as server:
        with pytest.raises(UnavailableError):
            await read_body(await transport.send("GET", server.origin, "/", {}))


async def test_undecodable_header_values_can_be_encoded(transport: Transport) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "\xff"\r\nx-amz-version-id: \xff\r\nContent-Length: 0\r\n\r\n'
    async with serving(respond_with(head)) as server:
        response = await transport.send("GET", server.origin, "/", {})
        response.close()
    assert response.headers["x-amz-version-id"].encode()
    assert "etag" not in response.headers  # it could not be sent back unchanged
