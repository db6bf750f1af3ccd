"""A `Transport` over aiohttp. It supports proxies; tests compare the socket transport with it."""

from __future__ import annotations

import asyncio
import inspect
import math
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from socket import gaierror
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yarl
from multidict import CIMultiDict, CIMultiDictProxy

from trove_async._secrets import disarmed
from trove_async.errors import (
    BackendError,
    ConfigError,
    TimedOutError,
    TroveError,
    UnavailableError,
)
from trove_async.models import Timeout

from .connect_errors import connect_error
from .headers import field_text
from .http11 import MOST_INTERIM, early_success, no_http
from .transport import WINDOW, read_all_of, size_of

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from .transport import Origin, Response, StreamedBody

_HEADERS: Final = 4096
"""Maximum headers of a response: 8 KiB of metadata with one-letter names need this many."""

# Releases of aiohttp without the parameter have no limit; the others default to 128.
_LIMITS: Final[dict[str, Any]] = (
    {"max_headers": _HEADERS}
    if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
    else {}
)


class AiohttpTransport:
    """A `Transport` over aiohttp.

    Args:
        timeout: The timeouts; `connect`, `first_byte` and `idle` apply here.
        tls: The TLS context; None uses the certificates that the system trusts.
        proxy: The URL of a proxy for all requests.

    The transport does not limit connections. An open response holds a connection, so with a limit
    lower than that of the callers, unread responses would block the next call forever.
    """

    def __init__(
        self,
        timeout: Timeout,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self._idle = timeout.idle
        self._connect = timeout.connect
        self._first_byte = timeout.first_byte
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=WINDOW,
            proxy=proxy,
            middlewares=(_once,),
            response_class=_Response,
            **_LIMITS,
        )

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] | StreamedBody = (),
        *,
        patient: bool = False,
    ) -> Response:
        """Send a request. See `Transport.send`."""
        body = _Body(views, self._idle) if views else None
        url = yarl.URL(origin.url + target, encoded=True)
        sending = self._respond(method, url, headers, body, patient=patient)
        del headers  # a traceback recorded with locals would show the credentials
        try:
            response = await sending
        except BaseException as error:
            if body is not None:
                body.abort()
            failure = _failure(error, origin.address, body)
            if failure is None:
                raise
        else:
            return self._answer(response, body, origin, patient=patient)
        # Raise outside `except`: the handled error would become the context, and aiohttp's errors
        # hold the headers of the request and the password of a proxy.
        raise failure

    def _answer(
        self,
        response: aiohttp.ClientResponse,
        body: _Body | None,
        origin: Origin,
        *,
        patient: bool,
    ) -> Response:
        if body is not None and not body.written and response.status < 300:  # noqa: PLR2004
            body.abort()
            response.close()
            raise early_success()
        longer = patient or self._idle != self._first_byte
        if longer and (connection := response.connection) is not None:
            protocol = connection.protocol
            if protocol is not None:
                protocol.read_timeout = self._idle
                protocol.start_timeout()
        return _AiohttpResponse(response, body, self._idle, origin, patient=patient)

    async def _respond(
        self,
        method: str,
        url: yarl.URL,
        headers: Mapping[str, str],
        body: _Body | None,
        *,
        patient: bool,
    ) -> aiohttp.ClientResponse:
        """Return the response once its head is complete.

        The head needs a separate deadline, because `sock_read` restarts with each byte.
        """
        async with asyncio.timeout(None) as deadline:
            if body is not None and not patient:
                body.limits(deadline, self._first_byte)
            elif not patient:
                now = asyncio.get_running_loop().time()
                deadline.reschedule(now + self._connect + self._first_byte)
            sending = self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=self._connect,  # includes the response of a proxy
                    sock_connect=self._connect,
                    sock_read=None if patient else self._first_byte,
                ),
            )
            del headers  # as in `send`
            response = await sending
            if body is not None:
                body.limits(None, 0.0)
            return response

    async def aclose(self) -> None:
        """Close all connections. See `Transport.aclose`."""
        await self._session.close()


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request once: aiohttp would resend it after these errors if they were untranslated."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = _failure(error, f"{request.url.host}:{request.url.port}")
        assert failure is not None  # noqa: S101 - the table has both
    raise failure


class _Response(aiohttp.ClientResponse):
    """A response with a limit on the interim responses before it."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read the head. aiohttp itself skips any number of interim responses."""
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - a new connection has one
        read, seen = protocol.read, 0

        async def counted() -> Any:  # noqa: ANN401 - aiohttp's message
            nonlocal seen
            seen += 1
            if seen > MOST_INTERIM + 1:
                raise no_http(f"more than {MOST_INTERIM} interim responses")
            return await read()

        protocol.read = counted  # type: ignore[method-assign] # `start` calls it once per head
        try:
            return await super().start(connection)
        finally:
            del protocol.read


class _Body(aiohttp.Payload):
    """A request body whose views are written to the socket one by one, never joined.

    Attributes:
        failure: The error that a streamed body raised.
        written: Whether the whole body has been written.
    """

    def __init__(self, views: Sequence[memoryview] | StreamedBody, idle: float) -> None:
        super().__init__(views, content_type="application/octet-stream")
        self._size = size_of(views)
        self._views = views
        self.failure: Exception | None = None
        self._idle = idle
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.Timeout | None = None
        self._first_byte = 0.0
        self.written = False

    def limits(self, deadline: asyncio.Timeout | None, first_byte: float) -> None:
        """Set the deadline that starts when the body has been written, or None to remove it."""
        self._deadline, self._first_byte = deadline, first_byte

    def _ended(self) -> None:
        self.written = True
        if self._deadline is not None and not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(now + self._first_byte)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text, as the interface of a payload requires."""
        if not isinstance(self._views, Sequence):
            raise TypeError("this body is read only to be sent")
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body. Each wait for the socket is limited by the idle timeout."""
        self._transport = writer.transport  # taken here, because aiohttp drops it on a failure
        views = self._views
        if isinstance(views, Sequence) and len(views) == 1 and len(views[0]) <= WINDOW:
            await writer.write(views[0])
            self._ended()
        else:
            clock = asyncio.get_running_loop().time
            pieces = self._held(views) if isinstance(views, Sequence) else self._read(views)
            async with asyncio.timeout(self._idle) as progress, aclosing(pieces):
                left = size_of(views)
                async for piece in pieces:
                    await writer.write(piece)
                    progress.reschedule(clock() + self._idle)
                    left -= len(piece)
                    if not left:  # not after the loop: the response may have come by then
                        await writer.drain()
                        self._ended()

    async def _held(self, views: Sequence[memoryview]) -> AsyncGenerator[memoryview | bytes]:
        for view in views:
            for at in range(0, len(view), WINDOW):
                yield view[at : at + WINDOW]

    async def _read(self, body: StreamedBody) -> AsyncGenerator[memoryview | bytes]:
        try:
            async with body.pieces() as pieces:
                async for view in pieces:
                    for at in range(0, len(view), WINDOW):
                        # A copy: newer Python versions keep views of what a socket has not taken.
                        yield bytes(view[at : at + WINDOW])
        except Exception as error:  # aiohttp would take it for an error of the connection
            self.failure = error
            raise

    def abort(self) -> None:
        """Abort the connection unless the socket has taken the whole body.

        A close is not enough: it first sends what the socket has not taken yet, and newer Python
        versions keep views of that, not copies.
        """
        transport = self._transport
        if transport is not None and not (self.written and transport.get_write_buffer_size() == 0):
            transport.abort()


class _AiohttpResponse:
    """A `Response` over a response of aiohttp."""

    __slots__ = (
        "_at",
        "_body",
        "_content",
        "_grace",
        "_idle",
        "_origin",
        "_response",
        "_rest",
        "headers",
        "status",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        body: _Body | None,
        idle: float,
        origin: Origin,
        *,
        patient: bool,
    ) -> None:
        self._response = response
        self._grace = math.inf if patient else idle
        self._idle = idle
        self._origin = origin
        self._content = response.content
        self._body = body
        self._rest = b""  # the last received bytes, consumed up to `_at`
        self._at = 0
        self.status = response.status
        self.headers: Mapping[str, str] = _readable(response.headers)

    async def read(self, size: int) -> bytes:
        """Return the next received bytes, without a copy if all fit. See `Response.read`."""
        data = await self._next()
        piece = data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with received bytes, or the first to arrive. See `Response.readinto`."""
        filled = 0
        # Do not wait for more once there is something: a slow body would seem to stall.
        while filled < len(buffer) and (data := self._there() if filled else await self._next()):
            count = min(len(data) - self._at, len(buffer) - filled)
            buffer[filled : filled + count] = memoryview(data)[self._at : self._at + count]
            self._at += count
            filled += count
        return filled

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body. See `Response.read_all`."""
        return await read_all_of(self, limit, self._grace, self._origin)

    async def _next(self) -> bytes:
        if self._at == len(self._rest):
            self._rest, self._at = await self._received(), 0
        return self._rest

    def _there(self) -> bytes:
        if self._at == len(self._rest):
            broken = self._content.exception() is not None  # the next read raises it
            self._rest, self._at = b"" if broken else self._content.read_nowait(WINDOW), 0
        return self._rest

    async def _received(self) -> bytes:
        content = self._content
        try:
            # `read(n)` would copy, and would let up to n unread bytes accumulate. The timeout is
            # needed because chunk sizes and trailers, which may never end, restart `sock_read`.
            async with asyncio.timeout(self._idle):
                data, _ = await content.readchunk()
                while not data and not content.at_eof():
                    data, _ = await content.readchunk()
        except Exception as error:
            failure = _failure(error, self._origin.address)
            if failure is None:
                raise
        else:
            return data
        raise failure  # outside `except`, as in `send`

    def close(self) -> None:
        """Return the connection to the pool, or close it. See `Response.close`."""
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._response.close()


def _readable(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """Return headers decoded as `parse_head` does: aiohttp keeps bytes that are not UTF-8."""
    if all(map(str.isascii, headers.values())):
        return headers
    readable = CIMultiDict(
        (name, field_text(value))
        for name, value in headers.items()
        if name.lower() != "etag" or field_text(value) == value
    )
    return CIMultiDictProxy(readable)


_FAILURES: Final[tuple[tuple[type[Exception], type[TroveError], bool, str], ...]] = (
    # (aiohttp's error, ours, retryable, message); the first match counts. `translate_error` handles
    # failures to connect before it reads this table.
    (aiohttp.ServerFingerprintMismatch, ConfigError, False, "its certificate is another one"),
    (aiohttp.ServerTimeoutError, TimedOutError, True, "nothing arrived in time"),
    (aiohttp.ClientHttpProxyError, UnavailableError, True, "the proxy refused"),
    (aiohttp.ClientResponseError, UnavailableError, True, "its response is no HTTP"),
    (aiohttp.ClientPayloadError, UnavailableError, True, "the body broke off"),
    (aiohttp.InvalidURL, ConfigError, False, "the address is no URL"),
    (aiohttp.ServerDisconnectedError, UnavailableError, True, "it closed the connection"),
    (aiohttp.ClientConnectionError, UnavailableError, True, "the connection broke"),
    (aiohttp.ClientError, BackendError, False, "the request could not be sent"),
    (TimeoutError, TimedOutError, True, "no progress in time"),
    (OSError, UnavailableError, True, "the connection broke"),
)


def translate_error(error: BaseException, address: str = "the server") -> TroveError | None:
    """Return the `TroveError` for an error of aiohttp, or None for any other error.

    Drivers also use it for SDKs that let errors of aiohttp through.

    Args:
        error: The error.
        address: Host and port of the server.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return connect_error(error.certificate_error, f"{error.host}:{error.port}")
    if isinstance(error, aiohttp.ClientConnectorError):
        proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        named = f"{'the proxy ' if proxy else ''}{_bracketed(error.host)}:{error.port}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return connect_error(gaierror(error.errno or 0, error.strerror), named)
        return connect_error(error.os_error, named)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return connect_error(TimeoutError(), address)
    for kind, ours, retryable, message in _FAILURES:
        if isinstance(error, kind):
            return ours(f"{address} cannot be used: {message}", retryable=retryable)
    return None


def _failure(error: BaseException, address: str, body: _Body | None = None) -> Exception | None:
    """Return the error to raise, outside `except`, for a failed request; None: the error itself."""
    if body is not None and body.failure is not None and isinstance(error, Exception):
        return body.failure
    if isinstance(error, TroveError):
        return error.with_traceback(None)  # raised in `_once`; its traceback has aiohttp's frames
    failure = translate_error(error, address)
    if failure is not None:
        failure.__cause__ = system_error(error)
    return failure


def system_error(error: BaseException) -> BaseException | None:
    """Return the system error that caused an error of aiohttp, without its traceback.

    The error of aiohttp is never returned: it holds and shows the headers of the request and the
    password of a proxy.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    while isinstance(error, aiohttp.ClientError):
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return disarmed(error)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
