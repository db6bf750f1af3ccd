"""Behaviour specific to `SocketTransport`."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.scripted_server import (
    LONG_TIMEOUTS,
    ServerConnection,
    read_body,
    respond_with,
    serving,
)
from trove_async._concurrency import OwnedTask
from trove_async._http import SocketTransport
from trove_async.errors import UnavailableError
from trove_async.models import MiB, Timeout

pytestmark = pytest.mark.uvloop


async def test_idle_connection_is_closed_after_a_minute() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    disconnected = asyncio.Event()
    handler = respond_with(b"HTTP/1.1 204 No Content\r\n\r\n", disconnected=disconnected)
    async with serving(handler) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        (connection,) = transport._connections
        connection.check_timeouts(asyncio.get_running_loop().time() + 59)
        assert transport._idle[server.origin.url] == [connection]
        connection.check_timeouts(asyncio.get_running_loop().time() + 61)
        await disconnected.wait()
        assert not transport._connections
    await transport.aclose()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_head_is_parsed_with_any_splits(data: st.DataObject) -> None:
    value = "v" * data.draw(st.integers(min_value=0, max_value=5000))
    message = f"HTTP/1.1 200 OK\r\nx-a: {value}\r\nContent-Length: 1\r\n\r\nb".encode()
    splits = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=5)))
    pieces = [
        message[start:end] for start, end in zip([0, *splits], [*splits, len(message)], strict=True)
    ]

    async def exchange() -> None:
        transport = SocketTransport(LONG_TIMEOUTS)
        async with serving(respond_with(*pieces)) as server:
            response = await transport.send("GET", server.origin, "/", {})
            assert response.headers["x-a"] == value
            assert await read_body(response) == b"b"
        await transport.aclose()

    asyncio.run(exchange())


async def test_connection_opened_by_cancelled_request_is_reused_or_closed() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        task = OwnedTask(transport.send("GET", server.origin, "/", {}))
        await asyncio.sleep(0)
        await task.aclose()
        while not transport._idle.get(server.origin.url):
            await asyncio.sleep(0)
        (await transport.send("GET", server.origin, "/", {})).close()
        assert server.connections == 1
        await transport.aclose()
        assert not transport._connections
    other = SocketTransport(LONG_TIMEOUTS)
    async with serving(respond_with()) as server:
        task = OwnedTask(other.send("GET", server.origin, "/", {}))
        await asyncio.sleep(0)
        await task.aclose()
        await other.aclose()
        assert not other._connections
        assert not other._opening


async def test_cancelled_request_does_not_read_its_body_any_more() -> None:
    overwritten = asyncio.Event()
    received = bytearray()
    disconnected = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.receive_request(body=False)
        await overwritten.wait()
        try:
            while piece := await connection.reader.read(MiB):
                received.extend(piece)
        finally:
            disconnected.set()

    body = bytearray(b"\x01") * (32 * MiB)
    transport = SocketTransport(LONG_TIMEOUTS)
    async with serving(handler) as server:
        task = OwnedTask(transport.send("PUT", server.origin, "/", {}, [memoryview(body)]))
        while not any(connection._writing_paused for connection in transport._connections):
            await asyncio.sleep(0)
        await task.aclose()
        body[:] = bytes(len(body))
        overwritten.set()
        await disconnected.wait()
    await transport.aclose()
    assert 0 < len(received) < len(body)
    assert set(received) == {1}


async def test_cancel_after_the_response_has_arrived_keeps_the_connection() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        (connection,) = transport._connections
        sending = asyncio.get_running_loop().create_task(
            transport.send("GET", server.origin, "/", {})
        )
        while (exchange := connection._exchange) is None:
            await asyncio.sleep(0)
        while not exchange.done():
            await asyncio.sleep(0)
        sending.cancel()  # the response has released the connection, which another request may use
        with suppress(asyncio.CancelledError):
            await sending
        assert transport._idle[server.origin.url] == [connection]
        (await transport.send("GET", server.origin, "/", {})).close()
        assert server.connections == 1
    await transport.aclose()


async def test_response_is_returned_although_its_small_body_is_late() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    returned = asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await returned.wait()
        await connection.send(b"llo")

    async with serving(respond) as server:
        response = await transport.send("GET", server.origin, "/", {})
        assert response.body is None
        returned.set()
        assert await read_body(response) == b"hello"
        response.close()
    await transport.aclose()


async def test_small_body_comes_with_the_response_and_holds_no_connection() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    pieces = (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo")
    async with serving(respond_with(*pieces)) as server:
        response = await transport.send("GET", server.origin, "/", {})
        assert response.body == b"hello"
        assert len(transport._idle[server.origin.url]) == 1
        assert await read_body(response) == b"hello"
    await transport.aclose()


@pytest.mark.parametrize("closes", [False, True])
async def test_response_that_precedes_the_request_is_returned(*, closes: bool) -> None:
    """A server that is overloaded responds to a connection, and may close it at once."""
    transport = SocketTransport(LONG_TIMEOUTS)
    ended = asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.send(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
        if not closes:
            await ended.wait()

    async with serving(respond) as server:
        connection = await transport._open(server.origin)
        while not connection._end or (closes and not connection.received_eof):
            await asyncio.sleep(0)
        head, body = await connection.exchange("GET", b"GET / HTTP/1.1\r\n\r\n", (), patient=False)
        assert (head.status, body) == (503, b"")
        ended.set()
    await transport.aclose()


async def test_bytes_that_follow_a_response_close_the_connection() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(respond_with(response + b"HTTP/1.1 200 OK\r\n\r\n")) as server:
        for _ in range(2):
            assert (await transport.send("GET", server.origin, "/", {})).body == b"hello"
            assert not transport._idle[server.origin.url]
        assert server.connections == 2
    await transport.aclose()


async def test_body_that_follows_a_late_head_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle timeout counts from the head, not from the request."""
    timeouts = Timeout(connect=10, first_byte=10, idle=0.2)
    transport = SocketTransport(timeouts)
    monkeypatch.setattr("trove_async._http.connection._FILL_SECONDS", 10.0)
    asked, backdated, swept = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.receive_request()
        asked.set()
        await backdated.wait()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await swept.wait()
        await connection.send(b"hello")

    async with serving(respond) as server:
        sending = OwnedTask(transport.send("GET", server.origin, "/", {}))
        await asked.wait()
        (connection,) = transport._connections
        connection._last_progress -= 0.3  # the request was sent long ago
        backdated.set()
        while connection._exchange_head is None:
            await asyncio.sleep(0)
        connection.check_timeouts(asyncio.get_running_loop().time())
        swept.set()
        assert (await sending.result()).body == b"hello"
    await transport.aclose()


@pytest.mark.parametrize("size", [0, 100, 100_000])
async def test_request_on_a_connection_that_was_just_closed_is_unavailable(size: int) -> None:
    """uvloop raises a RuntimeError for a write to it."""
    transport = SocketTransport(LONG_TIMEOUTS)

    async def close(connection: ServerConnection) -> None:
        connection.writer.close()

    async with serving(close) as server:
        connection = await transport._open(server.origin)
        while not connection.received_eof:
            await asyncio.sleep(0)
        transport._idle[server.origin.url].append(connection)
        with pytest.raises(UnavailableError, match="closed the connection") as caught:
            await transport.send("PUT", server.origin, "/", {}, [memoryview(bytes(size))][:size])
        assert caught.value.retryable
    await transport.aclose()
