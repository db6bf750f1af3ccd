"""The response that a connection carries: its body, framed by a length or in chunks."""

from __future__ import annotations

import math
from typing import Final

from trove_async.errors import UnavailableError
from trove_async.models import KiB

from .connection import WINDOW, Connection, ResponseHead
from .http11 import CHUNKED, no_http, parse_number
from .transport import read_all_of

_TRAILERS: Final = 16 * KiB
"""Maximum bytes of all trailers of a body. The library ignores trailers."""


class SocketResponse:
    """A `Response` whose body is read from a `Connection`.

    Args:
        connection: The connection that carries the response.
        head: The head, as the connection has read it.
    """

    __slots__ = ("_connection", "_inside", "_keep", "_left", "_way", "headers", "status")

    def __init__(self, connection: Connection, head: ResponseHead) -> None:
        self.status = head.status
        self.headers = head.headers
        self._connection: Connection | None = connection
        self._way = length = head.length
        self._left = 0 if length == CHUNKED else length  # bytes left of the body or of the chunk
        self._inside = False  # a chunk was read, but not yet the line break after it
        self._keep = head.keep and length is not None

    async def read(self, size: int) -> bytes:
        """Return the next bytes. See `Response.read`."""
        connection = self._open()
        if not await self._more(connection):
            return b""
        while not connection.available():
            if self._left is None and connection.closed:
                return b""
            await self._arrival(connection)
        count = min(size, connection.available())
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        return connection.read_nowait(count)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes that arrive soon. See `Response.readinto`."""
        connection = self._open()
        if not await self._more(connection):
            return 0
        if self._left is None:
            piece = await self.read(len(buffer))
            buffer[: len(piece)] = piece
            return len(piece)
        room = buffer[: self._left]
        count = connection.readinto_nowait(room)
        if count < len(room):
            count += await self._received_into(connection, room[count:], wait=not count)
        self._left -= count
        return count

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body. See `Response.read_all`."""
        connection = self._open()
        grace = math.inf if connection.patient else connection.timeout.idle
        return await read_all_of(self, limit, grace, connection.origin)

    def close(self) -> None:
        """Return the connection to the pool, or close it. See `Response.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release(reusable=self._keep and self._left == 0 and self._way != CHUNKED)

    async def _more(self, connection: Connection) -> bool:
        """Read the framing between two chunks, if any; return whether the body continues."""
        if self._left != 0 or self._way != CHUNKED:
            return self._left != 0
        keep, self._keep = self._keep, False  # restored when the framing has been read
        if self._inside and await connection.line():
            raise no_http("a chunk of its is longer than it says")
        size, _, _ = (await connection.line()).partition(b";")
        self._left = parse_number(size.strip(), 16)
        self._inside = True
        if not self._left:
            self._way = 0
            await self._skip_trailers(connection)
        self._keep = keep
        return self._left > 0

    async def _skip_trailers(self, connection: Connection) -> None:
        left = _TRAILERS
        line = await connection.line()
        while line:
            left -= len(line) + 2
            if left < 0:
                raise no_http(f"more than {_TRAILERS} bytes of trailers")
            line = await connection.line(more=True)

    async def _arrival(self, connection: Connection) -> None:
        try:
            await connection.arrival()
        except BaseException:
            self._keep = False
            raise

    async def _received_into(self, connection: Connection, room: memoryview, *, wait: bool) -> int:
        if not wait and len(room) < WINDOW:
            return 0  # waiting for a few more bytes does not pay
        try:
            count = await connection.receive_into(room, wait=wait)
        except BaseException:  # the bytes received so far are lost
            self._keep = False
            connection.abort()
            raise
        if not count and wait:
            self._keep = False
            await connection.arrival()  # raises the reason
        return count

    def _open(self) -> Connection:
        if self._connection is None:
            raise UnavailableError("the answer is closed", retryable=False)
        return self._connection
