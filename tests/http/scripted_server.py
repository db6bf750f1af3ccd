"""A scripted HTTP server and the transports under test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.listening import listening
from trove_async._http import Origin, SocketTransport
from trove_async._http.aiohttp_transport import AiohttpTransport
from trove_async.models import MiB, Timeout

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async._http import Response, Transport

    Handler = Callable[["ServerConnection"], Awaitable[None]]

SHORT_TIMEOUTS = Timeout(connect=2, first_byte=0.2, idle=0.2)
LONG_TIMEOUTS = Timeout(connect=10, first_byte=10, idle=10)


class ServerConnection:
    """The server side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def receive_request(self, *, body: bool = True) -> tuple[list[str], bytes]:
        """Return the lines of the head, and the body, of the next request.

        Without `body`, leave the body unread.
        """
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[:-2]
        sizes = [line for line in lines if line.lower().startswith("content-length:")]
        size = int(sizes[0].split(":")[1]) if sizes and body else 0
        return lines, await self.reader.readexactly(size)

    async def send(self, *pieces: bytes) -> None:
        """Write each piece to the socket separately."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        self.writer.transport.abort()


class Server:
    """A running server.

    Attributes:
        connections: The number of connections that the server has accepted.
        origin: The origin of the server.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.origin = Origin("http", "127.0.0.1", 1)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        await handler(ServerConnection(reader, writer))

    async with listening(serve, tls=tls) as port:
        server.origin = Origin("https" if tls else "http", "127.0.0.1", port)
        yield server


TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "aiohttp": AiohttpTransport,
    "sockets": SocketTransport,
}


BODY = bytes(range(256)) * 3

# The first 700 bytes of `BODY`, in chunks with an extension
CHUNKED = b"".join(
    b"%x;a=b\r\n%b\r\n" % (100, BODY[start : start + 100]) for start in range(0, 700, 100)
)

# Responses with the same body and different framing
RESPONSES: dict[str, tuple[bytes, ...]] = {
    "length": (b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 768\r\n\r\n" + BODY,),
    "a byte at a time": tuple(
        bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nETag: x\r\ncontent-length:768\r\n\r\n" + BODY
    ),
    "interim response first": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag:x\r\nContent-Length: 768\r\n\r\n" + BODY,
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\n\r\n",
    ),
    "chunks and trailers, a byte at a time": tuple(
        bytes([byte])
        for byte in (
            b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + CHUNKED + b"44\r\n" + BODY[700:] + b"\r\n0\r\nx-sum: 1\r\n\r\n"
        )
    ),
}  # fmt: skip

# Responses whose body is incomplete or malformed
BROKEN_RESPONSES: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY[:500],
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED[:200],
    "malformed chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


def respond_with(*pieces: bytes, disconnected: asyncio.Event | None = None) -> Handler:
    """Return a handler that sends the same response to every request.

    Args:
        pieces: The bytes of the response. Each piece is written to the socket separately.
        disconnected: Set when the client has closed the connection.
    """

    async def handler(connection: ServerConnection) -> None:
        try:
            while True:
                await connection.receive_request()
                await connection.send(*pieces)
        finally:
            if disconnected is not None:
                disconnected.set()

    return handler


async def read_body(response: Response) -> bytes:
    try:
        return await response.read_all(8 * MiB)
    finally:
        response.close()
