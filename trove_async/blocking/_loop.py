"""The event loop that all blocking stores of a process share, and the calls that other threads hand to it.

A call costs two switches of threads: 20 µs on an idle machine. `asyncio.run_coroutine_threadsafe` costs 41 µs,
because its future has a condition variable, and callbacks on both sides.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, Final, Generic, TypeVar, cast

from trove_async.errors import ClosedError

T = TypeVar("T")

_FORKED: Final = (
    "this store was started before a fork: create and start a store in each process, for example in Celery's"
    " worker_process_init"
)


class LoopThread:
    """An event loop that runs in a daemon thread until the process ends.

    Attributes:
        lost: Whether the process is a fork of the one that started the thread, so that it does not run here.
    """

    def __init__(self) -> None:
        self.lost = False
        self._ended: list[threading.Lock] = []
        self._loop = asyncio.SelectorEventLoop(_WakingSelector(self._ended))
        self._submitted: deque[_Call[Any]] = deque()
        self._is_woken = False
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="trove_async.blocking", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, in a copy of the caller's context, and return its result.

        If the caller is interrupted, the coroutine is cancelled, and its end awaited.

        Raises:
            ClosedError: The process was forked after the loop had started, or the interpreter exits.
            RuntimeError: The caller runs on the loop itself.
        """
        call: _Call[T] = _Call(work, copy_context())
        try:
            self._check_caller()
        except BaseException:
            work.close()
            raise
        try:
            self._submit(call)
            call.ended.acquire()
        except BaseException:  # an interrupt, at any point of the two lines above
            self._loop.call_soon_threadsafe(self._cancel, call)
            while not call.has_ended:
                call.ended.acquire()
            raise
        return call.result()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_caller(self) -> None:
        if self.lost:
            raise ClosedError(_FORKED)
        if sys.is_finalizing():
            raise ClosedError("the interpreter exits, so the event loop does not run any more")
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "a callback of a blocking store runs on its event loop, so it must not call a blocking store:"
                " the loop would wait for itself"
            )

    def _submit(self, call: _Call[Any]) -> None:
        # Calls that arrive before the loop wakes up share one write to its pipe.
        self._submitted.append(call)
        if self._is_woken:
            return
        try:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._start_submitted)
        except BaseException:  # an interrupt: the next caller must wake the loop
            self._is_woken = False
            raise

    def _start_submitted(self) -> None:
        self._is_woken = False  # before the queue is emptied, so that no call is missed
        while self._submitted:
            self._submitted.popleft().start(self._loop, self._ended)

    def _cancel(self, call: _Call[Any]) -> None:
        # The interrupt may have kept the caller from waking the loop.
        self._start_submitted()
        # A task that is cancelled before its first step never runs, so its end would not be noticed.
        self._loop.call_soon(call.cancel)


class _WakingSelector(selectors.DefaultSelector):
    """Wakes the threads whose calls have ended when the loop is about to wait, which releases the GIL.

    A thread that is woken earlier would wait for the GIL at once: a read of 8 KiB then takes 194 µs of CPU time
    instead of 168.

    Args:
        ended: The locks of the calls that have ended, to be released.
    """

    def __init__(self, ended: list[threading.Lock]) -> None:
        super().__init__()
        self._ended = ended

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wake the threads, and wait for events."""
        if self._ended:
            for lock in self._ended:
                lock.release()
            self._ended.clear()
        return super().select(timeout)


class _Call(Generic[T]):
    """One coroutine that a thread waits for.

    Attributes:
        ended: A lock that is released when the coroutine has ended.
        has_ended: Whether it has ended.
    """

    __slots__ = (
        "_context",
        "_error",
        "_task",
        "_value",
        "_work",
        "ended",
        "has_ended",
    )

    def __init__(self, work: Coroutine[Any, Any, T], context: Context) -> None:
        self._work = work
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self.has_ended = False
        self.ended = threading.Lock()
        self.ended.acquire()

    def start(self, loop: asyncio.AbstractEventLoop, ended: list[threading.Lock]) -> None:
        """Start the coroutine. Runs on the loop. Add the lock to `ended` when it has ended."""
        self._task = loop.create_task(self._run(ended), context=self._context)

    async def _run(self, ended: list[threading.Lock]) -> None:
        # This coroutine reports the end, and not a callback of the task, which would run one step later.
        try:
            self._value = await self._work
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self._error = error
        finally:
            self.has_ended = True
            ended.append(self.ended)

    def cancel(self) -> None:
        """Cancel the coroutine, or close it if it was never submitted. Runs on the loop."""
        if self._task is not None:
            self._task.cancel()
        elif not self.has_ended:
            self._work.close()
            self.has_ended = True
            self.ended.release()

    def result(self) -> T:
        """Return what the coroutine has returned, or raise its exception."""
        if self._error is None:
            return cast("T", self._value)
        try:
            raise self._error
        finally:
            self._error = None  # the traceback refers to this call: do not leave a cycle


_lock = threading.Lock()
_current: LoopThread | None = None


def loop_thread() -> LoopThread:
    """Return the loop of this process. Start it if it does not run yet."""
    global _current  # noqa: PLW0603 - one for each process
    with _lock:
        if _current is None:
            _current = LoopThread()
        return _current


def _forget_after_fork() -> None:
    global _current, _lock  # noqa: PLW0603 - as above
    _lock = threading.Lock()  # another thread may have held it
    if _current is not None:
        _current.lost = True
        # Its objects share descriptors with the parent, so they are never finalized in the child.
        _lost.append(_current)
        _current = None


_lost: Final[list[LoopThread]] = []
os.register_at_fork(after_in_child=_forget_after_fork)
