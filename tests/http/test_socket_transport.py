"""Behaviour specific to `SocketTransport`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.secret_canaries import chain_of, texts_of, variables_of
from tests.http.scripted_server import (
    LONG_TIMEOUTS,
    ServerConnection,
    read_body,
    respond_with,
    serving,
)
from trove_async._concurrency import OwnedTask
from trove_async._http import Origin, SocketTransport
from trove_async._http.connection import Connection
from trove_async._http.outbox import Outbox
from trove_async._secrets import Headers
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


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("closes", [False, True])
async def test_response_that_precedes_the_request_is_returned(*, closes: bool, waits: bool) -> None:
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
        head, body = await connection.exchange(
            "GET", b"GET / HTTP/1.1\r\n\r\n", (), patient=False, outbox=Outbox() if waits else None
        )
        assert (head.status, body) == (503, b"")
        assert not transport._idle[server.origin.url]
        ended.set()
    await transport.aclose()


@asynccontextmanager
async def responded_connection(
    response: bytes,
) -> AsyncIterator[tuple[SocketTransport, Connection]]:
    """Open a connection on which the server has responded before it gets a request."""
    transport = SocketTransport(LONG_TIMEOUTS)
    ended = asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.send(response)
        await ended.wait()

    async with serving(respond) as server:
        connection = await transport._open(server.origin)
        while not connection._end:
            await asyncio.sleep(0)
        yield transport, connection
        ended.set()
    await transport.aclose()


async def test_success_that_precedes_the_request_is_an_error() -> None:
    success = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with responded_connection(success) as (_, connection):
        exchange = connection.exchange(
            "PUT", b"PUT / HTTP/1.1\r\n\r\n", (), patient=False, outbox=Outbox()
        )
        with pytest.raises(UnavailableError, match="before it received the whole request"):
            await exchange


@pytest.mark.parametrize("count", [1, 3, 4, 20])
async def test_many_requests_are_sent_together(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single request is sent by its own task, without a delay."""
    transport = SocketTransport(LONG_TIMEOUTS)
    senders: list[asyncio.Task[object] | None] = []
    send_small = Connection.send_small

    def record(connection: Connection, request: Sequence[bytes | memoryview]) -> None:
        senders.append(asyncio.current_task())
        send_small(connection, request)

    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        idle = transport._idle.setdefault(server.origin.url, [])
        idle.extend([await transport._open(server.origin) for _ in range(count)])
        monkeypatch.setattr(Connection, "send_small", record)
        requests = [OwnedTask(transport.send("GET", server.origin, "/", {})) for _ in range(count)]
        assert [(await request.result()).status for request in requests] == [204] * count
        assert len(idle) == count
        assert senders.count(None) == max(count - 3, 0)
    await transport.aclose()


async def test_request_that_is_cancelled_before_it_is_sent_never_reaches_the_server() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    requests: list[str] = []

    async def respond(connection: ServerConnection) -> None:
        while True:
            lines, _ = await connection.receive_request()
            requests.append(lines[0])
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(respond) as server:
        connections = [await transport._open(server.origin) for _ in range(10)]
        transport._idle[server.origin.url].extend(connections)
        tasks = [
            asyncio.get_running_loop().create_task(
                transport.send("GET", server.origin, f"/{n}", {})
            )
            for n in range(10)
        ]
        while any(connection._exchange is None for connection in connections):
            await asyncio.sleep(0)
        assert len(transport._outbox._requests) == 7
        tasks[9].cancel()
        tasks[5].cancel()
        await asyncio.wait(tasks)
        assert [n for n in range(10) if tasks[n].cancelled()] == [5, 9]
        assert sorted(requests) == [f"GET /{n} HTTP/1.1" for n in range(10) if n not in {5, 9}]
    await transport.aclose()


@pytest.mark.parametrize("accepted", [0, 1000])
async def test_request_is_sent_to_its_end_if_the_socket_is_full(
    accepted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    body = bytes(range(256)) * 256
    bodies: list[bytes] = []

    def write_some(descriptor: int, request: Sequence[bytes | memoryview]) -> int:
        if not accepted:
            raise BlockingIOError
        return os.write(descriptor, b"".join(request)[:accepted])

    async def respond(connection: ServerConnection) -> None:
        while True:
            bodies.append((await connection.receive_request())[1])
            await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(respond) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        monkeypatch.setattr("trove_async._http.connection.os", SimpleNamespace(writev=write_some))
        response = await transport.send("PUT", server.origin, "/", {}, [memoryview(body)])
        assert response.status == HTTPStatus.NO_CONTENT
    await transport.aclose()
    assert bodies == [b"", body]


@pytest.mark.parametrize("count", [1, 15, 16, 5000])
async def test_small_body_may_consist_of_many_views(count: int) -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    bodies: list[bytes] = []

    async def respond(connection: ServerConnection) -> None:
        bodies.append((await connection.receive_request())[1])
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(respond) as server:
        body = bytes(range(256)) * 40
        views = [memoryview(body[n : n + 2]) for n in range(count)]
        (await transport.send("PUT", server.origin, "/", {}, views)).close()
    await transport.aclose()
    assert bodies == [b"".join(views)]


async def test_write_that_fails_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = SocketTransport(LONG_TIMEOUTS)

    def fail(_descriptor: int, _request: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("trove_async._http.connection.os", SimpleNamespace(writev=fail))
    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        headers = Headers({"authorization": "Bearer key-of-the-safe"})
        with pytest.raises(UnavailableError, match="broke") as caught:
            await transport.send("GET", server.origin, "/", headers)
        assert isinstance(caught.value.__cause__, BrokenPipeError)
        assert not transport._idle[server.origin.url]
    shown = [
        (where, name)
        for error in chain_of(caught.value)
        for where, name, value in variables_of(error)
        for text in texts_of(value)
        if "key-of-the-safe" in text
    ]
    assert not shown
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


@pytest.mark.parametrize("pieces", [(b"busy",), (b"bu", b"sy")])
@pytest.mark.parametrize("waits", [False, True])
async def test_connection_is_not_reused_if_the_response_precedes_the_request(
    *, waits: bool, pieces: tuple[bytes, ...]
) -> None:
    """Otherwise, the response to its request would be taken for that to the next one."""
    transport = SocketTransport(LONG_TIMEOUTS)
    requested = asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.send(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\n" + pieces[0])
        await requested.wait()
        await connection.send(*pieces[1:])
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

    async with serving(respond) as server:
        connection = await transport._open(server.origin)
        while not connection._end:
            await asyncio.sleep(0)
        exchange = connection.exchange(
            "GET", b"GET / HTTP/1.1\r\n\r\n", (), patient=False, outbox=Outbox() if waits else None
        )
        await asyncio.sleep(0.01)  # the outbox would send it
        requested.set()
        head, body = await exchange
        assert (head.status, body) == (503, b"busy")
        assert not transport._idle[server.origin.url]
    await transport.aclose()


async def test_connection_is_not_reused_if_the_response_precedes_a_large_request() -> None:
    error = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    async with responded_connection(error) as (transport, connection):
        idle = transport._idle[connection.origin.url]
        idle.append(connection)
        response = await transport.send("PUT", connection.origin, "/", {}, [memoryview(bytes(MiB))])
        assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
        response.close()
        assert not idle


@pytest.mark.parametrize("size", [60_000, 120_000])
async def test_success_before_the_end_of_a_small_request_is_an_error(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = SocketTransport(LONG_TIMEOUTS)

    async def respond(connection: ServerConnection) -> None:
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    def write_nothing(_descriptor: int, _request: object) -> int:
        raise BlockingIOError

    async with serving(respond) as server:
        connection = await transport._open(server.origin)
        transport._idle[server.origin.url].append(connection)
        # The socket stays full.
        monkeypatch.setattr(
            "trove_async._http.connection.os", SimpleNamespace(writev=write_nothing)
        )
        monkeypatch.setattr(
            connection, "_transport", FullTransport(connection._transport, connection)
        )
        with pytest.raises(UnavailableError, match="before it received the whole request"):
            await transport.send("PUT", server.origin, "/", {}, [memoryview(bytes(size))])
    await transport.aclose()


class FullTransport:
    """A transport of asyncio whose socket accepts no bytes."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def write(self, _data: bytes) -> None:
        self._connection.pause_writing()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_each_iteration_has_its_own_batch() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        idle = transport._idle.setdefault(server.origin.url, [])
        idle.extend([await transport._open(server.origin) for _ in range(8)])
        for _ in range(3):
            requests = [OwnedTask(transport.send("GET", server.origin, "/", {})) for _ in range(8)]
            assert [(await request.result()).status for request in requests] == [204] * 8
            assert not transport._outbox._requests
    await transport.aclose()


async def test_bytes_on_an_idle_connection_close_it() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    idle, ended = asyncio.Event(), asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await connection.receive_request()
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await idle.wait()
        await connection.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await ended.wait()

    async with serving(respond) as server:
        (await transport.send("GET", server.origin, "/", {})).close()
        idle.set()
        while transport._idle[server.origin.url]:
            await asyncio.sleep(0)
        ended.set()
    await transport.aclose()


async def test_request_that_fills_the_socket_is_completed_and_its_connection_reused() -> None:
    transport = SocketTransport(LONG_TIMEOUTS)
    body = bytes(range(256)) * 400
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        connection = await transport._open(Origin("http", *listener.getsockname()))
        assert connection._descriptor is not None
        with socket.socket(fileno=os.dup(connection._descriptor)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport._idle[connection.origin.url].append(connection)
        accepted, _ = await loop.sock_accept(listener)
        with accepted:
            sending = OwnedTask(
                transport.send("PUT", connection.origin, "/", {}, [memoryview(body)])
            )
            while not connection._writing_paused:
                await asyncio.sleep(0)
            received = b""
            while not received.endswith(b"\r\n\r\n" + body):
                received += await loop.sock_recv(accepted, 8192)
            await loop.sock_sendall(accepted, b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await sending.result()).status == HTTPStatus.NO_CONTENT
            assert transport._idle[connection.origin.url] == [connection]
            await transport.aclose()
