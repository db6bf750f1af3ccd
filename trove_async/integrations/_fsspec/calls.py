"""Calls from other threads to the event loop of a filesystem."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def run(loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of another thread, and return its result.

    If the caller is interrupted, the coroutine is cancelled, and its end awaited. `fsspec.asyn.sync` leaves it
    running instead.

    Raises:
        RuntimeError: There is no loop, or the caller runs on it.
    """
    try:
        checked = _checked(loop)
    except BaseException:
        work.close()
        raise
    call = _Call(work, checked)
    try:
        return asyncio.run_coroutine_threadsafe(call.run(), checked).result()
    except BaseException:
        if not call.ended.is_set():  # an interrupt
            checked.call_soon_threadsafe(call.cancel)
            call.ended.wait()
        raise


def _checked(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    if loop is None or loop.is_closed():
        raise RuntimeError("the event loop of the filesystem does not run: use open_async")
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - `get_running_loop` raises if there is none
        raise RuntimeError(
            "a file of a filesystem was used on its own event loop, which would wait for itself:"
            " use open_async there"
        )
    return loop


class _Call(Generic[T]):
    """One coroutine that a thread waits for.

    Attributes:
        ended: Set when the coroutine has ended.
    """

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self.ended = threading.Event()

    async def run(self) -> T:
        """Run the coroutine."""
        self._task = asyncio.current_task()
        try:
            return await self._work
        finally:
            self.ended.set()

    def cancel(self) -> None:
        """Cancel the coroutine. Runs on the loop."""
        # A task that is cancelled before its first step never runs, so its end would not be noticed.
        self._loop.call_soon(self._cancel_started)

    def _cancel_started(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.ended.is_set():  # the interrupt has kept the caller from starting it
            self._work.close()
            self.ended.set()
