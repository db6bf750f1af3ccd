"""A response that belongs to no framework yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from trove_async import ObjectReader

from ._pacing import Pace


class BodyStream:
    """A body to be pulled once. `aclose` it, pulled or not.

    Args:
        reader: What is open of it.
        pull: Yields its bytes, from that reader.
    """

    def __init__(
        self, reader: ObjectReader, pull: Callable[[ObjectReader], AsyncGenerator[bytes]]
    ) -> None:
        self._reader = reader
        self._chunks = pull(reader)

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        """Give everything back. Idempotent."""
        await self._chunks.aclose()
        await self._reader.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResponse:
    """A response that knows no framework yet.

    Attributes:
        status: Its status code.
        headers: Its fields; Content-Length is among them wherever there may be a body.
        content: A body that is at hand.
        stream: One that is to be pulled, and closed whether it was pulled or not.
        close: Whether the connection ends with it: the request's body was not read to its end.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    stream: BodyStream | None = None
    close: bool = False


async def paced_chunks(reader: ObjectReader) -> AsyncGenerator[bytes]:
    pace, clock = Pace(), asyncio.get_running_loop().time
    while chunk := await reader.read(pace.size):
        given = clock()
        yield chunk
        pace.record(len(chunk), clock() - given)
