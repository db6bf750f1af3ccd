"""Faults of one HTTP exchange, for `tests.fault_proxy`.

A `Cut`, `Stall` or `Flip` applies at one byte of a head or a body, counted from 0. The bytes before it are
forwarded unchanged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Point = Literal["request head", "request body", "response head", "response body"]


@dataclass(frozen=True, eq=False)
class Cut:
    """The connection breaks.

    If it breaks in the request, the server receives the bytes before the break. If it breaks in the
    response, the server has processed the request and sent its complete response.
    """

    at: Point
    byte: int = 0
    reset: bool = True
    """Whether the connection is reset. An orderly close may look like the end of a body."""


@dataclass(frozen=True, eq=False)
class Stall:
    """Forwarding stops until `release` is called or the client disconnects.

    While a request is stalled, the proxy stops reading from the client once its buffer is full. It
    then notices a disconnect only on `release`.
    """

    at: Point
    byte: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)
    _released: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    def release(self) -> None:
        """Resume forwarding."""
        self._released.set()

    async def wait(self) -> None:
        """Wait until `release` is called."""
        self.reached.set()
        await self._released.wait()


@dataclass(frozen=True, eq=False)
class Flip:
    """One byte of a body arrives with all bits inverted."""

    at: Literal["request body", "response body"]
    byte: int = 0


@dataclass(frozen=True, eq=False)
class Shorten:
    """The response lacks its last `by` bytes, and its Content-Length matches the rest."""

    by: int


@dataclass(frozen=True, eq=False)
class Response:
    """The proxy responds itself, after it has read the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    served: bool = False
    """Whether the server processes the request first. Otherwise it never receives the request."""


Fault = Cut | Stall | Flip | Shorten | Response
