"""Reading ahead: a stream that its one connection is too slow for is fetched over several at once.

Each piece is a range of the version that the body pinned, on its way into leased memory. Pieces are
begun only with what is free: a permit that nobody waits for, and memory of a part of the pool. They
are handed out in order, and what nobody comes for is given up as soon as somebody waits for its
memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Protocol

from trove_async._concurrency import OwnedTask
from trove_async.errors import ClosedError
from trove_async.models import MiB
from trove_async.pool import SLOT, Lease

from .calls import Calls

PIECE = 4 * MiB
"""Bytes of a piece, where the pool is no smaller than 16 MiB: at 40 MB/s and 20 ms it takes five
times as long to arrive as to be asked for."""

SLOW = 1 / (256 * MiB)
"""Seconds of waiting for a byte above which several connections are better than one. What one core
can take in is that fast; the time in which this thread worked for others is none of waiting, or every
connection would look slow to a busy service, and more of them would make it busier."""

TRIAL = 4 * MiB
"""Bytes that a connection is given to show how fast it is: most begin slowly."""

SHARE = 4
"""Of how many parts of the pool one is for this: what the default one has is eight pieces."""


class Fetch(Protocol):
    """Fills memory with a range of a body, over a connection whose permit was taken already."""

    def __call__(
        self, start: int, end: int, views: Sequence[memoryview], /
    ) -> Coroutine[object, object, None]: ...


class Ahead:
    """The pieces of one body that are under way, or wait to be taken.

    Args:
        calls: Whose permits and memory are used.
        fetch: Fetches a piece.
        front: Where the first one begins: up to there somebody else reads.
        end: Where the body ends.
    """

    __slots__ = ("_calls", "_end", "_fetch", "_pieces", "_size", "closed")

    def __init__(self, calls: Calls, fetch: Fetch, front: int, end: int) -> None:
        self._calls = calls
        self._fetch = fetch
        self._size = max(min(PIECE, calls.pool.max_bytes // 4 // SLOT * SLOT), SLOT)
        self._end = end
        self._pieces: deque[_Piece] = deque()
        self.closed = False
        self._start_at(min(front + self._size, end))

    @property
    def front(self) -> int | None:
        """Where what there is begins; None: there is nothing."""
        return self._pieces[0].position if self._pieces else None

    def go_on(self) -> None:
        """Begin as many pieces as there may be at once, behind those that there are."""
        if self._pieces:
            self._start_at(self._pieces[-1].end)

    async def take(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes at `front`, or raise what fetching them raised."""
        piece = self._pieces[0]
        piece.claimed = True
        try:
            await piece.task.result()
        finally:
            piece.claimed = False
        if piece.dropped:  # between its being filled and our being told
            raise ClosedError("closed while it was being used")
        data = piece.take(size)
        if piece.position == piece.end:
            self._pieces.popleft()
            piece.drop()
        return data

    async def aclose(self) -> None:
        """Stop what is under way, and give all memory back."""
        self.closed = True
        pieces, self._pieces = self._pieces, deque()
        await _close(pieces)

    def _start_at(self, start: int) -> None:
        calls = self._calls
        while start < self._end and len(self._pieces) < calls.capabilities.parallel_reads:
            if calls.tasks.closed or not calls.reads.try_acquire():
                return
            piece = _Piece(start, min(start + self._size, self._end))
            lease = calls.pool.try_lease(
                piece.end - start, revoke=partial(self._revoke, piece), share=SHARE
            )
            if lease is None:
                calls.reads.release()
                return
            piece.lease = lease
            piece.task = calls.tasks.start(self._fetch(start, piece.end, lease.views))
            self._pieces.append(piece)
            start = piece.end

    def _revoke(self, piece: _Piece) -> bool:
        """Give a piece up to somebody who waits, and those behind it, which are no use without."""
        if piece.claimed or not piece.task.done or piece not in self._pieces:
            return False  # it is being filled, or read: in a moment
        at = self._pieces.index(piece)
        given_up = [self._pieces.pop() for _ in range(len(self._pieces) - at)]
        for one in given_up:
            if one.task.done:
                one.drop()
            elif not self._calls.tasks.closed:
                self._calls.tasks.start(_close([one]))
        return True


class _Piece:
    """A range of a body in leased memory, once its task is done.

    Attributes:
        position: The first byte that was not taken yet.
        end: Where it ends.
        claimed: A read is under way that wants what is in it: it is not to be revoked.
        dropped: Its memory was given back.
    """

    __slots__ = ("_start", "claimed", "dropped", "end", "lease", "position", "task")

    lease: Lease
    task: OwnedTask[None]

    def __init__(self, start: int, end: int) -> None:
        self._start = self.position = start
        self.end = end
        self.claimed = self.dropped = False

    def take(self, size: int) -> bytes:
        """Return the next bytes, of one slot at the most."""
        slot, at = divmod(self.position - self._start, SLOT)
        size = min(size, SLOT - at, self.end - self.position)
        self.position += size
        return bytes(self.lease.views[slot][at : at + size])

    def drop(self) -> None:
        """Give the memory back: nobody is filling it."""
        self.dropped = True
        self.lease.release()


async def _close(pieces: Sequence[_Piece] | deque[_Piece]) -> None:
    """Stop the pieces, all of them whatever cancels come meanwhile: nobody else knows them."""
    cancelled: asyncio.CancelledError | None = None
    for piece in pieces:
        try:
            await piece.task.aclose()
        except asyncio.CancelledError as error:  # raised once the task has ended
            cancelled = error
        piece.drop()
    if cancelled is not None:
        raise cancelled
