"""Connections and memory, handed out in the order in which they are asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from trove_async.errors import PoolTimeoutError

NUDGE_SECONDS = 0.1
"""How often a line in which somebody waits looks for what it can take back."""


class FairSemaphore:
    """Units of something bounded, handed out in the order in which they were asked for.

    Nobody overtakes: whoever wants little waits behind whoever wants much, or would be starved.

    Args:
        free: How many units there are.
        nudge: Called when somebody begins to wait, and again and again while anybody does: takes
            back what is not in use.
    """

    __slots__ = ("_nudge", "_timer", "_waiting", "free", "served")

    def __init__(self, free: float, nudge: Callable[[], None]) -> None:
        self.free = free
        self.served = 0
        self._nudge = nudge
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def try_take(self, count: int) -> bool:
        """Take so many units if they are free and nobody waits."""
        if self._waiting or count > self.free:
            return False
        self.free -= count
        return True

    def join(self, count: int) -> asyncio.Future[None]:
        """Stand in line for so many units: they are the caller's once the future is done.

        The caller then `leave`s the line, or keeps the units.
        """
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting[place] = count
        try:
            self._nudge()
        except BaseException:
            self.leave(place, count)
            raise
        if self._timer is None and self._waiting:
            self._timer = loop.call_later(NUDGE_SECONDS, self._look, loop)
        return place

    def leave(self, place: asyncio.Future[None], count: int) -> None:
        """Go without the units, whether or not they have been handed out."""
        if self._waiting.pop(place, None) is None:
            self.free += count
        self._serve()  # whoever stood behind may want less

    def position(self, place: asyncio.Future[None]) -> int:
        """Return how many are to be served up to and with this place; 0: it was served."""
        return next((n for n, other in enumerate(self._waiting, 1) if other is place), 0)

    async def take(self, count: int, timeout: float) -> bool:
        """Take so many units, in turn; False if that is not within `timeout` seconds.

        Nothing is held after a cancel.
        """
        if self.try_take(count):
            return True
        place = self.join(count)
        try:
            await asyncio.wait([place], timeout=timeout)
        except BaseException:
            self.leave(place, count)
            raise
        if not place.done():
            self.leave(place, count)
            return False
        return True

    def give_back(self, count: int) -> None:
        """Give units back, to whoever is first in line."""
        self.free += count
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            place, count = next(iter(self._waiting.items()))
            if count > self.free:
                return
            del self._waiting[place]
            self.free -= count
            self.served += 1
            place.set_result(None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            if self._waiting:
                self._nudge()
        finally:
            if self._waiting:
                self._timer = loop.call_later(NUDGE_SECONDS, self._look, loop)


class Parkable(Protocol):
    """What holds a permit that can be taken from it while nobody uses it."""

    def park(self) -> None:
        """Begin to give the permit back; take a new one before the next use."""
        ...


PARK_AFTER = 0.1
"""Seconds without a read after which a reader's connection may go to somebody who waits."""


class Permits:
    """A limited number of connections, handed out in the order in which they were asked for.

    Args:
        limit: How many may be out at once; None: any number.
        what: What they are, for the message of a timeout.
    """

    __slots__ = ("_idle", "_limit", "_line", "_what")

    def __init__(self, limit: int | None, what: str) -> None:
        self._limit = limit
        self._what = what
        self._line = FairSemaphore(math.inf if limit is None else limit, self._park_idle)
        self._idle: dict[Parkable, float] = {}

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._line)

    @property
    def free(self) -> float:
        """How many could be taken now."""
        return self._line.free

    def try_acquire(self) -> bool:
        """Take a permit if one is free and nobody waits."""
        return self._line.try_take(1)

    async def acquire(self, timeout: float) -> None:
        """Take a permit, from an idle holder if need be.

        Raises:
            PoolTimeoutError: None became free within `timeout` seconds. None is held after a
                cancel.
        """
        if not await self._line.take(1, timeout):
            raise PoolTimeoutError(
                f"no {self._what} of {self._limit} became free in {timeout:g} s: close readers, or"
                " raise the driver's max_connections or Timeout.permit"
            )

    def release(self) -> None:
        """Give a permit back."""
        self._line.give_back(1)

    def idle(self, holder: Parkable) -> None:
        """Note that the holder of a permit is not using it for now."""
        if self._limit is not None:
            self._idle[holder] = asyncio.get_running_loop().time()

    def busy(self, holder: Parkable) -> None:
        """Note that the holder uses its permit again, or no longer has one."""
        self._idle.pop(holder, None)

    def _park_idle(self) -> None:
        """Take permits from those who have been idle longest, for as many as wait."""
        ripe = asyncio.get_running_loop().time() - PARK_AFTER
        for holder, since in list(islice(self._idle.items(), len(self._line))):
            if since > ripe:
                return
            del self._idle[holder]
            holder.park()
