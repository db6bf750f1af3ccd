"""Behaviour specific to `SocketTransport`."""

from __future__ import annotations

import asyncio

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
from trove_async.models import MiB

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
