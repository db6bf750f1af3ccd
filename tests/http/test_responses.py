"""Responses with every framing, read in pieces of several sizes, over both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import (
    BODY,
    BROKEN_RESPONSES,
    RESPONSES,
    ServerConnection,
    read_body,
    respond_with,
    serving,
)
from trove_async.errors import IntegrityError
from trove_async.models import MiB

if TYPE_CHECKING:
    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


@pytest.mark.parametrize("kind", RESPONSES)
@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_body_is_read_with_every_framing(transport: Transport, kind: str, size: int) -> None:
    async with serving(respond_with(*RESPONSES[kind])) as server:
        for _ in range(2):
            response = await transport.send("GET", server.origin, "/", {})
            assert (response.status, response.headers.get("etag")) == (200, "x")
            received = b""
            while piece := await response.read(size):
                assert len(piece) <= size
                received += piece
            response.close()
            assert received == BODY
            response = await transport.send("GET", server.origin, "/", {})
            buffer = memoryview(bytearray(1000))
            filled = 0
            while count := await response.readinto(buffer[filled : filled + size]):
                filled += count
            response.close()
            assert buffer[:filled] == BODY
    assert server.connections == 1


async def test_body_ended_by_connection_close_is_complete(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n", BODY, BODY)

    async with serving(handler) as server:
        response = await transport.send("GET", server.origin, "/", {})
        assert await read_body(response) == BODY * 2
        response = await transport.send("GET", server.origin, "/", {})
        buffer = memoryview(bytearray(2000))
        filled = 0
        while count := await response.readinto(buffer[filled:]):
            filled += count
        assert buffer[:filled] == BODY * 2
        response.close()
    assert server.connections == 2


async def test_response_to_head_has_no_body(transport: Transport) -> None:
    async with serving(respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")) as server:
        for _ in range(2):
            response = await transport.send("HEAD", server.origin, "/", {})
            assert response.headers["content-length"] == "5000"
            assert await read_body(response) == b""
    assert server.connections == 1


async def test_large_body_is_streamed_in_bounded_pieces(transport: Transport) -> None:
    size = 8 * MiB
    body = bytes(range(256)) * (size // 256)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(respond_with(head + body)) as server:
        response = await transport.send("GET", server.origin, "/", {})
        buffer = memoryview(bytearray(MiB))
        received = b""
        while count := await response.readinto(buffer):
            received += buffer[:count]
        assert received == body
        response.close()
        response = await transport.send("GET", server.origin, "/", {})
        received = b""
        while piece := await response.read(MiB):
            assert len(piece) <= MiB
            received += piece
        assert received == body
        response.close()
    assert server.connections == 1


async def test_read_all_raises_when_body_exceeds_limit(transport: Transport) -> None:
    async with serving(respond_with(RESPONSES["length"][0])) as server:
        response = await transport.send("GET", server.origin, "/", {})
        with pytest.raises(IntegrityError):
            await response.read_all(100)
        response.close()


async def test_connection_with_unread_body_is_not_reused(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(BROKEN_RESPONSES["length"])
        await connection.reader.read()

    async with serving(handler) as server:
        for _ in range(2):
            response = await transport.send("GET", server.origin, "/", {})
            assert len(await response.read(10)) == 10
            response.close()
            response.close()  # closing twice has no effect
    assert server.connections == 2


@pytest.mark.parametrize("header", [b"Connection: close\r\n", b"connection: Keep-Alive, Close\r\n"])
async def test_connection_close_header_prevents_reuse(transport: Transport, header: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + header + b"Content-Length: 2\r\n\r\nok"
    async with serving(respond_with(head)) as server:
        for _ in range(2):
            assert await read_body(await transport.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 2
