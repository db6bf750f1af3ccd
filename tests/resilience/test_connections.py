"""Connections of downloads: parking, closing, and readers that are dropped."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.fakes import Fake, WithoutEtags, assert_idle, content, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    Event,
    PoolTimeoutError,
    Timeout,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async.models import MiB

if TYPE_CHECKING:
    from trove_async import Trove

pytestmark = pytest.mark.idle_time

BODY = content(5 * MiB + 123)


async def wait_until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_idle_reader_is_parked_and_resumes(reads: int) -> None:
    fake = Fake(max_connections=1)
    events: list[Event] = []
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        store.events.subscribe(events.append)
        async with store.get("bucket", "key") as obj:
            got = b"".join([await obj.read(MiB) for _ in range(reads)])
            assert await store.read("bucket", "key") == BODY
            assert [event.operation for event in events if event.kind == "park"] == ["get"]
            got += await obj.read()
        assert got == BODY
        assert_idle(store, fake)


async def test_reader_without_ranges_is_parked_only_before_its_first_byte() -> None:
    fake = Fake(max_connections=1, ranges=False)
    async with store_of(fake, timeout=Timeout(permit=0.3)) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            assert await store.read("bucket", "key") == BODY
            assert await obj.read(MiB) == BODY[:MiB]
            with pytest.raises(PoolTimeoutError):
                await store.read("bucket", "key")
            assert await obj.read() == BODY[MiB:]


async def test_reader_without_a_validator_keeps_its_connection() -> None:
    """A parked reader could not resume: nothing proves that the remaining bytes are of this version."""
    fake = WithoutEtags(max_connections=1)
    async with store_of(fake, timeout=Timeout(permit=0.05)) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            assert await obj.read(MiB) == BODY[:MiB]
            with pytest.raises(PoolTimeoutError):
                await store.read("bucket", "key")
            assert await obj.read() == BODY[MiB:]
        assert_idle(store, fake)


async def test_read_during_parking_resumes() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            first = await obj.read(MiB)
            reached = asyncio.Event()
            release = asyncio.Event()

            async def wait() -> None:
                reached.set()
                await release.wait()

            fake.before["get.exit"] = wait
            other = OwnedTask(store.read("bucket", "key"))
            await reached.wait()
            remaining = OwnedTask(obj.read())
            await asyncio.sleep(0)
            release.set()
            assert await other.result() == BODY
            assert first + await remaining.result() == BODY
        assert_idle(store, fake)


async def test_read_right_after_parking_reconnects() -> None:
    fake = Fake(max_connections=2)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            first = await obj.read(MiB)
            body: Any = cast("Any", obj._body)._reader
            body.park()
            assert first + await obj.read() == BODY
            assert fake.count("get") == 2
        assert_idle(store, fake)


async def test_connection_is_released_by_a_close_and_by_an_error() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(1)
        await obj.aclose()
        await obj.aclose()
        assert_idle(store, fake)
        with pytest.raises(ClosedError):
            await obj.read(1)
        with pytest.raises(KeyError):
            async with store.get("bucket", "key") as obj:
                raise KeyError
        assert_idle(store, fake)


async def test_failed_close_does_not_fail_the_read() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.fail("get.exit", UnavailableError("on close"))
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def drop_reader(store: Trove) -> None:
    obj = await store.get("bucket", "key")
    await obj.read(1)


async def test_dropped_reader_warns_and_releases_its_connection() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await drop_reader(store)
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        assert "never closed" in str(caught[0].message)
        await wait_until(lambda: fake.open_readers == 0)
        assert_idle(store, fake)


async def test_get_that_is_never_entered_warns() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store.get("bucket", "key")
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        assert "never opened" in str(caught[0].message)


@pytest.mark.parametrize("step", ["read", "get"])
async def test_close_by_another_task_ends_a_read_in_flight(step: str) -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        if step == "get":  # reached when the next read reconnects
            fake.cuts = [MiB]
        release = asyncio.Event()
        reached = asyncio.Event()

        async def wait() -> None:
            reached.set()
            await release.wait()

        fake.before[step] = wait
        read = OwnedTask(obj.read(MiB))
        await reached.wait()
        await obj.aclose()
        release.set()
        with pytest.raises(ClosedError):
            await read.result()
        assert_idle(store, fake)


async def test_read_after_closing_the_store_raises() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        fake.cuts = [2 * MiB]
        await obj.read(MiB)
    with pytest.raises(ClosedError):
        await obj.read(MiB)
    await obj.aclose()
