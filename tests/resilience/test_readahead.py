"""Reading ahead: a slow stream is fetched in pieces, in order, with what is free and no more."""

from __future__ import annotations

import asyncio
import itertools
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    ObjectChangedError,
    RetryPolicy,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._resilience import download
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from trove_async import ObjectReader, Trove

pytestmark = pytest.mark.idle_time

BODY = content(13 * MiB + 123)


@pytest.fixture(autouse=True)
def _every_connection_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOW", 0)
    monkeypatch.setattr(download, "TRIAL", 0)


def pool() -> BufferPool:
    """Return one in which a piece has 4 MiB, and of which two may be under way."""
    return BufferPool(32 * MiB, 1 * MiB)


def sliced(**options: Any) -> Fake:
    return Fake(**{"parallel_reads": 3, **options})


def leased(store: Trove) -> int:
    return store.pool.statistics().leased


async def rest_of(reader: ObjectReader, size: int = MiB) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


async def wait_until(something: Any) -> None:
    while not something():
        await asyncio.sleep(0)


@pytest.mark.parametrize("readinto", [False, True])
@pytest.mark.parametrize("size", [MiB, 300 * KiB, 5 * MiB])
async def test_pieces_come_in_order_whatever_is_asked_for(size: int, *, readinto: bool) -> None:
    fake = sliced(readinto=readinto)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            assert leased(store) == 8 * MiB  # a quarter of the pool
            got += await rest_of(obj, size)
        assert got == BODY
        assert fake.count("get") == 3
        assert_idle(store, fake)


async def test_fast_connection_stays_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOW", math.inf)
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        assert await store.read("bucket", "key") == BODY
        assert fake.count("get") == 1


@pytest.mark.parametrize("busy", [False, True])
async def test_connection_is_not_slow_for_what_else_its_loop_had_to_do(
    monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    worked = itertools.count(step=3600)
    monkeypatch.setattr(download, "SLOW", 1 / (256 * MiB))
    monkeypatch.setattr(download, "thread_time", lambda: next(worked) if busy else 0.0)
    fake = sliced()
    fake.before["read"] = lambda: asyncio.sleep(0.01)  # 100 MiB/s, to whoever waits for it
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            await obj.read(MiB)
            assert (leased(store) == 0) == busy
        assert_idle(store, fake)


async def test_connection_that_began_slowly_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIAL", 4 * MiB)
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(3):
                await obj.read(MiB)
                assert leased(store) == 0
            await obj.read(MiB)
            assert leased(store) > 0
        assert_idle(store, fake)


async def test_only_a_stream_is_read_ahead() -> None:
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            assert leased(store) == 0  # a first read may be the only one
            await obj.read(10)
            assert leased(store) == 0
            await obj.read(MiB)
            await obj.read(MiB)
            assert leased(store) > 0
        assert_idle(store, fake)


@pytest.mark.parametrize(
    "lacks", [{"ranges": False}, {"get_conditions": False}, {"parallel_reads": 1}]
)
async def test_what_could_be_of_another_version_is_not_read_ahead(lacks: Any) -> None:
    fake = sliced(**lacks)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(4):
                await obj.read(MiB)
                assert leased(store) == 0
        assert fake.count("get") == 1


async def test_pieces_never_mix_two_versions() -> None:
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB)
            await store.put("bucket", "key", content(14 * MiB, "new"))
            with pytest.raises(ObjectChangedError):
                while piece := await obj.read(MiB):
                    got += piece
        assert got == BODY[: len(got)]
        assert_idle(store, fake)


@pytest.mark.parametrize("taken", ["memory", "connections"])
async def test_nothing_is_read_ahead_with_what_others_use(taken: str) -> None:
    fake = sliced(max_connections=2)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        await store.put("bucket", "other", BODY)
        async with store.get("bucket", "other") as other:
            await other.read(10)
            with await store.pool.lease(MiB) as _, await store.pool.lease(MiB) as _:
                if taken == "connections":
                    _.release()
                assert await store.read("bucket", "key") == BODY
        assert fake.count("get") == 2
        assert_idle(store, fake)


async def test_pieces_are_given_up_for_who_waits_and_read_again() -> None:
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            await wait_until(lambda: fake.open_readers == 1)
            leases = [await store.pool.lease(MiB, timeout=5) for _ in range(32)]
            assert leased(store) == 32 * MiB
            got += await obj.read(MiB)
            for lease in leases:
                lease.release()
            got += await rest_of(obj)
        assert got == BODY
        assert_idle(store, fake)


async def test_piece_that_a_read_waits_for_is_not_given_up() -> None:
    fake = sliced(max_connections=2)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            go_on = asyncio.Event()
            fake.before["read"] = go_on.wait
            assert leased(store) == MiB
            with await store.pool.lease(MiB):
                taker = OwnedTask(store.pool.lease(MiB))
                read = OwnedTask(obj.read(MiB))
                await asyncio.sleep(0.25)  # old enough to be revoked
                assert not taker.done
                go_on.set()
                got += await read.result()
                got += await obj.read(MiB)
                (await taker.result()).release()
            got += await rest_of(obj)
        assert got == BODY
        assert_idle(store, fake)


@pytest.mark.parametrize("kind", ["cuts", "shorts"])
async def test_piece_that_breaks_is_read_again_and_counted_as_a_retry(kind: str) -> None:
    fake = sliced()
    async with store_of(fake, pool=pool(), retry=RetryPolicy(attempts=2, base_delay=0)) as store:
        await store.put("bucket", "key", BODY)
        flaws = getattr(fake, kind)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB)
            flaws.extend([7 * MiB, 8 * MiB + 1])
            got += await rest_of(obj)
            assert got == BODY
            assert not flaws
    fake = sliced()
    async with store_of(fake, pool=pool(), retry=RetryPolicy(attempts=2, base_delay=0)) as store:
        await store.put("bucket", "key", BODY)
        getattr(fake, kind).extend([7 * MiB] * 3)
        async with store.get("bucket", "key") as obj:
            got = b""
            with pytest.raises(UnavailableError):
                while True:
                    got += await obj.read(MiB)
            getattr(fake, kind).clear()
            assert got + await rest_of(obj) == BODY
        assert_idle(store, fake)


@pytest.mark.parametrize("times", range(0, 60, 3))
async def test_close_at_any_moment_holds_nothing_and_hands_out_nothing_stale(times: int) -> None:
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        at = 0
        for _ in range(5):
            at += len(await obj.read(MiB))
        read = OwnedTask(obj.read(MiB))
        for _ in range(times):
            await asyncio.sleep(0)
        await obj.aclose()
        lease = store.pool.try_lease(32 * MiB)
        assert lease is not None
        for view in lease.views:
            view[:] = bytes(MiB)
        lease.release()
        with suppress(ClosedError):
            got = await read.result()
            assert got == BODY[at : at + len(got)]
        assert_idle(store, fake)


async def test_reader_closed_as_soon_as_pieces_are_begun_keeps_no_connection() -> None:
    fake = sliced(max_connections=4)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            await obj.read(MiB)
            assert leased(store) > 0
        assert_idle(store, fake)


async def test_scope_that_is_cancelled_gives_back_every_piece() -> None:
    fake = sliced(max_connections=4)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        with anyio.CancelScope() as scope:
            async with store.get("bucket", "key") as obj:
                await obj.read(MiB)
                fake.before["get"] = asyncio.Event().wait  # for ever
                await obj.read(MiB)
                assert leased(store) == 8 * MiB
                await asyncio.sleep(0)
                scope.cancel()
                await asyncio.sleep(0)
        assert scope.cancelled_caught
        assert_idle(store, fake)


async def test_store_that_closes_ends_what_is_under_way() -> None:
    fake = sliced()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        fake.hang("get")
        await obj.read(MiB)
        assert leased(store) > 0
    with pytest.raises(ClosedError):
        await rest_of(obj)
    await obj.aclose()
    assert leased(store) == 0


# -- landing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [255 * KiB, 256 * KiB])
async def test_small_pieces_are_taken_as_they_come(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SLOW", math.inf)
    fake = sliced(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(3):
                await obj.read(size)
            assert fake.count("readinto") == (2 if size == 256 * KiB else 0)
        assert_idle(store, fake)


async def test_stream_lands_in_a_slot_that_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOW", math.inf)
    fake = sliced(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB)
            assert (leased(store), fake.count("readinto")) == (0, 0)
            got += await obj.read(MiB)
            assert (leased(store), fake.count("readinto")) == (MiB, 1)
            leases = [await store.pool.lease(MiB, timeout=5) for _ in range(32)]
            got += await obj.read(MiB)  # without
            for lease in leases:
                lease.release()
            got += await rest_of(obj)
        assert got == BODY
        assert_idle(store, fake)


async def test_close_of_a_stream_that_is_landing_gives_its_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "SLOW", math.inf)
    fake = sliced(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        go_on, reached = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await go_on.wait()

        fake.before["readinto"] = wait
        read = OwnedTask(obj.read(MiB))
        await reached.wait()
        await obj.aclose()
        go_on.set()
        with suppress(ClosedError, UnavailableError):
            await read.result()
        assert_idle(store, fake)
