"""Responses: one that is read from its connection, and one that has arrived as a whole."""

from __future__ import annotations

import math
from typing import Final

from trove_async.errors import UnavailableError
from trove_async.models import KiB

from .connection import WINDOW_SIZE, Connection
from .http11 import CHUNKED, ResponseHead, invalid_response, parse_number
from .transport import body_too_long, collect_body

_MAX_TRAILERS: Final = 16 * KiB
"""Maximum bytes of all trailers of a body. The library ignores trailers."""


class WholeResponse:
    """A `Response` that has arrived to the end of its small body. It holds no connection.

    Args:
        head: The head.
        body: The body.
    """

    __slots__ = ("_closed", "_position", "body", "headers", "status")

    def __init__(self, head: ResponseHead, body: bytes) -> None:
        self.status = head.status
        self.headers = head.headers
        self.body = body
        self._position = 0
        self._closed = False

    async def read(self, size: int) -> bytes:
        """Return the next bytes. See `Response.read`."""
        self._check_open()
        piece = self.body[self._position : self._position + size]
        self._position += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes into `buffer`. See `Response.readinto`."""
        piece = await self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body. See `Response.read_all`."""
        self._check_open()
        body = self.body[self._position :]
        if len(body) > limit:
            raise body_too_long(limit)
        self._position = len(self.body)
        return body

    def close(self) -> None:
        """End the use of the response. See `Response.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error()


class SocketResponse:
    """A `Response` whose body is read from a `Connection`.

    The body has a length, is sent in chunks, or ends with the connection.

    Args:
        connection: The connection that carries the response.
        head: The head, which has been read.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_in_chunk",
        "_remaining",
        "_reusable",
        "headers",
        "status",
    )

    body = None

    def __init__(self, connection: Connection, head: ResponseHead) -> None:
        self.status = head.status
        self.headers = head.headers
        self._connection: Connection | None = connection
        self._chunked = head.length == CHUNKED  # more chunks may follow
        # Bytes that remain of the body, or of the current chunk; None if the body ends with the
        # connection.
        self._remaining = 0 if self._chunked else head.length
        self._in_chunk = False  # a chunk has begun, so a line break precedes the next one
        self._reusable = head.keep_alive and head.length is not None

    async def read(self, size: int) -> bytes:
        """Return the next bytes. See `Response.read`."""
        connection = self._require_open()
        if not await self._has_more(connection):
            return b""
        while not connection.available():
            if self._remaining is None and connection.received_eof:
                return b""
            await self._wait_for_bytes(connection)
        count = min(size, connection.available())
        if self._remaining is not None:
            count = min(count, self._remaining)
            self._remaining -= count
        return connection.read_nowait(count)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes that arrive soon. See `Response.readinto`."""
        connection = self._require_open()
        if not await self._has_more(connection):
            return 0
        if self._remaining is None:
            # The body ends with the connection, which only `read` handles.
            chunk = await self.read(len(buffer))
            buffer[: len(chunk)] = chunk
            return len(chunk)
        target = buffer[: self._remaining]
        count = connection.readinto_nowait(target)
        if count < len(target):
            count += await self._receive_into(connection, target[count:], wait=not count)
        self._remaining -= count
        return count

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body. See `Response.read_all`."""
        connection = self._require_open()
        grace = math.inf if connection.patient else connection.timeout.idle
        return await collect_body(self, limit, grace, connection.origin)

    def close(self) -> None:
        """Return the connection to the pool, or close it. See `Response.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            is_complete = self._remaining == 0 and not self._chunked
            connection.release(reusable=self._reusable and is_complete)

    async def _has_more(self, connection: Connection) -> bool:
        """Read the framing between two chunks, if any; return whether the body continues."""
        if self._remaining != 0 or not self._chunked:
            return self._remaining != 0
        # If a read of the framing fails or is cancelled, the connection must not be reused.
        reusable, self._reusable = self._reusable, False
        if self._in_chunk and await connection.read_line():
            raise invalid_response("a chunk is longer than its size")
        size, _, _ = (await connection.read_line()).partition(b";")
        self._remaining = parse_number(size.strip(), 16)
        self._in_chunk = True
        if not self._remaining:
            self._chunked = False
            await self._skip_trailers(connection)
        self._reusable = reusable
        return self._remaining > 0

    async def _skip_trailers(self, connection: Connection) -> None:
        bytes_left = _MAX_TRAILERS
        line = await connection.read_line()
        while line:
            bytes_left -= len(line) + 2
            if bytes_left < 0:
                raise invalid_response(f"more than {_MAX_TRAILERS} bytes of trailers")
            line = await connection.read_line(shares_timeout=True)

    async def _wait_for_bytes(self, connection: Connection) -> None:
        try:
            await connection.wait_for_bytes()
        except BaseException:
            self._reusable = False
            raise

    async def _receive_into(self, connection: Connection, target: memoryview, *, wait: bool) -> int:
        if not wait and len(target) < WINDOW_SIZE:
            return 0  # so few bytes are not worth the timer
        try:
            count = await connection.receive_into(target, wait=wait)
        except BaseException:
            # The bytes that have been received are lost, so the body cannot be continued.
            self._reusable = False
            connection.abort()
            raise
        if not count and wait:
            self._reusable = False
            await connection.wait_for_bytes()  # raises the error of the connection
        return count

    def _require_open(self) -> Connection:
        if self._connection is None:
            raise _closed_error()
        return self._connection


def _closed_error() -> UnavailableError:
    return UnavailableError("the response is closed", retryable=False)
