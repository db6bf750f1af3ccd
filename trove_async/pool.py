"""The memory of a store: one arena of slots, which limits how many bytes the library buffers.

Four rules prevent deadlocks, whatever the number of transfers and slots. A model of them was run on
random schedules: it deadlocks if any one of the rules is dropped.

* A transfer leases all the slots that it needs together, and only after it has filled every lease that
  it already holds.
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


_MAX_WAIT_CHECKS = 40
"""The longest acceptable wait, counted in intervals between checks of the queue: 10 s with the default
`spill_after`. A transfer spills if the queue, at its current pace, would take longer to serve it."""


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
        deadline: Seconds that a transfer waits for memory or a file before it fails.

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
            timeout: Seconds to wait; None: `BufferPool.deadline`.

        Raises:
            PoolTimeoutError: The memory did not become free in time.
            ConfigError: The pool is smaller than `size`.
            ClosedError: The pool belongs to another event loop or process.
        """
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        seconds = self.deadline if timeout is None else timeout
        count = _slots_for(size)
        if not await self._semaphore.acquire(count, seconds):
            raise self._timed_out(size, seconds)
        return Lease(self, self._pop_slots(count))

    async def lease_or_spill(self, size: int) -> Lease | SpillFile:
        """Lease memory for `size` bytes, or reserve a spill file, to be filled from a user's source.

        If the queue stalls for `spill_after` seconds, the transfer leaves the queue and gets a file,
        because the memory may be held by transfers that wait for slow sources. A queue is stalled if
        it moves too slowly to serve the transfer within `_MAX_WAIT_CHECKS` checks. The limit is
        high because writing a thousand files at once is slower than waiting for memory.

        Raises:
            PoolTimeoutError: Neither was available within `deadline` seconds.
            ConfigError: The pool is smaller than `size`.
            ClosedError: The pool belongs to another event loop or process.
        """
        # 1. Lease free memory without waiting.
        lease = self.try_lease(size)
        if lease is not None:
            return lease
        # 2. Otherwise wait in the queue and check at intervals how fast it moves.
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.deadline
        count = _slots_for(size)
        waiter = self._semaphore.enqueue(count)
        stalled_checks = 0
        try:
            while not waiter.done():
                if clock() >= deadline:
                    raise self._timed_out(size, self.deadline)  # noqa: TRY301 - the handler abandons the waiter
                served_count_before = self._semaphore.served_count
                # Several checks, because a queue also stalls while the event loop is busy elsewhere.
                interval = max(self.spill_after / _STALLED_CHECKS, 0.005)
                await asyncio.wait([waiter], timeout=min(interval, deadline - clock()))
                served_count = self._semaphore.served_count - served_count_before
                if served_count * _MAX_WAIT_CHECKS >= self._semaphore.position(waiter):
                    stalled_checks = 0
                else:
                    stalled_checks += 1
                if stalled_checks < _STALLED_CHECKS:
                    continue
                # 3. Leave a stalled queue, if `spill_max_bytes` permits another file.
                spill = self.try_spill(size)
                if spill is not None:
                    self._semaphore.abandon(waiter, count)
                    return spill
        except BaseException:
            self._semaphore.abandon(waiter, count)
            raise
        # 4. The queue has served this transfer.
        return Lease(self, self._pop_slots(count))

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

    def can_spill(self, size: int) -> bool:
        """Return whether spill files may hold `size` more bytes."""
        return self._spilled + size <= self.spill_max_bytes

    def try_spill(self, size: int) -> SpillFile | None:
        """Reserve `size` bytes in a spill file; None if this would exceed `spill_max_bytes`."""
        return SpillFile(self, size) if self.can_spill(size) else None

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
