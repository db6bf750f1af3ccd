"""Behaviour specific to `SocketTransport`."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.scripted_server import LONG_TIMEOUTS, read_body, respond_with, serving
from trove_async._concurrency import OwnedTask
from trove_async._http import SocketTransport

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
