"""Work that completes although its task was cancelled: shields, cleanup and calls in threads."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

import anyio

from .deadlines import within

T = TypeVar("T")
Args = TypeVarTuple("Args")


CLEANUP_SECONDS = 10.0
"""Seconds that an abort or a close may take under its shield, before it is cancelled."""


class Entered(Protocol):
    """A context manager that has been entered, and must be left."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> object: ...


class _FirstStep(threading.local):
    """The task in which `run_shielded` is making the first step of its work, in this thread.

    If that step waits, `run_shielded` opens its shield then, around whatever is open in the work. Scopes of
    anyio must be closed in the reverse order, so no other shield may be opened during that step.
    """

    task: asyncio.Task[Any] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the current task is making that step. A task that it starts eagerly is not."""
        return self.task is not None and self.task is asyncio.current_task()


_first_step = _FirstStep()


@contextmanager
def shielded(seconds: float = CLEANUP_SECONDS) -> Iterator[None]:
    """Shield the cleanup in a block from cancelled scopes of anyio, for up to `seconds` seconds.

    A native cancel (`asyncio.Task.cancel`) still interrupts it. See `run_cleanup`.
    """
    if _first_step.is_ours:  # the shield of that call follows
        yield
        return
    with anyio.move_on_after(seconds, shield=True):
        yield


async def run_shielded(work: Coroutine[Any, Any, object], seconds: float = CLEANUP_SECONDS) -> None:
    """Run cleanup under a shield. The shield costs 25 µs, so it is opened only if the cleanup waits.

    Args:
        work: The cleanup. It usually completes without waiting. It may itself use this function and
            `shielded`, but no other scope of anyio before it first waits.
        seconds: The time limit of the shield.
    """
    if _first_step.is_ours:
        await work
        return
    _first_step.task = asyncio.current_task()
    try:
        first = work.send(None)
    except StopIteration:
        return
    finally:
        _first_step.task = None
    with shielded(seconds):
        await _resume(work, first)


@types.coroutine
def _resume(work: Coroutine[Any, Any, object], first: object) -> Generator[object, Any, None]:
    """Await a coroutine that has been started and is waiting for `first`."""
    waits_for = first
    while True:
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
            step = partial(work.throw, error)
        else:
            step = partial(work.send, value)
        try:
            waits_for = step()
        except StopIteration:
            return


async def wait_until_done(
    work: asyncio.Future[T], on_cancel: Callable[[], None] | None = None
) -> T:
    """Wait for work that cannot be stopped, such as a call in a thread, even if cancelled.

    A CancelledError is raised once the work has ended. Until then, the work may use memory or a file
    that the caller is about to release.

    Args:
        work: The work.
        on_cancel: Called at a cancel. It may ask the work to end early.
    """
    cancelled: asyncio.CancelledError | None = None
    try:
        if not work.done():
            await asyncio.wait([work])
    except asyncio.CancelledError as error:
        cancelled = error
        if on_cancel is not None:
            on_cancel()
        # Without a shield, a cancelled scope of anyio would cancel again at every step of the loop.
        with anyio.CancelScope(shield=True):
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError as again:
                    cancelled = again
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # retrieved: the caller gets the CancelledError instead
        raise cancelled
    return work.result()


async def run_cleanup(work: Coroutine[Any, Any, T], seconds: float = CLEANUP_SECONDS) -> T:
    """Run cleanup that no cancel interrupts, for up to `seconds` seconds, and return its result.

    `shielded` stops only the cancels of anyio's scopes, and not native ones (`asyncio.Task.cancel`).
    Here, a cancel of either kind is raised once the cleanup has ended.

    Raises:
        TimedOutError: The cleanup took longer and was cancelled.
    """
    task = asyncio.get_running_loop().create_task(within(seconds, "the cleanup did not end", work))
    return await wait_until_done(task)


async def await_outcome(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await a request whose outcome must be known before anything is rolled back.

    A cancel does not interrupt the request, and is raised once the request has ended. `work` itself
    must record whether it succeeded.

    Args:
        work: The request.
        seconds: The time that the request may take after a cancel, before it is cancelled as well.
    """
    # 1. Run the request in its own task, which a cancel of the caller does not reach.
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return task.result()
    # 2. The caller was cancelled: wait for the outcome, up to the limit.
    end = loop.time() + seconds
    # Without a shield, a cancelled scope of anyio would cancel again at every step of the loop.
    with anyio.CancelScope(shield=True):
        while not task.done():
            remaining = end - loop.time()
            if remaining <= 0:
                task.cancel()
            try:
                await asyncio.wait([task], timeout=remaining if remaining > 0 else None)
            except asyncio.CancelledError as error:
                cancelled = error
    # 3. Raise the cancel.
    if not task.cancelled():
        task.exception()  # retrieved: the caller gets the CancelledError instead
    raise cancelled


class CloseStack:
    """Closes resources, the last one first.

    A cancel does not keep the other resources open, and a second call closes the resource whose close
    was cancelled. `contextlib.AsyncExitStack` would not do that: it drops a callback before it runs it.
    """

    def __init__(self) -> None:
        self._closers: list[Callable[[], Awaitable[None]]] = []

    def push(self, close: Callable[[], Awaitable[None]]) -> None:
        """Add a resource. Its `close` must be idempotent, and may be called concurrently."""
        self._closers.append(close)

    @property
    def is_empty(self) -> bool:
        """Whether every resource has been closed."""
        return not self._closers

    async def aclose(self) -> None:
        """Close every resource, even if one of them fails to close or the call is cancelled.

        A resource stays on the stack if its close was cancelled.

        Raises:
            ExceptionGroup: Several resources failed to close. A single error is raised as it is.
        """
        failures: list[Exception] = []
        cancelled: asyncio.CancelledError | None = None
        for close in reversed(self._closers.copy()):
            if close not in self._closers:
                continue  # a concurrent call has closed it
            try:
                await close()
            except asyncio.CancelledError as error:
                cancelled = error
                continue
            except Exception as error:  # noqa: BLE001 - close every resource, report every error
                failures.append(error)
            if close in self._closers:
                self._closers.remove(close)
        if cancelled is not None:
            raise cancelled
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("several resources failed to close", failures)


async def in_thread(call: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """Run a blocking call in a worker thread and return its result. If cancelled, wait for its end.

    Use this only for calls that end by themselves, such as file operations of the library, and never
    for user code. anyio's threads cannot be used: its shields do not stop a native cancel, and the
    thread would continue to write to memory that has been released.
    """
    return await wait_until_done(asyncio.get_running_loop().run_in_executor(None, call, *args))
