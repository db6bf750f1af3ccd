"""Interface between the drivers and the HTTP transports: send one request, return one response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Protocol

import yarl

from trove_async.errors import ConfigError, IntegrityError, TimedOutError
from trove_async.models import KiB

WINDOW: Final = 256 * KiB
"""Size in bytes of the pieces in which `collect_body` reads a response and the aiohttp transport writes
a request. aiohttp buffers up to twice as many bytes of each open response."""

MIN_DOCUMENT_RATE: Final = 16 * KiB
"""Minimum rate, in bytes per second, of a document: a page of a listing, an error or a token."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """A scheme, a host and a port.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name or an address; an IPv6 address is in brackets.
        port: The port.
        authority: The value of the Host header. It omits the scheme's default port.
        address: Host and port, for messages.
        url: The origin as a URL, without a trailing slash.
    """

    scheme: str
    host: str
    port: int
    authority: str = field(init=False, compare=False, repr=False)
    address: str = field(init=False, compare=False, repr=False)
    url: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # These are computed once, because every request needs them.
        is_default = self.port == _PORTS[self.scheme]
        authority = self.host if is_default else f"{self.host}:{self.port}"
        object.__setattr__(self, "authority", authority)
        object.__setattr__(self, "address", f"{self.host}:{self.port}")
        object.__setattr__(self, "url", f"{self.scheme}://{authority}")

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin that a URL consists of.

        Raises:
            ConfigError: The scheme is neither http nor https, the host is missing, or the URL has
                more components.
            TypeError: The URL is not a str.
        """
        if not isinstance(url, str):
            raise TypeError(f"an endpoint must be a str, got {type(url).__name__}")
        try:
            parts = yarl.URL(url)
            scheme, host, port = parts.scheme, parts.host_subcomponent, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        else:
            has_more = parts.path not in {"", "/"} or parts.query_string or parts.fragment
            if has_more or parts.user or parts.password:
                scheme = ""
        if scheme not in _PORTS or not host or port is None:
            # The message omits the URL, which may contain credentials by mistake.
            raise ConfigError("an endpoint must be http://host[:port] or https://host[:port]")
        return cls(scheme, host, port)

    @property
    def keeps_secrets(self) -> bool:
        """Whether secrets may be sent to the origin: over https, or to this machine."""
        if self.scheme == "https" or self.host == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def subdomain(self, label: str) -> Origin:
        """Return the origin for the subdomain ``label.host``, with the same scheme and port."""
        return Origin(self.scheme, f"{label}.{self.host}", self.port)


class Response(Protocol):
    """A response whose head has arrived. One task at a time may read it.

    Attributes:
        status: The status code.
        headers: The headers. Look them up by lower-case name.
        body: The whole body, if it has arrived with the head. None: read it.
    """

    status: int
    headers: Mapping[str, str]

    @property
    def body(self) -> bytes | None: ...

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes of the body, or ``b""`` at its end.

        Raises:
            UnavailableError: The connection closed before the end of the body.
            TimedOutError: No bytes arrived within the timeout.
        """
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes that arrive soon; return their number, or 0 at the end.

        If none arrive soon, wait for the next ones. Once this returns or raises, even on a cancel,
        nothing writes to `buffer` any more.
        """
        ...

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of a body that is expected to be small.

        Raises:
            IntegrityError: The body has more than `limit` bytes.
            TimedOutError: After a grace period of `Timeout.idle`, the body arrives more slowly than
                `MIN_DOCUMENT_RATE`.
        """
        ...

    def close(self) -> None:
        """Return the connection to the pool, or close it if the body was not read to its end.

        Idempotent. Once this returns, nothing reads the views of the request any more.
        """
        ...


class StreamedBody(Protocol):
    """A request body that is read while it is sent."""

    @property
    def size(self) -> int:
        """The size of the body in bytes, at least 1."""
        ...

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[memoryview]]:
        """Open the body from its start. Called once per request. Errors propagate unchanged.

        A piece must stay valid until the next one is requested, and the last piece until `send` has
        raised or the response is closed.
        """
        ...


class Transport(Protocol):
    """Sends each request once, over pooled connections."""

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
        """Send a request; return the response once its head has arrived.

        If this raises, even on a cancel, nothing reads the views any more and no connection is
        held. If it returns, the same is true after `Response.close`.

        Args:
            method: The method, in upper case.
            origin: The origin to send the request to.
            target: Encoded path and query, sent unchanged.
            headers: All headers except Host and Content-Length.
            views: The body.
            patient: Whether the caller, not the transport, limits how long the server processes the
                request. `Timeout.first_byte` does not apply until the response begins, and
                `MIN_DOCUMENT_RATE` does not apply at all, because servers send whitespace to keep
                the connection open. The body must not be a `StreamedBody`.

        Raises:
            UnavailableError: No connection could be opened, the connection broke before the response,
                or the response is invalid.
            TimedOutError: There was no progress within a timeout.
            ConfigError: The certificate of the server is not trusted, or the URL of its proxy is
                invalid.
            InvalidNameError: The target or a header cannot be sent, for example because of a line
                break. Nothing was sent.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        ...


def body_size(body: Sequence[memoryview] | StreamedBody) -> int:
    """Return the size of a request body in bytes."""
    return sum(map(len, body)) if isinstance(body, Sequence) else body.size


async def collect_body(response: Response, limit: int, grace: float, origin: Origin) -> bytes:
    """Return the rest of a response body: the implementation of `Response.read_all`.

    Args:
        response: The response to read.
        limit: Maximum number of bytes.
        grace: Seconds allowed in addition to the time that `MIN_DOCUMENT_RATE` allows for the bytes.
        origin: The origin, for the message.
    """
    first = await response.read(WINDOW)
    chunk = await response.read(WINDOW) if first else first
    if not chunk and len(first) <= limit:
        # The common case: a single chunk is returned without copying it or reading the clock.
        return first
    clock = asyncio.get_running_loop().time
    started = clock()
    # One buffer, not a list: a hostile server may send chunks of one byte, each with the overhead of
    # an object.
    body = bytearray(first)
    while True:
        body += chunk
        if len(body) > limit:
            raise body_too_long(limit)
        if not chunk:
            return bytes(body)
        # Each read ends within the idle timeout, so this check runs often enough.
        if clock() - started > grace + len(body) / MIN_DOCUMENT_RATE:
            raise TimedOutError(
                f"the response of {origin.address} arrives too slowly: "
                f"{len(body)} bytes in {clock() - started:.3g} s"
            )
        chunk = await response.read(WINDOW)


def body_too_long(limit: int) -> IntegrityError:
    """Return the error for a document that has more than `limit` bytes."""
    return IntegrityError(f"the response body must have at most {limit} bytes, got more")
