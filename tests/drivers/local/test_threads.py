"""Threads and their lane: brief work and other work never starve each other."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.local import _threads
from trove_async.drivers.local._threads import Threads
from trove_async.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(count: int) -> AsyncIterator[Threads]:
    threads = Threads(count)
    try:
        async with asyncio.timeout(20):
            yield threads
    finally:
        await threads.aclose()


async def turns(count: int = 20) -> None:
    """Run the event loop `count` times. It checks the lane each time if `_LANE_POLL` is 0."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 2, 8])
async def test_all_brief_work_is_done(count: int) -> None:
    done: list[int] = []
    async with serving(count) as threads, asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(threads.run(lambda number=number: done.append(number), brief=True))  # type: ignore[misc]
    assert sorted(done) == list(range(100))


async def test_failure_of_brief_work_reaches_only_its_caller() -> None:
    async with serving(2) as threads, asyncio.TaskGroup() as group:
        good = [group.create_task(threads.run(lambda: 1, brief=True)) for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0, brief=True)
        assert [await one for one in good] == [1, 1, 1]


async def test_brief_work_runs_although_a_thread_of_the_lane_is_blocked() -> None:
    let_go = threading.Event()
    async with serving(3) as threads, asyncio.TaskGroup() as group:
        waits = group.create_task(threads.run(lambda: let_go.wait(10), brief=True))
        await threads.run(let_go.set, brief=True)
        assert await waits


@pytest.mark.parametrize("count", [2, 3])
async def test_blocked_lane_leaves_a_thread_for_other_work(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_LANE_POLL", 0)
    let_go = threading.Event()
    async with serving(count) as threads, asyncio.TaskGroup() as group:
        waits = [
            group.create_task(threads.run(lambda: let_go.wait(10), brief=True))
            for _ in range(count)
        ]
        await turns()
        await threads.run(let_go.set)
        assert all([await one for one in waits])


async def test_lane_that_is_never_empty_leaves_the_only_thread_to_other_work() -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    async with serving(1) as threads, asyncio.TaskGroup() as group:

        def follow(queued: threading.Event) -> None:
            if not over.is_set():
                group.create_task(threads.run(work, brief=True))
            loop.call_soon(queued.set)  # the task has started by then

        def work() -> None:
            queued = threading.Event()
            loop.call_soon_threadsafe(follow, queued)
            queued.wait(10)

        follow(threading.Event())
        await turns()
        await threads.run(lambda: None)
        over.set()


async def test_cancelled_brief_work_that_has_not_started_never_runs() -> None:
    reached, let_go = threading.Event(), threading.Event()
    done: list[str] = []

    def wait() -> None:
        reached.set()
        let_go.wait(10)

    async with serving(2) as threads, asyncio.TaskGroup() as group:
        first = group.create_task(threads.run(wait, brief=True))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        second = group.create_task(threads.run(lambda: done.append("second"), brief=True))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not first.done()
        let_go.set()
    assert not done


async def test_close_runs_queued_work_before_the_last_function() -> None:
    order: list[str] = []
    reached, let_go = threading.Event(), threading.Event()

    def first() -> None:
        reached.set()
        let_go.wait(10)
        order.append("first")

    threads = Threads(3)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(threads.run(first, brief=True))
        group.create_task(threads.run(lambda: order.append("second"), brief=True))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        closing = group.create_task(threads.aclose(last=lambda: order.append("last")))
        await turns()
        let_go.set()
        await closing
    await threads.aclose(last=lambda: order.append("again"))
    assert order[-1] == "last"
    assert sorted(order) == ["first", "last", "second"]
    with pytest.raises(ClosedError):
        await threads.run(lambda: None, brief=True)


async def test_cancelled_close_ends_the_threads() -> None:
    reached, let_go = threading.Event(), threading.Event()

    def work() -> None:
        reached.set()
        let_go.wait(10)

    threads = Threads(2)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(threads.run(work))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        closing = group.create_task(threads.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert not any(thread.is_alive() for thread in threads._threads)
