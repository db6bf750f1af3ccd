"""Fair semaphores for connections and memory. Waiters are served first in, first out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Protocol

from trove_async.errors import PoolTimeoutError

RECLAIM_SECONDS = 0.1
"""Seconds between two attempts to reclaim unused units while there are waiters."""


class FairSemaphore:
    """A semaphore that counts units and serves its waiters strictly in order.

    A small request waits behind a large one, even if there are enough free units for the small one.
    Otherwise a steady flow of small requests would starve the large one. There are two queues: the waiters
    that continue their work are served before those that begin it.

    Args:
        free: The number of units.
        reclaim: Takes back units that are not in use. Called when a task begins to wait, and every
            `RECLAIM_SECONDS` while there are waiters.

    Attributes:
        free: The number of free units.
        served_count: The number of waiters that have been served so far.
    """

    __slots__ = ("_continuing", "_reclaim", "_timer", "_waiters", "free", "served_count")

    def __init__(self, free: float, reclaim: Callable[[], None]) -> None:
        self.free = free
        self.served_count = 0
        self._reclaim = reclaim
        self._continuing: dict[asyncio.Future[bool], int] = {}
        self._waiters: dict[asyncio.Future[bool], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return the number of waiters."""
        return len(self._waiters) + len(self._continuing)

    def try_acquire(self, count: int = 1) -> bool:
        """Acquire `count` units if they are free and there are no waiters."""
        if self._waiters or self._continuing or count > self.free:
            return False
        self.free -= count
        return True

    async def acquire(self, count: int, timeout: float) -> bool:
        """Acquire `count` units in turn.

        Return False if that takes longer than `timeout` seconds, or after `dismiss_all`. After a cancel no units are held.
        """
        if self.try_acquire(count):
            return True
        waiter = self.enqueue(count)
        # Not `asyncio.wait`, whose own objects take as much memory as those of all other waiting.
        timer = asyncio.get_running_loop().call_later(timeout, self.dismiss, waiter)
        try:
            return await waiter
        except BaseException:
            self.abandon(waiter, count)
            raise
        finally:
            timer.cancel()

    def release(self, count: int = 1) -> None:
        """Release `count` units, and serve the next waiters that there are enough units for."""
        self.free += count
        if self._waiters or self._continuing:
            self._serve()

    def enqueue(self, count: int, *, continues: bool = False) -> asyncio.Future[bool]:
        """Queue a waiter for `count` units. It holds them once the returned future has the result True.

        Then release the units when they are no longer needed. The result is False if the waiter was
        dismissed. To stop waiting, or after a cancel of the future, call `abandon`.

        Args:
            count: The units.
            continues: Whether the waiter continues work that a limited number of units began. It may do so
                only a limited number of times, or it would starve those that begin.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        (self._continuing if continues else self._waiters)[waiter] = count
        # Reclaim only now, because `reclaim` depends on the number of waiters and may serve this one.
        try:
            self._reclaim()
        except BaseException:
            self.abandon(waiter, count)
            raise
        if self._timer is None and len(self):
            self._timer = loop.call_later(RECLAIM_SECONDS, self._reclaim_again, loop)
        return waiter

    def dismiss(self, waiter: asyncio.Future[bool]) -> None:
        """Let a waiter stop waiting, without units, unless it has been served."""
        if not waiter.done():
            self._remove(waiter)
            waiter.set_result(False)
            self._serve()  # the next waiters may need fewer units

    def dismiss_all(self) -> None:
        """Let all waiters stop waiting, without units."""
        for waiter in self.behind(0):
            self._remove(waiter)
            if not waiter.done():
                waiter.set_result(False)

    def abandon(self, waiter: asyncio.Future[bool], count: int) -> None:
        """Remove a waiter from the queue, or release its units if it has been served."""
        self._remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.result():
            self.free += count
        self._serve()

    def _remove(self, waiter: asyncio.Future[bool]) -> None:
        self._continuing.pop(waiter, None)
        self._waiters.pop(waiter, None)

    def behind(self, count: int) -> Sequence[asyncio.Future[bool]]:
        """Return the waiters in the queue, in order, without the first `count`."""
        return list(islice(chain(self._continuing, self._waiters), count, None))

    def _serve(self) -> None:
        while queue := self._continuing or self._waiters:
            waiter, count = next(iter(queue.items()))
            if waiter.done():  # its task was cancelled, and has not run since
                del queue[waiter]
                continue
            if count > self.free:
                return
            del queue[waiter]
            self.free -= count
            self.served_count += 1
            waiter.set_result(True)

    def _reclaim_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            if len(self):
                self._reclaim()
        finally:
            if len(self):
                self._timer = loop.call_later(RECLAIM_SECONDS, self._reclaim_again, loop)


class Parkable(Protocol):
    """The holder of a permit. It can give up the permit while it is idle."""

    def park(self) -> None:
        """Start to release the permit. The holder must acquire a new one before its next use."""
        ...


PARK_AFTER = 0.1
"""Seconds without a read after which an idle reader may lose its connection to a waiter."""


class Permits:
    """Permits for a limited number of connections, granted in order.

    Args:
        limit: The number of permits; None: no limit.
        purpose: The purpose of a permit, for the message of a timeout.

    Attributes:
        try_acquire: Acquires a permit if one is free and there are no waiters, and returns whether it did.
        release: Releases a permit.
    """

    __slots__ = ("_idle", "_limit", "_purpose", "_semaphore", "release", "try_acquire")

    try_acquire: Callable[[], bool]
    release: Callable[[], None]

    def __init__(self, limit: int | None, purpose: str) -> None:
        self._limit = limit
        self._purpose = purpose
        self._semaphore = FairSemaphore(math.inf if limit is None else limit, self._park_idle)
        self._idle: dict[Parkable, float] = {}
        # Every request calls both, so they are those of the semaphore.
        self.try_acquire = self._semaphore.try_acquire
        self.release = self._semaphore.release

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._semaphore)

    @property
    def free(self) -> float:
        """The number of free permits."""
        return self._semaphore.free

    async def acquire(self, timeout: float) -> None:
        """Acquire a permit. If none is free, park idle holders. After a cancel no permit is held.

        Raises:
            PoolTimeoutError: No permit became free within `timeout` seconds, or `dismiss` was called.
        """
        if not await self._semaphore.acquire(1, timeout):
            raise PoolTimeoutError(
                f"no {self._purpose} became free in {timeout:g} s (the limit is {self._limit}): close"
                " readers, or raise the driver's max_connections or Timeout.permit"
            )

    def dismiss(self) -> None:
        """Let all waiters stop waiting, without a permit."""
        self._semaphore.dismiss_all()

    def mark_idle(self, holder: Parkable) -> None:
        """Record that the holder of a permit is idle and may be parked."""
        if self._limit is not None:
            self._idle[holder] = asyncio.get_running_loop().time()

    def mark_busy(self, holder: Parkable) -> None:
        """Record that the holder is using its permit, or has released it."""
        self._idle.pop(holder, None)

    def _park_idle(self) -> None:
        """Park the holders that have been idle longest, one for each waiter."""
        parkable_since = asyncio.get_running_loop().time() - PARK_AFTER
        for holder, idle_since in list(islice(self._idle.items(), len(self._semaphore))):
            if idle_since > parkable_since:
                return
            del self._idle[holder]
            holder.park()
