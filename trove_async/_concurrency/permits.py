"""Fair semaphores for connections and memory. Waiters are served first in, first out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from trove_async.errors import PoolTimeoutError

RECLAIM_SECONDS = 0.1
"""Seconds between two attempts to reclaim unused units while there are waiters."""


class FairSemaphore:
    """A semaphore that counts units and serves its waiters strictly in order.

    A small request waits behind a large one, even if there are enough free units for the small one.
    Otherwise a steady flow of small requests would starve the large one.

    Args:
        free: The number of units.
        reclaim: Takes back units that are not in use. Called when a task begins to wait, and every
            `RECLAIM_SECONDS` while there are waiters.

    Attributes:
        free: The number of free units.
        served_count: The number of waiters that have been served so far.
    """

    __slots__ = ("_reclaim", "_timer", "_waiters", "free", "served_count")

    def __init__(self, free: float, reclaim: Callable[[], None]) -> None:
        self.free = free
        self.served_count = 0
        self._reclaim = reclaim
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return the number of waiters."""
        return len(self._waiters)

    def try_acquire(self, count: int = 1) -> bool:
        """Acquire `count` units if they are free and there are no waiters."""
        if self._waiters or count > self.free:
            return False
        self.free -= count
        return True

    async def acquire(self, count: int, timeout: float) -> bool:
        """Acquire `count` units in turn.

        Return False if that takes longer than `timeout` seconds, or after `dismiss`. After a cancel no units are held.
        """
        if self.try_acquire(count):
            return True
        waiter = self.enqueue(count)
        try:
            await asyncio.wait([waiter], timeout=timeout)
        except BaseException:
            self.abandon(waiter, count)
            raise
        if not waiter.done():
            self.abandon(waiter, count)
            return False
        return not waiter.cancelled()

    def release(self, count: int = 1) -> None:
        """Release `count` units, and serve the next waiters that there are enough units for."""
        self.free += count
        if self._waiters:
            self._serve()

    def enqueue(self, count: int) -> asyncio.Future[None]:
        """Queue a waiter for `count` units. It holds them once the returned future is done.

        Then release the units when they are no longer needed. To stop waiting, call `abandon`.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = count
        # Reclaim only now, because `reclaim` depends on the number of waiters and may serve this one.
        try:
            self._reclaim()
        except BaseException:
            self.abandon(waiter, count)
            raise
        if self._timer is None and self._waiters:
            self._timer = loop.call_later(RECLAIM_SECONDS, self._reclaim_again, loop)
        return waiter

    def dismiss(self) -> None:
        """Remove all waiters from the queue. They get no units, and their `acquire` returns False."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.cancel()

    def abandon(self, waiter: asyncio.Future[None], count: int) -> None:
        """Remove a waiter from the queue, or release its units if it has been served."""
        if self._waiters.pop(waiter, None) is None and not waiter.cancelled():
            self.free += count
        self._serve()  # the next waiters may need fewer units

    def position(self, waiter: asyncio.Future[None]) -> int:
        """Return the position of a waiter in the queue, from 1; 0 if it has been served."""
        return next((n for n, other in enumerate(self._waiters, 1) if other is waiter), 0)

    def _serve(self) -> None:
        while self._waiters:
            waiter, count = next(iter(self._waiters.items()))
            if count > self.free:
                return
            del self._waiters[waiter]
            self.free -= count
            self.served_count += 1
            waiter.set_result(None)

    def _reclaim_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            if self._waiters:
                self._reclaim()
        finally:
            if self._waiters:
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
        self._semaphore.dismiss()

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
