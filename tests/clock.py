"""A clock of a test's own, so that no outcome depends on how busy the machine is."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class IdleTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while there is nothing else to do.

    A timer is due once every task waits, at once, however long it was set for: a timeout never
    strikes because the machine was slow, and no test has to wait for one. While a worker thread
    runs for the loop, its time stands still.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._threads = 0
        super().__init__(_IdleSelector(self))

    def time(self) -> float:
        return self._now

    def pass_idle(self, seconds: float) -> None:
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
    """Looks for events without waiting; what it would have waited passes on the loop's clock."""

    def __init__(self, loop: IdleTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.waits_for_threads:
            return super().select(timeout and 1.0)
        events = super().select(0)
        if not events and timeout > 0:
            self._loop.pass_idle(timeout)
        return events
