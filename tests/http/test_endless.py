"""Endless responses, over both transports: each byte is in time, but the response never completes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.http.peers import Peer, Server, body_of, serving
from trove_async import RetryPolicy, Trove
from trove_async.drivers import GCSDriver
from trove_async.errors import PoolTimeoutError, TimedOutError, TroveError, UnavailableError
from trove_async.models import MiB, Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async._http import Transport

pytestmark = pytest.mark.uvloop

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

PAUSE = 0.01
"""Seconds between two pieces: a twentieth of the limit. A longer pause ends the response sooner."""


@asynccontextmanager
async def endless(
    first: bytes, piece: bytes, *, pause: float = PAUSE, reads: bool = True, fine: bytes = FINE
) -> AsyncIterator[tuple[Server, asyncio.Event]]:
    """Serve an endless response on the first connection and a complete one on all others."""
    left = asyncio.Event()

    async def handler(peer: Peer) -> None:
        if server.connections > 1:
            await peer.request()
            await peer.say(fine)
            return
        if reads:
            await peer.request()
        else:
            await peer.reader.read(10)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # sockets have it
        try:
            await peer.say(first)
            while not peer.writer.transport.is_closing():
                await peer.say(piece)
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        finally:
            left.set()

    async with serving(handler) as server:
        yield server, left


async def ends(
    impatient: Transport,
    server: Server,
    left: asyncio.Event,
    error: type[TroveError],
    *,
    method: str = "GET",
    views: tuple[memoryview, ...] = (),
) -> str:
    """Assert that the response fails, closes its connection and leaves the next request working."""
    async with asyncio.timeout(30):
        with pytest.raises(error) as caught:
            await body_of(await impatient.send(method, server.origin, "/", {}, views))
        await left.wait()
        assert await body_of(await impatient.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 2
    return str(caught.value)


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
    async with endless(*HEADS[kind]) as (server, left):
        await ends(impatient, server, left, TimedOutError, method=method, views=views)


@pytest.mark.parametrize("pause", [0, PAUSE], ids=["at once", "one by one"])
async def test_endless_interim_responses_are_rejected(impatient: Transport, pause: float) -> None:
    piece = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with endless(b"", piece, pause=pause) as (server, left):
        await ends(impatient, server, left, UnavailableError)


async def test_interim_responses_do_not_extend_stalled_upload(
    impatient: Transport,
) -> None:
    piece = b"HTTP/1.1 102 Processing\r\n\r\n"
    body = (memoryview(bytes(64 * MiB)),)
    async with endless(b"", piece, reads=False) as (server, left):
        await ends(impatient, server, left, UnavailableError, method="PUT", views=body)


async def test_twenty_interim_responses_are_accepted(impatient: Transport) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + FINE)

    async with serving(handler) as server:
        for _ in range(2):
            assert await body_of(await impatient.send("GET", server.origin, "/", {})) == b"ok"
    assert server.connections == 1


FRAMES = {
    "a chunk's size": (CHUNKS + b"2;a=", b"a"),
    "zeros before a chunk's size": (CHUNKS, b"0"),
    "a trailer": (CHUNKS + b"2\r\nok\r\n0\r\nx-a: ", b"a"),
    "trailers": (CHUNKS + b"2\r\nok\r\n0\r\n", b"x-a: a\r\n"),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("pause", [0, PAUSE], ids=["at once", "one by one"])
async def test_endless_body_framing_is_rejected(
    impatient: Transport, kind: str, pause: float
) -> None:
    first, piece = FRAMES[kind]
    async with endless(first, piece if pause else piece * 1000, pause=pause) as (server, left):
        await ends(impatient, server, left, UnavailableError)


DOCUMENTS = {
    "length": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n", b"a"),
    "chunks": (CHUNKS, b"1\r\na\r\n"),
    "until the connection closes": (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_slow_document_times_out(impatient: Transport, kind: str) -> None:
    async with endless(*DOCUMENTS[kind]) as (server, left):
        await ends(impatient, server, left, TimedOutError)


FACTS = b'{"name": "k", "size": "5", "generation": "1", "updated": "2020-01-01T00:00:00Z"}'


@pytest.mark.parametrize("kind", ["head", "document"])
async def test_store_works_after_endless_response(kind: str) -> None:
    first = HEADS["headers"] if kind == "head" else DOCUMENTS["length"]
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(FACTS), FACTS)
    async with endless(*first, fine=fine) as (server, left):
        driver = GCSDriver(endpoint_url=server.origin.url, max_connections=1)
        timeout = Timeout(connect=5, first_byte=0.2, idle=0.2)
        async with Trove(driver, timeout=timeout, retry=RetryPolicy(attempts=1)) as store:
            async with asyncio.timeout(30):
                with pytest.raises(TroveError):
                    await store.head("bucket", "k")
                await left.wait()
            size = None
            while size is None:
                try:
                    size = (await store.head("bucket", "k")).size
                except PoolTimeoutError:  # the failed request kept the only permit
                    raise
                except TimedOutError:  # on a busy machine
                    continue
            assert size == 5


async def test_streamed_body_may_be_slow(impatient: Transport) -> None:
    async with endless(*DOCUMENTS["length"]) as (server, _):
        answer = await impatient.send("GET", server.origin, "/", {})
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0
        while loop.time() < until:
            assert await answer.read(100)
        answer.close()
