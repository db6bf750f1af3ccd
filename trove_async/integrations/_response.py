"""Responses and body streams, independent of the framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from trove_async import ObjectReader

from ._pacing import Pace


class BodyStream:
    """A body that is read once. Call `aclose` whether or not it was read.

    Args:
        reader: An open reader.
        read_chunks: Yields the body from the reader.
    """

    def __init__(
        self, reader: ObjectReader, read_chunks: Callable[[ObjectReader], AsyncGenerator[bytes]]
    ) -> None:
        self._reader = reader
        self._chunks = read_chunks(reader)

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        """Close the body and its reader. Idempotent."""
        await self._chunks.aclose()
        await self._reader.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResponse:
    """A response, independent of the framework.

    Attributes:
        status: The status code.
        headers: The headers. They include Content-Length if the response may have a body.
        content: A body in memory.
        stream: A streamed body. Close it whether or not it was read.
        close: Whether to close the connection, because the request body was not read to its end.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    stream: BodyStream | None = None
    close: bool = False


async def paced_chunks(reader: ObjectReader) -> AsyncGenerator[bytes]:
    """Yield the object in chunks whose size depends on the speed of the client."""
    pace, clock = Pace(), asyncio.get_running_loop().time
    while chunk := await reader.read(pace.size):
        # The framework requests the next chunk when the operating system has accepted most of this one.
        started = clock()
        yield chunk
        pace.record(len(chunk), clock() - started)
