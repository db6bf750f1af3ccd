"""The worker threads and their lane: brief work and other work do not starve each other."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from trove_async.drivers.local import _threads
from trove_async.drivers.local._threads import Threads
from trove_async.errors import ClosedError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_threads(count: int) -> AsyncIterator[Threads]:
    threads = Threads(count)
    try:
        async with asyncio.timeout(20):
            yield threads
    finally:
        await threads.aclose()


async def run_loop(count: int = 20) -> None:
    """Run the event loop `count` times. With a `_LANE_POLL` of 0, it polls the lane each time."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 2, 8])
async def test_all_brief_work_runs(count: int) -> None:
    finished: list[int] = []
    async with open_threads(count) as threads, asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(threads.run(partial(finished.append, number), brief=True))
    assert sorted(finished) == list(range(100))


async def test_failure_of_brief_work_reaches_only_its_caller() -> None:
    async with open_threads(2) as threads, asyncio.TaskGroup() as group:
        good = [group.create_task(threads.run(lambda: 1, brief=True)) for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0, brief=True)
        assert [await task for task in good] == [1, 1, 1]


async def test_brief_work_runs_although_a_thread_of_the_lane_is_blocked() -> None:
    released = threading.Event()
    async with open_threads(3) as threads, asyncio.TaskGroup() as group:
        waiting = group.create_task(threads.run(lambda: released.wait(10), brief=True))
        await threads.run(released.set, brief=True)
        assert await waiting


@pytest.mark.parametrize("count", [2, 3])
async def test_blocked_lane_leaves_a_thread_for_other_work(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "_LANE_POLL", 0)
    released = threading.Event()
    async with open_threads(count) as threads, asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(threads.run(lambda: released.wait(10), brief=True))
            for _ in range(count)
        ]
        await run_loop()
        await threads.run(released.set)
        assert all([await task for task in waiting])


async def test_endless_brief_work_leaves_the_only_thread_to_other_work() -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    async with open_threads(1) as threads, asyncio.TaskGroup() as group:

        def queue_next(queued: threading.Event) -> None:
            if not stopped.is_set():
                group.create_task(threads.run(work, brief=True))
            loop.call_soon(queued.set)  # the task has started by then

        def work() -> None:
            queued = threading.Event()
            loop.call_soon_threadsafe(queue_next, queued)
            queued.wait(10)

        queue_next(threading.Event())
        await run_loop()
        await threads.run(lambda: None)
        stopped.set()


async def test_cancelled_brief_work_that_has_not_started_never_runs() -> None:
    reached, released = threading.Event(), threading.Event()
    finished: list[str] = []

    def wait() -> None:
        reached.set()
        released.wait(10)

    async with open_threads(2) as threads, asyncio.TaskGroup() as group:
        first = group.create_task(threads.run(wait, brief=True))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        second = group.create_task(threads.run(lambda: finished.append("second"), brief=True))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not first.done()
        released.set()
    assert not finished


async def test_close_runs_queued_work_before_the_final_work() -> None:
    order: list[str] = []
    reached, released = threading.Event(), threading.Event()

    def first() -> None:
        reached.set()
        released.wait(10)
        order.append("first")

    threads = Threads(3)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(threads.run(first, brief=True))
        group.create_task(threads.run(lambda: order.append("second"), brief=True))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        closing = group.create_task(threads.aclose(final_work=lambda: order.append("last")))
        await run_loop()
        released.set()
        await closing
    await threads.aclose(final_work=lambda: order.append("again"))
    assert order[-1] == "last"
    assert sorted(order) == ["first", "last", "second"]
    with pytest.raises(ClosedError):
        await threads.run(lambda: None, brief=True)


async def test_close_leaves_a_thread_behind_whose_call_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_threads, "CLOSE_SECONDS", 0.05)
    released, ended = threading.Event(), threading.Event()
    threads = Threads(2)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(threads.run(lambda: released.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(TimedOutError, match="file system has not answered"):
            await threads.aclose(final_work=ended.set)
        assert not ended.is_set()
        released.set()
    await threads.aclose()
    assert ended.is_set()
    assert not any(thread.is_alive() for thread in threads._threads)


async def test_cancelled_close_ends_the_threads() -> None:
    reached, released = threading.Event(), threading.Event()

    def work() -> None:
        reached.set()
        released.wait(10)

    threads = Threads(2)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(threads.run(work))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        closing = group.create_task(threads.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert not any(thread.is_alive() for thread in threads._threads)
