"""What a listener raises is raised from the operation, which then holds nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import _concurrency
from trove_async._concurrency import task_group
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async import Trove
    from trove_async.events import Event

pytestmark = pytest.mark.idle_time

BODY = content(2 * MiB + 5)


class UnheardError(Exception):
    """What the listener raises."""


async def chunks() -> AsyncIterator[bytes]:
    for at in range(0, len(BODY), 300_000):
        yield BODY[at : at + 300_000]


async def put(store: Trove) -> None:
    await store.put("bucket", "new", chunks())


async def put_without_memory(store: Trove) -> None:
    with await store.pool.lease(MiB), await store.pool.lease(MiB):
        await store.put("bucket", "new", chunks())


async def put_after_a_wait(store: Trove) -> None:
    first, second = await store.pool.lease(MiB), await store.pool.lease(MiB)

    async def give_back() -> None:
        while not store.pool.statistics().waiting:
            await asyncio.sleep(0)
        first.release()

    try:
        async with task_group() as group:
            group.start_soon(give_back)
            await store.put("bucket", "new", chunks())
            group.cancel_scope.cancel()
    finally:
        first.release()
        second.release()


async def read(store: Trove) -> None:
    assert await store.read("bucket", "key") == BODY


async def read_beside_an_idle_reader(store: Trove) -> None:
    async with store.get("bucket", "key") as idle:
        await idle.read(10)
        async with store.get("bucket", "key") as other:
            assert await other.read() == BODY
        assert await idle.read() == BODY[10:]


async def copy_to_another(store: Trove) -> None:
    await store.copy("bucket", "key", "bucket", "b/copy")


@asynccontextmanager
async def deaf(store: Trove, after: int) -> AsyncIterator[list[Event]]:
    """Raise from the event after so many."""
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if len(heard) == after + 1:
            raise UnheardError

    stop = store.events.subscribe(listen)
    yield heard
    stop()


@pytest.mark.parametrize(
    "operation",
    [put, put_without_memory, put_after_a_wait, read, read_beside_an_idle_reader, copy_to_another],
)
async def test_nothing_is_held_whichever_event_a_listener_fails_at(
    operation: Callable[[Trove], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_concurrency, "PARK_AFTER", 0.0)
    monkeypatch.setattr(_concurrency, "NUDGE_SECONDS", 0.001)
    fakes = Fake(max_connections=1), Fake()
    async with store_of(*fakes, pool=small_pool(spill_after=0.01)) as store:
        await store.put("bucket", "key", BODY)
        failures = 0
        while True:
            async with deaf(store, failures) as heard:
                try:
                    await operation(store)
                except UnheardError:
                    failures += 1
                else:
                    if len(heard) <= failures:
                        break
                    failures += 1  # it was told of another's doing, by a timer
            while store._core.backends._tasks._running:
                await asyncio.sleep(0)  # what was parked is being closed
            assert_idle(store, *fakes)
        assert failures
