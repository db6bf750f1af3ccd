"""A scripted HTTP server and the transports under test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.listening import listening
from trove_async._http import AiohttpTransport, Origin, SocketTransport
from trove_async.models import MiB, Timeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async._http import Response, Transport

    Handler = Callable[["Peer"], Awaitable[None]]

QUICK = Timeout(connect=5, first_byte=0.2, idle=0.2)
PATIENT = Timeout(connect=10, first_byte=10, idle=10)


class Peer:
    """The server side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, *, body: bool = True) -> tuple[list[str], bytes]:
        """Return the head lines and the body of the next request."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[:-2]
        sizes = [line for line in lines if line.lower().startswith("content-length:")]
        size = int(sizes[0].split(":")[1]) if sizes and body else 0
        return lines, await self.reader.readexactly(size)

    async def say(self, *pieces: bytes) -> None:
        """Send each piece in a separate packet."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        self.writer.transport.abort()


class Server:
    """A running server: its origin and the number of connections it has accepted."""

    def __init__(self) -> None:
        self.connections = 0
        self.origin = Origin("http", "127.0.0.1", 1)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        await handler(Peer(reader, writer))

    async with listening(serve, tls=tls) as port:
        server.origin = Origin("https" if tls else "http", "127.0.0.1", port)
        yield server


TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "aiohttp": AiohttpTransport,
    "sockets": SocketTransport,
}


BODY = bytes(range(256)) * 3

CHUNKED = b"".join(b"%x;a=b\r\n%b\r\n" % (100, BODY[at : at + 100]) for at in range(0, 700, 100))

ANSWERS: dict[str, tuple[bytes, ...]] = {
    "length": (b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 768\r\n\r\n" + BODY,),
    "a byte at a time": tuple(
        bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nETag: x\r\ncontent-length:768\r\n\r\n" + BODY
    ),
    "continue first": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag:x\r\nContent-Length: 768\r\n\r\n" + BODY,
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\n\r\n",
    ),
    "chunks, trailers, in pieces": tuple(
        piece.encode("latin-1")
        for piece in (
            (
                b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                + CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\nx-sum: 1\r\n\r\n"
            ).decode("latin-1")
        )
    ),
}  # fmt: skip

BROKEN: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY[:500],
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED[:200],
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


def answering(*pieces: bytes, left: asyncio.Event | None = None) -> Handler:
    async def handler(peer: Peer) -> None:
        try:
            while True:
                await peer.request()
                await peer.say(*pieces)
        finally:
            if left is not None:
                left.set()

    return handler


async def body_of(answer: Response) -> bytes:
    try:
        return await answer.read_all(8 * MiB)
    finally:
        answer.close()
