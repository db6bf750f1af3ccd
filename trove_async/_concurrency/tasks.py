"""Task groups, bounded loops, and tasks owned by an object rather than by a block."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sized
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from trove_async.errors import ClosedError

T = TypeVar("T")


class task_group:  # noqa: N801 - used as a function, as contextlib's are
    """Open a task group that raises the first failure itself instead of an exception group.

    Later failures are dropped: they usually have the same cause, or occur because the first failure
    cancels the other tasks. An exception group that a task raises is raised unchanged.
    """

    __slots__ = ("_group",)

    async def __aenter__(self) -> TaskGroup:
        self._group = anyio.create_task_group()  # noqa: TID251 - the only caller
        return await self._group.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
        # Outside the handler, so that the failure keeps its own cause and context.
        raise first


async def for_each(
    items: Iterable[T], work: Callable[[T], Awaitable[object]], *, limit: int
) -> None:
    """Run `work` on every item, at most `limit` at a time. The first failure ends the loop.

    The next item is taken from `items` only when a worker is free.
    """
    # The workers share one iterator, so each item is taken once.
    remaining = iter(items)
    finished = 0

    async def run_worker() -> None:
        nonlocal finished
        for item in remaining:
            await work(item)
        finished += 1

    workers = min(limit, len(items)) if isinstance(items, Sized) else limit
    if workers == 1:
        await run_worker()
    elif workers:
        async with task_group() as group:
            for _ in range(workers):
                group.start_soon(run_worker)
        if finished < workers:
            # What a worker awaited was cancelled by somebody else. A task group takes that for a cancel of its
            # own, and the item would be lost.
            raise asyncio.CancelledError


class OwnedTask(Generic[T]):
    """A task owned by an object rather than by a block, such as the read-ahead of a reader.

    All other tasks end within the function that starts them. The owner must call `aclose`, from any
    task, or await `result`. A failure that is not awaited is discarded.
    """

    __slots__ = ("_task",)

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(_retrieve_exception)

    @property
    def done(self) -> bool:
        """Whether the task has ended, so that `result` does not wait."""
        return self._task.done()

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call` once the task has ended."""
        self._task.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        """Request a cancel, without waiting. Use `when_done` to release what the task uses."""
        self._task.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._task.cancelled()

    def failure(self) -> BaseException | None:
        """Return the exception of the task; None: it is running, has succeeded or was cancelled."""
        if not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    def outcome(self) -> T | None:
        """Return the result of the task; None if it is running, has failed or was cancelled."""
        succeeded = (
            self._task.done() and not self._task.cancelled() and self._task.exception() is None
        )
        return self._task.result() if succeeded else None

    async def result(self) -> T:
        """Wait for the task and return its result, or raise its exception.

        A cancel of the caller leaves the task running.

        Raises:
            ClosedError: The task was cancelled by `aclose`.
        """
        if not self._task.done():
            await asyncio.wait([self._task])
        if self._task.cancelled():
            # The owner closed the task. A cancel of the caller was raised above.
            raise ClosedError("the task was cancelled because its reader or store was closed")
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the task and wait until it has ended, even if the caller is cancelled. Idempotent.

        The outcome of the task is ignored. A cancel of the caller is raised once the task has ended.
        """
        cancelled: asyncio.CancelledError | None = None
        # A task that is cancelled before its first step never runs, so it would not release a permit or
        # memory that was passed to it.
        while _is_unstarted(self._task):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                cancelled = error
        # `asyncio.wait` raises only a cancel of the caller, and not the outcome of the task.
        self._task.cancel()
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


def _is_unstarted(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return (
        not task.done()
        and isinstance(coroutine, types.CoroutineType)
        and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    )


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # otherwise asyncio warns of an exception that was never retrieved


class OwnedTasks:
    """The owned tasks of one store. None of them outlives the store.

    Attributes:
        closed: Whether `aclose` was called, so that no more tasks may be started.
    """

    def __init__(self) -> None:
        self.closed = False
        self._running: set[OwnedTask[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> OwnedTask[T]:
        """Start a task that ends with the store at the latest. Check `closed` first."""
        task = OwnedTask(work)
        self._running.add(task)
        task.when_done(lambda: self._running.discard(task))
        return task

    async def aclose(self) -> None:
        """Cancel the running tasks and wait until they have ended."""
        self.closed = True
        for task in list(self._running):
            await task.aclose()
