"""Task groups, loops with a limit, and tasks that belong to an object rather than to a block."""

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
    """Open a task group whose single failure comes out as itself, not in a group of one.

    Where several tasks fail at once, the first is raised: the others failed because of the same
    thing, or while they were being cancelled for it. A group that a task itself raised stays one.
    """

    __slots__ = ("_group",)

    async def __aenter__(self) -> TaskGroup:
        self._group = anyio.create_task_group()  # noqa: TID251 - the one place
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
        # Raised out here, it keeps the cause and the context that it has.
        raise first


async def for_each(
    items: Iterable[T], work: Callable[[T], Awaitable[object]], *, limit: int
) -> None:
    """Do the work on every item, `limit` of them at a time; the first failure ends it, and is raised.

    `items` is asked for the next one only when somebody is free to work on it.
    """
    remaining = iter(items)

    async def work_on() -> None:
        for item in remaining:
            await work(item)

    workers = min(limit, len(items)) if isinstance(items, Sized) else limit
    if workers == 1:
        await work_on()
    elif workers:
        async with task_group() as group:
            for _ in range(workers):
                group.start_soon(work_on)


class OwnedTask(Generic[T]):
    """A task that belongs to an object rather than to a block: a reader's read-ahead, say.

    The one exception to "every task lives in a task group". Its owner must `aclose` it, from
    whichever task, or take its result. A failure that nobody asks for is dropped with it.
    """

    __slots__ = ("_task",)

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(_seen)

    @property
    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._task.done()

    def when_done(self, call: Callable[[], None]) -> None:
        """Call this once the task has ended."""
        self._task.add_done_callback(lambda _: call())

    def outcome(self) -> T | None:
        """Return what the task returned; None if it has not, or raised something."""
        ended = self._task.done() and not self._task.cancelled() and self._task.exception() is None
        return self._task.result() if ended else None

    async def result(self) -> T:
        """Return what the task returned, or raise what it raised. A cancel leaves it running.

        Raises:
            ClosedError: The task was closed meanwhile.
        """
        if not self._task.done():
            await asyncio.wait([self._task])
        if self._task.cancelled():
            # By its owner's close, not by whoever waits here, whose own cancel is raised above.
            raise ClosedError("what this was part of was closed meanwhile")
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the task and wait until it has ended, whatever with. Idempotent."""
        cancelled: asyncio.CancelledError | None = None
        # A task that is cancelled before its first step never takes it, and so never gives back
        # what it was handed: a permit, or memory.
        while _is_to_begin(self._task):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                cancelled = error
        self._task.cancel()
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


def _is_to_begin(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return (
        not task.done()
        and isinstance(coroutine, types.CoroutineType)
        and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    )


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asked for, so that nobody is warned of what nobody wants to know


class OwnedTasks:
    """The owned tasks of one store: none outlives it.

    Attributes:
        closed: Whether it takes no more.
    """

    def __init__(self) -> None:
        self.closed = False
        self._running: set[OwnedTask[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> OwnedTask[T]:
        """Start a task that ends at the latest with the store; ask `closed` before."""
        task = OwnedTask(work)
        self._running.add(task)
        task.when_done(lambda: self._running.discard(task))
        return task

    async def aclose(self) -> None:
        """Cancel what still runs, and wait for it."""
        self.closed = True
        for task in list(self._running):
            await task.aclose()
