"""Read-ahead: fetches the next pieces of a body over several connections if one is too slow.

A piece is a range of the pinned version of the object. It is fetched into leased memory. A piece is
started only with unused resources: a permit that no task waits for, and memory from a limited share
of the pool. Pieces are read in order. If a transfer waits for memory, a fetched piece that no read waits
for is revoked, and so are the pieces after it.
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

MAX_PIECE = 4 * MiB
"""Size of a piece in a pool of 16 MiB or more; less in smaller pools. At 40 MB/s and a latency of 20 ms,
receiving a piece takes five times as long as requesting it."""

SLOW_SECONDS_PER_BYTE = 1 / (256 * MiB)
"""Waiting time per byte above which several connections are faster than one. One core receives at
about 256 MiB/s. Time in which this thread ran other work does not count as waiting. Otherwise every
connection would look slow in a busy process, and more connections would make the process busier."""

TRIAL_BYTES = 4 * MiB
"""Bytes to receive over a connection before its speed is evaluated. Most connections start slowly."""

POOL_SHARE = 4
"""Read-ahead uses at most ``1 / POOL_SHARE`` of the pool: eight pieces in the default pool."""


class Fetch(Protocol):
    """Fills memory with a range of a body, then releases the read permit that the caller has acquired."""

    def __call__(
        self, start: int, end: int, views: Sequence[memoryview], /
    ) -> Coroutine[object, object, None]: ...


class ReadAhead:
    """The pieces of one body that are being fetched, or wait to be read.

    Args:
        calls: The calls of the driver, whose permits and memory are used.
        fetch: Fetches a piece.
        position: The position of the reader. The first piece begins one piece size later. The
            reader's own connection reads up to there.
        end: The end of the range to read.

    Attributes:
        closed: Whether `aclose` was called.
    """

    __slots__ = ("_calls", "_end", "_fetch", "_piece_size", "_pieces", "closed")

    def __init__(self, calls: Calls, fetch: Fetch, position: int, end: int) -> None:
        self._calls = calls
        self._fetch = fetch
        self._piece_size = max(min(MAX_PIECE, calls.pool.max_bytes // 4 // SLOT * SLOT), SLOT)
        self._end = end
        self._pieces: deque[_Piece] = deque()
        self.closed = False
        self._start_from(min(position + self._piece_size, end))

    @property
    def position(self) -> int | None:
        """The position of the next byte to read; None: there are no pieces."""
        return self._pieces[0].position if self._pieces else None

    def start_more(self) -> None:
        """Start more pieces after the existing ones, up to the number that the driver allows."""
        if self._pieces:
            self._start_from(self._pieces[-1].end)

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes at `position`, or raise the error of fetching them."""
        piece = self._pieces[0]
        piece.claimed = True
        try:
            await piece.task.result()
        finally:
            piece.claimed = False
        if piece.released:  # `aclose` was called after the task ended and before this read resumed
            raise ClosedError("the reader or its store was closed while the body was being read")
        data = piece.read(size)
        if piece.position == piece.end:
            self._pieces.popleft()
            piece.release()
        return data

    async def aclose(self) -> None:
        """Stop fetching and release all memory."""
        self.closed = True
        pieces, self._pieces = self._pieces, deque()
        await _close(pieces)

    def _start_from(self, start: int) -> None:
        calls = self._calls
        while start < self._end and len(self._pieces) < calls.capabilities.parallel_reads:
            if calls.tasks.closed or calls.breaker.tripped:
                return
            if not calls.read_permits.try_acquire():
                return
            piece = _Piece(start, min(start + self._piece_size, self._end))
            lease = calls.pool.try_lease(
                piece.end - start, revoke=partial(self._revoke, piece), share=POOL_SHARE
            )
            if lease is None:
                calls.read_permits.release()
                return
            piece.lease = lease
            piece.task = calls.tasks.start(self._fetch(start, piece.end, lease.views))
            self._pieces.append(piece)
            start = piece.end

    def _revoke(self, piece: _Piece) -> bool:
        """Give up a piece, and the pieces after it, because a transfer waits for memory."""
        if piece.claimed or not piece.task.done or piece not in self._pieces:
            return False  # a piece that is being fetched or read: the pool calls again soon
        index = self._pieces.index(piece)
        revoked = [self._pieces.pop() for _ in range(len(self._pieces) - index)]
        for later in revoked:
            if later.task.done:
                later.release()
            elif not self._calls.tasks.closed:
                self._calls.tasks.start(_close([later]))
        return True


class _Piece:
    """A range of a body. It is in leased memory once its task is done.

    Attributes:
        position: The position of the next byte to read.
        end: The end of the range.
        claimed: Whether a read waits for this piece, so that it must not be revoked.
        released: Whether the memory was released.
    """

    __slots__ = ("_start", "claimed", "end", "lease", "position", "released", "task")

    lease: Lease
    task: OwnedTask[None]

    def __init__(self, start: int, end: int) -> None:
        self._start = self.position = start
        self.end = end
        self.claimed = self.released = False

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size` and from one slot only."""
        slot, offset = divmod(self.position - self._start, SLOT)
        size = min(size, SLOT - offset, self.end - self.position)
        self.position += size
        return bytes(self.lease.views[slot][offset : offset + size])

    def release(self) -> None:
        """Release the memory. The task must be done."""
        self.released = True
        self.lease.release()


async def _close(pieces: Sequence[_Piece] | deque[_Piece]) -> None:
    """Stop all pieces, even if cancelled: this function holds the only reference to them."""
    cancelled: asyncio.CancelledError | None = None
    for piece in pieces:
        try:
            await piece.task.aclose()
        except asyncio.CancelledError as error:  # raised once the task has ended
            cancelled = error
        piece.release()
    if cancelled is not None:
        raise cancelled
