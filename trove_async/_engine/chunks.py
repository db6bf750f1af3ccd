"""Sources for bodies that arrive in chunks: async iterables, and iterables read in a thread."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import cast

import anyio
import anyio.to_thread

from trove_async._views import BytesLike, view_of_chunk
from trove_async.errors import BodyConsumedError

from . import consumed

_END = object()
_EMPTY = memoryview(b"")


class ChunkSource:
    """A source that reads an async iterable of chunks of any size.

    Args:
        chunks: The chunks of the body.
        size: The size of the body, if known.
        body: The user's object, if it can be read only once.

    Raises:
        BodyConsumedError: An earlier put failed after reading part of the body.
    """

    memory: memoryview | None = None

    def __init__(
        self,
        chunks: AsyncIterable[BytesLike],
        size: int | None = None,
        *,
        body: object | None = None,
    ) -> None:
        if body is not None:
            consumed.check(body, empty=False)
        self.size = size
        self._body = body
        self._pulled_bytes = 0
        self._start: int | None = None  # the original position of a seekable body
        self._chunks: AsyncIterator[BytesLike] | None = aiter(chunks)
        # The unread bytes of the last chunk. Released as soon as all are read: a view of a bytearray
        # prevents the user from resizing the bytearray.
        self._pending = _EMPTY

    async def ready(self) -> bool:
        while not self._pending:
            if self._chunks is None:
                return False
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._chunks = None
                self._record_end()
                return False
            self._pending = view_of_chunk(chunk)
            self._pulled_bytes += len(self._pending)
        return True

    async def take(self, limit: int) -> BytesLike:
        if not self._pending and not await self.ready():
            return b""
        return self._take_pending(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not self._pending and not await self.ready():
            return 0
        # Copy what has arrived. Only the next call waits for the next chunk.
        filled = 0
        for view in views:
            piece = self._take_pending(len(view))
            view[: len(piece)] = piece
            filled += len(piece)
            if not self._pending:
                break
        return filled

    async def aclose(self) -> None:
        self._pending = _EMPTY
        chunks, self._chunks = self._chunks, None
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()

    async def rewind(self) -> None:
        if self._body is not None and self._pulled_bytes:
            consumed.record(self._body, self._position, to_end=False)

    def _take_pending(self, limit: int) -> memoryview:
        pending = self._pending
        if len(pending) <= limit:
            self._pending = _EMPTY
            return pending
        self._pending = pending[limit:]
        return pending[:limit]

    @property
    def _position(self) -> int | None:
        """The current position of the body, or None if it is not seekable."""
        return None if self._start is None else self._start + self._pulled_bytes

    def _record_end(self) -> None:
        if self._body is None:
            return
        if self._pulled_bytes:
            consumed.record(self._body, self._position, to_end=True)
        else:
            consumed.check(self._body, self._position, empty=True)


class BlockingChunkSource(ChunkSource):
    """A source that reads a user's iterator or file in a thread, because user code may block.

    User code may block forever, so each source uses a separate thread and cannot starve other
    bodies or the library's file calls. A cancel does not wait for the next chunk. A chunk that arrives
    later is dropped.

    Args:
        chunks: The chunks of the body.
        size: The size of the body, if known.
        body: The user's object, if it can be read only once.
    """

    def __init__(
        self, chunks: Iterator[BytesLike], size: int | None = None, *, body: object | None = None
    ) -> None:
        super().__init__(self._from_thread(), size, body=body)
        self._iterator = chunks

    async def _from_thread(self) -> AsyncIterator[BytesLike]:
        limiter = anyio.CapacityLimiter(1)
        while True:
            chunk = await anyio.to_thread.run_sync(
                next, self._iterator, _END, abandon_on_cancel=True, limiter=limiter
            )
            if chunk is _END:
                return
            yield cast("BytesLike", chunk)

    async def aclose(self) -> None:
        await super().aclose()
        if inspect.isgenerator(self._iterator):
            with suppress(ValueError):  # the generator is running in the abandoned thread
                await anyio.to_thread.run_sync(self._iterator.close)


def source_of_async_iterable(body: AsyncIterable[BytesLike]) -> ChunkSource:
    """Return a source that reads an async iterable.

    Raises:
        BodyConsumedError: The body is a generator that has ended or is running, or an
            iterator that a failed put has started to read.
    """
    if inspect.isasyncgen(body):
        _check_generator(ended=body.ag_frame is None, running=body.ag_running)
    chunks = aiter(body)
    return ChunkSource(chunks, body=body if chunks is body else None)


def source_of_iterable(body: Iterable[BytesLike]) -> ChunkSource:
    """Return a source that reads an iterable, in a thread unless it is a list or a tuple.

    Raises:
        BodyConsumedError: As in `source_of_async_iterable`.
    """
    if isinstance(body, (list, tuple)):
        return ChunkSource(_iterate_inline(body))
    if inspect.isgenerator(body):
        _check_generator(ended=body.gi_frame is None, running=body.gi_running)
    chunks = iter(body)
    return BlockingChunkSource(chunks, body=body if chunks is body else None)


def _check_generator(*, ended: bool, running: bool) -> None:
    if ended:
        raise BodyConsumedError(
            "the body must be a new generator, got one that has ended or was closed: call its function again"
        )
    if running:
        raise BodyConsumedError(
            "the body must be a new generator, got one that is running: call its function again"
        )


async def _iterate_inline(chunks: Iterable[BytesLike]) -> AsyncIterator[BytesLike]:
    for chunk in chunks:
        yield chunk
