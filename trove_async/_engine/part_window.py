"""How many parts of one upload are sent at once: more over a link that limits each connection.

::

    first parts ── they are slow ──> one more for each ── enough parts were sent ──> settled

An upload starts with `FIRST_PARTS` parts at once. That is enough if the network is fast: then the
processor is the limit. If a part is slow, the reason may be the latency or a limit of each connection, and
more parts at once help. Or all connections share a link that is full, and they do not help, but hold more
memory. So each slow part that has been sent adds another one, as in the slow start of TCP, up to the
maximum. Once enough parts were sent at the higher level, their throughput is compared with that of the first
ones. Unless it is higher, the upload goes back to where it started.

The parts of a body that is in memory already hold no memory of the pool, so as many as the driver allows are sent
at once from the start.
"""

from __future__ import annotations

import asyncio
from typing import Final

from trove_async.driver import Capabilities
from trove_async.models import MiB
from trove_async.pool import BufferPool

FIRST_PARTS: Final = 8
"""Parts sent at once at the start, or half of the driver's maximum if that is more."""

_FAST_RATE: Final = 64 * MiB
"""Bytes per second of a part from which it is not slow: eight such parts occupy a core."""

_CLEARLY_MORE: Final = 1.25
"""Parts at once, relative to the start, from which their throughput is compared."""

_MIN_GAIN: Final = 1.1
"""Throughput with more parts at once, relative to that at the start, below which they are not worth their
memory."""

_SHARE: Final = 4
"""The additional parts leave ``1 / _SHARE`` of the pool free, and use at most ``1 / _SHARE`` of the
connections, so that other transfers do not wait for them."""


class PartWindow:
    """Limits the parts of one upload that are in flight. One task starts them.

    Args:
        capabilities: The backend's limits.
        pool: The memory for parts. There are no additional parts while it is nearly full.
        in_memory: Whether the whole body is in memory, so that its parts need no memory of the pool.

    Attributes:
        limit: The number of parts to send at once while the pool has room.
        in_flight: The number of parts in flight.
    """

    def __init__(
        self, capabilities: Capabilities, pool: BufferPool, *, in_memory: bool = False
    ) -> None:
        maximum = capabilities.parallel_parts
        self._pool = pool
        first = min(max(FIRST_PARTS, maximum // 2), maximum)
        if capabilities.max_writes is not None:
            maximum = min(maximum, capabilities.max_writes // _SHARE)
        self._maximum = max(maximum, first)
        self._first = self.limit = self._maximum if in_memory else first
        self.in_flight = 0
        self._sent = asyncio.Event()
        self._settled = False
        self._first_throughput = _Mean()
        self._more_throughput = _Mean()

    async def start(self) -> int:
        """Wait until another part may be sent; return the number of parts that are then in flight."""
        while self.in_flight >= self._limit_now():
            self._sent.clear()
            await self._sent.wait()
        self.in_flight += 1
        return self.in_flight

    def sent(self, size: int, seconds: float, in_flight: int) -> None:
        """Record that a part was sent, and adapt the limit.

        Args:
            size: The size of the part.
            seconds: The time that it took.
            in_flight: The result of `start`.
        """
        self.in_flight -= 1
        self._sent.set()
        if not self._settled and self._first < self._maximum:
            self._adapt(size / max(seconds, 1e-6), in_flight)

    def _limit_now(self) -> int:
        if self.limit == self._first or self.in_flight < self._first:
            return self.limit
        statistics = self._pool.statistics()
        spare = statistics.max_bytes - statistics.leased
        has_room = not statistics.waiting and spare * _SHARE >= statistics.max_bytes
        return self.limit if has_room else self._first

    def _adapt(self, rate: float, in_flight: int) -> None:
        # 1. Estimate the throughput at the start, and with clearly more parts at once.
        if in_flight <= self._first:
            self._first_throughput.add(rate * self._first)
        elif in_flight >= self._first * _CLEARLY_MORE:
            self._more_throughput.add(rate * in_flight)
        # 2. Send one more part at once for each slow one.
        if rate < _FAST_RATE and self.limit < self._maximum:
            self.limit += 1
        # 3. Compare them once enough parts have been sent. One of them was the first part of the upload.
        if self._more_throughput.count >= self._first:
            self._settled = True
            if self._more_throughput.value < self._first_throughput.value * _MIN_GAIN:
                self.limit = self._first


class _Mean:
    """The mean of numbers that are added one by one."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.count = 0
        self.value = 0.0

    def add(self, number: float) -> None:
        self.count += 1
        self.value += (number - self.value) / self.count
