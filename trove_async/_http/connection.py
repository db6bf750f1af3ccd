"""One connection, and the answer that it is at.

It receives into a window of its own, made once, or straight into the memory of whoever reads a
large body. It carries one request at a time, and waits for the next one only if the answer before
was read to its end and its request sent to its end. What the server closes meanwhile is noticed as
it happens.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

from trove_async._secrets import Secret
from trove_async.errors import TimedOutError, TroveError, UnavailableError
from trove_async.models import KiB, Timeout

from .http11 import (
    CHUNKED,
    MOST_INTERIM,
    body_length,
    early_success,
    keeps_alive,
    no_http,
    parse_head,
    parse_number,
)
from .transport import read_all_of

if TYPE_CHECKING:
    from .transport import Origin, StreamedBody

_WINDOW: Final = 72 * KiB
"""Bytes that a connection receives into memory of its own: heads, and small bodies, one of 64 KiB
with its head among them. What is larger is best received straight into the memory of whoever reads it."""

_PIECE: Final = 64 * KiB
"""Bytes that are handed to a socket at a time: what it does not take at once, a loop may copy."""

_SOON: Final = 0.05
"""Seconds that what has arrived of a large body waits at the most for the rest of a buffer."""

_JOINED: Final = 64 * KiB
"""Bytes of a body up to which it is copied behind its head: that takes less than a second call."""

IDLE: Final = 60.0
"""Seconds that a connection waits for its next request: less than what lies on the way forgets it in."""

_LINE: Final = 4 * KiB
"""Bytes of a line between the chunks of a body."""

_TRAILERS: Final = 16 * KiB
"""Bytes of all trailers of a body: the library uses none of them."""

_INTERIM: Final = b"HTTP/1.1 1"

_BODILESS: Final = frozenset((204, 304))  # RFC 9110, 6.4.1


class ConnectionPool(Protocol):
    """Where connections wait for their next request."""

    def put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request to where it leads."""

    def forget(self, connection: Connection) -> None:
        """Note that a connection is closed."""


class Connection(asyncio.BufferedProtocol):
    """One connection, and what of the current answer has arrived.

    Attributes:
        origin: Where it leads.
        timeout: Its first_byte and idle are kept.
        closed: Whether the server closed it, having sent all that it wanted to.
        patient: Whether only the caller limits how long the response may take.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        timeout: Timeout,
    ) -> None:
        self.origin = origin
        self.timeout = timeout
        self._pool = pool
        self._loop = loop
        self._window = bytearray(_WINDOW)
        self._view = memoryview(self._window)
        self._start = self._end = 0  # what of the window has not been read
        self._target: memoryview | None = None  # received into instead of the window
        self._filled = 0
        self._hurried = False
        self._paused = False
        self._full = False  # of what the socket has not taken yet
        self._ended: TroveError | None = None
        self.closed = False
        self._busy = False
        self._began = False  # to answer
        self._sent = True
        self.patient = False
        self._interim = 0  # responses that came before the response to the current request
        # What `look` measures from: the last progress. While a head, or a line of the framing, is
        # awaited, arriving bytes are no progress: one byte at a time it would never end.
        self._active = loop.time()
        self._in_body = False  # and arriving bytes are progress
        self._in_line = False  # of a body's framing
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = loop.create_future()

    # -- what asyncio calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # though uvloop's is none by name
        # Nothing piles up: the next piece is written once the socket has taken the last. TLS is full
        # from its limit on rather than beyond it: at none at all it would be full for ever.
        self._transport.set_write_buffer_limits(high=1 if self.origin.scheme == "https" else 0)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._target is not None:
            return self._target[self._filled :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_body:
            self._active = self._loop.time()
        elif not self._began:
            self._began = True
            if self.patient and self._sent:
                self._active = self._loop.time()  # the head has to be complete `first_byte` later
        if self._target is not None:
            self._filled += nbytes
            if self._filled < len(self._target) and not self._hurried:
                return
            self._target = None  # what comes next is not for it
        else:
            self._end += nbytes
            if self._end == _WINDOW:
                self._transport.pause_reading()
                self._paused = True
        _wake(self._arrival)

    def eof_received(self) -> bool:
        self.closed = self._ended is None
        self._fail(UnavailableError(f"{self.origin.address} closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        how = "was reset" if isinstance(exc, ConnectionResetError) else "broke"
        error = UnavailableError(f"the connection to {self.origin.address} {how}")
        error.__cause__ = exc
        self._fail(error)
        self._pool.forget(self)
        _wake(self._gone)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._active = self._loop.time()
        self._full = False
        _wake(self._room)

    # -- its life --------------------------------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """Whether it can carry a request: it is open, and nobody said anything unasked."""
        return self._ended is None and self._end == 0

    def abort(self) -> None:
        """Break it off: nothing is read from or written to anybody's memory any more."""
        self._target = None
        self._fail(UnavailableError("the connection was given up"))
        self._transport.abort()

    def terminate(self) -> asyncio.Future[None]:
        """Break it off; return what is done when the socket is closed."""
        self.abort()
        return self._gone

    def check_timeouts(self, now: float) -> None:
        """Fail what waits for too long."""
        since = now - self._active
        if not self._busy:
            if since > IDLE:
                self.abort()
        elif self.patient and self._sent and not self._began:
            return  # whoever waits for the answer knows how long
        elif self._arrival is not None or self._room is not None:
            limit, what = self.timeout.idle, "sent nothing more of its response"
            if self._room is not None:
                what = "took no more of the request"
            elif not self._in_line and not self._in_body:
                limit, what = self.timeout.first_byte, "sent no complete response head"
            if since > limit:
                self._fail(TimedOutError(f"{self.origin.address} {what} for {limit:g} s"))
                self.abort()

    def release(self, *, reusable: bool) -> None:
        """Take it back from an answer that nobody reads any more."""
        self._busy = False
        self._active = self._loop.time()
        if reusable and self._sent and self.fresh and not self._transport.get_write_buffer_size():
            self._listen()  # for its end
            self._pool.put_back(self)
        else:
            self.abort()

    def _fail(self, error: TroveError) -> None:
        self._ended = self._ended or error
        _wake(self._arrival)
        _wake(self._room)

    # -- sending ---------------------------------------------------------------------------------------

    async def send(
        self, head: Secret[bytes], views: Sequence[memoryview], size: int, *, patient: bool
    ) -> None:
        """Send a request, to its end or until the server answers."""
        self._begin(patient=patient)
        if size <= _JOINED:
            self._transport.write(b"".join((head.reveal(), *views)) if size else head.reveal())
        else:
            self._transport.write(head.reveal())
            for piece in _pieces(views):
                if not await self._has_room():
                    return  # an answer that does not wait for the body is a refusal
                self._transport.write(piece)
        self._sent = True
        self._active = self._loop.time()

    def _begin(self, *, patient: bool) -> None:
        self.patient = patient
        self._busy, self._began, self._sent = True, False, False
        self._in_body = self._in_line = False
        self._interim = 0
        self._active = self._loop.time()

    async def send_streamed(self, head: Secret[bytes], body: StreamedBody) -> None:
        """Send a request whose body is read meanwhile, to its end or until the server answers."""
        self._begin(patient=False)
        self._transport.write(head.reveal())
        async with body.pieces() as pieces:
            async for view in pieces:
                self._active = self._loop.time()  # what reading took is not the server's doing
                for piece in _pieces((view,)):
                    if not await self._has_room():
                        return
                    self._transport.write(piece)
                await self._has_room()
                if self._full:
                    return  # it is answered already, and a loop may keep the view
        self._sent = True
        self._active = self._loop.time()

    async def _has_room(self) -> bool:
        """Wait until the socket has taken what it was given; False: no more is to be sent."""
        while self._full and not self._answers() and self._ended is None:
            await self._for_room()
        return not self._answers() and self._ended is None

    def _answers(self) -> bool:
        """Tell whether the answer has begun; what may come before it (RFC 9110, 15.2) is dropped."""
        while self._began and self._window.startswith(_INTERIM, self._start, self._end):
            at = self._window.find(b"\r\n\r\n", self._start, self._end)
            if at < 0:
                return False  # it is under way
            self._advance(at + 4 - self._start)
            self._pass_interim()
        return self._began

    async def _for_room(self) -> None:
        self._room = self._arrival = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = self._arrival = None

    # -- receiving -------------------------------------------------------------------------------------

    async def read_head(self, method: str) -> SocketResponse:
        """Return the answer once its head is there."""
        if not self._sent:  # it began early: its head has the time that it has after a request
            self._active = self._loop.time()
        while True:
            status, version, headers = parse_head(await self._up_to(b"\r\n\r\n", _WINDOW))
            if status >= 200:  # noqa: PLR2004 - RFC 9110, 15.2: those below come before the answer
                break
            self._pass_interim()
        self._in_body = True
        if not self._sent and status < 300:  # noqa: PLR2004 - RFC 9110, 15.3: a success
            raise early_success()
        if method == "HEAD" or status in _BODILESS:
            length: int | None = 0
        else:
            length = body_length(headers)
        return SocketResponse(self, status, headers, length, keep=keeps_alive(version, headers))

    def _pass_interim(self) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise no_http(f"more than {MOST_INTERIM} interim responses")
        self._began = self._end > 0

    async def _up_to(self, mark: bytes, limit: int) -> bytes:
        """Return what comes before the next `mark`, and go on behind it."""
        searched = self._start
        while (at := self._window.find(mark, searched, self._end)) < 0:
            searched = max(self._start, self._end - len(mark) + 1)
            if self._end - self._start >= limit:
                raise no_http("a line of its is too long")
            if self._end == _WINDOW:
                searched -= self._start
                self._to_front()
            await self.arrival()
        found = bytes(self._view[self._start : at])
        self._advance(at + len(mark) - self._start)
        return found

    async def line(self, limit: int = _LINE, *, more: bool = False) -> bytes:
        """Return the next line, which has to be complete within the idle timeout.

        Args:
            limit: Bytes that it may have.
            more: Whether that time began with the line before.
        """
        if not more:
            self._active = self._loop.time()
        self._in_body, self._in_line = False, True
        line = await self._up_to(b"\r\n", limit)
        self._in_body, self._in_line = True, False
        return line

    async def arrival(self) -> None:
        """Wait until more has arrived.

        Raises:
            UnavailableError: Nothing more will. TimedOutError: nothing did for too long.
        """
        if self._ended is not None:
            raise self._ended
        self._listen()
        if self._in_body:
            self._active = self._loop.time()
        self._arrival = self._loop.create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _listen(self) -> None:
        if self._paused and self._end < _WINDOW:
            self._paused = False
            self._transport.resume_reading()

    def available(self) -> int:
        """Return how many bytes there are to `read_nowait`."""
        return self._end - self._start

    def read_nowait(self, size: int) -> bytes:
        """Return the next `size` bytes, which have arrived."""
        piece = bytes(self._view[self._start : self._start + size])
        self._advance(size)
        return piece

    def readinto_nowait(self, buffer: memoryview) -> int:
        """Fill `buffer` with what has arrived; return how many bytes."""
        count = min(len(buffer), self._end - self._start)
        buffer[:count] = self._view[self._start : self._start + count]
        self._advance(count)
        return count

    async def receive_into(self, buffer: memoryview, *, wait: bool) -> int:
        """Fill `buffer` from the socket, with what comes soon; return how many bytes.

        Args:
            buffer: Memory to fill.
            wait: Whether to wait on if nothing comes soon.
        """
        self._target, self._filled, self._hurried = buffer, 0, False
        soon = self._loop.call_later(_SOON, self._hurry, wait)
        try:
            while self._target is not None and self._ended is None:
                await self.arrival()
            return self._filled
        finally:
            soon.cancel()
            self._target = None

    def _hurry(self, wait: bool) -> None:  # noqa: FBT001 - a timer's argument
        """Let what fills a buffer go with what it has, or with the first that comes."""
        self._hurried = True
        if self._filled or not wait:
            self._target = None
            _wake(self._arrival)

    def _advance(self, size: int) -> None:
        self._start += size
        if self._start == self._end:
            self._start = self._end = 0

    def _to_front(self) -> None:
        rest = bytes(self._view[self._start : self._end])
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)


class SocketResponse:
    """An `Response`, whose body is read from its connection.

    Args:
        connection: Whose turn it is.
        status: The status code.
        headers: The headers.
        length: Bytes of the body; -1: it comes in chunks; None: it ends with the connection.
        keep: Whether another request may follow.
    """

    __slots__ = ("_connection", "_inside", "_keep", "_left", "_way", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        status: int,
        headers: Mapping[str, str],
        length: int | None,
        *,
        keep: bool,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers
        self._connection: Connection | None = connection
        self._way = length
        self._left = 0 if length == CHUNKED else length  # of the body, or of a chunk
        self._inside = False  # of the chunks: one has been read, and its end not yet
        self._keep = keep and length is not None

    async def read(self, size: int) -> bytes:
        """Return the next bytes that there are. See `Response.read`."""
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
        """Fill `buffer` with what comes soon. See `Response.readinto`."""
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
        """Return what is left. See `Response.read_all`."""
        connection = self._open()
        grace = math.inf if connection.patient else connection.timeout.idle
        return await read_all_of(self, limit, grace, connection.origin)

    def close(self) -> None:
        """Give the connection back, or close it. See `Response.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release(reusable=self._keep and self._left == 0 and self._way != CHUNKED)

    async def _more(self, connection: Connection) -> bool:
        """Tell whether the body goes on, having read what stands between two chunks."""
        if self._left != 0 or self._way != CHUNKED:
            return self._left != 0
        keep, self._keep = self._keep, False  # unless all goes well
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
        if not wait and len(room) < _WINDOW:
            return 0  # a little more is not worth the wait
        try:
            count = await connection.receive_into(room, wait=wait)
        except BaseException:  # what had arrived is lost
            self._keep = False
            connection.abort()
            raise
        if not count and wait:
            self._keep = False
            await connection.arrival()  # which says why
        return count

    def _open(self) -> Connection:
        if self._connection is None:
            raise UnavailableError("the answer is closed", retryable=False)
        return self._connection


def _pieces(views: Sequence[memoryview]) -> Iterator[memoryview]:
    for view in views:
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
