"""An event loop whose clock does not depend on how busy the machine is."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class IdleTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while every task waits.

    When no task can run, the clock jumps to the next timer. A timeout therefore never fires because
    the machine is slow, and a test does not wait for one. While a worker thread runs for the loop,
    the clock stands still.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._threads = 0
        super().__init__(_IdleSelector(self))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds

    @property
    def waits_for_threads(self) -> bool:
        return self._threads > 0

    def run_in_executor(  # type: ignore[override]  # the stub's signature cannot be written
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self._threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._threads -= 1


class _IdleSelector(selectors.DefaultSelector):
    """Polls without waiting, and adds the time it would have waited to the loop's clock.

    It waits only for a worker thread, or if there is no timer.
    """

    def __init__(self, loop: IdleTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.waits_for_threads:
            # A thread or a socket will wake the loop. The limit of 1 s only guards against a missed
            # wake-up.
            return super().select(timeout and 1.0)
        events = super().select(0)
        if not events and timeout > 0:
            self._loop.advance(timeout)
        return events
