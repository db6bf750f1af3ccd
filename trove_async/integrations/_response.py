"""Responses and body streams, independent of the framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from trove_async import ObjectReader
from trove_async.driver import FileSpan
from trove_async.models import MiB

from ._pacing import Pace

_FIRST_SPAN = 1 * MiB
_LARGEST_SPAN = 16 * MiB
"""The sizes of the first range of a file that is sent by sendfile(2), and of the largest one. A range is hashed
before it is sent, which is wasted if the client disconnects. So ranges become larger as the client receives more.
While a range of 16 MiB is hashed (2.5 ms), the socket still sends the 4 MiB in its buffer."""


class BodyStream:
    """A body that is read once. Call `aclose` whether or not it was read.

    Args:
        reader: An open reader.
        read_chunks: Yields the body from the reader. None: the body is that of the reader.
    """

    def __init__(
        self,
        reader: ObjectReader,
        read_chunks: Callable[[ObjectReader], AsyncGenerator[bytes]] | None = None,
    ) -> None:
        self._reader = reader
        self._chunks = (read_chunks or paced_chunks)(reader)
        self._span_size = _FIRST_SPAN if read_chunks is None else 0

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    async def next_file_span(self) -> FileSpan | None:
        """Return the next bytes as a range of a file, whose file the caller closes.

        None: iterate over the rest of the body. There always is a rest, whose last chunk verifies the body.
        """
        if self._span_size == 0 or self._reader.remaining < _FIRST_SPAN:
            return None
        size, self._span_size = self._span_size, min(4 * self._span_size, _LARGEST_SPAN)
        return await self._reader._next_file_span(size)  # noqa: SLF001 - of this library

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
