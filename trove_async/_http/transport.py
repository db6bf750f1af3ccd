"""The seam: one request out, one answer in, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

import yarl

from trove_async.errors import ConfigError, IntegrityError, TimedOutError
from trove_async.models import KiB

WINDOW: Final = 256 * KiB
"""Bytes that are received, or handed to a socket, at a time: an answer's body holds twice as much."""

LEAST_RATE: Final = 16 * KiB
"""Bytes a second that a document (a page of a listing, an error, a token) comes with at least."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: a scheme, a host and a port.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name, or an address (an IPv6 one in brackets).
        port: Its port.
        authority: The Host header's value: the port is in it unless it is the scheme's own.
        address: Host and port, for messages.
        url: The origin as a URL, without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    authority: str = field(init=False, compare=False, repr=False)
    address: str = field(init=False, compare=False, repr=False)
    url: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        own = self.port == _PORTS[self.scheme]
        authority = self.host if own else f"{self.host}:{self.port}"
        object.__setattr__(self, "authority", authority)
        object.__setattr__(self, "address", f"{self.host}:{self.port}")
        object.__setattr__(self, "url", f"{self.scheme}://{authority}")

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin that a URL names, and nothing but an origin.

        Raises:
            ConfigError: It has another scheme, no host, or more than an origin.
            TypeError: It is no str.
        """
        if not isinstance(url, str):
            raise TypeError(f"an endpoint must be a str, got {type(url).__name__}")
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


class Response(Protocol):
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
            TimedOutError: They come more slowly than `LEAST_RATE`, `Timeout.idle` aside.
        """
        ...

    def close(self) -> None:
        """Give the connection back, or close it if the body is not at its end. Idempotent.

        After it, nothing reads the request's views any more.
        """
        ...


class StreamedBody(Protocol):
    """A request's body that is read while it is sent."""

    @property
    def size(self) -> int:
        """Its bytes; never none."""
        ...

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[memoryview]]:
        """Open it, from its start: once a request. What it raises comes out as it is.

        A piece keeps its bytes until the next one is asked for, and the last one as views do.
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
        views: Sequence[memoryview] | StreamedBody = (),
        *,
        patient: bool = False,
    ) -> Response:
        """Send a request; return the answer once its head has arrived.

        If it raises, a cancel included, no view is read any more and no connection is held;
        otherwise that is so after `Response.close`.

        Args:
            method: In upper case.
            origin: Where to.
            target: Path and query, encoded: sent as they are.
            headers: All that is sent but Host and Content-Length.
            views: The body.
            patient: Whether the answer may begin as late as the caller waits for it: what was sent
                takes the server long, and no `Timeout.first_byte` counts. Nor does `LEAST_RATE`
                then: servers send blanks while they work.

        Raises:
            UnavailableError: No connection, or it broke before the answer. TimedOutError: no
                progress for too long. ConfigError: the server's certificate is not trusted.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        ...


def size_of(body: Sequence[memoryview] | StreamedBody) -> int:
    """Return the bytes of a request's body."""
    return sum(map(len, body)) if isinstance(body, Sequence) else body.size


async def read_all_of(answer: Response, limit: int, grace: float, origin: Origin) -> bytes:
    """Return what is left of an answer's body: how a transport does `Response.read_all`.

    Args:
        answer: What to read.
        limit: The most bytes that it may have.
        grace: Seconds that the body may take beyond those that `LEAST_RATE` allows for its bytes.
        origin: For the message.
    """
    first = await answer.read(WINDOW)
    piece = await answer.read(WINDOW) if first else first
    if not piece and len(first) <= limit:
        return first  # nearly all are: nothing is copied, and no clock is read
    clock = asyncio.get_running_loop().time
    began = clock()
    body = bytearray(first)  # one buffer: a hostile server's chunks have one byte each
    while True:
        body += piece
        if len(body) > limit:
            raise IntegrityError(f"the answer has more than {limit} bytes")
        if not piece:
            return bytes(body)
        # Each read ends within the idle timeout, so this is looked at often enough.
        if clock() - began > grace + len(body) / LEAST_RATE:
            raise TimedOutError(
                f"{origin.address} sends its response too slowly: "
                f"{len(body)} bytes in {clock() - began:.3g} s"
            )
        piece = await answer.read(WINDOW)
