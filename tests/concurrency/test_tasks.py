"""Task groups, and tasks that belong to an object."""

from __future__ import annotations

import asyncio

import pytest

from tests.concurrency.steps import raising, steps
from trove_async._concurrency import OwnedTask, OwnedTasks, task_group
from trove_async.errors import ClosedError, ObjectNotFoundError, UnavailableError


async def test_single_failure_of_a_group_comes_out_as_itself() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group() as group:
            group.start_soon(raising, ObjectNotFoundError("gone"))


async def test_failure_in_the_body_of_a_group_comes_out_as_itself() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group() as group:
            group.start_soon(asyncio.sleep, 60)
            raise ObjectNotFoundError("gone")


async def test_failure_of_nested_groups_comes_out_as_itself() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group(), task_group(), task_group() as group:
            group.start_soon(raising, ObjectNotFoundError("gone"))


async def test_first_of_several_failures_comes_out() -> None:
    with pytest.raises(KeyError, match="first"):
        async with task_group() as group:
            group.start_soon(raising, KeyError("first"))
            group.start_soon(raising, ValueError("second"))


async def test_failure_keeps_its_cause() -> None:
    async def fail() -> None:
        try:
            raise OSError("the SDK's")
        except OSError as error:
            raise UnavailableError("ours") from error

    with pytest.raises(UnavailableError) as caught:
        async with task_group() as group:
            group.start_soon(fail)
    assert isinstance(caught.value.__cause__, OSError)


async def test_group_that_a_task_raised_stays_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with task_group() as group:
            group.start_soon(raising, ExceptionGroup("mine", [KeyError(), ValueError()]))
    assert caught.value.message == "mine"


async def test_group_without_failures_waits_for_its_tasks() -> None:
    done = []

    async def work() -> None:
        await steps()
        done.append(1)

    async with task_group() as group:
        group.start_soon(work)
    assert done == [1]


async def test_owned_task_gives_its_result_again_and_again() -> None:
    task = OwnedTask(asyncio.sleep(0, "result"))
    assert not task.done
    assert [await task.result(), await task.result()] == ["result", "result"]
    assert task.done


async def test_owned_task_raises_what_it_failed_with() -> None:
    task = OwnedTask(raising(KeyError("mine")))
    with pytest.raises(KeyError):
        await task.result()


async def test_failure_that_nobody_asks_for_is_dropped() -> None:
    OwnedTask(raising(KeyError("nobody's")))
    await steps()


async def test_cancelled_wait_leaves_an_owned_task_running() -> None:
    go_on = asyncio.Event()
    task = OwnedTask(go_on.wait())
    waiter = OwnedTask(task.result())
    await steps()
    await waiter.aclose()
    assert not task.done
    go_on.set()
    assert await task.result() is True


async def test_owned_task_that_is_closed_tells_its_waiter_so() -> None:
    task = OwnedTask(asyncio.Event().wait())
    waiter = OwnedTask(task.result())
    await steps()
    await task.aclose()
    with pytest.raises(ClosedError):
        await waiter.result()


async def test_owned_task_is_closed_though_its_closer_is_cancelled() -> None:
    go_on = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()

    task = OwnedTask(stubborn())
    await steps()
    closer = asyncio.get_running_loop().create_task(task.aclose())
    await steps()
    closer.cancel()
    await steps()
    assert not closer.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert task.done
    await task.aclose()


async def test_owned_task_that_is_closed_at_once_gives_back_what_it_was_handed() -> None:
    given_back = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_back.append(True)

    task = OwnedTask(work())
    await task.aclose()
    assert task.done
    assert given_back == [True]


async def test_owned_tasks_end_with_their_owner() -> None:
    tasks = OwnedTasks()
    short, long = tasks.start(asyncio.sleep(0)), tasks.start(asyncio.Event().wait())
    await steps()
    assert short.done
    await tasks.aclose()
    assert long.done
    assert tasks.closed
    await tasks.aclose()
