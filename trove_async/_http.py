"""The transport seam that the HTTP drivers share: one request out, one answer in, nothing else.

No redirect is followed, no cookie kept, no body decompressed, no request sent again: whoever sends
decides about all of that. A body goes out as the views that it is in, and comes in as it is asked
for. `AiohttpTransport` is the transport; another may take its place.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import yarl

from .errors import BackendError, ConfigError, IntegrityError, TimedOutError, UnavailableError
from .models import KiB

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from aiohttp.abc import AbstractStreamWriter

    from .errors import TroveError
    from .models import ByteRange, Timeout

WINDOW: Final = 256 * KiB
"""Bytes that are received, or handed to a socket, at a time: an answer's body holds twice as much."""

_HEADERS: Final = 4096
"""Headers that an answer may have: 8 KiB of metadata in names of one letter are so many."""

# Releases of aiohttp that lack the parameter have no limit; the others' own is 128.
_LIMITS: Final[dict[str, Any]] = (
    {"max_headers": _HEADERS}
    if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters
    else {}
)

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: a scheme, a host and a port.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name, or an address (an IPv6 one in brackets).
        port: Its port.
        authority: The Host header's value: the port is in it unless it is the scheme's own.
        url: The origin as a URL, without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    authority: str = field(init=False, compare=False, repr=False)
    url: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        own = self.port == _PORTS[self.scheme]
        authority = self.host if own else f"{self.host}:{self.port}"
        object.__setattr__(self, "authority", authority)
        object.__setattr__(self, "url", f"{self.scheme}://{authority}")

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin that a URL names, and nothing but an origin.

        Raises:
            ConfigError: It has another scheme, no host, or more than an origin.
        """
        try:
            parts = yarl.URL(url)
            scheme, host, port = parts.scheme, parts.host_subcomponent, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        else:
            if parts.path not in {"", "/"} or parts.query_string or parts.fragment or parts.user:
                scheme = ""
        if scheme not in _PORTS or not host or port is None:
            # The URL is not shown: it may hold what somebody took for a place for credentials.
            raise ConfigError("an endpoint is http://host[:port] or https://host[:port]")
        return cls(scheme, host, port)

    def within(self, label: str) -> Origin:
        """Return the origin one label below this host: ``bucket.host``."""
        return Origin(self.scheme, f"{label}.{self.host}", self.port)


class Answer(Protocol):
    """What a server answered, from the moment that its head has arrived. Read by one task at a time.

    Attributes:
        status: The status code.
        headers: The headers, by their names in lower case.
    """

    status: int
    headers: Mapping[str, str]

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes of the body, ``b""`` at its end.

        Raises:
            UnavailableError: The body broke off. TimedOutError: nothing of it came for too long.
        """
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes, as many as come soon; return how many, 0 at the end.

        When it returns or raises, a cancel included, nothing writes to `buffer` any more.
        """
        ...

    async def read_all(self, limit: int) -> bytes:
        """Return what is left of a body that is to be small.

        Raises:
            IntegrityError: There are more than `limit` bytes.
        """
        ...

    def close(self) -> None:
        """Give the connection back, or close it if the body is not at its end. Idempotent.

        After it, nothing reads the request's views any more.
        """
        ...


class Transport(Protocol):
    """Sends requests, each once, over connections that it keeps."""

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
    ) -> Answer:
        """Send a request; return the answer once its head has arrived.

        If it raises, a cancel included, no view is read any more and no connection is held;
        otherwise that is so after `Answer.close`.

        Args:
            method: In upper case.
            origin: Where to.
            target: Path and query, encoded: sent as they are.
            headers: All that is sent but Host and Content-Length.
            views: The body.

        Raises:
            UnavailableError: No connection, or it broke before the answer. TimedOutError: no
                progress for too long. ConfigError: the server's certificate is not trusted.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        ...


async def all_of(answer: Answer, limit: int) -> bytes:
    """Return what is left of an answer's body: how a transport does `Answer.read_all`."""
    pieces: list[bytes] = []
    left = limit
    while piece := await answer.read(WINDOW):
        left -= len(piece)
        if left < 0:
            raise IntegrityError(f"the answer has more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


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
        self._longer = None if timeout.idle == timeout.first_byte else timeout.idle
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=timeout.connect, sock_read=timeout.first_byte
            ),
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
        views: Sequence[memoryview] = (),
    ) -> Answer:
        """Send a request. See `Transport.send`."""
        body = _Body(views, self._idle) if views else None
        try:
            response = await self._session.request(
                method,
                yarl.URL(origin.url + target, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            )
        except BaseException as error:
            if body is not None:
                body.abort()
            failure = translated(error)
            if failure is None:
                raise
            raise failure from shown(error)
        if self._longer is not None and (connection := response.connection) is not None:
            protocol = connection.protocol
            if protocol is not None:
                protocol.read_timeout = self._longer
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
        failure = translated(error)
        assert failure is not None  # noqa: S101 - both are in the table
        raise failure from error


class _Body(aiohttp.Payload):
    """A request's body: views, handed to the socket one after the other and never joined."""

    def __init__(self, views: Sequence[memoryview], idle: float) -> None:
        super().__init__(views, content_type="application/octet-stream")
        self._size = sum(map(len, views))
        self._views = views
        self._idle = idle
        self._writer: AbstractStreamWriter | None = None
        self._written = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text: part of what a payload has to offer."""
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, waiting whenever the socket takes no more, but not for ever."""
        self._writer = writer
        if len(self._views) == 1 and len(self._views[0]) <= WINDOW:
            await writer.write(self._views[0])
        else:
            clock = asyncio.get_running_loop().time
            async with asyncio.timeout(self._idle) as progress:
                for view in self._views:
                    for at in range(0, len(view), WINDOW):
                        await writer.write(view[at : at + WINDOW])
                        progress.reschedule(clock() + self._idle)
                await writer.drain()
        self._written = True

    def abort(self) -> None:
        """Break the connection off unless all of the body has left this process.

        Closing it would not do: what a socket has not taken yet is still sent before it is closed,
        and newer Pythons keep views of it rather than copies.
        """
        if self._writer is None:
            return
        transport = self._writer.transport
        if transport is not None and not (self._written and transport.get_write_buffer_size() == 0):
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
        """Fill `buffer`. See `Answer.readinto`."""
        filled = 0
        while filled < len(buffer) and (data := await self._next()):
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

    async def _received(self) -> bytes:
        content = self._content
        try:
            # Not `read(n)`, which copies, and lets as much as it is asked for pile up unread.
            data, _ = await content.readchunk()
            while not data and not content.at_eof():
                data, _ = await content.readchunk()
        except Exception as error:
            failure = translated(error)
            if failure is None:
                raise
            raise failure from shown(error)
        return data

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


def shown(error: BaseException) -> BaseException | None:
    """Return what may stand behind our error: not what quotes the request's headers."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error


# -- headers -----------------------------------------------------------------------------------------

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_IMF_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


@lru_cache(maxsize=64)  # thousands of answers have one Date
def http_date(text: str) -> datetime:
    """Return the moment that an HTTP date names, in UTC.

    Raises:
        ValueError: It names none.
    """
    found = _IMF_DATE.fullmatch(text)  # RFC 9110, 5.6.7: what servers write
    try:
        if found is None:  # what else they may
            return parsedate_to_datetime(text).astimezone(UTC)
        day, month, year, hour, minute, second = found.groups()
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except (ValueError, KeyError):
        raise ValueError(f"date {text[:40]!r}") from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After, which may be a moment (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        wait = http_date(value) - http_date(headers.get("date", ""))
    except ValueError:
        return None
    return max(wait.total_seconds(), 0.0)


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and the whole size as a partial answer tells them.

    Raises:
        ValueError: There is a Content-Range that tells no such thing.
    """
    value = headers.get("content-range")
    if value is None:
        return None
    found = _CONTENT_RANGE.fullmatch(value)
    if found is not None:
        start, last, size = map(int, found.groups())
        if start <= last < size:
            return start, last + 1, size
    raise ValueError(f"Content-Range {value[:80]!r}")


def range_header(asked: ByteRange) -> str:
    """Return a range as HTTP writes it: with its last byte (RFC 9110, 14.1.2)."""
    if asked.suffix is not None:
        return f"bytes=-{asked.suffix}"
    return f"bytes={asked.start}-{'' if asked.end is None else asked.end - 1}"
