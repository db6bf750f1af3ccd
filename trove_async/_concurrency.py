"""Tasks, shields and the permits of a driver: how things wait for one another here."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sized
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio

from .errors import ClosedError, PoolTimeoutError, TimedOutError, TroveError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator

    from anyio.abc import TaskGroup

T = TypeVar("T")

CLEANUP_SECONDS = 10.0
"""How long an abort or a close may take under its shield, before it is left as litter."""


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group whose single failure comes out as itself, not in a group of one.

    Where several tasks fail at once, the first is raised: the others failed because of the same
    thing, or while they were being cancelled for it.
    """
    try:
        async with anyio.create_task_group() as group:  # noqa: TID251 - the one place
            yield group
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


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


@contextmanager
def shielded(seconds: float = CLEANUP_SECONDS) -> Iterator[None]:
    """Let cleanup await although its task is cancelled, for so long at the most."""
    with anyio.move_on_after(seconds, shield=True):
        yield


async def settled(work: asyncio.Future[T]) -> T:
    """Await work that cannot be stopped, such as a thread's, to its end even if cancelled.

    The cancellation is raised once the work is over: until then it may touch memory, or a file,
    that the caller is about to give back.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what the caller hears of
        raise cancelled
    return work.result()


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

    async def result(self) -> T:
        """Return what the task returned, or raise what it raised. A cancel leaves it running."""
        if not self._task.done():
            await asyncio.wait([self._task])
        if self._task.cancelled():
            # By its owner's close, not by whoever waits here, whose own cancel is raised above.
            raise ClosedError("what this was part of was closed meanwhile")
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the task and wait until it has ended. Idempotent."""
        self._task.cancel()
        await settled_quietly(self._task)


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # asked for, so that nobody is warned of what nobody wants to know


class OwnedTasks:
    """The owned tasks of one store: none outlives it."""

    def __init__(self) -> None:
        self._running: set[OwnedTask[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> OwnedTask[T]:
        """Start a task that ends at the latest with the store."""
        task = OwnedTask(work)
        self._running.add(task)
        task.when_done(lambda: self._running.discard(task))
        return task

    async def aclose(self) -> None:
        """Cancel what still runs, and wait for it."""
        for task in list(self._running):
            await task.aclose()


async def settled_quietly(task: asyncio.Task[Any]) -> None:
    """Wait until a cancelled task has ended, whatever it ends with; stay cancellable after it."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Parkable(Protocol):
    """What holds a permit that can be taken from it while nobody uses it."""

    async def park(self) -> None:
        """Give the permit back; take a new one before the next use."""
        ...


PARK_AFTER = 0.1
"""Seconds without a read after which a reader's connection may go to somebody who waits."""


class Permits:
    """A limited number of connections, handed out in the order in which they were asked for.

    Args:
        limit: How many may be out at once; None: any number.
        what: What they are, for the message of a timeout.
    """

    def __init__(self, limit: int | None, what: str) -> None:
        self._free = math.inf if limit is None else limit
        self._limit = limit
        self._what = what
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: dict[Parkable, float] = {}

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiters)

    async def acquire(self, timeout: float) -> None:
        """Take a permit, from an idle holder if need be.

        Raises:
            PoolTimeoutError: None became free within `timeout` seconds. None is held after a
                cancel.
        """
        if self._free > 0 and not self._waiters:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        granted: asyncio.Future[None] = loop.create_future()
        self._waiters.append(granted)
        try:
            while not granted.done():
                pause = min(deadline, self._next_idle(loop.time())) - loop.time()
                if pause > 0:
                    await asyncio.wait([granted], timeout=pause)
                elif (holder := self._longest_idle(loop.time())) is not None:
                    await holder.park()
                elif loop.time() >= deadline:
                    raise self._timed_out(timeout)  # noqa: TRY301 - the cleanup below is for it too
        except BaseException:
            if granted.done():
                self.release()  # it came together with the cancel: on to the next in line
            else:
                self._waiters.remove(granted)
            raise

    def release(self) -> None:
        """Give a permit back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def idle(self, holder: Parkable) -> None:
        """Note that the holder of a permit is not using it for now."""
        if self._limit is not None:
            self._idle[holder] = asyncio.get_running_loop().time()

    def busy(self, holder: Parkable) -> None:
        """Note that the holder uses its permit again, or no longer has one."""
        self._idle.pop(holder, None)

    def _timed_out(self, seconds: float) -> PoolTimeoutError:
        return PoolTimeoutError(
            f"no {self._what} of {self._limit} became free in {seconds:g} s: close readers, or"
            " raise the driver's max_connections or Timeout.permit"
        )

    def _next_idle(self, now: float) -> float:
        since = next(iter(self._idle.values()), None)
        # Holders turn idle without waking us: look again before one that does so now is ripe.
        return now + PARK_AFTER if since is None else since + PARK_AFTER

    def _longest_idle(self, now: float) -> Parkable | None:
        holder, since = next(iter(self._idle.items()), (None, 0.0))
        if holder is None or since + PARK_AFTER > now:
            return None
        del self._idle[holder]
        return holder


async def within(seconds: float, what: str, work: Awaitable[T]) -> T:
    """Return what `work` returns, or cancel it after `seconds` and raise TimedOutError."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired() and not isinstance(error, TroveError):
            raise TimedOutError(f"{what} within {seconds:g} s") from None
        raise
