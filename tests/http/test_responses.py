"""Responses with every framing and split, over both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.peers import ANSWERS, BODY, BROKEN, Peer, answering, body_of, serving
from trove_async.errors import IntegrityError
from trove_async.models import MiB

if TYPE_CHECKING:
    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_body_is_read_with_every_framing(transport: Transport, kind: str, size: int) -> None:
    async with serving(answering(*ANSWERS[kind])) as server:
        for _ in range(2):
            answer = await transport.send("GET", server.origin, "/", {})
            assert (answer.status, answer.headers.get("etag")) == (200, "x")
            got = b""
            while piece := await answer.read(size):
                assert len(piece) <= size
                got += piece
            answer.close()
            assert got == BODY
            answer = await transport.send("GET", server.origin, "/", {})
            buffer = memoryview(bytearray(1000))
            filled = 0
            while count := await answer.readinto(buffer[filled : filled + size]):
                filled += count
            answer.close()
            assert buffer[:filled] == BODY
    assert server.connections == 1


async def test_body_ended_by_connection_close_is_complete(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n", BODY, BODY)

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await body_of(answer) == BODY * 2
        answer = await transport.send("GET", server.origin, "/", {})
        buffer = memoryview(bytearray(2000))
        filled = 0
        while count := await answer.readinto(buffer[filled:]):
            filled += count
        assert buffer[:filled] == BODY * 2
        answer.close()
    assert server.connections == 2


async def test_response_to_head_has_no_body(transport: Transport) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")) as server:
        for _ in range(2):
            answer = await transport.send("HEAD", server.origin, "/", {})
            assert answer.headers["content-length"] == "5000"
            assert await body_of(answer) == b""
    assert server.connections == 1


async def test_large_body_is_streamed_in_bounded_pieces(transport: Transport) -> None:
    size = 8 * MiB
    body = bytes(range(256)) * (size // 256)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(answering(head + body)) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        memory = memoryview(bytearray(MiB))
        got = b""
        while count := await answer.readinto(memory):
            got += memory[:count]
        assert got == body
        answer.close()
        answer = await transport.send("GET", server.origin, "/", {})
        got = b""
        while piece := await answer.read(MiB):
            assert len(piece) <= MiB
            got += piece
        assert got == body
        answer.close()
    assert server.connections == 1


async def test_read_all_raises_when_body_exceeds_limit(transport: Transport) -> None:
    async with serving(answering(ANSWERS["length"][0])) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        with pytest.raises(IntegrityError):
            await answer.read_all(100)
        answer.close()


async def test_connection_with_unread_body_is_not_reused(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN["length"])
        await peer.reader.read()

    async with serving(handler) as server:
        for _ in range(2):
            answer = await transport.send("GET", server.origin, "/", {})
            assert len(await answer.read(10)) == 10
            answer.close()
            answer.close()
    assert server.connections == 2


@pytest.mark.parametrize("said", [b"Connection: close\r\n", b"connection: Keep-Alive, Close\r\n"])
async def test_connection_close_header_prevents_reuse(transport: Transport, said: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + said + b"Content-Length: 2\r\n\r\nok"
    async with serving(answering(head)) as server:
        for _ in range(2):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 2
