"""First attempts that are made directly, by drivers that apply the timeouts themselves."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, store_of
from trove_async import (
    Capabilities,
    CircuitBreaker,
    Event,
    ObjectNotFoundError,
    PoolTimeoutError,
    RetryPolicy,
    Timeout,
    Trove,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.idle_time

OPERATIONS: dict[str, Callable[[Trove], Awaitable[object]]] = {
    "put": lambda store: store.put("bucket", "key", b"body"),
    "head": lambda store: store.head("bucket", "key"),
    "delete": lambda store: store.delete("bucket", "key"),
}


class Remote(Fake):
    """A driver of a service, whose first attempts are direct. Its faults do not hang for long."""

    def __init__(self) -> None:
        super().__init__(embedded=False)

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, own_timeouts=True)


def calls_of(store: Trove) -> Any:
    return store._core.backends["default"].driver.calls  # type: ignore[attr-defined]  # the wrapper


async def unavailable() -> None:
    raise UnavailableError("connection refused")


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_failed_first_attempts_open_the_circuit(operation: str) -> None:
    fake = Remote()
    breaker = CircuitBreaker(failures=2, duration=1.0, pause=60.0, max_pause=60.0)
    async with store_of(fake, retry=RetryPolicy(attempts=1, breaker=breaker)) as store:
        assert calls_of(store).is_timed
        await store.put("bucket", "key", b"body")
        fake.before[operation] = unavailable
        for expected in ("connection refused", "connection refused", "the request was not sent"):
            with pytest.raises(UnavailableError, match=expected):
                await OPERATIONS[operation](store)
            await asyncio.sleep(1.1)
        assert_idle(store)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_failed_first_attempt_is_retried_and_counted_once(operation: str) -> None:
    fake = Remote()
    async with store_of(fake, retry=RetryPolicy(attempts=2, base_delay=0.001)) as store:
        await store.put("bucket", "key", b"body")
        attempts = 0

        async def fail_once() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise UnavailableError("connection refused")

        fake.before[operation] = fail_once
        await OPERATIONS[operation](store)
        assert attempts == 2
        assert calls_of(store).breaker.failures == 0
        assert_idle(store)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_a_first_attempt_has_the_operation_and_the_object(operation: str) -> None:
    fake = Remote()
    async with store_of(fake, retry=RetryPolicy(attempts=1)) as store:
        await store.put("bucket", "key", b"body")
        fake.before[operation] = unavailable
        with pytest.raises(UnavailableError) as caught:
            await OPERATIONS[operation](store)
        error = caught.value
        assert (error.operation, error.backend) == (operation, "default")
        assert (error.bucket, error.key) == ("bucket", "key")


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_first_attempt_releases_its_permit(operation: str) -> None:
    fake = Remote()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"body")
        started = asyncio.Event()

        async def hang() -> None:
            started.set()
            await asyncio.Event().wait()

        fake.before[operation] = hang
        running = asyncio.get_running_loop().create_task(_run(OPERATIONS[operation], store))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert_idle(store)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_first_attempt_without_a_permit_times_out(operation: str) -> None:
    fake = Remote()
    timeout = Timeout(permit=0.01)
    async with store_of(fake, retry=RetryPolicy(attempts=1), timeout=timeout) as store:
        await store.put("bucket", "key", b"body")
        calls = calls_of(store)
        for permits in (calls.read_permits, calls.write_permits, calls.request_permits):
            permits._semaphore.free = 0
        with pytest.raises(PoolTimeoutError, match="connection"):
            await OPERATIONS[operation](store)


async def _run(operation: Callable[[Trove], Awaitable[object]], store: Trove) -> None:
    await operation(store)


async def test_listener_gets_an_event_of_each_attempt() -> None:
    fake = Remote()
    async with store_of(fake, retry=RetryPolicy(attempts=1)) as store:
        attempts: list[int] = []

        def listen(event: Event) -> None:
            if event.kind == "attempt":
                attempts.append(event.attempt)

        await store.put("bucket", "key", b"body")
        stop = store.events.subscribe(listen)
        await store.head("bucket", "key")
        stop()
        await store.head("bucket", "key")
        assert attempts == [1]


async def test_error_of_a_first_attempt_is_not_kept_alive() -> None:
    kept: weakref.ref[ObjectNotFoundError] | None = None
    async with store_of(Remote()) as store:
        try:
            await store.head("bucket", "missing")
        except ObjectNotFoundError as error:
            kept = weakref.ref(error)
        was_enabled = gc.isenabled()
        gc.disable()  # a cycle would need it
        try:
            await asyncio.sleep(0)
            assert kept is not None
            assert kept() is None
        finally:
            if was_enabled:
                gc.enable()
