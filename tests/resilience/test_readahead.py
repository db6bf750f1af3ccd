"""Read-ahead: fetching a slow stream in pieces, with unused resources only."""

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
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", 0)
    monkeypatch.setattr(download, "TRIAL_BYTES", 0)


def pool() -> BufferPool:
    """Return a pool in which a piece has 4 MiB and read-ahead may hold two of them."""
    return BufferPool(32 * MiB, 1 * MiB)


def parallel_fake(**options: Any) -> Fake:
    return Fake(**{"parallel_reads": 3, **options})


def leased_bytes(store: Trove) -> int:
    return store.pool.statistics().leased


async def read_rest(reader: ObjectReader, size: int = MiB) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


async def wait_until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("readinto", [False, True])
@pytest.mark.parametrize("size", [MiB, 300 * KiB, 5 * MiB])
async def test_pieces_are_read_in_order_by_small_and_large_reads(
    size: int, *, readinto: bool
) -> None:
    fake = parallel_fake(readinto=readinto)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            assert leased_bytes(store) == 8 * MiB  # a quarter of the pool
            got += await read_rest(obj, size)
        assert got == BODY
        assert fake.count("get") == 3
        assert_idle(store, fake)


async def test_fast_connection_needs_no_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", math.inf)
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        assert await store.read("bucket", "key") == BODY
        assert fake.count("get") == 1


@pytest.mark.parametrize("busy", [False, True])
async def test_other_work_of_the_thread_does_not_make_a_connection_slow(
    monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    cpu_seconds = itertools.count(step=3600)
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", 1 / (256 * MiB))
    monkeypatch.setattr(download, "thread_time", lambda: next(cpu_seconds) if busy else 0.0)
    fake = parallel_fake()
    fake.before["read"] = lambda: asyncio.sleep(0.01)  # 100 MiB/s
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            await obj.read(MiB)
            assert (leased_bytes(store) == 0) == busy
        assert_idle(store, fake)


async def test_connection_is_evaluated_only_after_trial_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TRIAL_BYTES", 4 * MiB)
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(3):
                await obj.read(MiB)
                assert leased_bytes(store) == 0
            await obj.read(MiB)
            assert leased_bytes(store) > 0
        assert_idle(store, fake)


async def test_read_ahead_starts_only_for_a_stream() -> None:
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            assert leased_bytes(store) == 0  # a first read may be the only one
            await obj.read(10)
            assert leased_bytes(store) == 0
            await obj.read(MiB)
            await obj.read(MiB)
            assert leased_bytes(store) > 0
        assert_idle(store, fake)


@pytest.mark.parametrize(
    "capabilities", [{"ranges": False}, {"get_conditions": False}, {"parallel_reads": 1}]
)
async def test_no_read_ahead_without_the_capabilities_for_it(capabilities: Any) -> None:
    fake = parallel_fake(**capabilities)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(4):
                await obj.read(MiB)
                assert leased_bytes(store) == 0
        assert fake.count("get") == 1


async def test_pieces_never_mix_two_versions() -> None:
    fake = parallel_fake()
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


@pytest.mark.parametrize("exhausted", ["memory", "connections"])
async def test_no_read_ahead_without_free_resources(exhausted: str) -> None:
    fake = parallel_fake(max_connections=2)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        await store.put("bucket", "other", BODY)
        async with store.get("bucket", "other") as other:
            await other.read(10)
            with await store.pool.lease(MiB), await store.pool.lease(MiB) as lease:
                if exhausted == "connections":
                    lease.release()
                assert await store.read("bucket", "key") == BODY
        assert fake.count("get") == 2
        assert_idle(store, fake)


async def test_no_read_ahead_while_the_circuit_breaker_is_open() -> None:
    fake = parallel_fake(embedded=False)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            breaker = store._core.backends["default"].breakers[0]
            breaker.failures = 1
            breaker._open(UnavailableError("refused"))
            assert await read_rest(obj) == BODY  # over the connection that it has
            assert breaker.tripped
        assert fake.count("get") == 1
        assert_idle(store, fake)


async def test_pieces_are_revoked_for_a_waiter_and_fetched_again() -> None:
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            await wait_until(lambda: fake.open_readers == 1)
            leases = [await store.pool.lease(MiB, timeout=5) for _ in range(32)]
            assert leased_bytes(store) == 32 * MiB
            got += await obj.read(MiB)
            for lease in leases:
                lease.release()
            got += await read_rest(obj)
        assert got == BODY
        assert_idle(store, fake)


async def test_piece_that_a_read_waits_for_is_not_revoked() -> None:
    fake = parallel_fake(max_connections=2)
    async with store_of(fake, pool=small_pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB) + await obj.read(MiB)
            release = asyncio.Event()
            fake.before["read"] = release.wait
            assert leased_bytes(store) == MiB
            with await store.pool.lease(MiB):
                waiter = OwnedTask(store.pool.lease(MiB))
                read = OwnedTask(obj.read(MiB))
                await asyncio.sleep(0.25)  # long enough for a piece to be revoked
                assert not waiter.done
                release.set()
                got += await read.result()
                got += await obj.read(MiB)
                (await waiter.result()).release()
            got += await read_rest(obj)
        assert got == BODY
        assert_idle(store, fake)


@pytest.mark.parametrize("kind", ["cuts", "shorts"])
async def test_broken_piece_is_fetched_again_and_counts_as_a_retry(kind: str) -> None:
    fake = parallel_fake()
    async with store_of(fake, pool=pool(), retry=RetryPolicy(attempts=2, base_delay=0)) as store:
        await store.put("bucket", "key", BODY)
        flaws = getattr(fake, kind)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB)
            flaws.extend([7 * MiB, 8 * MiB + 1])
            got += await read_rest(obj)
            assert got == BODY
            assert not flaws
    fake = parallel_fake()
    async with store_of(fake, pool=pool(), retry=RetryPolicy(attempts=2, base_delay=0)) as store:
        await store.put("bucket", "key", BODY)
        getattr(fake, kind).extend([7 * MiB] * 3)
        async with store.get("bucket", "key") as obj:
            got = b""
            with pytest.raises(UnavailableError):
                while True:
                    got += await obj.read(MiB)
            getattr(fake, kind).clear()
            assert got + await read_rest(obj) == BODY
        assert_idle(store, fake)


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_close_at_any_step_holds_nothing_and_returns_no_stale_bytes(steps: int) -> None:
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        position = 0
        for _ in range(5):
            position += len(await obj.read(MiB))
        read = OwnedTask(obj.read(MiB))
        for _ in range(steps):
            await asyncio.sleep(0)
        await obj.aclose()
        lease = store.pool.try_lease(32 * MiB)
        assert lease is not None
        for view in lease.views:
            view[:] = bytes(MiB)
        lease.release()
        with suppress(ClosedError):
            got = await read.result()
            assert got == BODY[position : position + len(got)]
        assert_idle(store, fake)


async def test_reader_closed_right_after_starting_pieces_keeps_no_connection() -> None:
    fake = parallel_fake(max_connections=4)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            await obj.read(MiB)
            assert leased_bytes(store) > 0
        assert_idle(store, fake)


async def test_cancelled_scope_releases_every_piece() -> None:
    fake = parallel_fake(max_connections=4)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        with anyio.CancelScope() as scope:
            async with store.get("bucket", "key") as obj:
                await obj.read(MiB)
                fake.before["get"] = asyncio.Event().wait  # forever
                await obj.read(MiB)
                assert leased_bytes(store) == 8 * MiB
                await asyncio.sleep(0)
                scope.cancel()
                await asyncio.sleep(0)
        assert scope.cancelled_caught
        assert_idle(store, fake)


async def test_closing_the_store_stops_the_read_ahead() -> None:
    fake = parallel_fake()
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        fake.hang("get")
        await obj.read(MiB)
        assert leased_bytes(store) > 0
    with pytest.raises(ClosedError):
        await read_rest(obj)
    await obj.aclose()
    assert leased_bytes(store) == 0


# -- receiving into a slot ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [255 * KiB, 256 * KiB])
async def test_only_large_reads_are_received_into_a_slot(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", math.inf)
    fake = parallel_fake(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            for _ in range(3):
                await obj.read(size)
            assert fake.count("readinto") == (2 if size == 256 * KiB else 0)
        assert_idle(store, fake)


async def test_stream_is_received_into_a_revocable_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", math.inf)
    fake = parallel_fake(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(MiB)
            assert (leased_bytes(store), fake.count("readinto")) == (0, 0)
            got += await obj.read(MiB)
            assert (leased_bytes(store), fake.count("readinto")) == (MiB, 1)
            leases = [await store.pool.lease(MiB, timeout=5) for _ in range(32)]
            got += await obj.read(MiB)  # without a slot
            for lease in leases:
                lease.release()
            got += await read_rest(obj)
        assert got == BODY
        assert_idle(store, fake)


async def test_close_during_a_read_into_a_slot_releases_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", math.inf)
    fake = parallel_fake(readinto=True)
    async with store_of(fake, pool=pool()) as store:
        await store.put("bucket", "key", BODY)
        obj = await store.get("bucket", "key")
        await obj.read(MiB)
        release, reached = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await release.wait()

        fake.before["readinto"] = wait
        read = OwnedTask(obj.read(MiB))
        await reached.wait()
        await obj.aclose()
        release.set()
        with suppress(ClosedError, UnavailableError):
            await read.result()
        assert_idle(store, fake)
