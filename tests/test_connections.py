"""Connections of downloads: parked, closed, dropped, and used to read ahead."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    Event,
    ObjectReader,
    PoolTimeoutError,
    RetryPolicy,
    Timeout,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from trove_async import Trove

BODY = content(5 * MiB + 123)


async def read_all(reader: ObjectReader, size: int = MiB) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


async def wait_until(something: Any) -> None:
    while not something():
        await asyncio.sleep(0)


# -- connections -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_reader_that_nobody_reads_is_parked_and_resumes(reads: int) -> None:
    fake = Fake(max_connections=1, readinto=True)
    seen: list[Event] = []
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        store.events.subscribe(seen.append)
        async with store.get("bucket", "key") as obj:
            got = b"".join([await obj.read(MiB) for _ in range(reads)])
            assert await store.read("bucket", "key") == BODY
            assert [one.operation for one in seen if one.kind == "park"] == ["get"]
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


async def test_reader_that_is_read_while_it_is_being_parked_reads_on() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            first = await obj.read(MiB)
            leaving = asyncio.Event()
            go_on = asyncio.Event()

            async def leave() -> None:
                leaving.set()
                await go_on.wait()

            fake.before["get.exit"] = leave
            other = OwnedTask(store.read("bucket", "key"))
            await leaving.wait()
            rest = OwnedTask(obj.read())
            await asyncio.sleep(0)
            go_on.set()
            assert await other.result() == BODY
            assert first + await rest.result() == BODY
        assert_idle(store, fake)


async def test_reader_that_is_parked_lets_its_connection_go_at_once() -> None:
    fake = Fake(max_connections=2)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            first = await obj.read(MiB)
            body: Any = obj._body._reader
            body.park()
            assert first + await obj.read() == BODY
            assert fake.count("get") == 2
        assert_idle(store, fake)


async def test_connection_is_given_back_on_close_and_on_errors() -> None:
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


async def test_failing_close_is_not_the_readers_trouble() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.fail("get.exit", UnavailableError("as it closes"))
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def drop_one(store: Trove) -> None:
    obj = await store.get("bucket", "key")
    await obj.read(1)


async def test_dropped_reader_warns_and_gives_its_connection_back() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await drop_one(store)
            gc.collect()
        assert [one.category for one in caught] == [ResourceWarning]
        assert "never closed" in str(caught[0].message)
        await wait_until(lambda: fake.open_readers == 0)
        assert_idle(store, fake)


async def test_get_that_is_never_opened_warns() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store.get("bucket", "key")
            gc.collect()
        assert [one.category for one in caught] == [ResourceWarning]
        assert "never opened" in str(caught[0].message)


@pytest.mark.parametrize("step", ["read", "get", "readinto"])
async def test_close_by_another_task_ends_a_read_that_is_under_way(step: str) -> None:
    fake = Fake(readinto=True, max_connections=1)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        if step == "readinto":
            reached = fake.hang(step)
            await obj.read(MiB)
            await reached.wait()
        elif step == "get":  # while it connects anew
            fake.cuts = [MiB]
        go_on = asyncio.Event()
        reached = asyncio.Event()

        async def wait() -> None:
            reached.set()
            await go_on.wait()

        if step != "readinto":
            fake.before[step] = wait
        read = OwnedTask(obj.read(MiB))
        if step != "readinto":
            await reached.wait()
        else:
            await asyncio.sleep(0)
        await obj.aclose()
        go_on.set()
        with pytest.raises(ClosedError):
            await read.result()
        assert_idle(store, fake)


async def test_close_as_read_ahead_arrives_hands_out_nothing_stale() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        for steps in range(20):
            obj = await store.get("bucket", "key")
            await obj.read(MiB)
            await obj.read(MiB)
            read = OwnedTask(obj.read(MiB))
            for _ in range(steps):
                await asyncio.sleep(0)
            await obj.aclose()
            lease = store.pool.try_lease(8 * MiB)
            assert lease is not None
            for view in lease.views:
                view[:] = bytes(MiB)
            lease.release()
            with suppress(ClosedError):
                assert await read.result() == BODY[2 * MiB : 3 * MiB]
        assert_idle(store, fake)


async def test_read_after_the_store_was_closed_is_told() -> None:
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


# -- read-ahead --------------------------------------------------------------------------------------


def leased(store: Trove) -> int:
    return store.pool.statistics().leased


async def test_only_streaming_reads_ahead() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            assert leased(store) == 0  # a first read may be the only one
            await obj.read(10)
            assert leased(store) == 0
            await obj.read(MiB)
            await obj.read(MiB)
            assert leased(store) == MiB
        assert_idle(store, fake)


@pytest.mark.parametrize("lacks", ["ranges", "readinto"])
async def test_what_could_not_be_read_again_is_not_read_ahead(lacks: str) -> None:
    fake = Fake(readinto=lacks != "readinto", ranges=lacks != "ranges")
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(3):
                await obj.read(MiB)
                assert leased(store) == 0


async def test_no_memory_no_read_ahead() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        with await store.pool.lease(2 * MiB):
            assert await store.read("bucket", "key") == BODY
        assert fake.count("readinto") == 0


async def test_revoked_read_ahead_is_read_again() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            await wait_until(lambda: fake.count("readinto.done"))
            (await store.pool.lease(2 * MiB, timeout=5)).release()
            assert leased(store) == 0
            assert fake.open_readers == 0
            got += await obj.read(100 * KiB)
            got += await obj.read()
        assert got == BODY
        assert_idle(store, fake)


async def test_read_ahead_that_is_being_read_is_not_revoked() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        go_on = asyncio.Event()
        fake.before["readinto"] = go_on.wait
        async with store.get("bucket", "key") as obj:
            body: Any = obj._body._reader
            got = await obj.read(MiB) + await obj.read(MiB)
            read = OwnedTask(obj.read(MiB))
            await asyncio.sleep(0.12)  # old enough to be revoked
            go_on.set()
            await wait_until(lambda: body._ahead._task.done)
            # It is filled, and the read that waits for it has not been told yet.
            with await store.pool.lease(MiB):
                taker = OwnedTask(store.pool.lease(MiB))
                await asyncio.sleep(0)
                assert not taker.done
                got += await read.result()
                (await taker.result()).release()
            got += await obj.read()
        assert got == BODY
        assert_idle(store, fake)


async def test_read_ahead_that_fails_is_resumed_and_counted_as_a_retry() -> None:
    fake = Fake(readinto=True)
    async with store_of(
        fake, pool=BufferPool(8 * MiB), retry=RetryPolicy(attempts=2, base_delay=0)
    ) as store:
        await store.put("bucket", "key", BODY)
        fake.cuts = [2 * MiB, 2 * MiB]
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            await obj.read(MiB)
            with pytest.raises(UnavailableError):
                await obj.read(MiB)
            assert await obj.read() == BODY[2 * MiB :]
        assert_idle(store, fake)


async def test_read_ahead_is_handed_out_in_small_pieces_too() -> None:
    fake = Fake(readinto=True)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            assert leased(store) == MiB
            got += await read_all(obj, 300 * KiB)
        assert got == BODY
        assert_idle(store, fake)
