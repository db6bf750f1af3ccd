"""One HTTP/1.1 connection.

A connection carries one request at a time. It receives into a window that is allocated once, or
directly into the caller's buffer if the body is large. It is reused only if the request was sent and
the response was read to the end. While a connection is idle, it notices immediately if the server
closes it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from trove_async._secrets import Secret
from trove_async.errors import TimedOutError, TroveError, UnavailableError
from trove_async.models import KiB, MiB, Timeout

from .http11 import MAX_INTERIM, ResponseHead, early_success, invalid_response, parse_head

if TYPE_CHECKING:
    from .outbox import Outbox
    from .transport import Origin, StreamedBody

WINDOW_SIZE: Final = 72 * KiB
"""Size of the receive window of a connection, in bytes. A body of 64 KiB and a head of 8 KiB fit.
`readinto` receives larger bodies directly into its buffer."""

_TLS_WRITE_SIZE: Final = 64 * KiB
"""Maximum bytes passed to a TLS transport at a time. It encrypts them all, and copies what the socket does
not accept."""

_SOCKET_WRITE_SIZE: Final = MiB
"""Maximum bytes written to a socket in one system call. Larger writes save no CPU time, and would keep
the event loop busy for longer."""

_WAKE_SIZE: Final = 16 * KiB
"""Bytes passed to the transport when the socket is full. The transport sends them as soon as the socket
accepts more, and then calls `resume_writing`."""

_FILL_SECONDS: Final = 0.05
"""Maximum seconds to fill the buffer of a reader. After that, the reader gets the bytes that have arrived
or, if there are none, the next ones to arrive."""

MAX_SMALL: Final = 128 * KiB
"""Maximum bytes of a body that is sent in one write with its head. TLS copies them to join them."""

_MAX_BUFFERS: Final = 16
"""Maximum buffers passed to one system call. POSIX requires at least this many (limits.h: _XOPEN_IOV_MAX)."""

IDLE_SECONDS: Final = 60.0
"""Seconds after which an idle connection is closed, before a device on the network path drops it."""

_MAX_LINE: Final = 4 * KiB
"""Maximum bytes of a line between two chunks of a body, or of a trailer."""

_INTERIM_START: Final = b"HTTP/1.1 1"

Exchange: TypeAlias = "asyncio.Future[tuple[ResponseHead, bytes | None]]"
"""The response to a request: its head, and its body if that has arrived with it."""


class Connection(asyncio.BufferedProtocol):
    """One connection, and the received bytes of the current response.

    Args:
        origin: The origin of the server.
        loop: The event loop.
        timeout: The timeouts.
        idle: The idle connections to the origin. While the connection is idle and open, it is one of them.
        forget: Called once the connection is closed.

    Attributes:
        origin: The origin of the server.
        timeout: The timeouts; `first_byte` and `idle` apply here.
        received_eof: Whether the server closed the connection in an orderly way.
        patient: Whether the caller, not the connection, limits how long the server processes the request.
    """

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        timeout: Timeout,
        *,
        idle: list[Connection],
        forget: Callable[[Connection], None],
    ) -> None:
        self.origin = origin
        self.timeout = timeout
        self._idle = idle
        self._forget = forget
        self._loop = loop
        self._window = bytearray(WINDOW_SIZE)
        self._view = memoryview(self._window)
        self._start = self._end = 0  # the unread part of the window
        self._target: memoryview | None = None  # a reader's buffer, used instead of the window
        self._filled = 0
        self._fill_time_over = False  # `receive_into` returns with the next bytes
        self._reading_paused = False
        self._writing_paused = False  # the socket has not accepted all bytes of the write buffer
        self._error: TroveError | None = None  # the reason why the connection has ended
        self.received_eof = False
        self._busy = True  # it is opened for a request
        self._response_started = False  # bytes of the response have arrived
        self._request_sent = True
        self.patient = False
        self._interim_count = 0  # interim responses to the current request
        # The time of the last progress, from which `check_timeouts` measures. Bytes of a head or
        # of a framing line do not count: otherwise, a server could send them one by one forever.
        self._last_progress = loop.time()
        self._in_body = False  # arriving bytes are progress
        self._in_line = False  # in a line between two chunks
        self._exchange: Exchange | None = None  # until the connection is released
        self._exchange_head: ResponseHead | None = None  # of a body that is still arriving
        self._searched = 0  # the end of the part of the window that contains no end of a head
        self._exchange_timer: asyncio.TimerHandle | None = None
        self._has_body = True  # whether the response to the request can have a body
        self._bytes_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._socket_closed: asyncio.Future[None] = loop.create_future()
        self._descriptor: int | None = None  # of the socket, to write to it directly; None with TLS

    # -- callbacks of asyncio --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        # Write the next piece only once the socket has accepted the previous one, so that no bytes
        # accumulate. A TLS transport pauses at its limit, not above it: at 0 it would never resume.
        uses_tls = self.origin.scheme == "https"
        self._transport.set_write_buffer_limits(high=1 if uses_tls else 0)
        socket = None if uses_tls else transport.get_extra_info("socket")
        if socket is not None:
            self._descriptor = socket.fileno()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._target is not None:
            return self._target[self._filled :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._busy:
            self.abort()  # the bytes belong to no request
            return
        if self._in_body:
            self._last_progress = self._loop.time()
        elif not self._response_started:
            self._response_started = True
            if self.patient and self._request_sent:
                # The server has finished its work: `first_byte` starts for the rest of the head.
                self._last_progress = self._loop.time()
        if self._target is not None:
            self._filled += nbytes
            if self._filled < len(self._target) and not self._fill_time_over:
                return
            self._target = None  # the next bytes go to the window
        else:
            self._end += nbytes
            if self._end == WINDOW_SIZE:
                self._transport.pause_reading()
                self._reading_paused = True
            exchange = self._exchange
            if exchange is not None and not exchange.done():
                try:
                    self._advance_exchange(exchange)
                except TroveError as error:
                    self._fail(error)
                    self.abort()
                return
        _wake(self._bytes_waiter)

    def eof_received(self) -> bool:
        self.received_eof = self._error is None
        self._fail(UnavailableError(f"{self.origin.address} closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(self._broken(exc))
        self._descriptor = None  # closed; another file may get the number
        self._forget(self)
        _wake(self._socket_closed)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._last_progress = self._loop.time()
        self._writing_paused = False
        if self._exchange is not None and not self._end:
            self._request_sent = True
        _wake(self._write_waiter)

    # -- lifecycle -------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close the connection immediately. It no longer reads or writes the buffers of callers."""
        self._target = None
        if self._exchange_timer is not None:
            self._stop_waiting()
        self._fail(UnavailableError("the connection was aborted"))
        self._transport.abort()

    def terminate(self) -> asyncio.Future[None]:
        """Close the connection immediately; return a future that completes when the socket is closed."""
        self.abort()
        return self._socket_closed

    def check_timeouts(self, now: float) -> None:
        """Fail a wait that exceeds its timeout. Close a connection that has been idle for too long."""
        elapsed = now - self._last_progress
        if not self._busy:
            if elapsed > IDLE_SECONDS:
                self.abort()
        elif self.patient and self._request_sent and not self._response_started:
            return  # the caller limits how long the response may take
        elif self._is_waiting:
            limit, failure = self.timeout.idle, "sent no more of the response body"
            if self._write_waiter is not None:
                failure = "accepted no more of the request"
            elif not self._in_line and not self._in_body:
                limit, failure = self.timeout.first_byte, "sent no complete response head"
            if elapsed > limit:
                self._fail(TimedOutError(f"{self.origin.address} {failure} for {limit:g} s"))
                self.abort()

    @property
    def _is_waiting(self) -> bool:
        """Whether a task is waiting for the server."""
        return (
            self._bytes_waiter is not None
            or self._write_waiter is not None
            or (self._exchange is not None and not self._exchange.done())
        )

    def release(self, *, reusable: bool) -> None:
        """Return the connection to the pool at the end of a response, or close it."""
        self._busy = False
        self._exchange = None
        self._last_progress = self._loop.time()
        if (
            reusable
            and self._request_sent
            and self._error is None
            and not self._end
            and not self._transport.get_write_buffer_size()
        ):
            if self._reading_paused:
                self._resume_reading()  # to notice when the server closes it
            self._idle.append(self)
        else:
            self.abort()

    def _break(self, error: Exception) -> None:
        self._fail(self._broken(error))
        self._transport.abort()

    def _broken(self, cause: Exception | None) -> UnavailableError:
        verb = "was reset" if isinstance(cause, ConnectionResetError) else "broke"
        error = UnavailableError(f"the connection to {self.origin.address} {verb}")
        error.__cause__ = cause
        return error

    def _fail(self, error: TroveError) -> None:
        self._error = self._error or error
        if not self._busy and self in self._idle:
            self._idle.remove(self)
        _wake(self._bytes_waiter)
        _wake(self._write_waiter)
        if self._exchange is not None and not self._exchange.done():
            self._exchange.set_exception(self._error)

    # -- small requests --------------------------------------------------------------------------------

    def exchange(
        self,
        method: str,
        head: bytes,
        views: Sequence[memoryview],
        *,
        patient: bool,
        outbox: Outbox | None = None,
    ) -> Exchange:
        """Send a request in one write, and return a future of its response.

        The future's result contains the body if it is small and arrives within `_FILL_SECONDS` of its
        head. The connection has then been released. Otherwise, the caller reads the body. If the future
        raises or is cancelled, call `abandon`.

        Args:
            method: The method, in upper case.
            head: The head.
            views: The body.
            patient: As in the attribute.
            outbox: Sends the request a little later, together with others. None: it is sent immediately.
        """
        self.patient = patient
        self._busy = True
        self._response_started = self._in_body = self._in_line = self._request_sent = False
        self._interim_count = self._searched = 0
        self._has_body = method != "HEAD"
        self._last_progress = self._loop.time()
        self._exchange = exchange = self._loop.create_future()
        request: Sequence[bytes | memoryview] = (head, *views)
        if len(request) > _MAX_BUFFERS:
            request = (b"".join(request),)
        if outbox is None:
            self.send_small(request)
        else:
            outbox.add(self, request)
        if self._end or self._error is not None:
            self._begin_late(exchange)
        return exchange

    def send_small(self, request: Sequence[bytes | memoryview]) -> None:
        """Write the request of the current exchange, unless the exchange has ended."""
        exchange = self._exchange
        if self._error is not None or exchange is None or exchange.done():
            return
        try:
            if self._descriptor is None:
                self._transport.write(b"".join(request))
            else:
                try:
                    count = os.writev(self._descriptor, request)
                except BlockingIOError:
                    count = 0
                if count < sum(map(len, request)):
                    # The bytes are copied: the transport must not hold a view of the caller's memory.
                    self._transport.write(b"".join(request)[count:])
        except (OSError, RuntimeError) as error:  # uvloop: RuntimeError for a closed transport
            del request  # a traceback recorded with its local variables would show the credentials
            self._break(error)
            return
        # If the socket is full, `resume_writing` continues. Bytes that have arrived before are no response to
        # this request: it never counts as sent, so a success is an error, and the connection is not reused.
        self._request_sent = not (self._writing_paused or self._end)

    def _begin_late(self, exchange: Exchange) -> None:
        """Begin an exchange on a new connection on which the server has already responded, or which it closed.

        A server that is overloaded may send an error as soon as a connection is opened.
        """
        self._response_started = self._end > 0
        try:
            self._advance_exchange(exchange)
        except TroveError as error:
            self._fail(error)
        if self._error is not None and not exchange.done():
            exchange.set_exception(self._error)

    def abandon(self, exchange: Exchange) -> None:
        """Close the connection, unless it has been released at the end of this exchange."""
        if self._exchange is exchange:
            self.abort()

    def _advance_exchange(self, exchange: Exchange) -> None:
        """Complete an exchange if enough of its response has arrived."""
        # 1. Parse the head once it is complete. Drop interim responses (RFC 9110, 15.2).
        head = self._exchange_head
        while head is None:
            head_end = self._window.find(b"\r\n\r\n", self._searched, self._end)
            if head_end < 0:
                self._search_later()
                return
            head = parse_head(bytes(self._view[self._start : head_end]), has_body=self._has_body)
            self._start = self._searched = head_end + 4
            if head.status < 200:  # noqa: PLR2004 - interim
                head = None
                self._drop_interim()
            elif not self._request_sent and head.status < 300:  # noqa: PLR2004 - RFC 9110, 15.3: a success
                raise early_success()
        # 2. A large body, or one of unknown length, is read by the caller.
        self._in_body = True
        self._last_progress = self._loop.time()
        length = head.length
        body_end = WINDOW_SIZE if length is None or length < 0 else self._start + length
        if body_end >= WINDOW_SIZE:
            self._hand_over(exchange, head)
        # 3. A small one that has arrived is the end of the exchange. The connection is released before
        # the caller continues.
        elif self._end >= body_end:
            body = bytes(self._view[self._start : body_end])
            if self._end == body_end:
                self._start = self._end = 0
            if self._exchange_timer is not None:
                self._stop_waiting()
            self.release(reusable=head.keep_alive)
            exchange.set_result((head, body))
        # 4. Otherwise wait for it a little.
        elif self._exchange_head is None:
            self._exchange_head = head
            self._exchange_timer = self._loop.call_later(
                _FILL_SECONDS, self._hand_over, exchange, head
            )

    def _drop_interim(self) -> None:
        if self._start == self._end:
            self._start = self._end = self._searched = 0
        self._count_interim()

    def _search_later(self) -> None:
        """Prepare to look for the end of a head when more bytes have arrived."""
        self._searched = max(self._start, self._end - 3)
        if self._end == WINDOW_SIZE:
            if not self._start:
                raise invalid_response(f"a head or a line is longer than {WINDOW_SIZE} bytes")
            self._searched -= self._start
            self._compact()
            self._resume_reading()

    def _hand_over(self, exchange: Exchange, head: ResponseHead) -> None:
        """Let the caller of an exchange read the body."""
        self._stop_waiting()
        if self._start == self._end:
            self._start = self._end = 0
        if not exchange.done():
            exchange.set_result((head, None))

    def _stop_waiting(self) -> None:
        """Stop waiting for the body of an exchange."""
        timer, self._exchange_timer = self._exchange_timer, None
        self._exchange_head = None
        if timer is not None:
            timer.cancel()

    # -- sending ---------------------------------------------------------------------------------------

    async def send(
        self, head: Secret[bytes], views: Sequence[memoryview], *, patient: bool
    ) -> None:
        """Send a request with a large body, to its end or until the server responds."""
        self._start_request(patient=patient)
        if self._error is None:
            self._transport.write(head.reveal())
        for view in views:
            if not await self._write(view):
                return  # `read_head` returns an early error response, or raises
        self._request_sent = True
        self._last_progress = self._loop.time()

    def _start_request(self, *, patient: bool) -> None:
        self.patient = patient
        self._busy, self._request_sent = True, False
        self._response_started = self._end > 0  # on a new connection; see `_begin_late`
        self._in_body = self._in_line = False
        self._interim_count = 0
        self._last_progress = self._loop.time()

    async def send_streamed(self, head: Secret[bytes], body: StreamedBody) -> None:
        """Send a request and read its body at the same time, to its end or until the server responds."""
        self._start_request(patient=False)
        if self._error is None:
            self._transport.write(head.reveal())
        async with body.pieces() as pieces:
            async for view in pieces:
                self._last_progress = self._loop.time()  # the time to read the body does not count
                if not await self._write(view):
                    return
                # The view is valid only until the next one is requested: wait for the socket.
                await self._can_write()
                if self._writing_paused:
                    # The server has responded, or the connection has ended. The event loop may
                    # still hold the view.
                    return
        self._request_sent = True
        self._last_progress = self._loop.time()

    async def _write(self, view: memoryview) -> bool:
        """Write all bytes of a view; return False if the server has responded or the connection has ended.

        After an error or a cancel, `abort` ends all use of the view.
        """
        while view:
            if not await self._can_write():
                return False
            view = view[self._write_some(view) :]
        return True

    def _write_some(self, view: memoryview) -> int:
        """Write the first bytes of a view, and return their number. There must be no unwritten bytes."""
        if self._descriptor is None:
            piece = view[:_TLS_WRITE_SIZE]
            self._transport.write(piece)
            return len(piece)
        # Write to the socket directly: before Python 3.12, asyncio copies the bytes that the socket does
        # not accept, so it could only be given small pieces.
        piece = view[:_SOCKET_WRITE_SIZE]
        try:
            count = os.write(self._descriptor, piece)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._break(error)
            return 0
        if count == len(piece):
            return count
        # The socket is full: let the transport wait for it. The bytes are copied, so that the transport
        # never holds a view of the caller's memory.
        wake = bytes(view[count : count + _WAKE_SIZE])
        self._transport.write(wake)
        return count + len(wake)

    async def _can_write(self) -> bool:
        """Wait until the socket has accepted all bytes; return whether to send more."""
        while self._writing_paused and not self._has_response() and self._error is None:
            await self._wait_until_writable()
        return not self._has_response() and self._error is None

    def _has_response(self) -> bool:
        """Return whether the final response has started. Drop interim ones (RFC 9110, 15.2)."""
        while self._response_started:
            first_end = min(self._start + len(_INTERIM_START), self._end)
            if not _INTERIM_START.startswith(bytes(self._view[self._start : first_end])):
                break  # the final response
            head_end = self._window.find(b"\r\n\r\n", self._start, self._end)
            if head_end < 0:
                return False  # an incomplete interim response, or too few bytes to recognise one
            self._consume(head_end + 4 - self._start)
            self._count_interim()
        return self._response_started

    async def _wait_until_writable(self) -> None:
        """Wait until the socket has accepted all bytes, bytes arrive, or the connection ends."""
        self._write_waiter = self._bytes_waiter = self._loop.create_future()
        try:
            await self._write_waiter
        finally:
            self._write_waiter = self._bytes_waiter = None

    # -- receiving -------------------------------------------------------------------------------------

    async def read_head(self, method: str) -> ResponseHead:
        """Return the head of the response once it has arrived."""
        if not self._request_sent:
            # An early response: `first_byte` starts now.
            self._last_progress = self._loop.time()
        while True:
            head = parse_head(
                await self._read_until(b"\r\n\r\n", WINDOW_SIZE), has_body=method != "HEAD"
            )
            if head.status >= 200:  # noqa: PLR2004 - RFC 9110, 15.2: lower ones are interim
                break
            self._count_interim()
        self._in_body = True
        if not self._request_sent and head.status < 300:  # noqa: PLR2004 - RFC 9110, 15.3: a success
            raise early_success()
        return head

    def _count_interim(self) -> None:
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM:
            raise invalid_response(f"more than {MAX_INTERIM} interim responses")
        self._response_started = self._end > 0

    async def _read_until(self, delimiter: bytes, limit: int) -> bytes:
        """Consume and return the bytes before the next `delimiter`, and drop the delimiter."""
        search_from = self._start
        while (line_end := self._window.find(delimiter, search_from, self._end)) < 0:
            search_from = max(self._start, self._end - len(delimiter) + 1)
            if self._end - self._start >= limit:
                raise invalid_response(f"a head or a line is longer than {limit} bytes")
            if self._end == WINDOW_SIZE:
                search_from -= self._start
                self._compact()
            await self.wait_for_bytes()
        data = bytes(self._view[self._start : line_end])
        self._consume(line_end + len(delimiter) - self._start)
        return data

    async def read_line(self, limit: int = _MAX_LINE, *, shares_timeout: bool = False) -> bytes:
        """Return the next line, which must be complete within the idle timeout.

        Args:
            limit: Maximum bytes of the line.
            shares_timeout: Whether the line shares the timeout of the previous line.
        """
        if not shares_timeout:
            self._last_progress = self._loop.time()
        self._in_body, self._in_line = False, True
        line = await self._read_until(b"\r\n", limit)
        self._in_body, self._in_line = True, False
        return line

    async def wait_for_bytes(self) -> None:
        """Wait until more bytes arrive or the connection ends.

        If the connection has ended, the next call raises its error.

        Raises:
            UnavailableError: The connection had ended before this call.
            TimedOutError: It had ended because of a timeout.
        """
        if self._error is not None:
            raise self._error
        self._resume_reading()
        if self._in_body:
            self._last_progress = self._loop.time()
        self._bytes_waiter = self._loop.create_future()
        try:
            await self._bytes_waiter
        finally:
            self._bytes_waiter = None

    def _resume_reading(self) -> None:
        if self._reading_paused and self._end < WINDOW_SIZE:
            self._reading_paused = False
            self._transport.resume_reading()

    def available(self) -> int:
        """Return the number of bytes that have arrived but have not been read."""
        return self._end - self._start

    def read_nowait(self, size: int) -> bytes:
        """Return the next `size` bytes, which must have arrived."""
        piece = bytes(self._view[self._start : self._start + size])
        self._consume(size)
        return piece

    def readinto_nowait(self, buffer: memoryview) -> int:
        """Copy bytes that have arrived into `buffer`; return their number."""
        count = min(len(buffer), self._end - self._start)
        buffer[:count] = self._view[self._start : self._start + count]
        self._consume(count)
        return count

    async def receive_into(self, buffer: memoryview, *, wait: bool) -> int:
        """Fill `buffer` from the socket with the bytes that arrive soon; return their number.

        Return 0 if the connection ends first, or if none arrive soon and `wait` is False.

        Args:
            buffer: The buffer to fill.
            wait: Whether to keep waiting for the first byte if none arrives soon.
        """
        self._target, self._filled, self._fill_time_over = buffer, 0, False
        timer = self._loop.call_later(_FILL_SECONDS, self._end_fill_time, wait)
        try:
            while self._target is not None and self._error is None:
                await self.wait_for_bytes()
            return self._filled
        finally:
            timer.cancel()
            self._target = None

    def _end_fill_time(self, wait: bool) -> None:  # noqa: FBT001 - a timer's argument
        """Make `receive_into` return: now if it has bytes or must not wait, otherwise with the next bytes."""
        self._fill_time_over = True
        if self._filled or not wait:
            self._target = None
            _wake(self._bytes_waiter)

    def _consume(self, size: int) -> None:
        self._start += size
        if self._start == self._end:
            self._start = self._end = 0

    def _compact(self) -> None:
        unread = bytes(self._view[self._start : self._end])
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
