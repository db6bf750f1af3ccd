"""Coordinates moves of an object between backends with the searches for it, within one store.

A move stores an object on one backend before it deletes it on another one. A search asks one backend after
another. So a search may ask each backend at a time at which it does not have the object, and a deletion may
delete the object before the move stores it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

from .key_guard import ObjectName

T = TypeVar("T")


class Watch:
    """The block of a search for one object. A class costs less than a generator, and every get enters one.

    Attributes:
        moved: Whether the object was moved to a different backend since this was set to False.
    """

    __slots__ = ("_name", "_watches", "moved")

    def __init__(self, watches: dict[ObjectName, list[Watch]], name: ObjectName) -> None:
        self._watches = watches
        self._name = name
        self.moved = False

    def __enter__(self) -> Self:
        self._watches.setdefault(self._name, []).append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        watches = self._watches[self._name]
        watches.remove(self)
        if not watches:
            del self._watches[self._name]


class Placement:
    """The moves, deletions and searches of one store. Other processes are not coordinated."""

    def __init__(self) -> None:
        self._held: dict[ObjectName, asyncio.Event] = {}
        self._watches: dict[ObjectName, list[Watch]] = {}

    @asynccontextmanager
    async def hold(self, bucket: str, keys: Collection[str]) -> AsyncIterator[None]:
        """Exclude other holders of these keys.

        All keys are taken at once, so that two holders never wait for each other.
        """
        names = [(bucket, key) for key in keys]
        while (busy := next((name for name in names if name in self._held), None)) is not None:
            await self._held[busy].wait()
        released = asyncio.Event()
        self._held.update(dict.fromkeys(names, released))
        try:
            yield
        finally:
            for name in names:
                self._held.pop(name, None)  # a key may have been passed twice
            released.set()

    def exclusive(
        self, bucket: str, key: str, work: Callable[[], Awaitable[T]]
    ) -> Callable[[], Awaitable[T]]:
        """Return a function that does the work while no other holder has the key."""

        async def run() -> T:
            async with self.hold(bucket, (key,)):
                return await work()

        return run

    def watch(self, bucket: str, key: str) -> Watch:
        """Return a block that watches the moves of an object."""
        return Watch(self._watches, (bucket, key))

    def moved(self, bucket: str, key: str) -> None:
        """Report that the object was deleted on one backend after it was stored on another one."""
        for watch in self._watches.get((bucket, key), ()):
            watch.moved = True
