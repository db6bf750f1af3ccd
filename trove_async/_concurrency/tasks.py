"""Tasks, shields, threads and waiting lines: how things wait for one another here."""

from __future__ import annotations

import asyncio
import inspect
import math
import types
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sized,
)
from contextlib import contextmanager
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio.abc import TaskGroup

from trove_async.errors import ClosedError, PoolTimeoutError

from .deadlines import within

T = TypeVar("T")
Args = TypeVarTuple("Args")

CLEANUP_SECONDS = 10.0
"""How long an abort or a close may take under its shield, before it is left as litter."""


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


@contextmanager
def shielded(seconds: float = CLEANUP_SECONDS) -> Iterator[None]:
    """Let cleanup await although its task is cancelled, for so long at the most."""
    with anyio.move_on_after(seconds, shield=True):
        yield


async def to_its_end(work: Coroutine[Any, Any, object], seconds: float = CLEANUP_SECONDS) -> None:
    """Do cleanup under a shield, which costs 25 µs, only if there is something to wait for.

    Args:
        work: The cleanup; most often it ends without having to wait.
        seconds: How long it may take, though its task be cancelled.
    """
    try:
        first = work.send(None)
    except StopIteration:
        return
    with shielded(seconds):
        await _going_on(work, first)


@types.coroutine
def _going_on(work: Coroutine[Any, Any, object], first: object) -> Generator[object, Any, None]:
    """Await a coroutine that was begun, and waits for `first`."""
    waits_for = first
    while True:
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - it goes to whom it is for
            step = partial(work.throw, error)
        else:
            step = partial(work.send, answer)
        try:
            waits_for = step()
        except StopIteration:
            return


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


async def finished(work: Coroutine[Any, Any, T], seconds: float = CLEANUP_SECONDS) -> T:
    """Return what some cleanup returns, which no cancel stops, for so long at the most.

    `shielded` holds off the cancels of a scope; a native one, such as `asyncio.Task.cancel`, goes
    through it. Here either is raised once the work is over.

    Raises:
        TimedOutError: It was stopped for taking longer.
    """
    task = asyncio.get_running_loop().create_task(within(seconds, "cleaning up did not end", work))
    return await settled(task)


async def concluded(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what a request returns whose outcome must be known before anything is undone.

    A cancel does not break it off: it is waited for, for so long at the most, and the cancel is
    raised then. `work` itself notes whether it succeeded.

    Args:
        work: The request.
        seconds: How long it may still take once a cancel has come, before it is cancelled, too.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return task.result()
    end = loop.time() + seconds
    # A cancelled scope of anyio's cancels again at every step of the loop, unless it is shielded.
    with anyio.CancelScope(shield=True):
        while not task.done():
            left = end - loop.time()
            if left <= 0:
                task.cancel()
            try:
                await asyncio.wait([task], timeout=left if left > 0 else None)
            except asyncio.CancelledError as error:
                cancelled = error
    if not task.cancelled():
        task.exception()  # seen: the cancellation is what the caller hears of
    raise cancelled


async def in_thread(call: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """Return what a blocking call of ours returns, waiting for its end even if cancelled.

    Only for work that ends by itself: a call on a file of ours, never one of a user's. (anyio's
    threads do not do this: a shield of anyio's stops no native cancel, and the thread goes on
    writing to memory that has been given back.)
    """
    return await settled(asyncio.get_running_loop().run_in_executor(None, call, *args))


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


NUDGE_SECONDS = 0.1
"""How often a line in which somebody waits looks for what it can take back."""


class Line:
    """Units of something bounded, handed out in the order in which they were asked for.

    Nobody overtakes: whoever wants little waits behind whoever wants much, or would be starved.

    Args:
        free: How many units there are.
        nudge: Called when somebody begins to wait, and again and again while anybody does: takes
            back what is not in use.
    """

    __slots__ = ("_nudge", "_timer", "_waiting", "free", "served")

    def __init__(self, free: float, nudge: Callable[[], None]) -> None:
        self.free = free
        self.served = 0
        self._nudge = nudge
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def try_take(self, count: int) -> bool:
        """Take so many units if they are free and nobody waits."""
        if self._waiting or count > self.free:
            return False
        self.free -= count
        return True

    def join(self, count: int) -> asyncio.Future[None]:
        """Stand in line for so many units: they are the caller's once the future is done.

        The caller then `leave`s the line, or keeps the units.
        """
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting[place] = count
        try:
            self._nudge()
        except BaseException:
            self.leave(place, count)
            raise
        if self._timer is None and self._waiting:
            self._timer = loop.call_later(NUDGE_SECONDS, self._look, loop)
        return place

    def leave(self, place: asyncio.Future[None], count: int) -> None:
        """Go without the units, whether or not they have been handed out."""
        if self._waiting.pop(place, None) is None:
            self.free += count
        self._serve()  # whoever stood behind may want less

    def position(self, place: asyncio.Future[None]) -> int:
        """Return how many are to be served up to and with this place; 0: it was served."""
        return next((n for n, other in enumerate(self._waiting, 1) if other is place), 0)

    async def take(self, count: int, timeout: float) -> bool:
        """Take so many units, in turn; False if that is not within `timeout` seconds.

        Nothing is held after a cancel.
        """
        if self.try_take(count):
            return True
        place = self.join(count)
        try:
            await asyncio.wait([place], timeout=timeout)
        except BaseException:
            self.leave(place, count)
            raise
        if not place.done():
            self.leave(place, count)
            return False
        return True

    def give_back(self, count: int) -> None:
        """Give units back, to whoever is first in line."""
        self.free += count
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            place, count = next(iter(self._waiting.items()))
            if count > self.free:
                return
            del self._waiting[place]
            self.free -= count
            self.served += 1
            place.set_result(None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            if self._waiting:
                self._nudge()
        finally:
            if self._waiting:
                self._timer = loop.call_later(NUDGE_SECONDS, self._look, loop)


class Parkable(Protocol):
    """What holds a permit that can be taken from it while nobody uses it."""

    def park(self) -> None:
        """Begin to give the permit back; take a new one before the next use."""
        ...


PARK_AFTER = 0.1
"""Seconds without a read after which a reader's connection may go to somebody who waits."""


class Permits:
    """A limited number of connections, handed out in the order in which they were asked for.

    Args:
        limit: How many may be out at once; None: any number.
        what: What they are, for the message of a timeout.
    """

    __slots__ = ("_idle", "_limit", "_line", "_what")

    def __init__(self, limit: int | None, what: str) -> None:
        self._limit = limit
        self._what = what
        self._line = Line(math.inf if limit is None else limit, self._park_idle)
        self._idle: dict[Parkable, float] = {}

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._line)

    @property
    def free(self) -> float:
        """How many could be taken now."""
        return self._line.free

    def try_acquire(self) -> bool:
        """Take a permit if one is free and nobody waits."""
        return self._line.try_take(1)

    async def acquire(self, timeout: float) -> None:
        """Take a permit, from an idle holder if need be.

        Raises:
            PoolTimeoutError: None became free within `timeout` seconds. None is held after a
                cancel.
        """
        if not await self._line.take(1, timeout):
            raise PoolTimeoutError(
                f"no {self._what} of {self._limit} became free in {timeout:g} s: close readers, or"
                " raise the driver's max_connections or Timeout.permit"
            )

    def release(self) -> None:
        """Give a permit back."""
        self._line.give_back(1)

    def idle(self, holder: Parkable) -> None:
        """Note that the holder of a permit is not using it for now."""
        if self._limit is not None:
            self._idle[holder] = asyncio.get_running_loop().time()

    def busy(self, holder: Parkable) -> None:
        """Note that the holder uses its permit again, or no longer has one."""
        self._idle.pop(holder, None)

    def _park_idle(self) -> None:
        """Take permits from those who have been idle longest, for as many as wait."""
        ripe = asyncio.get_running_loop().time() - PARK_AFTER
        for holder, since in list(islice(self._idle.items(), len(self._line))):
            if since > ripe:
                return
            del self._idle[holder]
            holder.park()
