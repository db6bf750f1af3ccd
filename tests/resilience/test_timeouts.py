"""Timeouts of calls and operations, and the events of attempts and waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import CALLS, LARGE, Call, Fake, assert_idle, prepare_calls, store_of
from trove_async import (
    Event,
    RetryPolicy,
    TimedOutError,
    Timeout,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async.models import MiB

pytestmark = pytest.mark.idle_time

QUICK = Timeout(first_byte=0.05, idle=0.02, permit=0.05)


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


# -- timeouts ----------------------------------------------------------------------------------------


async def test_hanging_call_times_out(call: Call) -> None:
    step, run = call
    fake = Fake(embedded=False, parallel_parts=1)
    policy = RetryPolicy(attempts=2, base_delay=0)
    async with store_of(fake, timeout=QUICK, retry=policy) as store:
        await prepare_calls(store, fake)
        fake.hang(step)
        with pytest.raises(TimedOutError) as caught:
            await run(store)
        assert fake.count(step) == 2
        assert caught.value.backend == "default"
        assert_idle(store, fake)


async def test_embedded_driver_has_no_timeouts() -> None:
    fake = Fake()
    async with store_of(fake, timeout=Timeout(first_byte=1e-9, idle=1e-9)) as store:
        fake.before["put"] = lambda: asyncio.sleep(0.05)
        await store.put("bucket", "key", b"body")
        assert await store.read("bucket", "key") == b"body"


async def test_time_limit_of_a_write_includes_an_idle_timeout() -> None:
    fake = Fake(embedded=False, upload=False)
    async with store_of(fake, timeout=replace(QUICK, idle=5.0)) as store:
        fake.before["put"] = lambda: asyncio.sleep(0.1)  # longer than first_byte
        await store.put("bucket", "key", b"body")


async def test_slow_consumer_does_not_time_out() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, timeout=QUICK) as store:
        await store.put("bucket", "key", LARGE)
        async with store.get("bucket", "key") as obj:
            pieces = [await obj.read(MiB)]
            await asyncio.sleep(0.1)
            pieces.append(await obj.read())
        assert b"".join(pieces) == LARGE


async def test_total_timeout_ends_a_transfer_that_makes_progress() -> None:
    fake = Fake()
    async with store_of(fake, timeout=Timeout(total=0.05)) as store:

        async def endless() -> Any:
            while True:
                await asyncio.sleep(0.001)
                yield b"x"

        with pytest.raises(TimedOutError):
            await store.put("bucket", "key", endless())
        assert_idle(store, fake)


# -- events ------------------------------------------------------------------------------------------


async def test_every_attempt_emits_an_event() -> None:
    fake = Fake(max_connections=1)
    events: list[Event] = []
    async with store_of(fake) as store:
        fake.fail("put")
        unsubscribe = store.events.subscribe(events.append)
        await store.put("bucket", "key", b"body")
        attempts = [event for event in events if event.kind == "attempt"]
        assert [(event.operation, event.attempt) for event in attempts] == [("put", 1), ("put", 2)]
        assert isinstance(attempts[0].error, UnavailableError)
        assert attempts[1].error is None
        assert {(event.backend, event.bucket, event.key) for event in attempts} == {
            ("default", "bucket", "key")
        }
        unsubscribe()
        count = len(events)
        await store.head("bucket", "key")
        assert len(events) == count


async def test_wait_for_a_permit_emits_an_event() -> None:
    fake = Fake(max_connections=1)
    events: list[Event] = []
    async with store_of(fake) as store:
        release = asyncio.Event()
        fake.before["put"] = release.wait
        tasks = [OwnedTask(store.put("bucket", str(n), b"body")) for n in range(2)]
        store.events.subscribe(events.append)
        while not store._core.backends["default"].driver.calls.write_permits.waiting:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        release.set()
        for task in tasks:
            await task.result()
    assert [event.operation for event in events if event.kind == "wait"] == ["put"]
