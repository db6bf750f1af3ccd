"""The transport over aiohttp: it knows proxies, and is the oracle of the one over sockets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yarl

from trove_async._secrets import disarmed
from trove_async.errors import (
    BackendError,
    ConfigError,
    TimedOutError,
    TroveError,
    UnavailableError,
)

from .messages import early_success
from .seam import WINDOW, all_of, size_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.abc import AbstractStreamWriter

    from trove_async.models import Timeout

    from .seam import Answer, Origin, Streamed

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
            **_LIMITS,
        )

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] | Streamed = (),
        *,
        patient: bool = False,
    ) -> Answer:
        """Send a request. See `Transport.send`."""
        body = _Body(views, self._idle) if views else None
        sending = self._session.request(
            method,
            yarl.URL(origin.url + target, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._connect,
                sock_read=None if patient else self._first_byte,
            ),
        )
        del headers  # a traceback that is recorded with its variables would show the credentials
        try:
            response = await sending
        except BaseException as error:
            if body is not None:
                body.abort()
            failure = _failure(error, body)
            if failure is None:
                raise
        else:
            return self._answer(response, body, patient=patient)
        # Outside `except`: aiohttp's errors hold the request's headers and a proxy's password, and
        # the one that is being handled would become the context.
        raise failure

    def _answer(
        self, response: aiohttp.ClientResponse, body: _Body | None, *, patient: bool
    ) -> Answer:
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
        return _AiohttpAnswer(response, body)

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
        failure = _failure(error)
        assert failure is not None  # noqa: S101 - both are in the table
    raise failure


class _Body(aiohttp.Payload):
    """A request's body: views, handed to the socket one after the other and never joined.

    Attributes:
        failure: What a body raised that was read meanwhile.
    """

    def __init__(self, views: Sequence[memoryview] | Streamed, idle: float) -> None:
        super().__init__(views, content_type="application/octet-stream")
        self._size = size_of(views)
        self._views = views
        self.failure: Exception | None = None
        self._idle = idle
        self._writer: AbstractStreamWriter | None = None
        self.written = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text: part of what a payload has to offer."""
        if not isinstance(self._views, Sequence):
            raise TypeError("this body is read only to be sent")
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, waiting whenever the socket takes no more, but not for ever."""
        self._writer = writer
        views = self._views
        if isinstance(views, Sequence) and len(views) == 1 and len(views[0]) <= WINDOW:
            await writer.write(views[0])
            self.written = True
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
                        self.written = True

    async def _held(self, views: Sequence[memoryview]) -> AsyncGenerator[memoryview | bytes]:
        for view in views:
            for at in range(0, len(view), WINDOW):
                yield view[at : at + WINDOW]

    async def _read(self, body: Streamed) -> AsyncGenerator[memoryview | bytes]:
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
        if self._writer is None:
            return
        transport = self._writer.transport
        if transport is not None and not (self.written and transport.get_write_buffer_size() == 0):
            transport.abort()


class _AiohttpAnswer:
    """An `Answer` from aiohttp."""

    __slots__ = ("_at", "_body", "_content", "_response", "_rest", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, body: _Body | None) -> None:
        self._response = response
        self._content = response.content
        self._body = body
        self._rest = b""  # of what was received at a time; read up to `_at`
        self._at = 0
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self, size: int) -> bytes:
        """Return the next bytes: what was received at a time, not copied. See `Answer.read`."""
        data = await self._next()
        piece = data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with what there is, or else the first that comes. See `Answer.readinto`."""
        filled = 0
        # More is not waited for: a body that is slow would seem to stand still.
        while filled < len(buffer) and (data := self._there() if filled else await self._next()):
            count = min(len(data) - self._at, len(buffer) - filled)
            buffer[filled : filled + count] = memoryview(data)[self._at : self._at + count]
            self._at += count
            filled += count
        return filled

    async def read_all(self, limit: int) -> bytes:
        """Return what is left. See `Answer.read_all`."""
        return await all_of(self, limit)

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
            data, _ = await content.readchunk()
            while not data and not content.at_eof():
                data, _ = await content.readchunk()
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
        else:
            return data
        raise failure  # outside `except`, as in `send`

    def close(self) -> None:
        """Give the connection back, or close it. See `Answer.close`."""
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._response.close()


_FAILURES: Final[tuple[tuple[type[Exception], type[TroveError], bool, str], ...]] = (
    # The first that fits; whether another try may help.
    (aiohttp.ClientConnectorCertificateError, ConfigError, False, "its certificate is not trusted"),
    (aiohttp.ServerFingerprintMismatch, ConfigError, False, "its certificate is another one"),
    (aiohttp.ClientConnectorDNSError, UnavailableError, True, "its host's name has no address"),
    (aiohttp.ClientConnectorSSLError, UnavailableError, True, "no TLS could be agreed upon"),
    (aiohttp.ConnectionTimeoutError, TimedOutError, True, "no connection came about in time"),
    (aiohttp.ClientConnectorError, UnavailableError, True, "no connection came about"),
    (aiohttp.ServerTimeoutError, TimedOutError, True, "nothing arrived in time"),
    (aiohttp.ClientHttpProxyError, UnavailableError, True, "the proxy refused"),
    (aiohttp.ClientResponseError, UnavailableError, True, "what it answered is no HTTP"),
    (aiohttp.ClientPayloadError, UnavailableError, True, "the body broke off"),
    (aiohttp.InvalidURL, ConfigError, False, "the address is no URL"),
    (aiohttp.ClientConnectionError, UnavailableError, True, "the connection broke"),
    (aiohttp.ClientError, BackendError, False, "the request could not be sent"),
    (TimeoutError, TimedOutError, True, "the server took no more in time"),
    (OSError, UnavailableError, True, "the connection broke"),
)


def translated(error: BaseException) -> TroveError | None:
    """Return what a failure of aiohttp's is here; None: it is none of its.

    For an SDK that lets such failures through.
    """
    for kind, ours, retryable, message in _FAILURES:
        if isinstance(error, kind):
            return ours(f"the server cannot be used: {message}", retryable=retryable)
    return None


def _failure(error: BaseException, body: _Body | None = None) -> Exception | None:
    """Return what to raise for a failed request, outside `except`; None: the error itself."""
    if body is not None and body.failure is not None and isinstance(error, Exception):
        return body.failure
    if isinstance(error, TroveError):
        return error.with_traceback(None)  # raised in `_once`, and come through aiohttp's frames
    failure = translated(error)
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
