"""Failures of the cache of `ReadThrough`, which readers must not notice, and cancelled readers."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.layers.cached import BLOCK, Cache, Origin, cached, settle
from trove_async import Trove
from trove_async._concurrency import OwnedTask, task_group
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    IntegrityError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import ReadThrough
from trove_async.models import ByteRange, MiB
from trove_async.options import DeleteOptions, GetOptions
from trove_async.pool import BufferPool
from trove_async.testing import opened
from trove_async.testing._harness import (
    assert_same,
    cancel_at_every_step,
    content,
    read,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trove_async.models import ObjectInfo
    from trove_async.options import PutOptions
    from trove_async.testing import Call

BODY = content(6 * BLOCK + 11)


def _files(directory: Path) -> list[Path]:
    """Return the files of a cache's blocks."""
    return [path for path in directory.rglob("*-*") if path.is_file()]


# -- a cache that fails ------------------------------------------------------------------------------

FAILURES: dict[str, Callable[[], Exception]] = {
    "full disk, of which blockcache dies by SIGBUS": lambda: StorageFullError("no space left"),
    "read-only": lambda: PermissionDeniedError("read-only file system"),
    "unavailable": lambda: UnavailableError("no response"),
    "wrong bytes": lambda: IntegrityError("the stored object differs"),
    "a bug": lambda: ZeroDivisionError("a bug of the driver"),
}


@pytest.mark.idle_time
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", ["put", "put.done", "get", "read", "delete", "list_page"])
async def test_readers_do_not_notice_a_cache_that_fails(step: str, failure: str) -> None:
    cache = Cache()
    async with cached(cache=cache, max_bytes=4 * BLOCK, ready=step != "list_page") as setup:
        await setup.put("key", BODY)
        await read(setup.layer, "bucket", "key")
        await settle(setup.layer)
        cache.fail(step, FAILURES[failure](), times=None)
        for _ in range(3):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
            assert_same(
                await read(setup.layer, "bucket", "key", range=ByteRange(BLOCK + 1, BLOCK + 9)),
                BODY[BLOCK + 1 : BLOCK + 9],
            )
            await asyncio.sleep(2)
        await settle(setup.layer)


@pytest.mark.idle_time
async def test_cache_is_left_alone_after_a_failure_and_used_again_later() -> None:
    async with cached(revalidate=1e9) as setup:
        await setup.put("key", BODY)
        setup.cache.fail("put", StorageFullError("no space left"), times=None)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        puts = len(setup.cache.puts)
        for _ in range(10):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert len(setup.cache.puts) == puts
        assert setup.layer.statistics().bypasses >= 10
        assert setup.layer.statistics().failures > 0
        setup.cache._faults.clear()
        await asyncio.sleep(60)  # 5 s after a failure; 60 s after one of a full disk
        for _ in range(2):  # the first of the blocks is a probe, and the others do not wait for it
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
            await setup.settle()
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert setup.origin.requests == []


@pytest.mark.idle_time
@pytest.mark.parametrize("step", ["get", "read", "put", "delete"])
async def test_cache_that_hangs_delays_reads_by_one_deadline(step: str) -> None:
    async with cached(max_bytes=4 * BLOCK, cache_timeout=2.0, revalidate=1e9) as setup:
        clock = asyncio.get_running_loop().time
        await setup.put("key", BODY)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        setup.cache.hang(step)
        started = clock()
        for _ in range(20):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert clock() - started <= 2.0
        await asyncio.sleep(5)  # one more is the probe
        started = clock()
        for _ in range(20):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert clock() - started <= 2.0
        setup.cache.before.clear()


@pytest.mark.idle_time
async def test_disk_smaller_than_max_bytes_holds_what_fits() -> None:
    class SmallDisk(Cache):
        async def put(
            self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
        ) -> ObjectInfo:
            if self.stored + sum(map(len, views)) > 4 * BLOCK:
                raise StorageFullError("no space left")
            return await super().put(bucket, key, views, options)

    async with cached(cache=SmallDisk(), revalidate=1e9) as setup:
        for number in range(8):
            await setup.put(f"k{number}", content(BLOCK, str(number)))
        for number in range(8):
            for _ in range(2):
                body = await read(setup.layer, "bucket", f"k{number}")
                assert_same(body, content(BLOCK, str(number)))
                await setup.settle()
                await asyncio.sleep(5.1)
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "k7"), content(BLOCK, "7"))
        assert setup.origin.requests == []


async def test_cache_that_hangs_in_a_thread_does_not_keep_a_reader(tmp_path: Path) -> None:
    release, entered = threading.Event(), threading.Event()

    class Hanging(LocalDriver):
        def read_now(self, *_: object) -> bytes | None:
            return None

        def get(self, bucket: str, key: str, options: GetOptions):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return _HangingGet(self, super().get(bucket, key, options))

    class _HangingGet:
        def __init__(self, driver: Hanging, context: object) -> None:
            self.driver, self.context = driver, context

        def wait(self) -> None:
            entered.set()
            release.wait(30)

        async def __aenter__(self) -> object:
            threads = self.driver._threads
            assert threads is not None
            await threads.run(self.wait)
            return await self.context.__aenter__()  # type: ignore[attr-defined]

        async def __aexit__(self, *error: object) -> object:
            return await self.context.__aexit__(*error)  # type: ignore[attr-defined]

    origin = Origin()
    cache = Hanging(tmp_path, fsync=False)
    layer = ReadThrough(origin, cache, max_bytes=64 * BLOCK, block_size=BLOCK, cache_timeout=0.05)
    try:
        async with opened(layer):
            # The ledger is read when the layer opens, so that hangs as well.
            await layer.create_bucket("bucket")
            await write(layer, "bucket", "key", BODY)
            assert_same(await read(layer, "bucket", "key"), BODY)
            await layer.wait_until_ready()
            assert entered.is_set()
            assert not layer.statistics().is_ready
            release.set()
    finally:
        release.set()


async def test_block_that_another_process_evicted_is_a_miss() -> None:
    async with cached() as setup:
        await setup.put("key", BODY)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        setup.origin.reset()
        for block in sorted(setup.cache.blocks)[2:4]:
            await MemoryDriver.delete(setup.cache, "trove-cache", block, DeleteOptions())
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
            await setup.settle()
        assert setup.origin.received == 2 * BLOCK
        assert setup.layer.statistics().failures == 0


async def test_removed_cache_is_a_miss() -> None:
    async with cached() as setup:
        await setup.put("key", BODY)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        setup.cache._buckets.clear()
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        await setup.settle()


@pytest.mark.parametrize("reads_first", [True, False])
async def test_removed_bucket_of_the_cache_is_created_again(
    tmp_path: Path, *, reads_first: bool
) -> None:
    layer = ReadThrough(
        Origin(), LocalDriver(tmp_path, fsync=False), max_bytes=64 * BLOCK, block_size=BLOCK
    )
    async with opened(layer):
        await layer.create_bucket("bucket")
        await layer.wait_until_ready()
        await write(layer, "bucket", "key", BODY)
        await read(layer, "bucket", "key")
        await settle(layer)
        shutil.rmtree(tmp_path / "trove-cache")
        if reads_first:
            assert_same(await read(layer, "bucket", "key"), BODY)
        await write(layer, "bucket", "other", BODY)
        assert_same(await read(layer, "bucket", "other"), BODY)
        await settle(layer)
        await asyncio.sleep(6)  # the pause after a failure
        for _ in range(3):
            assert_same(await read(layer, "bucket", "other"), BODY)
            await settle(layer)
        statistics = layer.statistics()
        assert statistics.is_ready
        assert statistics.hits >= len(BODY) // BLOCK
        assert sum(path.stat().st_size for path in _files(tmp_path)) == statistics.stored_bytes
        assert layer._open_core.store.index.used == statistics.stored_bytes


async def test_bucket_that_cannot_be_created_is_a_cache_that_fails() -> None:
    cache = Cache()
    cache.fail("create_bucket", PermissionDeniedError("no"), times=None)
    async with cached(cache=cache) as setup:
        await setup.put("key", BODY)
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert not setup.layer.statistics().is_ready


@pytest.mark.idle_time
async def test_index_is_built_later_if_the_listing_failed() -> None:
    cache = Cache()
    cache.fail("list_page", UnavailableError("no"))
    async with cached(cache=cache) as setup:
        await setup.put("key", BODY)
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        assert not setup.layer.statistics().is_ready
        await asyncio.sleep(5)
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        await setup.settle()
        assert setup.layer.statistics().is_ready


async def test_flipped_byte_in_the_cache_is_found_after_a_restart() -> None:
    origin, cache = Origin(), Cache()
    async with cached(origin, cache) as setup:
        await setup.put("key", BODY)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
    for block in cache.blocks:
        cache.flip(block, at=5, times=None)
    async with cached(origin, cache) as setup:
        assert_same(await read(setup.layer, "bucket", "key"), BODY)


@pytest.mark.parametrize("damage", ["flip", "zero"])
@pytest.mark.parametrize("span", [None, ByteRange(50, BLOCK // 2), ByteRange(50, 2 * BLOCK)])
async def test_block_that_is_damaged_while_the_process_runs_is_read_from_the_origin(
    tmp_path: Path, damage: str, span: ByteRange | None
) -> None:
    origin = Origin()
    cache = LocalDriver(tmp_path, fsync=False)
    layer = ReadThrough(origin, cache, max_bytes=64 * BLOCK, block_size=BLOCK)
    async with opened(layer):
        await layer.create_bucket("bucket")
        await layer.wait_until_ready()
        await write(layer, "bucket", "key", BODY)
        expected = BODY if span is None else BODY[span.start : span.end]
        for _ in range(3):
            assert_same(await read(layer, "bucket", "key", range=span), expected)
            await settle(layer)
            for path in _files(tmp_path):
                body = bytearray(path.read_bytes())
                body[100:108] = bytes(8)
                path.write_bytes(bytes(len(body)) if damage == "zero" else body)
        assert_same(await read(layer, "bucket", "key"), BODY)


async def test_whole_block_is_verified_with_each_read() -> None:
    origin, cache = Origin(), Cache()
    async with cached(origin, cache) as setup:
        await setup.put("key", BODY)
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), BODY)
            await setup.settle()
        for block in cache.blocks:
            cache.flip(block, at=5, times=None)  # the etag stays the same
        assert_same(await read(setup.layer, "bucket", "key"), BODY)
        await setup.settle()
        assert setup.origin.received == 2 * len(BODY)


async def test_read_after_an_integrity_error_comes_from_the_origin() -> None:
    origin, cache = Origin(), Cache()
    body = content(5 * MiB)
    layer = ReadThrough(origin, cache, max_bytes=64 * MiB, block_size=2 * MiB)
    async with Trove(layer) as store:
        await store.create_bucket("bucket")
        await layer.wait_until_ready()
        await store.put("bucket", "key", body)
        await store.read("bucket", "key")
        await settle(layer)
        for block in cache.blocks:
            cache.flip(block, at=5, times=None)
        with pytest.raises(IntegrityError):
            await store.read("bucket", "key")
        origin.received = 0
        assert_same(await store.read("bucket", "key"), body)
        assert origin.received == len(body)
        await settle(layer)


# -- cancelled and dropped readers -------------------------------------------------------------------


@pytest.mark.parametrize("state", ["cold", "half", "warm"])
async def test_cancelled_reader_leaves_nothing(state: str) -> None:
    pool = BufferPool(16 * MiB)
    async with cached(pool=pool) as setup:
        number = 0
        key = "key"
        await setup.put("key", BODY)

        async def get() -> None:
            assert_same(await read(setup.layer, "bucket", key, size=30_000), BODY)

        async def check() -> None:
            nonlocal number, key
            await setup.settle()
            assert pool.statistics().leased == 0
            assert setup.origin.open_readers == setup.cache.open_readers == 0
            assert setup.origin.calls_under_way == setup.cache.calls_under_way == 0
            core = setup.layer._open_core
            assert not core.filling
            assert not core.fills
            assert not core._lookups
            assert not core.versions._observations
            await get()
            await setup.settle()
            if state != "warm":
                number += 1
                key = f"key{number}"
                await setup.put(key, BODY)
            if state == "half":
                await read(setup.layer, "bucket", key, range=ByteRange(2 * BLOCK, 3 * BLOCK))
                await setup.settle()

        await cancel_at_every_step(get, check)


async def test_readers_are_cancelled_at_random_and_the_others_are_right() -> None:
    pool = BufferPool(16 * MiB)
    async with cached(pool=pool, max_bytes=20 * BLOCK) as setup:
        for number in range(6):
            await setup.put(f"k{number}", content(4 * BLOCK, str(number)))

        async def read_it(number: int) -> None:
            body = await read(setup.layer, "bucket", f"k{number % 6}", size=20_000)
            assert_same(body, content(4 * BLOCK, str(number % 6)))

        tasks = [OwnedTask(read_it(number)) for number in range(60)]
        for step, task in enumerate(tasks):
            if step % 3:
                for _ in range(step % 7):
                    await asyncio.sleep(0)
                await task.aclose()
        for step, task in enumerate(tasks):
            if not step % 3:
                await task.result()
        await setup.settle()
        assert pool.statistics().leased == 0
        assert setup.origin.open_readers == setup.cache.open_readers == 0


@pytest.mark.parametrize("step", ["get", "get.done", "read", "put", "put.done"])
async def test_closed_layer_holds_nothing(step: str) -> None:
    pool = BufferPool(16 * MiB)
    origin, cache = Origin(), Cache()
    driver = cache if step.startswith("put") else origin
    errors: list[BaseException] = []
    async with task_group() as group, cached(origin, cache, pool=pool) as setup:
        await setup.put("key", BODY)
        reached = driver.hang(step)

        async def read_it() -> None:
            try:
                await read(setup.layer, "bucket", "key")
            except TroveError as error:
                errors.append(error)

        group.start_soon(read_it)
        await reached.wait()
        if driver is cache:
            cache.before.pop("put", None)
    assert pool.statistics().leased == 0
    assert origin.open_readers == cache.open_readers == 0
    assert origin.calls_under_way == cache.calls_under_way == 0


@pytest.mark.parametrize("step", ["put", "get", "list_page"])
async def test_close_leaves_a_call_to_the_cache_that_cannot_be_cancelled(
    step: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    pool = BufferPool(64 * MiB)

    class Stuck(Cache):
        async def step(self, name: str, call: Call | None = None) -> None:
            if name == step and hanging.is_set():
                while not ended.is_set():  # as a thread, it ignores cancels
                    with suppress(asyncio.CancelledError):
                        await ended.wait()
            await super().step(name, call)

    hanging = asyncio.Event()
    cache = Stuck()
    layer = ReadThrough(Origin(), cache, max_bytes=64 * BLOCK, block_size=BLOCK, cache_timeout=0.1)
    if step == "list_page":
        hanging.set()
    async with opened(layer, pool=pool):
        await layer.create_bucket("bucket")
        await layer.wait_until_ready()
        hanging.set()
        await write(layer, "bucket", "key", BODY)
        for _ in range(2):
            assert_same(await read(layer, "bucket", "key"), BODY)
            await asyncio.sleep(0.01)
        await layer.aclose()
        assert "hanging" in caplog.text
        leased = pool.statistics().leased
        assert bool(leased) == (step == "put")  # the call may still read these bytes
        ended.set()
        while pool.statistics().leased:
            await asyncio.sleep(0)


async def test_missing_object_raises_for_all_readers() -> None:
    async with cached() as setup:

        async def read_it() -> None:
            with pytest.raises(ObjectNotFoundError):
                await read(setup.layer, "bucket", "missing")

        async with task_group() as group:
            for _ in range(20):
                group.start_soon(read_it)
        assert setup.origin.requests == ["get"]


@pytest.mark.idle_time
async def test_origin_that_hangs_does_not_keep_a_cancelled_reader() -> None:
    async with cached() as setup:
        await setup.put("key", BODY)
        reached = setup.origin.hang("get")
        task = OwnedTask(read(setup.layer, "bucket", "key"))
        await reached.wait()
        await task.aclose()
