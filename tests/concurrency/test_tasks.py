"""Task groups, and tasks owned by an object."""

from __future__ import annotations

import asyncio

import pytest

from tests.concurrency.steps import let_tasks_run, raising
from trove_async._concurrency import OwnedTask, OwnedTasks, for_each, task_group
from trove_async.errors import ClosedError, ObjectNotFoundError, UnavailableError


async def test_single_failure_is_raised_without_an_exception_group() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group() as group:
            group.start_soon(raising, ObjectNotFoundError("gone"))


async def test_failure_in_the_body_is_raised_without_an_exception_group() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group() as group:
            group.start_soon(asyncio.sleep, 60)
            raise ObjectNotFoundError("gone")


async def test_failure_in_nested_groups_is_raised_without_an_exception_group() -> None:
    with pytest.raises(ObjectNotFoundError):
        async with task_group(), task_group(), task_group() as group:
            group.start_soon(raising, ObjectNotFoundError("gone"))


async def test_first_of_several_failures_is_raised() -> None:
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


async def test_exception_group_raised_by_a_task_stays_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with task_group() as group:
            group.start_soon(raising, ExceptionGroup("own", [KeyError(), ValueError()]))
    assert caught.value.message == "own"


async def test_group_without_failures_waits_for_its_tasks() -> None:
    done = []

    async def work() -> None:
        await let_tasks_run()
        done.append(1)

    async with task_group() as group:
        group.start_soon(work)
    assert done == [1]


@pytest.mark.parametrize("limit", [1, 2])
async def test_item_whose_work_somebody_else_cancels_is_not_lost(limit: int) -> None:
    request: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await for_each([asyncio.sleep(0), request], lambda item: item, limit=limit)


async def test_result_of_an_owned_task_can_be_awaited_repeatedly() -> None:
    task = OwnedTask(asyncio.sleep(0, "result"))
    assert not task.done
    assert [await task.result(), await task.result()] == ["result", "result"]
    assert task.done


async def test_result_of_a_failed_owned_task_raises_its_error() -> None:
    task = OwnedTask(raising(KeyError("own")))
    with pytest.raises(KeyError):
        await task.result()


async def test_failure_that_is_never_awaited_is_discarded() -> None:
    OwnedTask(raising(KeyError("discarded")))
    await let_tasks_run()


async def test_cancelled_wait_leaves_an_owned_task_running() -> None:
    release = asyncio.Event()
    task = OwnedTask(release.wait())
    waiter = OwnedTask(task.result())
    await let_tasks_run()
    await waiter.aclose()
    assert not task.done
    release.set()
    assert await task.result() is True


async def test_waiting_for_a_closed_owned_task_raises_closed_error() -> None:
    task = OwnedTask(asyncio.Event().wait())
    waiter = OwnedTask(task.result())
    await let_tasks_run()
    await task.aclose()
    with pytest.raises(ClosedError):
        await waiter.result()


async def test_aclose_waits_for_the_task_although_cancelled() -> None:
    release = asyncio.Event()

    async def clean_up_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    task = OwnedTask(clean_up_slowly())
    await let_tasks_run()
    closer = asyncio.get_running_loop().create_task(task.aclose())
    await let_tasks_run()
    closer.cancel()
    await let_tasks_run()
    assert not closer.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert task.done
    await task.aclose()


async def test_owned_task_closed_at_once_releases_its_resources() -> None:
    released = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            released.append(True)

    task = OwnedTask(work())
    await task.aclose()
    assert task.done
    assert released == [True]


async def test_owned_tasks_end_with_their_owner() -> None:
    tasks = OwnedTasks()
    short, long = tasks.start(asyncio.sleep(0)), tasks.start(asyncio.Event().wait())
    await let_tasks_run()
    assert short.done
    await tasks.aclose()
    assert long.done
    assert tasks.closed
    await tasks.aclose()
