"""The worker threads and buffers for the blocks of all bodies of a store."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

from trove_async.middleware import MAX_BLOCK
from trove_async.models import KiB

INLINE_WORK: Final = 256 * KiB
"""Maximum number of bytes that are encoded or decoded on the event loop. More takes longer than a thread
hop (200 µs)."""

_KEPT_BUFFERS: Final = 4
"""Maximum number of unused buffers that a store keeps. New memory costs more than filling it."""


class BlockWorkers:
    """What the bodies of a store share: permits to process a further block in parallel, and buffers.

    Every body can always process one block. The permits bound the memory of the others. A body has a buffer
    only while it fills or processes a block, because most bodies wait for memory or the network.

    Args:
        count: The number of permits. None: that of the processor's cores.
    """

    def __init__(self, count: int | None = None) -> None:
        self._free = (os.cpu_count() or 1) if count is None else count
        self._buffers: list[mmap.mmap] = []

    @property
    def free(self) -> int:
        """The number of free permits."""
        return self._free

    def try_acquire(self) -> bool:
        """Take a permit if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def release(self) -> None:
        """Return a permit."""
        self._free += 1

    def take_buffer(self, size: int) -> memoryview:
        """Return a buffer of at least `size` bytes, at most `MAX_BLOCK`, with any content.

        A large buffer is page-aligned, because reading a file into other memory takes several times as long.
        """
        if size <= MAX_BLOCK // 2:
            return memoryview(bytearray(size))
        return memoryview(self._buffers.pop() if self._buffers else mmap.mmap(-1, MAX_BLOCK))

    def return_buffer(self, buffer: memoryview) -> None:
        """Keep a buffer for later, or drop it. No view of it may be in use."""
        if isinstance(buffer.obj, mmap.mmap) and len(self._buffers) < _KEPT_BUFFERS:
            self._buffers.append(buffer.obj)


class Job(Protocol):
    """The work on one block. `is_spare`: whether it has a permit of `BlockWorkers`."""

    is_spare: bool

    async def result(self) -> object: ...


async def discard_jobs(jobs: Iterable[Job], workers: BlockWorkers) -> None:
    """Wait for jobs whose results are not needed, and return their permits.

    A cancel is raised once all jobs have ended.
    """
    cancelled: asyncio.CancelledError | None = None
    for job in jobs:
        try:
            with suppress(Exception):  # was raised already, or is no longer relevant
                await job.result()
        except asyncio.CancelledError as error:
            cancelled = error
        if job.is_spare:
            workers.release()
    if cancelled is not None:
        raise cancelled
