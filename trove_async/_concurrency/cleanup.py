"""Work that must end although its task was cancelled: shields, cleanup, and calls in threads."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio

from .deadlines import within

T = TypeVar("T")
Args = TypeVarTuple("Args")


CLEANUP_SECONDS = 10.0
"""How long an abort or a close may take under its shield, before it is left as litter."""


@contextmanager
def shielded(seconds: float = CLEANUP_SECONDS) -> Iterator[None]:
    """Let cleanup await although its task is cancelled, for so long at the most."""
    with anyio.move_on_after(seconds, shield=True):
        yield


async def run_shielded(work: Coroutine[Any, Any, object], seconds: float = CLEANUP_SECONDS) -> None:
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


async def wait_until_done(work: asyncio.Future[T]) -> T:
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


async def run_cleanup(work: Coroutine[Any, Any, T], seconds: float = CLEANUP_SECONDS) -> T:
    """Return what some cleanup returns, which no cancel stops, for so long at the most.

    `shielded` holds off the cancels of a scope; a native one, such as `asyncio.Task.cancel`, goes
    through it. Here either is raised once the work is over.

    Raises:
        TimedOutError: It was stopped for taking longer.
    """
    task = asyncio.get_running_loop().create_task(within(seconds, "cleaning up did not end", work))
    return await wait_until_done(task)


async def await_outcome(work: Coroutine[Any, Any, T], seconds: float) -> T:
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
    return await wait_until_done(asyncio.get_running_loop().run_in_executor(None, call, *args))
