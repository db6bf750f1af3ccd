"""Failing servers and connections, over both transports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.http.peers import ANSWERS, BODY, BROKEN, QUICK, Peer, Server, answering, body_of, serving
from trove_async.errors import TimedOutError, UnavailableError
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import Callable

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


async def test_connection_closed_after_full_receive_window_is_not_reused(
    transport: Transport,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = 64 * KiB - len(head % 10_000)  # exactly what a connection buffers before it is read
    said, gone = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(head % size, b"x" * size)
        said.set()
        await gone.wait()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        await said.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await body_of(answer)) == size
        gone.set()
        for _ in range(20):
            await asyncio.sleep(0)
        again = await transport.send("GET", server.origin, "/", {})
        again.close()
    assert server.connections == 2


async def test_readinto_returns_before_buffer_is_full(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 400)
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await answer.readinto(memoryview(bytearray(1000))) == 400
        answer.close()


HALF: dict[str, tuple[bytes, ...]] = {
    "nothing": (),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le",),
    "no HTTP": (b"<html>\r\n\r\n",),
    "a header without a name": (b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",),
    "a length that is none": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",),
    "a status that is no number": ("HTTP/1.1 \u00b2\u00b3\u2074 OK\r\n\r\n".encode(),),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",),
}


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_incomplete_or_invalid_response_is_unavailable(
    transport: Transport, kind: str, end: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(*HALF[kind])
        if end == "reset":
            peer.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError) as caught:
            await transport.send("PUT", server.origin, "/", {}, [memoryview(b"body")])
    assert caught.value.retryable
    assert server.connections == 1  # the request is not sent twice


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("into", [False, True])
async def test_truncated_body_raises(
    transport: Transport, kind: str, end: str, *, into: bool
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN[kind])
        if end == "reset":
            peer.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError):
            answer = await transport.send("GET", server.origin, "/", {})
            try:
                while (
                    await answer.readinto(memoryview(bytearray(100)))
                    if into
                    else await answer.read(100)
                ):
                    pass
            finally:
                answer.close()
    assert server.connections == 1


async def test_missing_response_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await transport.send("GET", server.origin, "/", {})


async def test_stalled_body_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(BROKEN["length"])
        await peer.reader.read()

    async with serving(handler) as server:
        answer = await transport.send("GET", server.origin, "/", {})
        assert await answer.readinto(memoryview(bytearray(500))) == 500
        with pytest.raises(TimedOutError):
            await answer.read(10)
        answer.close()


async def test_server_that_stops_reading_times_out(transport: Transport) -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
        await asyncio.Event().wait()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await transport.send("PUT", server.origin, "/", {}, [memoryview(bytes(64 * MiB))])


async def test_slow_consumer_is_not_timed_out(impatient: Transport) -> None:
    async with serving(answering(ANSWERS["length"][0])) as server:
        answer = await impatient.send("GET", server.origin, "/", {})
        got = await answer.read(10)
        await asyncio.sleep(3 * QUICK.idle)
        while piece := await answer.read(100):
            got += piece
        answer.close()
        assert got == BODY


async def test_refused_connection_is_unavailable(transport: Transport) -> None:
    async with serving(answering()) as server:
        origin = server.origin
    with pytest.raises(UnavailableError) as caught:
        await transport.send("GET", origin, "/", {})
    assert caught.value.retryable


async def test_connection_closed_by_server_while_idle_is_not_reused(transport: Transport) -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        peer.writer.close()
        await peer.writer.wait_closed()
        gone.set()

    async with serving(handler) as server:
        for number in range(3):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"
            await gone.wait()
            gone.clear()
            for _ in range(5):
                await asyncio.sleep(0)
            assert server.connections == number + 1


async def test_unsolicited_response_is_not_used(make: Callable[..., Transport]) -> None:
    transport = make()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with serving(answering(answer + b"ok" + answer + b"no")) as server:
        for _ in range(3):
            assert await body_of(await transport.send("GET", server.origin, "/", {})) == b"ok"


@pytest.mark.parametrize("point", ["before the answer", "in the request", "in the body"])
async def test_cancel_closes_connection(transport: Transport, point: str) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        try:
            if point == "in the request":
                await peer.reader.read(10)
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
                reached.set()
                await asyncio.sleep(0.05)
                peer.writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
            else:
                await peer.request()
                if point == "in the body":
                    await peer.say(BROKEN["length"])
                reached.set()
            while await peer.reader.read(MiB):
                pass
        except ConnectionError:
            pass
        finally:
            left.set()

    async def use(server: Server) -> None:
        views = [memoryview(bytes(32 * MiB))] if point == "in the request" else []
        answer = await transport.send("PUT", server.origin, "/", {}, views)
        try:
            while await answer.read(100):
                pass
        finally:
            answer.close()

    async with serving(handler) as server:
        task = asyncio.get_running_loop().create_task(use(server))
        await reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await left.wait()


async def test_closed_transport_has_no_connections(make: Callable[..., Transport]) -> None:
    transport = make()
    left = asyncio.Event()
    handler = answering(b"HTTP/1.1 204 No Content\r\n\r\n", left=left)
    async with serving(handler) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        await transport.aclose()
        await transport.aclose()
        await left.wait()
