"""Listeners are synchronous callables. Their failures are logged and change nothing."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async._concurrency import permits, task_group
from trove_async.events import Event, Events
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async import Trove

pytestmark = pytest.mark.idle_time

BODY = content(2 * MiB + 5)


class ListenerError(Exception):
    """The error that a listener raises."""


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

    async def release_for_a_waiter() -> None:
        while not store.pool.statistics().waiting:
            await asyncio.sleep(0)
        first.release()

    try:
        async with task_group() as group:
            group.start_soon(release_for_a_waiter)
            await store.put("bucket", "new", chunks())
            group.cancel_scope.cancel()
    finally:
        first.release()
        second.release()


async def read(store: Trove) -> None:
    assert await store.read("bucket", "key") == BODY


async def read_while_a_reader_is_idle(store: Trove) -> None:
    async with store.get("bucket", "key") as idle_reader:
        await idle_reader.read(10)
        async with store.get("bucket", "key") as reader:
            assert await reader.read() == BODY
        assert await idle_reader.read() == BODY[10:]


async def copy_to_the_second_backend(store: Trove) -> None:
    await store.copy("bucket", "key", "bucket", "b/copy")


class RaisingListener:
    """A listener that records all events, and raises at the event with this index. -1: at none."""

    def __init__(self, index: int, error: BaseException) -> None:
        self.events: list[Event] = []
        self._index = index
        self._error = error

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) == self._index + 1:
            raise self._error


@pytest.mark.parametrize("error", [ListenerError, asyncio.CancelledError])
@pytest.mark.parametrize(
    "operation",
    [
        put,
        put_without_memory,
        put_after_a_wait,
        read,
        read_while_a_reader_is_idle,
        copy_to_the_second_backend,
    ],
)
async def test_listener_that_raises_at_any_event_changes_nothing(
    operation: Callable[[Trove], Awaitable[None]],
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(permits, "PARK_AFTER", 0.0)
    monkeypatch.setattr(permits, "RECLAIM_SECONDS", 0.001)
    fakes = Fake(max_connections=1), Fake()
    async with store_of(*fakes, pool=small_pool(spill_after=0.01)) as store:
        await store.put("bucket", "key", BODY)
        index, raised = 0, True
        while raised:
            caplog.clear()
            raising, quiet = RaisingListener(index, error("unheard")), RaisingListener(-1, error())
            unsubscribes = [store.events.subscribe(listener) for listener in (raising, quiet)]
            await operation(store)
            while store._core.backends._tasks._running:
                await asyncio.sleep(0)  # a parked reader is being closed
            for unsubscribe in unsubscribes:
                unsubscribe()
            assert_idle(store, *fakes)
            assert quiet.events == raising.events
            raised = len(raising.events) > index
            assert len(caplog.records) == raised
            index += 1
        assert index > 2


@pytest.mark.parametrize("error", [ListenerError, asyncio.CancelledError])
async def test_error_of_a_listener_is_logged_with_its_traceback(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async with store_of(Fake()) as store:
        store.events.subscribe(RaisingListener(0, error("unheard")))
        info = await store.put("bucket", "key", b"body")
        assert info.size == 4
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
    [record] = caplog.records
    assert (record.name, record.levelname) == ("trove_async", "ERROR")
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    assert "the start event of put" in record.getMessage()
    assert "in __call__" in caplog.text


async def test_log_handler_that_raises_changes_nothing() -> None:
    class RaisingHandler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ListenerError(record.name)

    handler = RaisingHandler()
    logger = logging.getLogger("trove_async")
    logger.addHandler(handler)
    try:
        async with store_of(Fake()) as store:
            store.events.subscribe(RaisingListener(0, ListenerError()))
            assert (await store.put("bucket", "key", b"body")).size == 4
    finally:
        logger.removeHandler(handler)


async def test_interrupt_in_a_listener_is_raised() -> None:
    events = Events()
    events.subscribe(RaisingListener(0, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        events.emit(Event(kind="start", operation="put"))


async def async_listener(event: Event) -> None:
    del event


async def async_generator(event: Event) -> AsyncIterator[Event]:
    yield event


class AsyncListener:
    async def __call__(self, event: Event) -> None:
        del event

    async def method(self, event: Event) -> None:
        del event


@pytest.mark.parametrize(
    "listener",
    [
        async_listener,
        async_generator,
        AsyncListener(),
        AsyncListener().method,
        partial(async_listener),
        partial(partial(AsyncListener())),
        partial(AsyncListener().method),
    ],
    ids=["function", "generator", "object", "method", "partial", "of an object", "of a method"],
)
def test_async_listener_is_rejected(listener: Any) -> None:
    events = Events()
    with pytest.raises(TypeError, match="not awaited"):
        events.subscribe(listener)
    assert not events


def test_listener_must_be_callable() -> None:
    with pytest.raises(TypeError, match="got int"):
        Events().subscribe(5)  # type: ignore[arg-type]  # tested at run time


async def test_coroutine_returned_by_a_plain_listener_is_closed_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = Events()
    events.subscribe(lambda event: async_listener(event))  # type: ignore[arg-type]  # noqa: PLW0108
    events.emit(Event(kind="start", operation="put"))
    assert "a listener must not return a coroutine" in caplog.text


def test_plain_callables_of_all_kinds_are_listeners() -> None:
    events = Events()
    received: list[Event] = []
    for listener in (
        received.append,
        partial(received.append),
        RaisingListener(-1, ListenerError()),
    ):
        events.subscribe(listener)
    events.emit(Event(kind="start", operation="put"))
    assert len(received) == 2


async def test_each_unsubscribe_ends_one_subscription_of_a_listener() -> None:
    async with store_of(Fake()) as store:
        received: list[Event] = []
        first = store.events.subscribe(received.append)
        listener = received.append
        second, third = store.events.subscribe(listener), store.events.subscribe(listener)
        second()
        second()
        await store.exists("bucket", "key")
        with_two = len(received)
        received.clear()
        first()
        await store.exists("bucket", "key")
        assert with_two == 2 * len(received) > 0
        received.clear()
        third()
        await store.exists("bucket", "key")
        assert not received
