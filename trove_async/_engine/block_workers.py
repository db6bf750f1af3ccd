"""The worker threads and buffers for the blocks of all bodies of a store."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, Generic, TypeVar

from trove_async._concurrency import wait_until_done
from trove_async.errors import ClosedError
from trove_async.middleware import MAX_BLOCK
from trove_async.models import KiB

T = TypeVar("T")

INLINE_WORK: Final = 256 * KiB
"""Maximum number of bytes that are encoded or decoded on the event loop. More takes longer than a thread
hop (200 µs)."""

INLINE_INDEX: Final = 64 * KiB
"""Maximum size of an index that is loaded on the event loop. It has the sizes of 8,192 frames of zstd, and may
take a decoder in Python a millisecond."""

INLINE_SIZES: Final = INLINE_INDEX // 8
"""Maximum number of blocks whose trailer is made on the event loop."""

_ADDITIONAL_FILE_THREADS: Final = 4
"""Threads that read files, in addition to one for each core, as in asyncio's default executor."""

_KEPT_BUFFERS: Final = 4
"""Maximum number of unused buffers that a store keeps. New memory costs more than filling it."""


class BlockWorkers:
    """Threads, buffers, and permits for additional blocks, shared by all bodies of a store.

    Every body can process one block at any time. A permit allows it to process another one in parallel, so
    the permits bound the memory. A body has a buffer only while it fills or processes a block, because most
    bodies wait for memory or the network.

    There is one thread for each core. With more threads, the blocks of one body would end at the same time,
    and cores would be idle until the next blocks are read. Files have threads of
    their own, because they may be on a slow disk.

    Args:
        count: The number of permits. None: one for each core and one more, which waits for a thread.
    """

    def __init__(self, count: int | None = None) -> None:
        self._cores = os.cpu_count() or 1
        self._free = self._cores + 1 if count is None else count
        self._buffers: list[mmap.mmap] = []
        self._threads: ThreadPoolExecutor | None = None
        self._file_threads: ThreadPoolExecutor | None = None
        self._closed = False

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run work in a thread. Wait for its end with `wait_until_done`, even if cancelled.

        Raises:
            ClosedError: The store was closed meanwhile. A new thread would not be ended.
        """
        return asyncio.get_running_loop().run_in_executor(self._block_threads(), work)

    def start_with_file(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run work that reads a file, and does little else, in a thread for files. Otherwise as `start`."""
        return asyncio.wrap_future(self._files().submit(work))

    def start_after(self, read: Callable[[], None], work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `read` in a thread for files, and then `work`, as `start` does. Both belong to one future.

        The event loop is not involved in between, which saves half of the cost.
        """
        result: Future[T] = Future()
        result.set_running_or_notify_cancel()
        threads = self._block_threads()

        def run() -> None:
            try:
                read()
                self._check_open()  # the threads may have ended meanwhile
                working = threads.submit(work)
            except BaseException as error:  # noqa: BLE001 - raised by the future
                result.set_exception(error)
            else:
                working.add_done_callback(copy)

        def copy(working: Future[T]) -> None:
            error = working.exception()
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(working.result())

        self._files().submit(run)
        return asyncio.wrap_future(result)

    def _block_threads(self) -> ThreadPoolExecutor:
        self._check_open()
        if self._threads is None:  # most stores need none
            self._threads = ThreadPoolExecutor(self._cores, "trove-blocks")
        return self._threads

    def _files(self) -> ThreadPoolExecutor:
        self._check_open()
        if self._file_threads is None:
            count = self._cores + _ADDITIONAL_FILE_THREADS
            self._file_threads = ThreadPoolExecutor(count, "trove-files")
        return self._file_threads

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the store was closed while a body was being encoded or decoded")

    async def aclose(self) -> None:
        """End the threads once they are idle. Idempotent."""
        self._closed = True
        self._buffers.clear()
        for threads in (self._threads, self._file_threads):
            if threads is not None:
                threads.shutdown(wait=False)
        self._threads = self._file_threads = None

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
        if self._buffers:
            return memoryview(self._buffers.pop())
        # By default, Python's anonymous mmap is shared with forked children.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        return memoryview(mmap.mmap(-1, MAX_BLOCK, flags=flags))

    def return_buffer(self, buffer: memoryview) -> None:
        """Keep a buffer for later, or drop it. No view of it may be in use."""
        if isinstance(buffer.obj, mmap.mmap) and len(self._buffers) < _KEPT_BUFFERS:
            self._buffers.append(buffer.obj)


class BlockJob(Generic[T]):
    """The work on one block, in a worker thread or on the event loop. Only `result` raises.

    Args:
        work: The work.
        memory: Memory that the work uses, for the owner of the job.
        start: Starts the work in a thread (`BlockWorkers.start`). None: it takes less time than a thread hop.
    """

    __slots__ = ("_failure", "_future", "_result", "memory")

    def __init__(
        self,
        work: Callable[[], T],
        memory: memoryview,
        start: Callable[[Callable[[], T]], asyncio.Future[T]] | None,
    ) -> None:
        self.memory = memory
        self._failure: Exception | None = None
        self._future: asyncio.Future[T] | None = None
        if start is not None:
            self._future = start(work)
            return
        try:
            self._result = work()
        except Exception as error:  # noqa: BLE001 - raised by `result`, after the results before it
            self._failure = error

    @property
    def is_inline(self) -> bool:
        """Whether the work was done on the event loop."""
        return self._future is None

    async def result(self, on_cancel: Callable[[], None] | None = None) -> T:
        """Return the result. After a cancel, call it again.

        Args:
            on_cancel: Called at a cancel, before the end of the work is awaited.
        """
        if self._failure is not None:
            raise self._failure
        return (
            self._result if self._future is None else await wait_until_done(self._future, on_cancel)
        )


class BlockJobs(Generic[T]):
    """The jobs of one body, in the order of its blocks. One job needs no permit.

    Args:
        workers: The permits for further jobs.
    """

    __slots__ = ("_jobs", "_permits", "_workers")

    def __init__(self, workers: BlockWorkers) -> None:
        self._workers = workers
        self._jobs: deque[BlockJob[T]] = deque()
        self._permits = 0

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def first(self) -> BlockJob[T]:
        """The oldest job."""
        return self._jobs[0]

    @contextmanager
    def room(self) -> Iterator[bool]:
        """Yield whether a job may be added inside the `with` statement. An unused permit is returned."""
        free = len(self._jobs) <= self._permits
        if not free and self._workers.try_acquire():
            self._permits += 1
            free = True
        try:
            yield free
        finally:
            self._return_permits()

    def add(self, job: BlockJob[T]) -> None:
        """Add a job at the end."""
        self._jobs.append(job)

    def remove_first(self) -> None:
        """Remove the oldest job, whose result was taken."""
        self._jobs.popleft()
        self._return_permits()

    async def discard(self) -> None:
        """Wait for all jobs, and drop their results. A cancel is raised once all of them have ended."""
        cancelled: asyncio.CancelledError | None = None
        while self._jobs:
            job = self._jobs[0]
            try:
                with suppress(Exception):  # was raised already, or is no longer relevant
                    await job.result()
            except asyncio.CancelledError as error:
                cancelled = error
            if self._jobs and self._jobs[0] is job:  # a concurrent call may have removed it
                self.remove_first()
        if cancelled is not None:
            raise cancelled

    def _return_permits(self) -> None:
        while self._permits > max(len(self._jobs) - 1, 0):
            self._permits -= 1
            self._workers.release()
