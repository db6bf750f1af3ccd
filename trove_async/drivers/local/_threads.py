"""Hops from the event loop to a thread and back: one for each call, and never left running.

A thread cannot be interrupted, so a call that is cancelled first takes its work back if it has not
begun, else tells it to stop (`Stop`), and then waits until it has: only then are the views it reads
and the files it holds nobody's.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from trove_async._concurrency import settled
from trove_async.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - it is a signal, heard by nobody but the thread's caller
    """The call for which a thread works was cancelled."""


class Stop:
    """Tells a thread that the call it works for was cancelled."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise `Stopped` if so: called wherever nothing is half done."""
        if self.asked:
            raise Stopped


class Threads:
    """The threads of one driver.

    Args:
        count: How many there may be.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="trove-local")

    async def run(
        self,
        work: Callable[[], T],
        *,
        stop: Stop | None = None,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Do `work` in a thread. After a cancel it has ended, or has never begun.

        Args:
            work: What to do.
            stop: What it looks at to hear of a cancel.
            undo: What becomes of a result that nobody is there any more to take.
        """
        job = self._submit(work)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                if stop is not None:
                    stop.asked = True
                await _ended(job, undo)
            raise

    async def finish(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread, cancelled or not: a cancel is raised when it is done."""
        return await settled(asyncio.wrap_future(self._submit(work)))

    async def aclose(self) -> None:
        """Wait for the threads to end."""
        with ThreadPoolExecutor(1) as closer:
            await settled(asyncio.wrap_future(closer.submit(self._executor.shutdown)))

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand work to a thread, as an executor does."""
        return self._executor.submit(work, *args, **kwargs)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._executor.submit(work)
        except RuntimeError as error:  # how an executor says that it was shut down
            raise ClosedError("this driver is closed") from error


async def _ended(job: Future[T], undo: Callable[[T], object] | None) -> None:
    try:
        await settled(asyncio.wrap_future(job))
    except asyncio.CancelledError:
        pass  # a second one: the first is about to be raised
    except Exception:  # noqa: BLE001 - nobody is there any more to hear of it
        return
    if undo is not None and job.exception() is None:
        undo(job.result())
