"""Endless responses, over both transports: bytes keep arriving, but the response never ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.http.scripted_server import (
    SHORT_TIMEOUTS,
    Server,
    ServerConnection,
    read_body,
    serving,
)
from trove_async import RetryPolicy, Trove
from trove_async.drivers import GCSDriver
from trove_async.errors import PoolTimeoutError, TimedOutError, TroveError, UnavailableError
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop

COMPLETE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

PAUSE = 0.01
"""Seconds between two pieces: a twentieth of `first_byte` and of `idle` in `SHORT_TIMEOUTS`."""


@asynccontextmanager
async def endless(
    first: bytes,
    piece: bytes,
    *,
    pause: float = PAUSE,
    reads: bool = True,
    complete: bytes = COMPLETE,
) -> AsyncIterator[tuple[Server, asyncio.Event]]:
    """Serve an endless response on the first connection and a complete one on all others.

    Args:
        first: The first bytes of the endless response.
        piece: The bytes that follow again and again.
        pause: Seconds after each piece.
        reads: Whether the server reads the whole first request, or only its first bytes.
        complete: The response on the other connections.
    """
    disconnected = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        if server.connections > 1:
            await connection.receive_request()
            await connection.send(complete)
            return
        if reads:
            await connection.receive_request()
        else:
            await connection.reader.read(10)
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
        try:
            await connection.send(first)
            while not connection.writer.transport.is_closing():
                await connection.send(piece)
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        finally:
            disconnected.set()

    async with serving(handler) as server:
        yield server, disconnected


async def assert_rejected(
    impatient: Transport,
    server: Server,
    disconnected: asyncio.Event,
    error: type[TroveError],
    *,
    method: str = "GET",
    views: tuple[memoryview, ...] = (),
) -> None:
    """Assert that the response fails and closes its connection, and that the next request works."""
    async with asyncio.timeout(30):
        with pytest.raises(error):
            await read_body(await impatient.send(method, server.origin, "/", {}, views))
        await disconnected.wait()
        # Patient, because a busy machine may need longer than the limits of the transport.
        response = await impatient.send("GET", server.origin, "/", {}, patient=True)
        assert await read_body(response) == b"ok"
    assert server.connections == 2


HEADS = {
    "a status line": (b"HTTP/1.1 200 O", b"K"),
    "a header": (b"HTTP/1.1 200 OK\r\nx-a: ", b"a"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x-a: a\r\n"),
    "an interim response": (b"HTTP/1.1 100 Continue\r\nx-a: ", b"a"),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_head_that_never_ends_times_out(impatient: Transport, kind: str, method: str) -> None:
    views = (memoryview(b"body"),) if method == "PUT" else ()
    async with endless(*HEADS[kind]) as (server, disconnected):
        await assert_rejected(
            impatient, server, disconnected, TimedOutError, method=method, views=views
        )


@pytest.mark.parametrize("pause", [0, PAUSE], ids=["without pause", "one by one"])
async def test_endless_interim_responses_are_rejected(impatient: Transport, pause: float) -> None:
    piece = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with endless(b"", piece, pause=pause) as (server, disconnected):
        await assert_rejected(impatient, server, disconnected, UnavailableError)


async def test_interim_responses_do_not_extend_stalled_upload(
    impatient: Transport,
) -> None:
    piece = b"HTTP/1.1 102 Processing\r\n\r\n"
    body = (memoryview(bytes(64 * MiB)),)
    async with endless(b"", piece, reads=False) as (server, disconnected):
        await assert_rejected(
            impatient, server, disconnected, UnavailableError, method="PUT", views=body
        )


async def test_twenty_interim_responses_are_accepted(transport: Transport) -> None:
    async def handler(connection: ServerConnection) -> None:
        while True:
            await connection.receive_request()
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + COMPLETE)

    async with serving(handler) as server:
        for _ in range(2):
            assert await read_body(await transport.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 1


FRAMINGS = {
    "a chunk's size": (CHUNKED_HEAD + b"2;a=", b"a"),
    "zeros before a chunk's size": (CHUNKED_HEAD, b"0"),
    "a trailer": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\nx-a: ", b"a"),
    "trailers": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\n", b"x-a: a\r\n"),
}


@pytest.mark.parametrize("kind", FRAMINGS)
@pytest.mark.parametrize("pause", [0, PAUSE], ids=["without pause", "one by one"])
async def test_endless_body_framing_is_rejected(
    impatient: Transport, kind: str, pause: float
) -> None:
    first, piece = FRAMINGS[kind]
    async with endless(first, piece if pause else piece * 1000, pause=pause) as (
        server,
        disconnected,
    ):
        await assert_rejected(impatient, server, disconnected, UnavailableError)


DOCUMENTS = {
    "length": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n", b"a"),
    "chunks": (CHUNKED_HEAD, b"1\r\na\r\n"),
    "until the connection closes": (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_slow_document_times_out(impatient: Transport, kind: str) -> None:
    async with endless(*DOCUMENTS[kind]) as (server, disconnected):
        await assert_rejected(impatient, server, disconnected, TimedOutError)


METADATA = b'{"name": "k", "size": "5", "generation": "1", "updated": "2020-01-01T00:00:00Z"}'


@pytest.mark.parametrize("kind", ["head", "document"])
async def test_store_works_after_endless_response(kind: str) -> None:
    first = HEADS["headers"] if kind == "head" else DOCUMENTS["length"]
    complete = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(METADATA), METADATA)
    async with endless(*first, complete=complete) as (server, disconnected):
        driver = GCSDriver(endpoint_url=server.origin.url, max_connections=1)
        async with Trove(driver, timeout=SHORT_TIMEOUTS, retry=RetryPolicy(attempts=1)) as store:
            async with asyncio.timeout(30):
                with pytest.raises(TroveError):
                    await store.head("bucket", "k")
                await disconnected.wait()
            size = None
            while size is None:
                try:
                    size = (await store.head("bucket", "k")).size
                except PoolTimeoutError:  # the failed request kept the only permit
                    raise
                except TimedOutError:  # the machine is busy
                    continue
            assert size == 5


@pytest.mark.idle_time
async def test_slow_body_read_in_pieces_does_not_time_out(impatient: Transport) -> None:
    """A body that is not read with `read_all` has no minimum rate."""
    async with endless(*DOCUMENTS["length"]) as (server, _):
        response = await impatient.send("GET", server.origin, "/", {})
        clock = asyncio.get_running_loop().time
        end = clock() + 5 * SHORT_TIMEOUTS.idle
        while clock() < end:
            assert await response.read(100)
        response.close()
