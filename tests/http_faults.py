"""What can go wrong with one HTTP exchange, as values for `tests.fault_proxy`.

Most have a place: a point of the exchange and a byte of it, before which they strike. What comes
before that byte is passed on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Point = Literal["request head", "request body", "answer head", "answer body"]


@dataclass(frozen=True, eq=False)
class Cut:
    """The connection breaks.

    In the request, the server gets what came before and then loses its client. In the answer, the
    server has done all that was asked, and given its whole answer, before the client loses it.
    """

    at: Point
    byte: int = 0
    reset: bool = True
    """By a reset; else by an orderly close, which a client may take for an end."""


@dataclass(frozen=True, eq=False)
class Stall:
    """Nothing moves until `release`, or until the client goes away.

    A request's body that stands still is not read: what its client does meanwhile, going away
    included, is noticed on `release`.
    """

    at: Point
    byte: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)
    _released: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)

    def release(self) -> None:
        """Let it go on."""
        self._released.set()

    async def wait(self) -> None:
        """Stand still."""
        self.reached.set()
        await self._released.wait()


@dataclass(frozen=True, eq=False)
class Flip:
    """A byte of a body arrives with all of its bits turned over."""

    at: Literal["request body", "answer body"]
    byte: int = 0


@dataclass(frozen=True, eq=False)
class Shorten:
    """The answer's body lacks its last bytes, and its Content-Length says that this is all."""

    by: int


@dataclass(frozen=True, eq=False)
class Response:
    """The proxy answers, once it has read the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    served: bool = False
    """Whether the server does what was asked, unheard; else nothing of it reaches the server."""


Fault = Cut | Stall | Flip | Shorten | Response
