"""The memory of a store: one arena of slots, which limits how many bytes the library buffers.

Five rules prevent deadlocks, whatever the number of transfers and slots. A model of them is explored
exhaustively by the tests: it deadlocks if any one of the rules is dropped.

* A transfer leases all the slots that it waits for together, and only after it has filled every lease that
  it already holds.
* A transfer that fills a lease grows it only if memory is free and no transfer waits (`Lease.try_grow`). It
  never waits for that: it sends a shorter part, or moves the part to a file before it waits.
* Transfers are served strictly in order.
* A transfer that reads from a user's source does not wait forever, because the transfers that hold the
  memory may be waiting for such sources themselves. After `BufferPool.spill_after` seconds in a queue
  that hardly moves, it gets a file instead (`SpillFile`).
* Read-ahead uses `try_lease`, which returns a lease only if memory is free and no transfer waits. Once
  such a lease is `REVOKE_AFTER` seconds old, it may be revoked for a waiting transfer.
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
from ._settings import check_ints, check_numbers
from ._views import BytesLike
from .errors import ClosedError, ConfigError, PoolTimeoutError
from .models import GiB, KiB, MiB

SLOT = 1 * MiB
"""Bytes of a slot. Receiving in smaller pieces takes up to five times the CPU time, and larger pieces
save none (measured from 64 KiB to 8 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """The state of a pool at one moment. All values are bytes, except `waiting`.

    Attributes:
        max_bytes: The size of the pool.
        leased: Bytes leased now.
        peak: The maximum number of bytes leased at one time so far.
        waiting: The number of transfers that wait for memory.
        spilled: Bytes reserved in spill files now.
        spilled_total: All bytes written to spill files so far.
    """

    max_bytes: int
    leased: int
    peak: int
    waiting: int
    spilled: int
    spilled_total: int


REVOKE_AFTER = 0.1
"""Age in seconds from which a read-ahead lease may be revoked for a waiting transfer."""


_STALLED_CHECKS = 2
"""Consecutive checks that must find the queue stalled before a transfer spills."""


class Lease:
    """A lease of slots. It has one owner at a time, who may pass it on.

    To release it, leave its ``with`` block or call `release`. Do not use its views after that.
    """

    __slots__ = ("_pool", "_slots")

    def __init__(self, pool: BufferPool, slots: list[int]) -> None:
        self._pool = pool
        self._slots = slots

    @property
    def size(self) -> int:
        """The bytes leased, a multiple of `SLOT`."""
        return len(self._slots) * SLOT

    @property
    def views(self) -> Sequence[memoryview]:
        """The slots as writable memory, page-aligned, `SLOT` bytes each."""
        return [self._pool._slot(number) for number in self._slots]  # noqa: SLF001 - same module

    def try_grow(self, size: int) -> bool:
        """Lease more slots, for `size` bytes in total. Return False unless they are free and no transfer waits.

        A transfer that fills the lease may not wait for more memory while it holds it.
        """
        slots = self._pool._try_pop_slots(_slots_for(size) - len(self._slots))  # noqa: SLF001 - same module
        if slots is None:
            return False
        self._slots += slots
        return True

    def shrink(self, size: int) -> None:
        """Release the slots that are not needed for `size` bytes."""
        count = _slots_for(size)
        spare, self._slots = self._slots[count:], self._slots[:count]
        if spare:
            self._pool._release(None, spare)  # noqa: SLF001 - same module

    def release(self) -> None:
        """Release the slots. Idempotent."""
        slots, self._slots = self._slots, []
        if slots:
            self._pool._release(self, slots)  # noqa: SLF001 - same module

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class _Waiter:
    """A transfer that waits in the queue.

    Args:
        spill_size: The bytes of the file that it accepts instead; None: it accepts none.
        enqueued_at: The time at which it began to wait.

    Attributes:
        spill: The file that it got instead of memory.
        stalled_at: The last check that found the queue stalled for this transfer.
        stalled_checks: The number of consecutive checks that did.
    """

    __slots__ = ("enqueued_at", "spill", "spill_size", "stalled_at", "stalled_checks")

    def __init__(self, spill_size: int | None, enqueued_at: float) -> None:
        self.spill_size = spill_size
        self.enqueued_at = enqueued_at
        self.spill: SpillFile | None = None
        self.stalled_at = 0
        self.stalled_checks = 0


class BufferPool:
    """A bounded amount of memory that all transfers of a store share.

    The arena is private anonymous memory. It is allocated at the first lease and reused from then on.
    Memory that was never leased is not resident. Stores on one event loop may share a pool.

    Args:
        max_bytes: The size of the pool, a multiple of 1 MiB; at least 2 MiB.
        part_size: Bytes of a part of an upload, a multiple of 1 MiB; at most half of `max_bytes`.
            None: 8 MiB, or half of a small pool.
        spill_after: Seconds that a put waits for memory before it buffers its part in a file. A put
            that will be served soon continues to wait.
        spill_dir: The directory of these files; None: the system's directory for temporary files.
            The files have no name, so a killed process leaves none behind.
        spill_max_bytes: The maximum size of all spill files together; 0: no spilling.
        deadline: Seconds without progress before a transfer that waits for memory or a file fails: the
            pool has served no waiting transfer for so long. A transfer waits as long as the queue moves.

    Raises:
        ConfigError: A value is out of range, or the sizes do not fit together. When a store opens:
            `spill_dir` is not a writable directory.
        TypeError: An argument has the wrong type.
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
        # 1. Check the types and the ranges of the settings.
        check_ints(
            max_bytes=max_bytes,
            part_size=SLOT if part_size is None else part_size,
            spill_max_bytes=spill_max_bytes,
        )
        check_numbers(spill_after=spill_after, deadline=deadline)
        if spill_dir is not None and not isinstance(spill_dir, (str, os.PathLike)):
            raise TypeError(f"spill_dir must be a path, got {type(spill_dir).__name__}")
        if min(spill_after, spill_max_bytes, deadline) < 0:
            raise ConfigError(
                "spill_after, spill_max_bytes and deadline must not be negative, got"
                f" {spill_after}, {spill_max_bytes} and {deadline}"
            )
        if max_bytes < 2 * SLOT or max_bytes % SLOT:
            raise ConfigError(
                f"max_bytes must be a multiple of 1 MiB and at least 2 MiB, got {max_bytes}"
            )
        # 2. A part must fit into half of the pool, so that one part is filled while another is sent.
        if part_size is None:
            part_size = min(8 * MiB, max_bytes // 2 // SLOT * SLOT)
        if part_size < SLOT or part_size % SLOT or part_size > max_bytes // 2:
            raise ConfigError(
                "part_size must be a multiple of 1 MiB and at most half of max_bytes, got"
                f" {part_size}"
            )
        # 3. Allocate nothing yet: the first lease allocates the arena, in the process that uses it.
        self.max_bytes = max_bytes
        self.part_size = part_size
        self.spill_after = spill_after
        self.spill_dir = spill_dir
        self.spill_max_bytes = spill_max_bytes
        self.deadline = deadline
        self._arena: memoryview | None = None
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        # Last in, first out: slots that were used recently are resident and warm.
        self._free = list(range(max_bytes // SLOT - 1, -1, -1))
        self._semaphore = FairSemaphore(len(self._free), self._revoke)
        # The transfers that wait without a time limit of their own, and the pace of the queue.
        self._waiters: dict[asyncio.Future[bool], _Waiter] = {}
        self._next_check: asyncio.TimerHandle | None = None
        self._check_number = 0
        self._served_before = 0
        self._served_at = 0.0
        self._filled_bytes = 0
        self._revocable: dict[Lease, tuple[float, Callable[[], bool]]] = {}
        self._revocable_slots = 0
        self._peak = 0
        self._spilled = 0
        self._spilled_total = 0

    def __repr__(self) -> str:
        if not hasattr(self, "_spilled_total"):
            return "<BufferPool, not initialised>"  # its constructor raised
        return f"BufferPool(max_bytes={self.max_bytes}, part_size={self.part_size})"

    async def check_spill_dir(self) -> None:
        """Check the directory of spill files when a store opens, before the first file is needed.

        Raises:
            ConfigError: `spill_dir` is not a writable directory.
        """
        path = self.spill_dir
        if path is None or not self.spill_max_bytes:
            return
        usable = await in_thread(lambda: os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK))  # noqa: PTH112
        if not usable:
            raise ConfigError(
                f"spill_dir {os.fspath(path)!r} must be a directory that this process may write to"
            )

    async def lease(self, size: int, timeout: float | None = None) -> Lease:
        """Wait in turn for enough slots for `size` bytes, and lease all of them together.

        The caller must already have filled any other lease that it holds. After a cancel no memory
        is held.

        Args:
            size: The bytes needed, from 1 to `part_size`.
            timeout: Seconds to wait; None: as long as the queue moves (`BufferPool.deadline`).

        Raises:
            PoolTimeoutError: The memory did not become free in time.
            ConfigError: The pool is smaller than `size`.
            ClosedError: The pool belongs to another event loop or process.
        """
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        if timeout is None:
            waited_for = await self._wait(size, None)
            assert isinstance(waited_for, Lease)  # noqa: S101 - it may not spill
            return waited_for
        count = _slots_for(size)
        if not await self._semaphore.acquire(count, timeout):
            raise self._timed_out(size, timeout)
        return Lease(self, self._pop_slots(count))

    async def lease_or_spill(
        self, size: int, *, spill_size: int | None = None, continues: bool = False
    ) -> Lease | SpillFile:
        """Lease memory for `size` bytes, or reserve a spill file, to be filled from a user's source.

        If the queue stalls for `spill_after` seconds, the transfer leaves the queue and gets a file,
        because the memory may be held by transfers that wait for slow sources. A queue is stalled if
        no memory is filled or released, or so little that this transfer would wait longer than `deadline`.
        A queue that moves is work: the transfer waits for its turn, because a thousand files are slower.

        Args:
            size: The bytes needed, from 1 to `part_size`.
            spill_size: The bytes to reserve in a spill file; None: `size`.
            continues: Whether the transfer began with less memory than a whole part. It is then served
                before those that begin, so that few transfers are in progress at a time.

        Raises:
            PoolTimeoutError: Neither was available, and the queue served no transfer for `deadline`
                seconds.
            ConfigError: The pool is smaller than `size`.
            ClosedError: The pool belongs to another event loop or process.
        """
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        spill_size = size if spill_size is None else spill_size
        return await self._wait(size, spill_size, continues=continues)

    async def _wait(
        self, size: int, spill_size: int | None, *, continues: bool = False
    ) -> Lease | SpillFile:
        """Wait in the queue for memory or, if `spill_size` is not None, for a file.

        `_check_queue` checks at intervals how fast the queue moves, for all transfers together.
        """
        count = _slots_for(size)
        future = self._semaphore.enqueue(count, continues=continues)
        waiter = _Waiter(spill_size, asyncio.get_running_loop().time())
        self._waiters[future] = waiter
        if self._next_check is None:
            self._served_before = self._semaphore.served_count
            self._schedule_check()
        try:
            is_served = await future
        except BaseException:
            self._semaphore.abandon(future, count)
            if waiter.spill is not None:
                await waiter.spill.aclose()
            raise
        finally:
            del self._waiters[future]
        if is_served:
            return Lease(self, self._pop_slots(count))
        if waiter.spill is None:
            raise self._timed_out(size, asyncio.get_running_loop().time() - waiter.enqueued_at)
        return waiter.spill

    def _schedule_check(self) -> None:
        self._next_check = asyncio.get_running_loop().call_later(
            self._check_interval, self._check_queue
        )

    @property
    def _check_interval(self) -> float:
        return max(min(self.spill_after / _STALLED_CHECKS, self.deadline), 0.005)

    def _check_queue(self) -> None:
        """Let transfers spill that the queue serves too late, and fail those that wait in vain."""
        # 1. Measure the pace of the queue. Memory that is being filled will soon be released.
        now = asyncio.get_running_loop().time()
        served_count = self._semaphore.served_count - self._served_before
        self._served_before += served_count
        if served_count:
            self._served_at = now
        pace = max(served_count, self._filled_bytes / SLOT)
        self._filled_bytes = 0
        self._check_number += 1
        # 2. At this pace, so many transfers are served within the deadline.
        soon = pace * self.deadline / self._check_interval
        for future in self._semaphore.behind(int(min(soon, len(self._semaphore)))):
            waiter = self._waiters.get(future)
            if waiter is None or future.done():
                continue  # it has a time limit of its own, or was cancelled
            # 3. Several checks, because a queue also stalls while the event loop is busy elsewhere.
            consecutive = waiter.stalled_at == self._check_number - 1
            waiter.stalled_checks = waiter.stalled_checks + 1 if consecutive else 1
            waiter.stalled_at = self._check_number
            waited = now - waiter.enqueued_at
            # 4. Leave a stalled queue, if `spill_max_bytes` permits another file.
            if (
                waiter.spill_size is not None
                and waiter.stalled_checks >= _STALLED_CHECKS
                and waited > self.spill_after - self._check_interval / 2  # timers are not exact
            ):
                waiter.spill = self.try_spill(waiter.spill_size)
            is_late = now - max(self._served_at, waiter.enqueued_at) >= self.deadline
            if waiter.spill is not None or is_late:
                self._semaphore.dismiss(future)
        # 5. Check again, as long as a transfer waits.
        if self._waiters:
            self._schedule_check()
        else:
            self._next_check = None

    def try_lease(
        self, size: int, revoke: Callable[[], bool] | None = None, *, share: int = 2
    ) -> Lease | None:
        """Lease enough slots for `size` bytes. Return None unless they are free and no transfer waits.

        Args:
            size: The bytes needed.
            revoke: Makes the lease revocable. Called when a transfer waits and the lease is at least
                `REVOKE_AFTER` seconds old. It releases the lease and returns True, or returns False
                and is called again later.
            share: Only for a revocable lease. The result is None if all revocable leases together
                would exceed ``1 / share`` of the pool, or one slot if that is more.

        Raises:
            ConfigError: The pool is smaller than `size`.
            ClosedError: The pool belongs to another event loop or process.
        """
        self._check_owner()
        count = _slots_for(size)
        if count * SLOT > self.max_bytes:
            raise ConfigError(f"a lease must fit the pool of {self.max_bytes} bytes, got {size}")
        # Revocable leases get only a share of the pool, so that few puts wait for a revocation.
        if revoke is not None:
            limit = max(self.max_bytes // share, SLOT)
            if (self._revocable_slots + count) * SLOT > limit:
                return None
        if not self._semaphore.try_acquire(count):
            return None
        lease = Lease(self, self._pop_slots(count))
        if revoke is not None:
            self._revocable_slots += count
            self._revocable[lease] = (asyncio.get_running_loop().time(), revoke)
        return lease

    def record_filled(self, size: int) -> None:
        """Record that a user's source has filled `size` bytes of a lease, so the queue will move."""
        self._filled_bytes += size

    def can_spill(self, size: int) -> bool:
        """Return whether spill files may hold `size` more bytes."""
        return self._spilled + size <= self.spill_max_bytes

    def try_spill(self, size: int, *, share: int = 1) -> SpillFile | None:
        """Reserve `size` bytes in a spill file; None if this would exceed `spill_max_bytes`.

        Args:
            size: The bytes to reserve.
            share: The result is None if all spill files together would exceed ``1 / share`` of
                `spill_max_bytes`.
        """
        fits = (self._spilled + size) * share <= self.spill_max_bytes
        return SpillFile(self, size) if fits else None

    def statistics(self) -> PoolStatistics:
        """Return the current state of the pool."""
        return PoolStatistics(
            max_bytes=self.max_bytes,
            leased=self._leased,
            peak=self._peak,
            waiting=len(self._semaphore),
            spilled=self._spilled,
            spilled_total=self._spilled_total,
        )

    @property
    def _leased(self) -> int:
        return self.max_bytes - int(self._semaphore.free) * SLOT

    def _check_owner(self) -> None:
        owner = (os.getpid(), asyncio.get_running_loop())
        if self._owner is None:
            self._owner = owner
            # By default, Python's anonymous mmap is shared with forked children.
            arena = mmap.mmap(-1, self.max_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._arena = memoryview(arena)
        elif self._owner != owner:
            raise ClosedError(
                "the pool belongs to another event loop or process: create one BufferPool in each"
            )

    def _slot(self, number: int) -> memoryview:
        assert self._arena is not None  # noqa: S101 - allocated by the first lease
        return self._arena[number * SLOT : (number + 1) * SLOT]

    def _try_pop_slots(self, count: int) -> list[int] | None:
        if count <= 0:
            return []
        return self._pop_slots(count) if self._semaphore.try_acquire(count) else None

    def _pop_slots(self, count: int) -> list[int]:
        slots = self._free[-count:]
        del self._free[-count:]
        self._peak = max(self._peak, self._leased)
        return slots

    def _release(self, lease: Lease | None, slots: list[int]) -> None:
        # `shrink` passes no lease, because a revocable lease is never shrunk.
        if lease is not None and self._revocable.pop(lease, None) is not None:
            self._revocable_slots -= len(slots)
        self._free.extend(slots)
        self._semaphore.release(len(slots))

    def _revoke(self) -> None:
        """Revoke leases, oldest first, until no transfer waits or no remaining lease is old enough."""
        revocable_since = asyncio.get_running_loop().time() - REVOKE_AFTER
        # A copy, because a revoked lease removes itself. The leases are in order of age.
        for leased_at, revoke in list(self._revocable.values()):
            if leased_at > revocable_since or not self._semaphore:
                return
            revoke()

    def _timed_out(self, size: int, seconds: float) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"{size} bytes of the pool's {self.max_bytes} did not become free in {seconds:g} s:"
            " raise max_bytes, or allow more bytes in spill files (spill_max_bytes)"
        )


_WRITE_BUFFER = 64 * KiB
"""Bytes that a spill file buffers before it writes them in a thread: the hop to the thread takes as
long as writing them."""


class SpillFile:
    """The bytes of a part in an unlinked temporary file, which the first flush creates.

    Args:
        pool: The pool whose `spill_max_bytes` limits the file.
        size: The bytes to reserve.

    Attributes:
        written: The bytes written so far.
    """

    __slots__ = ("_buffer", "_file", "_pool", "_size", "written")

    @property
    def size(self) -> int:
        """The bytes reserved."""
        return self._size

    def __init__(self, pool: BufferPool, size: int) -> None:
        self._pool = pool
        self._size = size
        self._file: BinaryIO | None = None
        self._buffer = bytearray()
        self.written = 0
        pool._spilled += size  # noqa: SLF001 - same module

    def try_extend(self, size: int) -> bool:
        """Reserve `size` more bytes. Return False if this would exceed `spill_max_bytes`."""
        if not self._pool.can_spill(size):
            return False
        self._size += size
        self._pool._spilled += size  # noqa: SLF001 - same module
        return True

    def shrink(self, size: int) -> None:
        """Reserve only `size` bytes from now on, which must include those that were written."""
        self._pool._spilled -= self._size - size  # noqa: SLF001 - same module
        self._size = size

    async def write(self, data: BytesLike) -> None:
        """Append `data`, which must fit into the reserved bytes. After a cancel, the file must be closed."""
        self.written += len(data)
        self._pool._spilled_total += len(data)  # noqa: SLF001 - same module
        if len(self._buffer) + len(data) < _WRITE_BUFFER:
            self._buffer += data
        else:
            buffered, self._buffer = self._buffer, bytearray()
            await in_thread(self._write, buffered, data)

    def _write(self, *pieces: BytesLike) -> None:
        if self._file is None:
            file = tempfile.TemporaryFile(dir=self._pool.spill_dir, buffering=0)  # noqa: SIM115 - closed by aclose
            self._file = cast("BinaryIO", file)  # unbuffered, because `write` buffers small writes
        for piece in pieces:
            remaining = memoryview(piece)
            while remaining:  # an unbuffered write may write only a part
                remaining = remaining[self._file.write(remaining) :]

    async def view(self) -> memoryview:
        """Return the written bytes as read-only memory, mapped from the page cache."""
        return await self._map(mmap.ACCESS_READ)

    async def _map(self, access: int) -> memoryview:
        if self._buffer:
            buffered, self._buffer = self._buffer, bytearray()
            await in_thread(self._write, buffered)
        if self._file is None:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._file.fileno(), self.written, access=access))

    async def window(self) -> memoryview:
        """Return all reserved bytes as writable memory, mapped from the page cache."""
        # Fill the file with zeros first. Otherwise a full disk would cause a SIGBUS later.
        await self.write(bytes(self._size - self.written))
        return await self._map(mmap.ACCESS_WRITE)

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
        """Close the file and release the reserved bytes, even if cancelled. Idempotent."""
        size, self._size = self._size, 0
        file, self._file = self._file, None
        self._buffer.clear()
        self._pool._spilled -= size  # noqa: SLF001 - same module
        if file is not None:
            await in_thread(file.close)  # frees its pages, which takes a while if it is large


def _slots_for(size: int) -> int:
    return max(1, -(-size // SLOT))
