"""Failing servers and connections, over both transports."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import (
    BODY,
    BROKEN_RESPONSES,
    LONG_TIMEOUTS,
    RESPONSES,
    SHORT_TIMEOUTS,
    Server,
    ServerConnection,
    read_body,
    respond_with,
    serving,
)
from trove_async._http.connection import WINDOW_SIZE
from trove_async.errors import TimedOutError, UnavailableError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop


async def test_connection_closed_after_full_receive_window_is_not_reused(
    transport: Transport,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = WINDOW_SIZE - len(head % 10_000)  # head and body fill the window of a connection
    sent, closed = asyncio.Event(), asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(head % size, b"x" * size)
        sent.set()
        await closed.wait()

    async with serving(handler) as server:
        response = await transport.send("GET", server.origin, "/", {})
        await sent.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await read_body(response)) == size
        closed.set()
        for _ in range(20):
            await asyncio.sleep(0)
        second = await transport.send("GET", server.origin, "/", {})
        second.close()
    assert server.connections == 2


async def test_readinto_returns_before_buffer_is_full(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 400)
        await connection.reader.read()

    async with serving(handler) as server:
        response = await transport.send("GET", server.origin, "/", {})
        assert await response.readinto(memoryview(bytearray(1000))) == 400
        response.close()


INVALID_HEADS: dict[str, tuple[bytes, ...]] = {
    "no response": (),
    "truncated head": (b"HTTP/1.1 200 OK\r\nContent-Le",),
    "HTML instead of HTTP": (b"<html>\r\n\r\n",),
    "header without a name": (b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",),
    "non-ASCII status": ("HTTP/1.1 \u00b2\u00b3\u2074 OK\r\n\r\n".encode(),),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",),
}


@pytest.mark.parametrize("kind", INVALID_HEADS)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_incomplete_or_invalid_response_is_unavailable(
    transport: Transport, kind: str, end: str
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(*INVALID_HEADS[kind])
        if end == "reset":
            connection.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError) as caught:
            await transport.send("PUT", server.origin, "/", {}, [memoryview(b"body")])
    assert caught.value.retryable
    assert server.connections == 1  # the request is not sent twice


@pytest.mark.parametrize("kind", BROKEN_RESPONSES)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("into", [False, True])
async def test_incomplete_or_malformed_body_is_unavailable(
    transport: Transport, kind: str, end: str, *, into: bool
) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(BROKEN_RESPONSES[kind])
        if end == "reset":
            connection.reset()

    async with serving(handler) as server:
        with pytest.raises(UnavailableError):
            response = await transport.send("GET", server.origin, "/", {})
            try:
                while (
                    await response.readinto(memoryview(bytearray(100)))
                    if into
                    else await response.read(100)
                ):
                    pass
            finally:
                response.close()
    assert server.connections == 1


async def test_missing_response_times_out(impatient: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.reader.read()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await impatient.send("GET", server.origin, "/", {})


async def test_stalled_body_times_out(make_transport: Callable[..., Transport]) -> None:
    transport = make_transport(replace(LONG_TIMEOUTS, idle=SHORT_TIMEOUTS.idle))

    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(BROKEN_RESPONSES["length"])
        await connection.reader.read()

    async with serving(handler) as server:
        response = await transport.send("GET", server.origin, "/", {})
        received = 0
        with pytest.raises(TimedOutError):
            while count := len(await response.read(100)):
                received += count
        response.close()
    assert received <= 500


async def test_server_that_stops_reading_times_out(impatient: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.reader.read(10)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
        await asyncio.Event().wait()

    async with serving(handler) as server:
        with pytest.raises(TimedOutError):
            await impatient.send("PUT", server.origin, "/", {}, [memoryview(bytes(64 * MiB))])


async def test_slow_consumer_is_not_timed_out(impatient: Transport) -> None:
    async with serving(respond_with(RESPONSES["length"][0])) as server:
        # Patient, because a busy machine may need longer than the limits until the head arrives.
        response = await impatient.send("GET", server.origin, "/", {}, patient=True)
        received = await response.read(10)
        await asyncio.sleep(3 * SHORT_TIMEOUTS.idle)
        while piece := await response.read(100):
            received += piece
        response.close()
        assert received == BODY


async def test_refused_connection_is_unavailable(transport: Transport) -> None:
    async with serving(respond_with()) as server:
        origin = server.origin
    with pytest.raises(UnavailableError) as caught:
        await transport.send("GET", origin, "/", {})
    assert caught.value.retryable


async def test_connection_closed_by_server_while_idle_is_not_reused(transport: Transport) -> None:
    closed = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.writer.close()
        await connection.writer.wait_closed()
        closed.set()

    async with serving(handler) as server:
        for number in range(3):
            assert await read_body(await transport.send("GET", server.origin, "/", {})) == b"ok"
            await closed.wait()
            closed.clear()
            for _ in range(5):
                await asyncio.sleep(0)
            assert server.connections == number + 1


async def test_unsolicited_response_is_not_used(transport: Transport) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with serving(respond_with(response + b"ok" + response + b"no")) as server:
        for _ in range(3):
            assert await read_body(await transport.send("GET", server.origin, "/", {})) == b"ok"


@pytest.mark.parametrize("point", ["before the response", "in the request", "in the body"])
async def test_cancel_closes_connection(transport: Transport, point: str) -> None:
    reached, disconnected = asyncio.Event(), asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        try:
            if point == "in the request":
                await connection.reader.read(10)
                connection.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
                reached.set()
                await asyncio.sleep(0.05)
                connection.writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
            else:
                await connection.receive_request()
                if point == "in the body":
                    await connection.send(BROKEN_RESPONSES["length"])
                reached.set()
            while await connection.reader.read(MiB):
                pass
        except ConnectionError:
            pass
        finally:
            disconnected.set()

    async def use(server: Server) -> None:
        views = [memoryview(bytes(32 * MiB))] if point == "in the request" else []
        response = await transport.send("PUT", server.origin, "/", {}, views)
        try:
            while await response.read(100):
                pass
        finally:
            response.close()

    async with serving(handler) as server:
        task = asyncio.get_running_loop().create_task(use(server))
        await reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            await disconnected.wait()


async def test_closed_transport_has_no_connections(transport: Transport) -> None:
    disconnected = asyncio.Event()
    handler = respond_with(b"HTTP/1.1 204 No Content\r\n\r\n", disconnected=disconnected)
    async with serving(handler) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        await transport.aclose()
        await transport.aclose()
        await disconnected.wait()
