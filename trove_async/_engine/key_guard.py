"""Keeps the moves of jobs and the writes of users apart, for each key, within one store.

A job that moves an object to another backend copies it, proves the copy, and deletes the source. A put or a
delete of the same key between these steps could be lost or undone: conditional requests cannot order the
requests to two backends. So a write cancels a move of its key, waits until it has rolled back or completed,
and only then starts. A move does not start while there is a write to its key.

A cancelled move takes a few requests to roll back or complete. If they hang, the write waits for at most
`CLEANUP_SECONDS` for the copy of a small object and `relocation._FINISH_SECONDS` for what follows, and at most
until its own deadline (`Timeout.total`).

Other processes are not covered. See `relocation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import TypeAlias, TypeVar

from trove_async._concurrency.cancellation import OwnCancel

T = TypeVar("T")

ObjectName: TypeAlias = tuple[str, str]
"""A bucket and a key."""


class MoveInterruptedError(Exception):
    """A write to the key has interrupted its move, or is in progress."""


class _Move(OwnCancel):
    """A move in progress."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()


class _Writing:
    """The block of a write. A class costs a fifth of a generator, and every put enters one."""

    __slots__ = ("_guard", "_names")

    def __init__(self, guard: KeyGuard, names: tuple[ObjectName, ...]) -> None:
        self._guard = guard
        self._names = names

    async def __aenter__(self) -> None:
        await self._guard.interrupt(self._names)
        for name in self._names:
            self._guard.begin(name)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in self._names:
            self._guard.end(name)


class KeyGuard:
    """The writes and moves in progress. All methods must be called on the same event loop.

    Attributes:
        moves: The moves in progress.
    """

    __slots__ = ("_writes", "moves")

    def __init__(self) -> None:
        self._writes: dict[ObjectName, int] = {}
        self.moves: dict[ObjectName, _Move] = {}

    def begin(self, name: ObjectName) -> None:
        """Begin a write of a key, so that no move of it starts. If there are `moves`, `interrupt` first."""
        self._writes[name] = self._writes.get(name, 0) + 1

    def end(self, name: ObjectName) -> None:
        """End a write that has begun."""
        count = self._writes.pop(name)
        if count > 1:
            self._writes[name] = count - 1

    def writing(self, names: Iterable[ObjectName]) -> AbstractAsyncContextManager[None]:
        """Cancel and await the moves of these keys, and let none start until the block ends."""
        return _Writing(self, tuple(names))

    async def interrupt(self, names: Collection[ObjectName]) -> None:
        """Cancel and await the moves of these keys."""
        while moves := [self.moves[name] for name in names if name in self.moves]:
            for move in moves:
                move.request()
            for move in moves:
                await move.ended.wait()

    async def write(self, names: Iterable[ObjectName], work: Callable[[], Awaitable[T]]) -> T:
        """Do a write of these keys as in `writing`.

        Call it within the deadline of the operation, so that this includes the wait for a move.
        """
        async with self.writing(names):
            return await work()

    @contextmanager
    def moving(self, name: ObjectName) -> Iterator[None]:
        """Let writes to a key cancel the block, which must roll back before it ends.

        Raises:
            MoveInterruptedError: A write to the key is in progress, or has cancelled the block. Another
                move of the key counts as a write.
        """
        if name in self._writes or name in self.moves:
            raise MoveInterruptedError
        move = self.moves[name] = _Move()
        try:
            yield
        except asyncio.CancelledError:
            if move.revoke():
                raise MoveInterruptedError from None
            raise
        except BaseException:
            move.revoke()
            raise
        else:
            move.revoke()  # the block completed although it was cancelled
        finally:
            del self.moves[name]
            move.ended.set()
