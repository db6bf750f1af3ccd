"""The transport over aiohttp: it knows proxies, and is the oracle of the one over sockets."""

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
"""Headers that an answer may have: 8 KiB of metadata in names of one letter are so many."""

# Releases of aiohttp that lack the parameter have no limit; the others' own is 128.
_LIMITS: Final[dict[str, Any]] = (
    {"max_headers": _HEADERS}
    if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
    else {}
)


class AiohttpTransport:
    """A `Transport` over aiohttp.

    Args:
        timeout: Its connect, first_byte and idle are kept.
        tls: Whom to trust; None: whom this system does.
        proxy: The URL of a proxy to send everything through.

    There is no limit of connections here: who holds an answer holds one, so that a limit below
    the callers' own would let two unread answers stop the third call for ever.
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
        del headers  # a traceback that is recorded with its variables would show the credentials
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
        # Outside `except`: aiohttp's errors hold the request's headers and a proxy's password, and
        # the one that is being handled would become the context.
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

        The head has a deadline of its own: `sock_read` begins anew with each byte that arrives.
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
                    connect=self._connect,  # all of it, a proxy's response included
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
    """Send a request once: aiohttp sends it again after what is raised here untranslated."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = _failure(error, f"{request.url.host}:{request.url.port}")
        assert failure is not None  # noqa: S101 - both are in the table
    raise failure


class _Response(aiohttp.ClientResponse):
    """A response that few interim responses may come before."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read the head. aiohttp skips interim responses without a limit."""
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - a new connection has one
        read, seen = protocol.read, 0

        async def counted() -> Any:  # noqa: ANN401 - what aiohttp has read
            nonlocal seen
            seen += 1
            if seen > MOST_INTERIM + 1:
                raise no_http(f"more than {MOST_INTERIM} interim responses")
            return await read()

        protocol.read = counted  # type: ignore[method-assign] # `start` asks for one head after the other
        try:
            return await super().start(connection)
        finally:
            del protocol.read


class _Body(aiohttp.Payload):
    """A request's body: views, handed to the socket one after the other and never joined.

    Attributes:
        failure: What a body raised that was read meanwhile.
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
        """Set the deadline that begins when the body has been written; None: there is none."""
        self._deadline, self._first_byte = deadline, first_byte

    def _ended(self) -> None:
        self.written = True
        if self._deadline is not None and not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(now + self._first_byte)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text: part of what a payload has to offer."""
        if not isinstance(self._views, Sequence):
            raise TypeError("this body is read only to be sent")
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, waiting whenever the socket takes no more, but not for ever."""
        self._transport = writer.transport  # now: once it fails, aiohttp lets go of it
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
                    if not left:  # and not behind the last piece's end: it is answered by then
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
                        # A copy: what a socket has not taken, newer Pythons keep views of.
                        yield bytes(view[at : at + WINDOW])
        except Exception as error:  # which aiohttp would take for the connection's
            self.failure = error
            raise

    def abort(self) -> None:
        """Break the connection off unless all of the body has left this process.

        Closing it would not do: what a socket has not taken yet is still sent before it is closed,
        and newer Pythons keep views of it rather than copies.
        """
        transport = self._transport
        if transport is not None and not (self.written and transport.get_write_buffer_size() == 0):
            transport.abort()


class _AiohttpResponse:
    """An `Response` from aiohttp."""

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
        self._rest = b""  # of what was received at a time; read up to `_at`
        self._at = 0
        self.status = response.status
        self.headers: Mapping[str, str] = _readable(response.headers)

    async def read(self, size: int) -> bytes:
        """Return the next bytes: what was received at a time, not copied. See `Response.read`."""
        data = await self._next()
        piece = data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with what there is, or else the first that comes. See `Response.readinto`."""
        filled = 0
        # More is not waited for: a body that is slow would seem to stand still.
        while filled < len(buffer) and (data := self._there() if filled else await self._next()):
            count = min(len(data) - self._at, len(buffer) - filled)
            buffer[filled : filled + count] = memoryview(data)[self._at : self._at + count]
            self._at += count
            filled += count
        return filled

    async def read_all(self, limit: int) -> bytes:
        """Return what is left. See `Response.read_all`."""
        return await read_all_of(self, limit, self._grace, self._origin)

    async def _next(self) -> bytes:
        if self._at == len(self._rest):
            self._rest, self._at = await self._received(), 0
        return self._rest

    def _there(self) -> bytes:
        if self._at == len(self._rest):
            broken = self._content.exception() is not None  # which the next read tells
            self._rest, self._at = b"" if broken else self._content.read_nowait(WINDOW), 0
        return self._rest

    async def _received(self) -> bytes:
        content = self._content
        try:
            # Not `read(n)`, which copies, and lets as much as it is asked for pile up unread.
            # Chunk sizes and trailers are bytes as well, to `sock_read`, and may never end.
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
        """Give the connection back, or close it. See `Response.close`."""
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._response.close()


def _readable(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """Return headers as `parse_head` reads them: aiohttp keeps bytes that are not UTF-8."""
    if all(map(str.isascii, headers.values())):
        return headers
    readable = CIMultiDict(
        (name, field_text(value))
        for name, value in headers.items()
        if name.lower() != "etag" or field_text(value) == value
    )
    return CIMultiDictProxy(readable)


_FAILURES: Final[tuple[tuple[type[Exception], type[TroveError], bool, str], ...]] = (
    # The first that fits; whether another attempt may help. Failed connections are not among them.
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
    """Return what a failure of aiohttp's is here; None: it is none of its.

    For an SDK that lets such failures through.

    Args:
        error: The failure.
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
    """Return what to raise for a failed request, outside `except`; None: the error itself."""
    if body is not None and body.failure is not None and isinstance(error, Exception):
        return body.failure
    if isinstance(error, TroveError):
        return error.with_traceback(None)  # raised in `_once`, and come through aiohttp's frames
    failure = translate_error(error, address)
    if failure is not None:
        failure.__cause__ = system_error(error)
    return failure


def system_error(error: BaseException) -> BaseException | None:
    """Return the system's error behind one of aiohttp's, without its traceback.

    Never aiohttp's own: it holds the request's headers and a proxy's password, and shows them.
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
