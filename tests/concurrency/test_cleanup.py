"""Cleanup, requests and thread calls that complete although their task was cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from tests.concurrency.steps import let_tasks_run, raising
from trove_async._concurrency import (
    CLEANUP_SECONDS,
    CloseStack,
    OwnedTask,
    await_outcome,
    in_thread,
    run_cleanup,
    run_shielded,
    shielded,
    wait_until_done,
)
from trove_async.errors import ObjectNotFoundError, TimedOutError


async def test_shielded_cleanup_completes_in_a_cancelled_scope() -> None:
    done = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        finally:
            with shielded():
                await let_tasks_run()
                done = True
    assert done
    assert scope.cancelled_caught


async def test_shielded_cleanup_ends_at_its_deadline() -> None:
    assert CLEANUP_SECONDS > 1
    with shielded(0.01):
        await asyncio.Event().wait()


async def test_wait_until_done_waits_although_cancelled_twice() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = OwnedTask(wait_until_done(work))
    await let_tasks_run()
    for _ in range(2):
        task._task.cancel()
        await let_tasks_run()
    assert not task.done
    work.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await task._task


async def test_wait_until_done_does_not_spin_in_a_cancelled_scope() -> None:
    loop = asyncio.get_running_loop()
    work: asyncio.Future[int] = loop.create_future()
    waits = 0
    wait = asyncio.wait

    async def counting_wait(*args: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        return await wait(*args, **options)

    async def finish() -> None:
        for _ in range(50):
            await let_tasks_run()
        work.set_result(1)

    finishing = OwnedTask(finish())
    with pytest.MonkeyPatch.context() as patch, anyio.CancelScope() as scope:
        patch.setattr(asyncio, "wait", counting_wait)
        scope.cancel()
        await wait_until_done(work)
    await finishing.result()
    assert scope.cancelled_caught
    assert waits <= 3


@pytest.mark.parametrize("cancel", [True, False])
async def test_wait_until_done_raises_a_failure_unless_cancelled(*, cancel: bool) -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(wait_until_done(work))
    await let_tasks_run()
    if cancel:
        task.cancel()
        await let_tasks_run()
    work.set_exception(ValueError("failed"))
    with pytest.raises(asyncio.CancelledError if cancel else ValueError):
        await task


async def test_wait_until_done_raises_its_cancel_if_the_work_is_cancelled_too() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(wait_until_done(work))
    await let_tasks_run()
    task.cancel()
    await let_tasks_run()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cleanup_completes_although_cancelled_twice() -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    task = asyncio.get_running_loop().create_task(run_cleanup(work()))
    for _ in range(2):
        await let_tasks_run()
        task.cancel()
    await let_tasks_run()
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_run_cleanup_returns_the_result_and_raises_the_error() -> None:
    assert await run_cleanup(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ObjectNotFoundError):
        await run_cleanup(raising(ObjectNotFoundError("gone")))


async def test_cleanup_is_stopped_at_its_deadline() -> None:
    with pytest.raises(TimedOutError):
        await run_cleanup(asyncio.Event().wait(), 0.01)


async def test_request_completes_before_its_cancel_is_raised() -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    task = asyncio.get_running_loop().create_task(await_outcome(work(), 60))
    for _ in range(3):
        await let_tasks_run()
        task.cancel()
    await let_tasks_run()
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_request_completes_in_a_cancelled_scope() -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.02, release.set)
        await await_outcome(work(), 60)
        pytest.fail("the cancel was swallowed")
    assert ended.is_set()


async def test_await_outcome_returns_the_result_and_raises_the_error() -> None:
    assert await await_outcome(asyncio.sleep(0, "done"), 60) == "done"
    with pytest.raises(ObjectNotFoundError):
        await await_outcome(raising(ObjectNotFoundError("gone")), 60)


async def test_cancel_takes_precedence_over_a_later_failure() -> None:
    release = asyncio.Event()

    async def work() -> None:
        await release.wait()
        raise ObjectNotFoundError("gone")

    task = asyncio.get_running_loop().create_task(await_outcome(work(), 60))
    await let_tasks_run()
    task.cancel()
    await let_tasks_run()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_request_that_does_not_end_is_cancelled_at_the_limit() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.get_running_loop().create_task(await_outcome(work(), 0.01))
    await let_tasks_run()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_thread_is_awaited_although_cancelled() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)
        ended.set()

    task = OwnedTask(in_thread(work))
    while not started.is_set():
        await asyncio.sleep(0)
    task._task.cancel()
    await let_tasks_run()
    assert not task.done
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task._task
    assert ended.is_set()


async def test_in_thread_returns_the_result_and_raises_the_error() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_cleanup_that_does_not_wait_completes() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        done.append("cleaned")

    await run_shielded(cleanup())
    assert done == ["cleaned"]


async def test_cleanup_that_waits_completes_in_a_cancelled_scope() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        for step in ("one", "two"):
            await asyncio.sleep(0)
            done.append(step)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_shielded(cleanup())
        await asyncio.sleep(0)
        done.append("not reached")
    assert done == ["one", "two"]


@pytest.mark.parametrize("opens", ["run_shielded", "shielded"])
async def test_shields_may_be_nested(opens: str) -> None:
    steps: list[str] = []

    async def inner() -> None:
        await asyncio.sleep(0)
        steps.append("inner")

    async def outer() -> None:
        if opens == "shielded":
            with shielded():
                await inner()
        else:
            await run_shielded(inner())
        await run_shielded(inner())
        with shielded():
            await asyncio.sleep(0)
        steps.append("outer")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_shielded(outer())
    assert steps == ["inner", "inner", "outer"]
    await asyncio.sleep(0)  # no scope is left open: this would raise a cancel


async def test_run_shielded_raises_errors_and_stops_at_its_limit() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await run_shielded(failing())
    with pytest.raises(KeyError):
        await run_shielded(raising(KeyError()))
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    await run_shielded(endless(), 0.01)
    assert ended == ["cancelled"]


async def test_close_stack_closes_all_in_reverse_order_and_raises_errors() -> None:
    closed: list[str] = []
    stack = CloseStack()

    def push(name: str, error: Exception | None = None) -> None:
        async def close() -> None:
            closed.append(name)
            if error is not None:
                raise error

        stack.push(close)

    push("first")
    push("second", KeyError("second"))
    push("third")
    with pytest.raises(KeyError, match="second"):
        await stack.aclose()
    assert closed == ["third", "second", "first"]
    assert stack.is_empty
    await stack.aclose()
    assert len(closed) == 3
    push("fourth", KeyError("fourth"))
    push("fifth", ValueError("fifth"))
    with pytest.raises(ExceptionGroup) as caught:
        await stack.aclose()
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]


async def test_close_stack_closes_the_others_after_a_cancel_and_the_cancelled_one_later() -> None:
    gate = asyncio.Event()
    closed: list[str] = []
    stack = CloseStack()

    async def close_first() -> None:
        closed.append("first")

    async def close_second() -> None:
        await gate.wait()
        closed.append("second")

    stack.push(close_first)
    stack.push(close_second)
    task = OwnedTask(stack.aclose())
    await let_tasks_run()
    await task.aclose()
    assert closed == ["first"]  # a cancel does not keep the others open
    assert not stack.is_empty
    gate.set()
    await stack.aclose()
    assert closed == ["first", "second"]
    assert stack.is_empty


async def test_close_stack_can_be_closed_concurrently() -> None:
    gate = asyncio.Event()
    closed: list[str] = []
    stack = CloseStack()

    async def close() -> None:
        await gate.wait()
        closed.append("a")

    stack.push(close)
    tasks = [OwnedTask(stack.aclose()) for _ in range(2)]
    await let_tasks_run()
    gate.set()
    for task in tasks:
        await task.result()
    assert closed == ["a", "a"]  # each call waits for the end, so `close` must be idempotent
    assert stack.is_empty
