"""Bodies that come in chunks: async iterables, and iterables that run in a thread."""

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
_NOTHING = memoryview(b"")


class Chunks:
    """An async iterable of chunks of any size.

    Args:
        chunks: The body.
        size: All its bytes, where known.
        body: What its user gave, if that can be read only once.

    Raises:
        BodyConsumedError: An earlier put that failed has read some of it.
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
        self._pulled = 0
        self._home: int | None = None  # where a body that can be sought in was found
        self._chunks: AsyncIterator[BytesLike] | None = aiter(chunks)
        # What was not taken yet of the last chunk. Let go of as soon as it is empty: a view of a
        # bytearray keeps its owner from resizing it.
        self._pending = _NOTHING

    async def ready(self) -> bool:
        while not self._pending:
            if self._chunks is None:
                return False
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._chunks = None
                self._note_end()
                return False
            self._pending = view_of_chunk(chunk)
            self._pulled += len(self._pending)
        return True

    async def take(self, limit: int) -> BytesLike:
        if not self._pending and not await self.ready():
            return b""
        return self._next(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not self._pending and not await self.ready():
            return 0
        # What has arrived goes in; the next chunk is waited for only by the next call.
        filled = 0
        for view in views:
            piece = self._next(len(view))
            view[: len(piece)] = piece
            filled += len(piece)
            if not self._pending:
                break
        return filled

    async def aclose(self) -> None:
        self._pending = _NOTHING
        chunks, self._chunks = self._chunks, None
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()

    async def undo(self) -> None:
        if self._body is not None and self._pulled:
            consumed.note(self._body, self._position, whole=False)

    def _next(self, limit: int) -> memoryview:
        pending = self._pending
        if len(pending) <= limit:
            self._pending = _NOTHING
            return pending
        self._pending = pending[limit:]
        return pending[:limit]

    @property
    def _position(self) -> int | None:
        """Where the body stands by now, if it has a position."""
        return None if self._home is None else self._home + self._pulled

    def _note_end(self) -> None:
        if self._body is None:
            return
        if self._pulled:
            consumed.note(self._body, self._position, whole=True)
        else:
            consumed.check(self._body, self._position, empty=True)


class Blocking(Chunks):
    """An iterator or a file of a user's: it may read, wait or compute, so it runs in a thread.

    It may also block for ever. So it has a thread of its own, that of others' bodies or of our own
    file calls is never the one it blocks, and a cancel does not wait for it: what it returns then
    is dropped.

    Args:
        chunks: The body.
        size: All its bytes, where known.
        body: What its user gave, if that can be read only once.
    """

    def __init__(
        self, chunks: Iterator[BytesLike], size: int | None = None, *, body: object | None = None
    ) -> None:
        super().__init__(self._from_thread(), size, body=body)
        self._iterator = chunks

    async def _from_thread(self) -> AsyncIterator[BytesLike]:
        own = anyio.CapacityLimiter(1)
        while True:
            chunk = await anyio.to_thread.run_sync(
                next, self._iterator, _END, abandon_on_cancel=True, limiter=own
            )
            if chunk is _END:
                return
            yield cast("BytesLike", chunk)

    async def aclose(self) -> None:
        await super().aclose()
        if inspect.isgenerator(self._iterator):
            with suppress(ValueError):  # it still runs, in the thread that was left to itself
                await anyio.to_thread.run_sync(self._iterator.close)


def of_async_iterable(body: AsyncIterable[BytesLike]) -> Chunks:
    """Make a source of an async iterable.

    Raises:
        BodyConsumedError: It is a generator that has ended, or is being iterated, or an iterator
            that a failed put has begun.
    """
    if inspect.isasyncgen(body):
        _check_generator(ended=body.ag_frame is None, running=body.ag_running)
    chunks = aiter(body)
    return Chunks(chunks, body=body if chunks is body else None)


def of_iterable(body: Iterable[BytesLike]) -> Chunks:
    """Make a source of an iterable, whose code runs in a thread.

    Raises:
        BodyConsumedError: As `of_async_iterable`.
    """
    if isinstance(body, (list, tuple)):
        return Chunks(_inline(body))
    if inspect.isgenerator(body):
        _check_generator(ended=body.gi_frame is None, running=body.gi_running)
    chunks = iter(body)
    return Blocking(chunks, body=body if chunks is body else None)


def _check_generator(*, ended: bool, running: bool) -> None:
    if ended:
        raise BodyConsumedError("this generator has ended, or was closed: call its function again")
    if running:
        raise BodyConsumedError("this generator is being iterated already: call its function again")


async def _inline(chunks: Iterable[BytesLike]) -> AsyncIterator[BytesLike]:
    for chunk in chunks:
        yield chunk
