"""Coordinates moves of an object between backends with the searches for it, within one store.

A move stores an object on one backend before it deletes it on another one. A search asks one backend after
another. So a search may ask each backend at a time at which it does not have the object, and a deletion may
delete the object before the move stores it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

T = TypeVar("T")


class Watch:
    """A search for one object.

    Attributes:
        moved: Whether the object was moved to a different backend since this was set to False.
    """

    __slots__ = ("moved",)

    def __init__(self) -> None:
        self.moved = False


class Placement:
    """The moves, deletions and searches of one store. Other processes are not coordinated."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], asyncio.Event] = {}
        self._watches: dict[tuple[str, str], list[Watch]] = {}

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

    @contextmanager
    def watch(self, bucket: str, key: str) -> Iterator[Watch]:
        """Watch the moves of an object."""
        watch = Watch()
        watches = self._watches.setdefault((bucket, key), [])
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches:
                del self._watches[bucket, key]

    def moved(self, bucket: str, key: str) -> None:
        """Report that the object was deleted on one backend after it was stored on another one."""
        for watch in self._watches.get((bucket, key), ()):
            watch.moved = True
