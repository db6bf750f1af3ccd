"""One HTTP/1.1 connection.

A connection receives into a window that is allocated once, or directly into the buffer of the
reader of a large body. It carries one request at a time. It is reused only if the request was sent
and the response was read to the end. A close by the server is noticed immediately, also while the
connection is idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from trove_async._secrets import Secret
from trove_async.errors import TimedOutError, TroveError, UnavailableError
from trove_async.models import KiB, Timeout

from .http11 import (
    MOST_INTERIM,
    body_length,
    early_success,
    keeps_alive,
    no_http,
    parse_head,
)

if TYPE_CHECKING:
    from .transport import Origin, StreamedBody

WINDOW: Final = 72 * KiB
"""Size of the window of a connection, in bytes. It holds heads and small bodies: one of 64 KiB
together with its head fits. Larger bodies are received directly into the buffer of the reader."""

_PIECE: Final = 64 * KiB
"""Bytes handed to a socket at a time. The event loop may copy what the socket does not take."""

_SOON: Final = 0.05
"""Maximum seconds that received bytes of a large body wait for the rest of a buffer."""

_JOINED: Final = 64 * KiB
"""Bodies of up to this many bytes are joined to the head: a copy is cheaper than a second write."""

IDLE: Final = 60.0
"""Seconds that a connection may be idle; devices on the network path drop it later than that."""

_LINE: Final = 4 * KiB
"""Maximum bytes of a line between the chunks of a body."""

_INTERIM: Final = b"HTTP/1.1 1"

_BODILESS: Final = frozenset((204, 304))  # RFC 9110, 6.4.1


class ResponseHead(NamedTuple):
    """The head of a response, and how its body ends.

    Attributes:
        status: The status code.
        headers: The headers.
        length: Bytes of the body; -1 if it is chunked, None if it ends with the connection.
        keep: Whether another request may follow on the connection.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    keep: bool


class ConnectionPool(Protocol):
    """Holds the idle connections."""

    def put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request to its origin."""

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection."""


class Connection(asyncio.BufferedProtocol):
    """One connection and the bytes that it has received of the current response.

    Attributes:
        origin: The origin that it is connected to.
        timeout: The timeouts; `first_byte` and `idle` apply here.
        closed: Whether the server closed the connection in an orderly way.
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
        self._window = bytearray(WINDOW)
        self._view = memoryview(self._window)
        self._start = self._end = 0  # the unread part of the window
        self._target: memoryview | None = None  # a reader's buffer, used instead of the window
        self._filled = 0
        self._hurried = False
        self._paused = False
        self._full = False  # the write buffer holds bytes that the socket has not taken
        self._ended: TroveError | None = None
        self.closed = False
        self._busy = False
        self._began = False  # bytes of the response have arrived
        self._sent = True
        self.patient = False
        self._interim = 0  # interim responses to the current request
        # The time of the last progress, from which `check_timeouts` measures. Bytes of a head or
        # of a framing line are no progress: one byte at a time, they would never time out.
        self._active = loop.time()
        self._in_body = False  # arriving bytes are progress
        self._in_line = False  # in a line of the body's framing
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = loop.create_future()

    # -- callbacks of asyncio --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        # Nothing accumulates: the next piece is written once the socket has taken the last one.
        # A TLS transport pauses writing at its limit, not above it: at 0 it would never resume.
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
                self._active = self._loop.time()  # the rest of the head has `first_byte` seconds
        if self._target is not None:
            self._filled += nbytes
            if self._filled < len(self._target) and not self._hurried:
                return
            self._target = None  # the next bytes go to the window
        else:
            self._end += nbytes
            if self._end == WINDOW:
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

    # -- lifecycle -------------------------------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """Whether it can carry a request: it is open and has received no unsolicited bytes."""
        return self._ended is None and self._end == 0

    def abort(self) -> None:
        """Close the connection at once. It no longer reads from or writes to buffers of callers."""
        self._target = None
        self._fail(UnavailableError("the connection was given up"))
        self._transport.abort()

    def terminate(self) -> asyncio.Future[None]:
        """Close the connection at once; return a future that is done when the socket is closed."""
        self.abort()
        return self._gone

    def check_timeouts(self, now: float) -> None:
        """Fail a wait that exceeds its timeout; close the connection if it is idle for too long."""
        since = now - self._active
        if not self._busy:
            if since > IDLE:
                self.abort()
        elif self.patient and self._sent and not self._began:
            return  # the caller limits how long the response may take
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
        """End the use of the connection by a response: pool it, or close it."""
        self._busy = False
        self._active = self._loop.time()
        if reusable and self._sent and self.fresh and not self._transport.get_write_buffer_size():
            self._listen()  # notices when the server closes it
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
        """Send a request until its end or until the server responds."""
        self._begin(patient=patient)
        if size <= _JOINED:
            self._transport.write(b"".join((head.reveal(), *views)) if size else head.reveal())
        else:
            self._transport.write(head.reveal())
            for piece in _pieces(views):
                if not await self._has_room():
                    return  # a response that precedes the end of the body is a refusal
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
        """Send a request whose body is read as it is sent, to its end or until a response."""
        self._begin(patient=False)
        self._transport.write(head.reveal())
        async with body.pieces() as pieces:
            async for view in pieces:
                self._active = self._loop.time()  # the time spent reading the body does not count
                for piece in _pieces((view,)):
                    if not await self._has_room():
                        return
                    self._transport.write(piece)
                await self._has_room()
                if self._full:
                    return  # the server has responded; the event loop may still hold the view
        self._sent = True
        self._active = self._loop.time()

    async def _has_room(self) -> bool:
        """Wait until the socket has taken all bytes; return whether to send more."""
        while self._full and not self._answers() and self._ended is None:
            await self._for_room()
        return not self._answers() and self._ended is None

    def _answers(self) -> bool:
        """Return whether the response has begun; drop interim responses (RFC 9110, 15.2)."""
        while self._began and self._window.startswith(_INTERIM, self._start, self._end):
            at = self._window.find(b"\r\n\r\n", self._start, self._end)
            if at < 0:
                return False  # the interim response is incomplete
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

    async def read_head(self, method: str) -> ResponseHead:
        """Return the head of the response once it has arrived."""
        if not self._sent:  # an early response: its head has the usual time from here on
            self._active = self._loop.time()
        while True:
            status, version, headers = parse_head(await self._up_to(b"\r\n\r\n", WINDOW))
            if status >= 200:  # noqa: PLR2004 - RFC 9110, 15.2: lower ones are interim
                break
            self._pass_interim()
        self._in_body = True
        if not self._sent and status < 300:  # noqa: PLR2004 - RFC 9110, 15.3: a success
            raise early_success()
        if method == "HEAD" or status in _BODILESS:
            length: int | None = 0
        else:
            length = body_length(headers)
        return ResponseHead(status, headers, length, keeps_alive(version, headers))

    def _pass_interim(self) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise no_http(f"more than {MOST_INTERIM} interim responses")
        self._began = self._end > 0

    async def _up_to(self, mark: bytes, limit: int) -> bytes:
        """Return the bytes before the next `mark`, and consume them and the mark."""
        searched = self._start
        while (at := self._window.find(mark, searched, self._end)) < 0:
            searched = max(self._start, self._end - len(mark) + 1)
            if self._end - self._start >= limit:
                raise no_http("a line of its is too long")
            if self._end == WINDOW:
                searched -= self._start
                self._to_front()
            await self.arrival()
        found = bytes(self._view[self._start : at])
        self._advance(at + len(mark) - self._start)
        return found

    async def line(self, limit: int = _LINE, *, more: bool = False) -> bytes:
        """Return the next line, which must be complete within the idle timeout.

        Args:
            limit: Maximum bytes of the line.
            more: Whether the timeout started with an earlier line.
        """
        if not more:
            self._active = self._loop.time()
        self._in_body, self._in_line = False, True
        line = await self._up_to(b"\r\n", limit)
        self._in_body, self._in_line = True, False
        return line

    async def arrival(self) -> None:
        """Wait until more bytes have arrived.

        Raises:
            UnavailableError: The connection is closed.
            TimedOutError: No bytes arrived within the timeout.
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
        if self._paused and self._end < WINDOW:
            self._paused = False
            self._transport.resume_reading()

    def available(self) -> int:
        """Return how many bytes `read_nowait` can return."""
        return self._end - self._start

    def read_nowait(self, size: int) -> bytes:
        """Return the next `size` bytes, which must have arrived."""
        piece = bytes(self._view[self._start : self._start + size])
        self._advance(size)
        return piece

    def readinto_nowait(self, buffer: memoryview) -> int:
        """Copy bytes that have arrived into `buffer`; return their number."""
        count = min(len(buffer), self._end - self._start)
        buffer[:count] = self._view[self._start : self._start + count]
        self._advance(count)
        return count

    async def receive_into(self, buffer: memoryview, *, wait: bool) -> int:
        """Fill `buffer` from the socket with the bytes that arrive soon; return their number.

        Args:
            buffer: The buffer to fill.
            wait: Whether to keep waiting for the first byte if none arrives soon.
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
        """Make `receive_into` return with the bytes it has, or with the first that arrive."""
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


def _pieces(views: Sequence[memoryview]) -> Iterator[memoryview]:
    for view in views:
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
