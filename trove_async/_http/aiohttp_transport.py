"""A `Transport` over aiohttp, which supports proxies. Tests compare the socket transport with it."""

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
from .http11 import MAX_INTERIM, check_request_head, early_success, invalid_response
from .transport import WINDOW, body_size, collect_body

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from .transport import Origin, Response, StreamedBody

_MAX_HEADERS: Final = 4096
"""Maximum number of headers of a response: 8 KiB of metadata with one-letter names need this many."""

# The default of `max_headers` is 128. Releases of aiohttp without the parameter have no limit.
_SESSION_OPTIONS: Final[dict[str, Any]] = (
    {"max_headers": _MAX_HEADERS}
    if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
    else {}
)


class AiohttpTransport:
    """A `Transport` over aiohttp.

    Args:
        timeout: The timeouts; `connect`, `first_byte` and `idle` apply here.
        tls: The TLS context; None uses the certificates that the system trusts.
        proxy: The URL of a proxy for all requests; None connects directly.

    The transport does not limit connections: the drivers do. An open response holds a connection, so
    with a lower limit here, unread responses would block the next request forever.
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
            middlewares=(_send_without_retry,),
            response_class=_ClientResponse,
            **_SESSION_OPTIONS,
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
        # aiohttp would raise a bare ValueError, and yarl would drop line breaks from a target.
        check_request_head(target, headers)
        body = _Body(views, self._idle) if views else None
        url = yarl.URL(origin.url + target, encoded=True)
        request = self._send_request(method, url, headers, body, patient=patient)
        del headers  # a traceback recorded with locals would show the credentials
        try:
            response = await request
        except BaseException as error:
            if body is not None:
                body.abort()
            failure = _error_to_raise(error, origin.address, body)
            if failure is None:
                raise
        else:
            return self._make_response(response, body, origin, patient=patient)
        # Raise outside `except`: otherwise the error of aiohttp would become the context, and it
        # contains the headers of the request and the password of a proxy.
        raise failure

    def _make_response(
        self,
        response: aiohttp.ClientResponse,
        body: _Body | None,
        origin: Origin,
        *,
        patient: bool,
    ) -> Response:
        """Return a response whose head has arrived.

        Raises:
            UnavailableError: The server reports success before it received the whole request.
        """
        if body is not None and not body.written and response.status < 300:  # noqa: PLR2004
            body.abort()
            response.close()
            raise early_success()
        # `sock_read` was `first_byte` for the head. The body has the idle timeout.
        idle_differs = patient or self._idle != self._first_byte
        if idle_differs and (connection := response.connection) is not None:
            protocol = connection.protocol
            if protocol is not None:
                protocol.read_timeout = self._idle
                protocol.start_timeout()
        return _AiohttpResponse(response, body, self._idle, origin, patient=patient)

    async def _send_request(
        self,
        method: str,
        url: yarl.URL,
        headers: Mapping[str, str],
        body: _Body | None,
        *,
        patient: bool,
    ) -> aiohttp.ClientResponse:
        """Return the response once its head is complete.

        `sock_read` does not limit the time until then, because it restarts with each byte.
        """
        async with asyncio.timeout(None) as deadline:
            if body is not None and not patient:
                body.set_deadline(deadline, self._first_byte)
            elif not patient:
                # Without a body, the deadline includes the time to connect.
                now = asyncio.get_running_loop().time()
                deadline.reschedule(now + self._connect + self._first_byte)
            request = self._session.request(
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
            response = await request
            if body is not None:
                body.set_deadline(None, 0.0)
            return response

    async def aclose(self) -> None:
        """Close all connections. See `Transport.aclose`."""
        await self._session.close()


async def _send_without_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Translate the errors after which aiohttp would send a request again, to prevent this."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = _error_to_raise(error, f"{request.url.host}:{request.url.port}")
        assert failure is not None  # noqa: S101 - both classes are in `_ERRORS`
    raise failure


class _ClientResponse(aiohttp.ClientResponse):
    """A response of aiohttp with a limit on the interim responses before it."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read the head. aiohttp would skip any number of interim responses."""
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - a new connection has one
        read, heads = protocol.read, 0

        async def counting_read() -> Any:  # noqa: ANN401 - aiohttp's message
            nonlocal heads
            heads += 1
            if heads > MAX_INTERIM + 1:
                raise invalid_response(f"more than {MAX_INTERIM} interim responses")
            return await read()

        protocol.read = counting_read  # type: ignore[method-assign] # `start` calls it once per head
        try:
            return await super().start(connection)
        finally:
            del protocol.read


class _Body(aiohttp.Payload):
    """A request body. Its views are written to the socket one by one, without joining them.

    Attributes:
        failure: The error that a streamed body raised, or None.
        written: Whether the whole body has been written. The event loop may still buffer its end.
    """

    def __init__(self, views: Sequence[memoryview] | StreamedBody, idle: float) -> None:
        super().__init__(views, content_type="application/octet-stream")
        self._size = body_size(views)
        self._views = views
        self.failure: Exception | None = None
        self._idle = idle
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.Timeout | None = None
        self._first_byte = 0.0
        self.written = False

    def set_deadline(self, deadline: asyncio.Timeout | None, first_byte: float) -> None:
        """Set a deadline to start once the body has been written; None removes it."""
        self._deadline, self._first_byte = deadline, first_byte

    def _finish(self) -> None:
        self.written = True
        if self._deadline is not None and not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(now + self._first_byte)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text, as the interface of a payload requires."""
        if not isinstance(self._views, Sequence):
            raise TypeError("a streamed body can only be sent")
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body. Each wait for the socket is limited by the idle timeout."""
        self._transport = writer.transport  # for `abort`: aiohttp drops it on a failure
        views = self._views
        if isinstance(views, Sequence) and len(views) == 1 and len(views[0]) <= WINDOW:
            async with asyncio.timeout(self._idle):
                await writer.write(views[0])
            self._finish()
        else:
            clock = asyncio.get_running_loop().time
            pieces = (
                self._view_pieces(views)
                if isinstance(views, Sequence)
                else self._streamed_pieces(views)
            )
            async with asyncio.timeout(self._idle) as progress, aclosing(pieces):
                remaining = body_size(views)
                async for piece in pieces:
                    await writer.write(piece)
                    progress.reschedule(clock() + self._idle)
                    remaining -= len(piece)
                    if not remaining:
                        # Here, not after the loop: the response may arrive before the loop ends.
                        await writer.drain()
                        self._finish()

    async def _view_pieces(self, views: Sequence[memoryview]) -> AsyncGenerator[memoryview | bytes]:
        for view in views:
            for offset in range(0, len(view), WINDOW):
                yield view[offset : offset + WINDOW]

    async def _streamed_pieces(self, body: StreamedBody) -> AsyncGenerator[memoryview | bytes]:
        try:
            async with body.pieces() as pieces:
                async for view in pieces:
                    for offset in range(0, len(view), WINDOW):
                        # A copy, because newer Python versions keep views of unsent bytes.
                        yield bytes(view[offset : offset + WINDOW])
        except Exception as error:
            # aiohttp would report a broken connection, so `send` raises `failure` instead.
            self.failure = error
            raise

    def abort(self) -> None:
        """Abort the connection unless the socket has accepted the whole body.

        A close is not enough: it first sends the bytes that the socket has not accepted, and newer
        Python versions keep views of them, not copies.
        """
        transport = self._transport
        if transport is not None and not (self.written and transport.get_write_buffer_size() == 0):
            transport.abort()


class _AiohttpResponse:
    """A `Response` over a response of aiohttp."""

    __slots__ = (
        "_body",
        "_chunk",
        "_content",
        "_grace",
        "_idle",
        "_origin",
        "_position",
        "_response",
        "headers",
        "status",
    )

    body = None

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
        self._chunk = b""  # the last received bytes, consumed up to `_position`
        self._position = 0
        self.status = response.status
        self.headers: Mapping[str, str] = _decoded(response.headers)

    async def read(self, size: int) -> bytes:
        """Return the next received bytes, without a copy if all fit. See `Response.read`."""
        data = await self._next_chunk()
        chunk = data[self._position : self._position + size]
        self._position += len(chunk)
        return chunk

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with received bytes; if there are none, wait for some. See `Response.readinto`."""
        filled = 0
        # Do not wait once there are some bytes: a slow body would seem to stall.
        while filled < len(buffer) and (
            data := self._next_chunk_nowait() if filled else await self._next_chunk()
        ):
            count = min(len(data) - self._position, len(buffer) - filled)
            end = self._position + count
            buffer[filled : filled + count] = memoryview(data)[self._position : end]
            self._position = end
            filled += count
        return filled

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body. See `Response.read_all`."""
        return await collect_body(self, limit, self._grace, self._origin)

    async def _next_chunk(self) -> bytes:
        if self._position == len(self._chunk):
            self._chunk, self._position = await self._receive(), 0
        return self._chunk

    def _next_chunk_nowait(self) -> bytes:
        if self._position == len(self._chunk):
            # If the connection has failed, the next `read` or `readinto` raises its error.
            has_failed = self._content.exception() is not None
            self._chunk = b"" if has_failed else self._content.read_nowait(WINDOW)
            self._position = 0
        return self._chunk

    async def _receive(self) -> bytes:
        content = self._content
        try:
            # `read(n)` would copy, and would let up to n unread bytes accumulate. The timeout is
            # needed because `sock_read` restarts with each byte of a chunk size or a trailer, and
            # these may be endless.
            async with asyncio.timeout(self._idle):
                data, _ = await content.readchunk()
                while not data and not content.at_eof():
                    data, _ = await content.readchunk()
        except Exception as error:
            failure = _error_to_raise(error, self._origin.address)
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


def _decoded(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """Return headers decoded as in `parse_head`. aiohttp keeps bytes that are not UTF-8 as surrogates."""
    if all(map(str.isascii, headers.values())):
        return headers
    decoded = CIMultiDict(
        (name, field_text(value))
        for name, value in headers.items()
        if name.lower() != "etag" or field_text(value) == value
    )
    return CIMultiDictProxy(decoded)


_ERRORS: Final[tuple[tuple[type[Exception], type[TroveError], bool, str], ...]] = (
    # (error of aiohttp, our error, retryable, message). The first match applies. `translate_error`
    # handles failures to connect before it reads this table.
    (aiohttp.ServerFingerprintMismatch, ConfigError, False, "the fingerprint does not match"),
    (aiohttp.ServerTimeoutError, TimedOutError, True, "no bytes arrived within the timeout"),
    (aiohttp.ClientHttpProxyError, UnavailableError, True, "the proxy refused the request"),
    (aiohttp.ClientResponseError, UnavailableError, True, "the response is not valid HTTP"),
    (aiohttp.ClientPayloadError, UnavailableError, True, "the response body ended early"),
    (aiohttp.InvalidURL, ConfigError, False, "the URL is invalid"),
    (aiohttp.ServerDisconnectedError, UnavailableError, True, "the server closed the connection"),
    (aiohttp.ClientConnectionError, UnavailableError, True, "the connection broke"),
    (aiohttp.ClientError, BackendError, False, "the request could not be sent"),
    (TimeoutError, TimedOutError, True, "no progress within the timeout"),
    (OSError, UnavailableError, True, "the connection broke"),
)


def translate_error(error: BaseException, address: str = "the server") -> TroveError | None:
    """Return the `TroveError` for an error of aiohttp, a TimeoutError or an OSError; None for others.

    Drivers also use it for SDKs that let errors of aiohttp through.

    Args:
        error: The error.
        address: Host and port of the server, for the message.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return connect_error(error.certificate_error, f"{error.host}:{error.port}")
    if isinstance(error, aiohttp.ClientConnectorError):
        is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        peer = f"{'the proxy ' if is_proxy else ''}{_bracketed(error.host)}:{error.port}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return connect_error(gaierror(error.errno or 0, error.strerror), peer)
        return connect_error(error.os_error, peer)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return connect_error(TimeoutError(), address)
    for kind, error_class, retryable, message in _ERRORS:
        if isinstance(error, kind):
            return error_class(f"the request to {address} failed: {message}", retryable=retryable)
    return None


def _error_to_raise(
    error: BaseException, address: str, body: _Body | None = None
) -> Exception | None:
    """Return the error to raise for a failed request, or None to re-raise the error itself.

    Raise it outside `except`: see `AiohttpTransport.send`.
    """
    if body is not None and body.failure is not None and isinstance(error, Exception):
        return body.failure
    if isinstance(error, TroveError):
        # The traceback has frames of aiohttp with the headers of the request.
        return error.with_traceback(None)
    failure = translate_error(error, address)
    if failure is not None:
        failure.__cause__ = system_error(error)
    return failure


def system_error(error: BaseException) -> BaseException | None:
    """Return the system error that caused an error of aiohttp, without its traceback, or None.

    An error of aiohttp is never returned, because it may contain the headers of the request and the
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
