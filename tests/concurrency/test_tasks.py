"""Task groups, shields, threads, owned tasks and permits."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from trove_async._concurrency import (
    CLEANUP_SECONDS,
    Line,
    OwnedTask,
    OwnedTasks,
    Permits,
    concluded,
    finished,
    in_thread,
    settled,
    shielded,
    task_group,
    to_its_end,
)
from trove_async.errors import (
    ClosedError,
    ObjectNotFoundError,
    PoolTimeoutError,
    TimedOutError,
    UnavailableError,
)


async def raising(error: BaseException) -> None:
    raise error


async def steps(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- task groups -------------------------------------------------------------------------------------


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


# -- shields and threads -----------------------------------------------------------------------------


async def test_shielded_cleanup_goes_on_in_a_cancelled_scope() -> None:
    done = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        finally:
            with shielded():
                await steps()
                done = True
    assert done
    assert scope.cancelled_caught


async def test_shielded_cleanup_ends_at_its_deadline() -> None:
    assert CLEANUP_SECONDS > 1
    with shielded(0.01):
        await asyncio.Event().wait()


async def test_settled_waits_for_the_end_though_cancelled_twice() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = OwnedTask(settled(work))
    await steps()
    for _ in range(2):
        task._task.cancel()
        await steps()
    assert not task.done
    work.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await task._task


@pytest.mark.parametrize("cancel", [True, False])
async def test_settled_tells_a_failure_unless_cancelled(*, cancel: bool) -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(settled(work))
    await steps()
    if cancel:
        task.cancel()
        await steps()
    work.set_exception(ValueError("failed"))
    with pytest.raises(asyncio.CancelledError if cancel else ValueError):
        await task


async def test_settled_passes_the_works_own_cancel_on() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(settled(work))
    await steps()
    task.cancel()
    await steps()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_finished_work_ends_though_cancelled_twice() -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()

    task = asyncio.get_running_loop().create_task(finished(work()))
    for _ in range(2):
        await steps()
        task.cancel()
    await steps()
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_finished_work_returns_what_it_returns_and_raises_what_it_raises() -> None:
    assert await finished(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ObjectNotFoundError):
        await finished(raising(ObjectNotFoundError("gone")))


async def test_finished_work_is_stopped_at_its_deadline() -> None:
    with pytest.raises(TimedOutError):
        await finished(asyncio.Event().wait(), 0.01)


async def test_request_is_concluded_before_its_cancel_is_raised() -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()

    task = asyncio.get_running_loop().create_task(concluded(work(), 60))
    for _ in range(3):
        await steps()
        task.cancel()
    await steps()
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_request_is_concluded_in_a_cancelled_scope_too() -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()

    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.02, go_on.set)
        await concluded(work(), 60)
        pytest.fail("the cancel was swallowed")
    assert ended.is_set()


async def test_concluded_returns_what_it_returns_and_raises_what_it_raises() -> None:
    assert await concluded(asyncio.sleep(0, "done"), 60) == "done"
    with pytest.raises(ObjectNotFoundError):
        await concluded(raising(ObjectNotFoundError("gone")), 60)


async def test_failure_after_a_cancel_is_not_heard_of() -> None:
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        raise ObjectNotFoundError("gone")

    task = asyncio.get_running_loop().create_task(concluded(work(), 60))
    await steps()
    task.cancel()
    await steps()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_request_that_does_not_end_is_cancelled_at_last() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.get_running_loop().create_task(concluded(work(), 0.01))
    await steps()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_thread_is_waited_for_though_cancelled() -> None:
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)
        ended.set()

    task = OwnedTask(in_thread(work))
    while not started.is_set():
        await asyncio.sleep(0)
    task._task.cancel()
    await steps()
    assert not task.done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task._task
    assert ended.is_set()


async def test_thread_returns_and_raises() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


# -- owned tasks -------------------------------------------------------------------------------------


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


# -- lines -------------------------------------------------------------------------------------------


def line(free: int) -> Line:
    return Line(free, lambda: None)


async def test_line_serves_in_order_and_nobody_overtakes() -> None:
    one = line(2)
    assert one.try_take(1)
    large, small = one.join(2), one.join(1)
    assert not one.try_take(1)
    await steps()
    assert (large.done(), small.done(), len(one)) == (False, False, 2)
    assert (one.position(large), one.position(small)) == (1, 2)
    one.give_back(1)
    assert (large.done(), small.done()) == (True, False)
    assert (one.position(large), one.position(small)) == (0, 1)
    one.leave(large, 2)
    assert small.done()
    assert one.free == 1


async def test_leaving_a_line_lets_those_behind_be_served() -> None:
    one = line(1)
    large, small = one.join(2), one.join(1)
    one.leave(large, 2)
    assert small.done()
    assert one.free == 0


async def test_line_times_out_and_holds_nothing() -> None:
    one = line(0)
    assert not await one.take(1, 0.01)
    assert len(one) == 0


async def test_line_cancelled_as_it_is_served_gives_back() -> None:
    one = line(0)
    task = OwnedTask(one.take(1, 60))
    await steps()
    one.give_back(1)  # served, and not told yet
    task._task.cancel()
    await steps()
    assert one.free == 1
    assert len(one) == 0


async def test_line_nudges_while_somebody_waits_and_only_then() -> None:
    nudges = asyncio.Semaphore(0)
    one = Line(0, nudges.release)
    place = one.join(1)
    for _ in range(3):
        await nudges.acquire()
    one.give_back(1)
    assert place.done()
    timer = one._timer
    assert timer is not None
    while one._timer is timer:
        await asyncio.sleep(0.01)
    assert one._timer is None
    assert nudges.locked()


async def test_nudge_that_frees_something_serves_at_once() -> None:
    one: Line = Line(0, lambda: one.give_back(1))
    assert one.join(1).done()
    assert one._timer is None


# -- permits -----------------------------------------------------------------------------------------


class Holder:
    def __init__(self, permits: Permits) -> None:
        self.permits = permits
        self.parked = 0

    def park(self) -> None:
        self.parked += 1
        self.permits.release()


async def test_permits_are_handed_out_in_order() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    order: list[int] = []

    async def one(number: int) -> None:
        await permits.acquire(10)
        order.append(number)
        await steps()
        permits.release()

    async with task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
        await steps()
        assert permits.waiting == 10
        assert not permits.try_acquire()
        permits.release()
    assert order == list(range(10))
    assert permits.free == 1


async def test_unlimited_permits_never_wait() -> None:
    permits = Permits(None, "connection")
    for _ in range(1000):
        assert permits.try_acquire()
    permits.release()
    permits.idle(Holder(permits))
    assert not permits._idle


async def test_permit_timeout_says_which_knob_to_turn() -> None:
    permits = Permits(0, "connection for reading")
    with pytest.raises(PoolTimeoutError, match=r"no connection for reading of 0.*max_connections"):
        await permits.acquire(0.01)
    assert permits.waiting == 0


async def test_cancelled_wait_for_a_permit_holds_none() -> None:
    permits = Permits(1, "connection")
    await permits.acquire(1)
    task = OwnedTask(permits.acquire(10))
    await steps()
    await task.aclose()
    assert permits.waiting == 0
    permits.release()
    assert permits.free == 1


async def test_longest_idle_holder_is_parked_for_who_waits() -> None:
    permits = Permits(2, "connection")
    first, second = Holder(permits), Holder(permits)
    for holder in (first, second):
        await permits.acquire(1)
        permits.idle(holder)
    permits.busy(first)
    permits.idle(first)  # read again: idle for less time than the second by now
    await permits.acquire(5)
    assert (first.parked, second.parked) == (0, 1)


async def test_busy_holder_is_not_parked() -> None:
    permits = Permits(1, "connection")
    holder = Holder(permits)
    await permits.acquire(1)
    permits.idle(holder)
    permits.busy(holder)
    with pytest.raises(PoolTimeoutError):
        await permits.acquire(0.3)
    assert holder.parked == 0


# -- to its end --------------------------------------------------------------------------------------


async def test_cleanup_that_need_not_wait_is_done_at_once() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        done.append("cleaned")

    await to_its_end(cleanup())
    assert done == ["cleaned"]


async def test_cleanup_that_waits_is_done_although_its_scope_is_cancelled() -> None:
    done: list[str] = []

    async def cleanup() -> None:
        for step in ("one", "two"):
            await asyncio.sleep(0)
            done.append(step)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await to_its_end(cleanup())
        await asyncio.sleep(0)
        done.append("not reached")
    assert done == ["one", "two"]


async def test_cleanup_fails_as_it_does_and_is_given_up_when_its_time_is_over() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await to_its_end(failing())
    with pytest.raises(KeyError):
        await to_its_end(raising(KeyError()))
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    await to_its_end(endless(), 0.01)
    assert ended == ["cancelled"]
