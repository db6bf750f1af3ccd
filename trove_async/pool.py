"""The memory of a store: one arena of slots, which every body that is held back must fit in.

The rules, which together keep any number of transfers going in any number of slots (a model of them
was run on random schedules; without any one of them it deadlocks):

* A lease is taken all at once, while its taker holds no other that it must fill first.
* Takers are served in the order in which they came; nobody overtakes.
* Whoever would fill the memory from a user's source, and has waited for `BufferPool.spill_after`
  seconds in a line that hardly moves, gets a file instead (`SpillFile`), because what holds the
  memory may be waiting for such a source.
* Read-ahead uses `try_lease`: it gets what is free while nobody waits, or nothing, and a lease that
  nobody came for is revoked as soon as somebody does wait.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self, cast

from ._concurrency import FairSemaphore, in_thread
from ._views import BytesLike
from .errors import ClosedError, ConfigError, PoolTimeoutError
from .models import GiB, KiB, MiB

SLOT = 1 * MiB
"""Bytes of a slot: receiving in smaller pieces costs up to five times the CPU, in larger ones as
much (measured from 64 KiB to 8 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool at one moment. All are bytes, except `waiting`.

    Attributes:
        max_bytes: What the pool may hold.
        leased: What is leased now.
        peak: The most that was ever leased at once.
        waiting: How many takers wait.
        spilled: What lies in spill files now.
        spilled_total: All that was ever written to spill files.
    """

    max_bytes: int
    leased: int
    peak: int
    waiting: int
    spilled: int
    spilled_total: int


REVOKE_AFTER = 0.1
"""Seconds after which read-ahead that nobody came for goes to somebody who waits."""


_NEAR = 40
"""How many looks a moving line may take, at its pace, before a file is the better place: 10 s."""


_LOOKS = 2
"""How many looks in turn must find the line still before it is left."""


class Lease:
    """Slots on loan. It has one owner, is moved by being passed on, and is released once.

    ``with`` releases it; so does `release`, which is idempotent. Its views must not be used after.
    """

    __slots__ = ("_pool", "_slots")

    def __init__(self, pool: BufferPool, slots: list[int]) -> None:
        self._pool = pool
        self._slots = slots

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self._slots) * SLOT

    @property
    def views(self) -> Sequence[memoryview]:
        """Its slots as writable memory, page-aligned, `SLOT` bytes each."""
        return [self._pool._slot(number) for number in self._slots]  # noqa: SLF001 - its own room

    def shrink(self, size: int) -> None:
        """Give back the slots that `size` bytes do not need."""
        keep = _slots_for(size)
        spare, self._slots = self._slots[keep:], self._slots[:keep]
        if spare:
            self._pool._take_back(None, spare)  # noqa: SLF001 - its own room

    def release(self) -> None:
        """Give the slots back."""
        slots, self._slots = self._slots, []
        if slots:
            self._pool._take_back(self, slots)  # noqa: SLF001 - its own room

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class BufferPool:
    """A bounded number of bytes that all transfers of a store share.

    The arena is private anonymous memory, made at the first lease and reused for ever: what a pool
    never leased at once is never resident. A pool may be shared by stores of one event loop.

    Args:
        max_bytes: What all bodies together may hold, a multiple of 1 MiB; at least 2 MiB.
        part_size: Bytes of a part of an upload, a multiple of 1 MiB; at most half of `max_bytes`.
        spill_after: Seconds that a put waits for memory before it fills its part in a file, unless
            its turn is near.
        spill_dir: Where those files are; None: the system's directory for temporary files. They
            have no name, so nothing is left behind by a kill.
        spill_max_bytes: What they may hold together; 0: no spilling.
        deadline: Seconds after which whoever can neither get memory nor spill gives up.

    Raises:
        ConfigError: The sizes do not fit together. Or, when a store opens: `spill_dir` is no directory
            that may be written to.
        TypeError: One is no number.
    """

    def __init__(
        self,
        max_bytes: int = 128 * MiB,
        part_size: int | None = None,
        *,
        spill_after: float = 0.5,
        spill_dir: str | os.PathLike[str] | None = None,
        spill_max_bytes: int = 4 * GiB,
        deadline: float = 60.0,
    ) -> None:
        for name, size in (
            ("max_bytes", max_bytes),
            ("part_size", SLOT if part_size is None else part_size),
            ("spill_max_bytes", spill_max_bytes),
        ):
            if not isinstance(size, int):
                raise TypeError(f"{name} is an int, of bytes, not {type(size).__name__}")
        for name, seconds in (("spill_after", spill_after), ("deadline", deadline)):
            if not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
        if min(spill_after, spill_max_bytes, deadline) < 0:
            raise ConfigError("spill_after, spill_max_bytes and deadline are not negative")
        if max_bytes < 2 * SLOT or max_bytes % SLOT:
            raise ConfigError(
                f"max_bytes is a multiple of 1 MiB and at least 2 MiB, not {max_bytes}"
            )
        if part_size is None:
            part_size = min(8 * MiB, max_bytes // 2 // SLOT * SLOT)
        if part_size < SLOT or part_size % SLOT or part_size > max_bytes // 2:
            raise ConfigError(
                f"part_size is a multiple of 1 MiB and at most half of max_bytes, not {part_size}"
            )
        self.max_bytes = max_bytes
        self.part_size = part_size
        self.spill_after = spill_after
        self.spill_dir = spill_dir
        self.spill_max_bytes = spill_max_bytes
        self.deadline = deadline
        self._arena: memoryview | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        # Last in, first out: slots that were used lately are resident and warm.
        self._free = list(range(max_bytes // SLOT - 1, -1, -1))
        self._line = FairSemaphore(len(self._free), self._revoke)
        self._revocable: dict[Lease, tuple[float, Callable[[], bool]]] = {}
        self._spare = 0  # slots of revocable leases
        self._peak = 0
        self._spilled = 0
        self._spilled_total = 0

    def __repr__(self) -> str:
        if not hasattr(self, "_spilled_total"):
            return "<BufferPool, never made>"  # its constructor raised
        return f"BufferPool(max_bytes={self.max_bytes}, part_size={self.part_size})"

    async def check_spill_dir(self) -> None:
        """Check where files would be made, long before memory is short and the first one is.

        Raises:
            ConfigError: It is no directory that may be written to.
        """
        path = self.spill_dir
        if path is None or not self.spill_max_bytes:
            return
        usable = await in_thread(lambda: os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK))  # noqa: PTH112
        if not usable:
            raise ConfigError(
                f"spill_dir {os.fspath(path)!r} must be a directory that may be written to"
            )

    async def lease(self, size: int, timeout: float | None = None) -> Lease:
        """Take enough slots for `size` bytes, all at once, waiting in line for them.

        The caller holds no lease that it has yet to fill. Nothing is held after a cancel.

        Args:
            size: Bytes wanted, from 1 up to `part_size`.
            timeout: Seconds to wait; None: `deadline`.

        Raises:
            PoolTimeoutError: The memory did not become free in time.
            ClosedError: Called from another event loop or process than before.
        """
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        seconds = self.deadline if timeout is None else timeout
        count = _slots_for(size)
        if not await self._line.take(count, seconds):
            raise self._timed_out(size, seconds)
        return Lease(self, self._take(count))

    async def lease_or_spill(self, size: int) -> Lease | SpillFile:
        """Take memory for `size` bytes, or else room in a file, to be filled from a user's source.

        A line that stands still is left for a file after `spill_after` seconds: what holds the
        memory may be waiting for a slow source. One that moves fast enough for our turn to come
        within `_NEAR` looks is not: a thousand files at once are slower than memory.

        Raises:
            PoolTimeoutError: There was neither within `deadline` seconds.
            ClosedError: Called from another event loop or process than before.
        """
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.deadline
        count = _slots_for(size)
        place = self._line.join(count)
        still = 0
        try:
            while not place.done():
                if clock() >= deadline:
                    raise self._timed_out(size, self.deadline)  # noqa: TRY301 - leaves the line
                served = self._line.served
                # Looked at twice: a loop that was busy elsewhere had no time to move the line.
                patience = max(self.spill_after / _LOOKS, 0.005)
                await asyncio.wait([place], timeout=min(patience, deadline - clock()))
                served = self._line.served - served
                still = 0 if served * _NEAR >= self._line.position(place) else still + 1
                if still < _LOOKS:
                    continue
                spill = self.try_spill(size)
                if spill is not None:
                    self._line.leave(place, count)
                    return spill
        except BaseException:
            self._line.leave(place, count)
            raise
        return Lease(self, self._take(count))

    def try_lease(
        self, size: int, revoke: Callable[[], bool] | None = None, *, share: int = 2
    ) -> Lease | None:
        """Take enough slots for `size` bytes if they are free and nobody waits, else None.

        Args:
            size: Bytes wanted.
            revoke: Called when somebody waits and the lease is `REVOKE_AFTER` seconds old: it
                releases the lease and returns True, or returns False to be asked again.
            share: Leases that may be revoked, which nobody needs, take half of the pool at the most
                together; this one is refused beyond one part in so many of it already.
        """
        self._check_home()
        count = _slots_for(size)
        if count * SLOT > self.max_bytes:
            raise ConfigError(f"{size} bytes never fit a pool of {self.max_bytes}")
        if revoke is not None and (self._spare + count) * SLOT > max(self.max_bytes // share, SLOT):
            return None
        if not self._line.try_take(count):
            return None
        lease = Lease(self, self._take(count))
        if revoke is not None:
            self._spare += count
            self._revocable[lease] = (asyncio.get_running_loop().time(), revoke)
        return lease

    def can_spill(self, size: int) -> bool:
        """Tell whether spill files may hold `size` bytes more."""
        return self._spilled + size <= self.spill_max_bytes

    def try_spill(self, size: int) -> SpillFile | None:
        """Reserve room for up to `size` bytes in a file instead of memory; None if too much."""
        return SpillFile(self, size) if self.can_spill(size) else None

    def statistics(self) -> PoolStatistics:
        """Return the figures of this moment."""
        return PoolStatistics(
            max_bytes=self.max_bytes,
            leased=self._leased,
            peak=self._peak,
            waiting=len(self._line),
            spilled=self._spilled,
            spilled_total=self._spilled_total,
        )

    @property
    def _leased(self) -> int:
        return self.max_bytes - int(self._line.free) * SLOT

    def _check_home(self) -> None:
        home = (os.getpid(), asyncio.get_running_loop())
        if self._home is None:
            self._home = home
            # Python's anonymous mmap is shared with forked children unless told otherwise.
            arena = mmap.mmap(-1, self.max_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._arena = memoryview(arena)
        elif self._home != home:
            raise ClosedError(
                "this pool belongs to another event loop or process: make one BufferPool in each"
            )

    def _slot(self, number: int) -> memoryview:
        assert self._arena is not None  # noqa: S101 - there was a lease, so there is an arena
        return self._arena[number * SLOT : (number + 1) * SLOT]

    def _take(self, count: int) -> list[int]:
        taken = self._free[-count:]
        del self._free[-count:]
        self._peak = max(self._peak, self._leased)
        return taken

    def _take_back(self, lease: Lease | None, slots: list[int]) -> None:
        if lease is not None and self._revocable.pop(lease, None) is not None:
            self._spare -= len(slots)
        self._free.extend(slots)
        self._line.give_back(len(slots))

    def _revoke(self) -> None:
        """Take read-ahead back, the oldest first, until nobody waits or none is old enough."""
        ripe = asyncio.get_running_loop().time() - REVOKE_AFTER
        for taken, revoke in list(self._revocable.values()):
            if taken > ripe or not self._line:
                return
            revoke()

    def _timed_out(self, size: int, seconds: float) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"no {size} bytes of the pool's {self.max_bytes} became free in {seconds:g} s:"
            " raise max_bytes, or allow more spill files (spill_max_bytes)"
        )


_WINDOW = 64 * KiB
"""Bytes that a spill file gathers before it goes to a thread: a hop costs as much as writing them."""


class SpillFile:
    """A part's bytes in an unlinked temporary file, made at the first write.

    Args:
        pool: The pool whose budget it counts against.
        size: The bytes reserved for it.

    Attributes:
        written: Its bytes so far.
    """

    __slots__ = ("_file", "_gathered", "_pool", "_size", "written")

    def __init__(self, pool: BufferPool, size: int) -> None:
        self._pool = pool
        self._size = size
        self._file: BinaryIO | None = None
        self._gathered = bytearray()
        self.written = 0
        pool._spilled += size  # noqa: SLF001 - its own room

    def try_extend(self, size: int) -> bool:
        """Reserve `size` bytes more; False if that is too much."""
        if not self._pool.can_spill(size):
            return False
        self._size += size
        self._pool._spilled += size  # noqa: SLF001 - its own room
        return True

    async def write(self, data: BytesLike) -> None:
        """Append `data`, of the bytes reserved. After a cancel the file may only be closed."""
        self.written += len(data)
        self._pool._spilled_total += len(data)  # noqa: SLF001 - its own room
        if len(self._gathered) + len(data) < _WINDOW:
            self._gathered += data
        else:
            gathered, self._gathered = self._gathered, bytearray()
            await in_thread(self._write, gathered, data)

    def _write(self, *pieces: BytesLike) -> None:
        if self._file is None:
            file = tempfile.TemporaryFile(dir=self._pool.spill_dir, buffering=0)  # noqa: SIM115 - closed by aclose
            self._file = cast("BinaryIO", file)  # an unbuffered one: what is small was gathered
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]

    async def view(self) -> memoryview:
        """Return what was written as read-only memory, which lives in the page cache."""
        return await self._mapped(mmap.ACCESS_READ)

    async def _mapped(self, access: int) -> memoryview:
        if self._gathered:
            gathered, self._gathered = self._gathered, bytearray()
            await in_thread(self._write, gathered)
        if self._file is None:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._file.fileno(), self.written, access=access))

    async def window(self) -> memoryview:
        """Return all of the room as memory to write to, which lives in the page cache."""
        # Written first, so that a full disk shows here and not as a fault in the mapping.
        await self.write(bytes(self._size - self.written))
        return await self._mapped(mmap.ACCESS_WRITE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the room back. Idempotent, and done even if cancelled."""
        size, self._size = self._size, 0
        file, self._file = self._file, None
        self._gathered.clear()
        self._pool._spilled -= size  # noqa: SLF001 - its own room
        if file is not None:
            await in_thread(file.close)  # frees its pages, which takes a while for large ones


def _slots_for(size: int) -> int:
    return max(1, -(-size // SLOT))
