"""The layer `ReadThrough`: the suites, and what is read from the cache and from the origin."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, WithoutEtags
from tests.layers.cached import BLOCK, Cache, Origin, cached, memory
from tests.versioned_memory import VersionedMemory
from trove_async import Trove
from trove_async._concurrency import OwnedTask, task_group
from trove_async.driver import HasStatistics, Layer
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    ClosedError,
    ConfigError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    UnavailableError,
)
from trove_async.layers import CacheStatistics, Mapped, ReadThrough
from trove_async.models import ByteRange, MiB
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions
from trove_async.pool import SLOT, BufferPool
from trove_async.testing import DriverSuite, StoreSuite, opened
from trove_async.testing._harness import (
    assert_same,
    content,
    delete,
    read,
    read_to_end,
    upload,
    views,
    write,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.driver import AsyncDriver


class TestOnMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return memory()


class TestWithLocalCache(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        return ReadThrough(
            MemoryDriver(), f"file://{tmp_path}/cache", max_bytes=2 * MiB, block_size=BLOCK
        )


class TestWriteThrough(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return ReadThrough(
            MemoryDriver(), MemoryDriver(), max_bytes=4 * MiB, block_size=BLOCK, write="through"
        )


class TestWithoutRevalidation(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return ReadThrough(
            MemoryDriver(), MemoryDriver(), max_bytes=4 * MiB, block_size=BLOCK, revalidate=0
        )


class TestWithVersions(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return ReadThrough(VersionedMemory(), MemoryDriver(), max_bytes=4 * MiB, block_size=BLOCK)

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, ReadThrough)
        origin = backend.inner[0]
        assert isinstance(origin, VersionedMemory)
        origin.versioned_buckets.add(bucket)


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        origin = Mapped(MemoryDriver(), into="all")
        cache = Mapped(MemoryDriver(), into="all", prefix="cache")
        inner = ReadThrough(origin, cache, max_bytes=4 * MiB, block_size=BLOCK)
        outer = ReadThrough(inner, memory(), max_bytes=4 * MiB, block_size=BLOCK)
        return Mapped(outer, into="all", prefix="p")


class TestStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:
        async with Trove(
            MemoryDriver(),
            backends={
                "cold": ReadThrough(
                    MemoryDriver(), f"file://{tmp_path}/cache", max_bytes=2 * MiB, block_size=BLOCK
                )
            },
            routes=[("*a*", "cold"), ("*e*", "cold")],
        ) as store:
            yield store


# -- hits and misses ---------------------------------------------------------------------------------


async def test_second_read_and_head_send_no_request() -> None:
    async with cached() as setup:
        body = content(5 * BLOCK + 17)
        await setup.put("key", body)
        assert_same(await read(setup.layer, "bucket", "key"), body)
        await setup.settle()
        assert setup.origin.requests == ["get"]
        for size in (MiB, 1000, BLOCK):
            assert_same(await read(setup.layer, "bucket", "key", size=size), body)
        assert (await setup.layer.head("bucket", "key")).size == len(body)
        assert setup.origin.requests == ["get"]
        statistics = setup.layer.statistics()
        assert (statistics.misses, statistics.hits, statistics.bypasses) == (6, 18, 0)
        assert statistics.bytes_from_cache == 3 * len(body)
        assert (statistics.blocks, statistics.stored_bytes) == (6, len(body))


async def test_range_fetches_only_its_blocks_and_not_the_whole_object_as_filecache() -> None:
    async with cached() as setup:
        body = content(10 * BLOCK)
        await setup.put("key", body)
        span = (3 * BLOCK + 10, 4 * BLOCK + 20)
        for _ in range(3):
            data = await read(setup.layer, "bucket", "key", range=ByteRange(*span))
            assert_same(data, body[slice(*span)])
            await setup.settle()
        assert setup.origin.received == 2 * BLOCK
        assert setup.origin.requests == ["get"]
        assert setup.origin.gets[0].range == ByteRange(3 * BLOCK, 5 * BLOCK)


async def test_each_run_of_missing_blocks_is_one_request() -> None:
    async with cached() as setup:
        body = content(10 * BLOCK)
        await setup.put("key", body)
        for number in (2, 6):
            await read(
                setup.layer, "bucket", "key", range=ByteRange(number * BLOCK, number * BLOCK + 1)
            )
        await setup.settle()
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "key"), body)
        assert [options.range for options in setup.origin.gets] == [
            ByteRange(0, 2 * BLOCK),
            ByteRange(3 * BLOCK, 6 * BLOCK),
            ByteRange(7 * BLOCK, 10 * BLOCK),
        ]
        assert {options.if_match for options in setup.origin.gets} == {
            (await setup.origin.head("bucket", "key")).etag
        }


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        (ByteRange.last(10), slice(-10, None)),
        (ByteRange.last(100 * BLOCK), slice(0, None)),
        (ByteRange(BLOCK - 1), slice(BLOCK - 1, None)),
        (ByteRange(0, 1), slice(0, 1)),
        (ByteRange(BLOCK, 100 * BLOCK), slice(BLOCK, None)),
    ],
)
async def test_ranges_are_the_same_from_the_origin_and_from_the_cache(
    byte_range: ByteRange, expected: slice
) -> None:
    async with cached() as setup:
        body = content(2 * BLOCK + 100)
        await setup.put("key", body)
        for _ in range(3):
            assert_same(await read(setup.layer, "bucket", "key", range=byte_range), body[expected])
            await setup.settle()
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "key", range=byte_range), body[expected])
        assert setup.origin.requests == []


async def test_range_behind_the_end_raises_on_both_ways() -> None:
    async with cached() as setup:
        await setup.put("key", content(100))
        for _ in range(2):
            with pytest.raises(RangeError):
                await read(setup.layer, "bucket", "key", range=ByteRange(100, 200))
            assert len(await read(setup.layer, "bucket", "key")) == 100
        await setup.put("empty", b"")
        for _ in range(2):
            assert await read(setup.layer, "bucket", "empty") == b""
        assert setup.origin.requests == ["get"]


async def test_object_larger_than_the_cache_is_read_whole() -> None:
    async with cached(max_bytes=2 * BLOCK) as setup:
        body = content(20 * BLOCK + 1)
        await setup.put("key", body)
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), body)
        assert setup.cache.peak <= 2 * BLOCK


async def test_block_larger_than_the_cache_is_never_stored() -> None:
    async with cached(max_bytes=BLOCK - 1) as setup:
        body = content(2 * BLOCK)
        await setup.put("key", body)
        for _ in range(2):
            assert_same(await read(setup.layer, "bucket", "key"), body)
        assert setup.cache.blocks == []


async def test_conditions_and_versions_are_passed_to_the_origin() -> None:
    async with cached() as setup:
        await setup.put("key", b"old")
        old = (await setup.layer.head("bucket", "key")).etag
        assert await read(setup.layer, "bucket", "key") == b"old"
        await setup.replace("key", b"new")
        with pytest.raises(PreconditionFailedError):
            await read(setup.layer, "bucket", "key", if_match=old)
        assert await read(setup.layer, "bucket", "key", if_none_match=old) == b"new"
        assert [(get.if_match, get.if_none_match) for get in setup.origin.gets] == [
            (old, None),
            (None, old),
        ]


async def test_old_version_is_read_from_the_origin() -> None:
    origin = VersionedMemory()
    layer = ReadThrough(origin, MemoryDriver(), max_bytes=4 * MiB)
    async with opened(layer):
        await layer.wait_until_ready()
        await layer.create_bucket("bucket")
        origin.versioned_buckets.add("bucket")
        old = await write(layer, "bucket", "key", b"old")
        assert await read(layer, "bucket", "key") == b"old"
        await write(layer, "bucket", "key", b"new")
        for _ in range(2):
            assert await read(layer, "bucket", "key", version_id=old.version_id) == b"old"
            assert await read(layer, "bucket", "key") == b"new"
        assert (await layer.head("bucket", "key", old.version_id)).etag == old.etag


async def test_object_without_etag_is_not_cached() -> None:
    origin, cache = WithoutEtags(), Cache()
    layer = ReadThrough(origin, cache, max_bytes=64 * BLOCK, block_size=BLOCK)
    async with opened(layer):
        await layer.wait_until_ready()
        await layer.create_bucket("bucket")
        await write(layer, "bucket", "key", b"one")
        assert await read(layer, "bucket", "key") == b"one"
        await write(origin, "bucket", "key", b"two")
        assert await read(layer, "bucket", "key") == b"two"
        assert cache.blocks == []
        assert layer.statistics().bypasses == 2


async def test_origin_without_ranges_is_read_directly() -> None:
    async with cached(Origin(ranges=False)) as setup:
        body = content(3 * BLOCK)
        await setup.put("key", body)
        assert_same(await read(setup.layer, "bucket", "key"), body)
        assert setup.cache.blocks == []


# -- changes at the origin ---------------------------------------------------------------------------


@pytest.mark.idle_time
async def test_foreign_overwrite_is_seen_after_revalidate_seconds() -> None:
    async with cached(revalidate=60.0) as setup:
        await setup.put("key", b"old")
        assert await read(setup.layer, "bucket", "key") == b"old"
        await setup.replace("key", b"newer")
        await asyncio.sleep(59)
        assert await read(setup.layer, "bucket", "key") == b"old"
        assert (await setup.layer.head("bucket", "key")).size == 3
        assert setup.origin.requests == []
        await asyncio.sleep(1)
        assert (await setup.layer.head("bucket", "key")).size == 5
        assert await read(setup.layer, "bucket", "key") == b"newer"


@pytest.mark.idle_time
async def test_unchanged_object_costs_one_request_without_body_after_revalidate_seconds() -> None:
    async with cached() as setup:
        await setup.put("key", content(3 * BLOCK))
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        setup.origin.reset()
        for round_number in range(1, 3):
            await asyncio.sleep(60)
            for _ in range(3):
                assert_same(await read(setup.layer, "bucket", "key"), content(3 * BLOCK))
            assert setup.origin.requests == ["head"] * round_number
        assert setup.origin.received == 0


@pytest.mark.idle_time
async def test_foreign_delete_is_seen_after_revalidate_seconds() -> None:
    async with cached() as setup:
        await setup.put("key", b"old")
        assert await read(setup.layer, "bucket", "key") == b"old"
        await delete(setup.origin, "bucket", "key")
        assert await read(setup.layer, "bucket", "key") == b"old"
        await asyncio.sleep(60)
        with pytest.raises(ObjectNotFoundError):
            await read(setup.layer, "bucket", "key")
        with pytest.raises(ObjectNotFoundError):
            await setup.layer.head("bucket", "key")


@pytest.mark.idle_time
async def test_metadata_changed_under_the_same_etag_is_seen_after_revalidate_seconds() -> None:
    async with cached() as setup:
        await setup.put("key", b"body")
        await read(setup.layer, "bucket", "key")
        from dataclasses import replace  # noqa: PLC0415

        objects = setup.origin._buckets["bucket"].objects
        changed = replace(objects["key"].info, content_type="text/x-new")
        objects["key"] = objects["key"]._replace(info=changed)
        await asyncio.sleep(60)
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            assert reader.info.content_type == "text/x-new"


async def test_own_writes_are_seen_at_once() -> None:
    async with cached() as setup:
        layer = setup.layer
        await setup.put("key", b"one")
        assert await read(layer, "bucket", "key") == b"one"
        two = await write(layer, "bucket", "key", b"two")
        assert await read(layer, "bucket", "key") == b"two"
        await upload(layer, "bucket", "key", b"three")
        assert await read(layer, "bucket", "key") == b"three"
        four = await write(layer, "bucket", "other", b"four")
        await layer.copy(
            "bucket", "other", "bucket", "key", CopyOptions(source=four, put=PutOptions())
        )
        assert await read(layer, "bucket", "key") == b"four"
        await layer.delete_many("bucket", ["key"])
        with pytest.raises(ObjectNotFoundError):
            await read(layer, "bucket", "key")
        assert two.etag != four.etag
        assert await read(layer, "bucket", "other") == b"four"
        await layer.delete("bucket", "other", DeleteOptions())
        with pytest.raises(ObjectNotFoundError):
            await layer.head("bucket", "other")


async def test_body_is_never_of_two_versions_as_with_rclone_and_blockcache() -> None:
    async with cached() as setup:
        await setup.put("key", content(4 * BLOCK, "old"))
        await read(setup.layer, "bucket", "key", range=ByteRange(0, BLOCK))
        await setup.settle()
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            assert_same(await reader.read(BLOCK), content(4 * BLOCK, "old")[:BLOCK])
            await setup.replace("key", content(4 * BLOCK, "new"))
            with pytest.raises(ObjectChangedError):
                await read_to_end(reader)
        # The change is known now, so the next read does not wait for `revalidate`.
        assert_same(await read(setup.layer, "bucket", "key"), content(4 * BLOCK, "new"))


async def test_body_whose_blocks_are_cached_is_of_the_old_version_to_its_end() -> None:
    async with cached() as setup:
        old = content(4 * BLOCK, "old")
        await setup.put("key", old)
        await read(setup.layer, "bucket", "key")
        await setup.settle()
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            start = await reader.read(10)
            await write(setup.layer, "bucket", "key", content(4 * BLOCK, "new"))
            assert_same(start + await read_to_end(reader), old)


async def test_object_replaced_before_its_first_byte_is_opened_again() -> None:
    async with cached() as setup:
        await setup.put("key", content(2 * BLOCK, "old"))
        await setup.layer.head("bucket", "key")
        await setup.replace("key", content(3 * BLOCK, "new"))
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            assert reader.info.size == 3 * BLOCK
            assert reader.range == (0, 3 * BLOCK)
            assert_same(await read_to_end(reader), content(3 * BLOCK, "new"))


async def test_error_of_a_replaced_object_is_of_the_public_class() -> None:
    async with cached() as setup:
        await setup.put("key", content(3 * MiB))
        await read(setup.layer, "bucket", "key", range=ByteRange(0, BLOCK))
        await setup.settle()
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            await reader.read(1)  # from the cache, which has only this block
            await setup.replace("key", b"new")
            with pytest.raises(ObjectChangedError) as caught:
                await read_to_end(reader)
            assert type(caught.value) is ObjectChangedError


async def test_object_replaced_again_and_again_raises() -> None:
    async with cached() as setup:
        await setup.put("key", content(2 * BLOCK))
        await read(setup.layer, "bucket", "key", range=ByteRange(0, 1))
        await setup.settle()
        setup.origin.reset()
        setup.origin.before["get"] = lambda: replace_under(setup.origin)
        with pytest.raises(ObjectChangedError, match="5 times"):
            await read(setup.layer, "bucket", "key", range=ByteRange(BLOCK))
        assert setup.origin.requests == ["get", "head"] * 4 + ["get"]


async def replace_under(origin: Fake) -> None:
    """Replace the object without a step."""
    await MemoryDriver.put(origin, "bucket", "key", [memoryview(content(2 * BLOCK))], PutOptions())


async def test_version_read_during_a_put_is_not_remembered() -> None:
    async with cached() as setup:
        await setup.put("key", b"old")
        reached = setup.origin.hang("head.done")
        head = OwnedTask(
            setup.layer.head("bucket", "key")
        )  # the origin has responded with the old version
        await reached.wait()
        await write(setup.layer, "bucket", "key", b"newer")
        del setup.origin.before["head.done"]
        await head.aclose()
        assert await read(setup.layer, "bucket", "key") == b"newer"


async def test_lookup_of_the_version_before_a_put_is_not_joined_after_it() -> None:
    async with cached() as setup:
        await setup.put("key", b"old")
        reached = setup.origin.hang("get.done")
        before = OwnedTask(read(setup.layer, "bucket", "key"))
        await reached.wait()
        del setup.origin.before["get.done"]
        await write(setup.layer, "bucket", "key", b"newer")
        assert await read(setup.layer, "bucket", "key") == b"newer"
        await before.aclose()
        assert await read(setup.layer, "bucket", "key") == b"newer"


@pytest.mark.parametrize("revalidate", [0, 10])
@pytest.mark.parametrize("operation", ["head", "get"])
async def test_lookup_older_than_revalidate_is_not_joined(revalidate: int, operation: str) -> None:
    async with cached(revalidate=revalidate) as setup:
        await setup.put("key", b"old")
        if operation == "head":  # a known object is looked up by a head request, others by a get
            await read(setup.layer, "bucket", "key")
            await setup.settle()
            await asyncio.sleep(revalidate)
        reached = setup.origin.hang(f"{operation}.done")
        first = OwnedTask(read(setup.layer, "bucket", "key"))
        await reached.wait()
        del setup.origin.before[f"{operation}.done"]
        await write(setup.origin, "bucket", "key", b"new")  # by another writer
        await asyncio.sleep(revalidate)
        assert await read(setup.layer, "bucket", "key") == b"new"
        await first.aclose()


async def test_failed_lookup_that_has_just_ended_is_not_joined_after_a_put() -> None:
    async with cached() as setup:
        core = setup.layer._open_core
        before = OwnedTask(read(setup.layer, "bucket", "key"))
        while not (core._lookups and next(iter(core._lookups.values())).version.done()):
            await asyncio.sleep(0)
        write_of_key = core.versions.begin_write(("bucket", "key"))
        await replace_under(setup.origin)  # in this step of the event loop
        core.versions.end_write(("bucket", "key"), write_of_key)
        assert core._lookups
        assert await read(setup.layer, "bucket", "key") == content(2 * BLOCK)
        with pytest.raises(ObjectNotFoundError):
            await before.result()


class Trickling(Origin):
    """Its bodies are received into the caller's buffer, which must be full before `readinto` returns.

    After `arrived` bytes of an object, nothing arrives before `rest` is set.
    """

    def __init__(self, arrived: int) -> None:
        super().__init__()
        self.arrived = arrived
        self.rest = asyncio.Event()

    @asynccontextmanager
    async def _counted(self, context: Any) -> AsyncIterator[Any]:
        async with super()._counted(context) as reader:
            yield _Trickle(self, reader)


class _Trickle:
    def __init__(self, origin: Trickling, reader: Any) -> None:
        self._origin = origin
        self._reader = reader
        self.info = reader.info
        self.range = reader.range
        self.position = reader.range[0]

    async def readinto(self, buffer: memoryview) -> int:
        count: int = min(len(buffer), self.range[1] - self.position)
        if self.position + count > self._origin.arrived:
            await self._origin.rest.wait()
        filled = 0
        while filled < count:
            data = await self._reader.read(count - filled)
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        self.position += count
        return count


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(("start", "end"), [(0, 4096), (1, 2), (10_000, 14_096)])
async def test_range_is_handed_out_before_the_rest_of_its_block_has_arrived(
    start: int,
    end: int,
    is_known: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    origin = Trickling(end)
    async with cached(origin) as setup:
        body = content(3 * BLOCK)
        await setup.put("key", body)
        if is_known:
            await setup.layer.head("bucket", "key")
        got = await read(setup.layer, "bucket", "key", range=ByteRange(start, end))
        assert got == body[start:end]
        assert setup.layer.statistics().blocks == 0
        # The block is completed and stored afterwards, by the same request.
        origin.rest.set()
        await setup.settle()
        assert setup.layer.statistics().blocks == 1
        got = await read(setup.layer, "bucket", "key", range=ByteRange(0, BLOCK))
        assert_same(got, body[:BLOCK])
        assert origin.requests.count("get") == 1


# -- concurrent readers ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("readers", [16, 1000])
async def test_concurrent_misses_are_one_request_not_2_to_16_as_elsewhere(
    readers: int,
    is_known: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with cached() as setup:
        body = content(BLOCK)
        await setup.put("key", body)
        if is_known:
            await setup.layer.head("bucket", "key")
            setup.origin.reset()
        bodies = []

        async def read_it() -> None:
            bodies.append(await read(setup.layer, "bucket", "key"))

        async with task_group() as group:
            for _ in range(readers):
                group.start_soon(read_it)
        assert bodies == [body] * readers
        assert setup.origin.requests == ["get"]
        statistics = setup.layer.statistics()
        assert (statistics.misses, statistics.bypasses) == (1, 0)
        assert statistics.shared + statistics.hits == readers - 1


async def test_concurrent_misses_are_one_request_if_the_first_reader_is_cancelled() -> None:
    async with cached() as setup:
        body = content(2 * BLOCK)
        await setup.put("key", body)
        reached = setup.origin.hang("read")
        first = OwnedTask(read(setup.layer, "bucket", "key"))
        await reached.wait()
        others = [OwnedTask(read(setup.layer, "bucket", "key")) for _ in range(20)]
        for _ in range(10):
            await asyncio.sleep(0)
        await first.aclose()
        hanging = setup.origin.before.pop("read")
        hanging.__self__.release()  # type: ignore[attr-defined]  # the method of a Hang
        for other in others:
            assert_same(await other.result(), body)
        assert setup.origin.requests == ["get"]


async def test_readers_at_different_offsets_share_the_requests() -> None:
    async with cached(pool=BufferPool(64 * MiB)) as setup:
        body = content(8 * BLOCK)
        await setup.put("key", body)

        async def read_from(start: int) -> None:
            assert_same(
                await read(setup.layer, "bucket", "key", size=5000, range=ByteRange(start)),
                body[start:],
            )

        async with task_group() as group:
            for start in range(0, 8 * BLOCK, BLOCK // 3):
                group.start_soon(read_from, start)
        await setup.settle()
        assert setup.origin.received == 8 * BLOCK
        assert setup.layer.statistics().blocks == 8


async def test_fill_stops_soon_after_its_reader() -> None:
    async with cached() as setup:
        body = content(10 * BLOCK)
        await setup.put("key", body)
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            await reader.read(100)
            for _ in range(1000):
                await asyncio.sleep(0)
            # The reader has the first block. The second one is at hand, and the third one follows.
            assert setup.origin.received == 3 * BLOCK
        await setup.settle()
        assert setup.origin.received == 3 * BLOCK
        assert setup.origin.open_readers == 0
        assert len(setup.cache.blocks) == 3


# -- failures of the origin --------------------------------------------------------------------------


async def test_failed_fetch_raises_and_never_yields_zeros_as_fsspecs_blockcache() -> None:
    async with cached() as setup:
        body = content(4 * BLOCK)
        await setup.put("key", body)
        setup.origin.cut("key", at=2 * BLOCK + 5, times=None)
        with pytest.raises(UnavailableError):
            await read(setup.layer, "bucket", "key")
        await setup.settle()
        assert len(setup.cache.blocks) == 2
        setup.origin._flaws.clear()
        assert_same(await read(setup.layer, "bucket", "key"), body)


async def test_short_body_raises_and_is_not_cached() -> None:
    async with cached() as setup:
        body = content(2 * BLOCK)
        await setup.put("key", body)
        setup.origin.short("key", at=BLOCK + 5, times=None)
        with pytest.raises(UnavailableError, match="early"):
            await read(setup.layer, "bucket", "key")
        await setup.settle()
        assert len(setup.cache.blocks) == 1
        setup.origin._flaws.clear()
        assert_same(await read(setup.layer, "bucket", "key"), body)


async def test_readers_of_a_failed_fill_get_their_own_errors() -> None:
    async with cached() as setup:
        await setup.put("key", content(BLOCK))
        setup.origin.fail("get", UnavailableError("no"))
        errors: list[UnavailableError] = []

        async def read_it() -> None:
            with pytest.raises(UnavailableError) as caught:
                await read(setup.layer, "bucket", "key")
            errors.append(caught.value)

        async with task_group() as group:
            for _ in range(3):
                group.start_soon(read_it)
        assert len(set(map(id, errors))) == 3
        assert setup.origin.requests == ["get"]


# -- write through -----------------------------------------------------------------------------------


async def test_written_body_is_read_without_a_request() -> None:
    async with cached(write="through") as setup:
        body = content(3 * BLOCK + 5)
        await write(setup.layer, "bucket", "key", body)
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "key"), body)
        assert setup.origin.requests == []


async def test_uploaded_body_is_read_without_a_get() -> None:
    async with cached(write="through") as setup:
        body = content(3 * BLOCK + 5)
        await upload(setup.layer, "bucket", "key", body, min_part=BLOCK - 7)
        await setup.settle()
        setup.origin.reset()
        assert_same(await read(setup.layer, "bucket", "key"), body)
        assert setup.origin.requests == ["head"]


async def test_upload_without_memory_is_cached_in_part() -> None:
    pool = BufferPool(4 * MiB)
    async with cached(write="through", pool=pool) as setup:
        body = content(6 * BLOCK)
        async with setup.layer.upload("bucket", "key", PutOptions()) as running:
            for number in reversed(range(6)):
                part = Part(number=number + 1, offset=number * BLOCK, size=BLOCK, last=number == 5)
                await running.send(part, views(body[number * BLOCK :][:BLOCK]))
            await running.commit({})
        await setup.settle()
        assert pool.statistics().leased == 0
        assert len(setup.cache.blocks) == 1
        assert_same(await read(setup.layer, "bucket", "key"), body)


@pytest.mark.parametrize("step", ["put", "put.done"])
async def test_failed_write_leaves_nothing_cached(step: str) -> None:
    async with cached(write="through") as setup:
        setup.origin.fail(step, UnavailableError("no"))
        with pytest.raises(UnavailableError):
            await write(setup.layer, "bucket", "key", content(BLOCK))
        assert setup.cache.blocks == []


async def test_aborted_upload_holds_no_memory() -> None:
    pool = BufferPool(16 * MiB)
    async with cached(write="through", pool=pool) as setup:
        async with setup.layer.upload("bucket", "key", PutOptions()) as running:
            part = Part(number=1, offset=0, size=BLOCK, last=True)
            await running.send(part, views(content(BLOCK)))
            assert pool.statistics().leased == MiB
        assert pool.statistics().leased == 0
        assert setup.cache.blocks == []


async def test_racing_puts_leave_no_doubtful_version() -> None:
    async with cached(write="through") as setup:
        reached = setup.origin.hang("put.done")
        first = OwnedTask(write(setup.layer, "bucket", "key", b"first"))
        await reached.wait()
        hanging = setup.origin.before.pop("put.done")
        await write(setup.layer, "bucket", "key", b"second")
        hanging.__self__.release()  # type: ignore[attr-defined]  # the method of a Hang
        await first.result()  # its response arrives last, but it was stored first
        assert await read(setup.layer, "bucket", "key") == b"second"


# -- the layer ---------------------------------------------------------------------------------------


async def test_statistics_are_shown_by_the_store() -> None:
    layer = ReadThrough(MemoryDriver(), MemoryDriver(), max_bytes=64 * BLOCK)
    async with Trove(MemoryDriver(), backends={"cold": layer}) as store:
        assert isinstance(layer, Layer)
        assert isinstance(layer, HasStatistics)
        assert store.backends["default"].statistics is None
        statistics = store.backends["cold"].statistics
        assert isinstance(statistics, CacheStatistics)
        assert statistics.max_bytes == 64 * BLOCK
        await store.backend("cold").create_bucket("bucket")
        await store.backend("cold").put("bucket", "key", b"body")
        await layer.wait_until_ready()
        for _ in range(3):
            assert await store.backend("cold").read("bucket", "key") == b"body"
        assert layer.statistics().misses == 1
    assert layer.statistics().misses == 1


async def test_bytes_of_passed_gets_are_counted_and_the_get_once() -> None:
    async with cached() as setup:
        body = content(3 * BLOCK)
        await setup.put("key", body)
        etag = (await setup.layer.head("bucket", "key")).etag
        assert_same(await read(setup.layer, "bucket", "key", if_match=etag), body)
        statistics = setup.layer.statistics()
        assert (statistics.bypasses, statistics.bytes_from_origin) == (1, len(body))


async def test_get_without_memory_is_one_bypass() -> None:
    async with cached(pool=BufferPool(2 * SLOT), block_size=SLOT) as setup:
        body = content(6 * SLOT)
        await setup.put("key", body)
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            first = await reader.read(1)
            core = setup.layer._open_core
            leases = [core.pool.try_lease(SLOT, lambda: False) for _ in range(2)]
            assert_same(first + await read_to_end(reader), body)
            for lease in leases:
                if lease is not None:
                    lease.release()
        assert setup.layer.statistics().bypasses == 1


async def test_block_that_is_read_from_a_fill_and_from_the_cache_is_a_miss_and_a_hit() -> None:
    async with cached(block_size=2 * MiB, max_bytes=8 * MiB) as setup:
        await setup.put("key", content(2 * MiB))
        async with setup.layer.get("bucket", "key", GetOptions()) as reader:
            await reader.read(1)
            await setup.settle()
            for block in list(setup.layer._open_core.filling.values()):
                block.drop()  # as when a transfer needs the memory
            await read_to_end(reader)
        statistics = setup.layer.statistics()
        assert (statistics.misses, statistics.hits) == (1, 1)
        assert 0 < statistics.bytes_from_cache < 2 * MiB


async def test_reader_of_a_closed_layer_raises() -> None:
    layer = ReadThrough(MemoryDriver(), MemoryDriver(), max_bytes=64 * BLOCK, block_size=BLOCK)
    async with opened(layer):
        await layer.wait_until_ready()
        await layer.create_bucket("bucket")
        await write(layer, "bucket", "key", content(4 * BLOCK))
        context = layer.get("bucket", "key", GetOptions())
        reader = await context.__aenter__()
        await reader.read(BLOCK)
    with pytest.raises(ClosedError):
        await read_to_end(reader)
    await context.__aexit__(None, None, None)
    with pytest.raises(ClosedError):
        layer.get("bucket", "key", GetOptions())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_bytes": 0}, ConfigError),
        ({"max_bytes": 1.5}, TypeError),
        ({"max_bytes": 1, "block_size": 0}, ConfigError),
        ({"max_bytes": 1, "revalidate": -1}, ConfigError),
        ({"max_bytes": 1, "revalidate": "60"}, TypeError),
        ({"max_bytes": 1, "write": "back"}, ConfigError),
        ({"max_bytes": 1, "write": []}, TypeError),
        ({"max_bytes": 1, "cache_timeout": 0}, ConfigError),
        ({"max_bytes": 1, "cache": "nowhere://x"}, ConfigError),
        ({"max_bytes": 1, "cache": 5}, TypeError),
        ({"max_bytes": 1, "origin": MemoryDriver}, TypeError),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ReadThrough(**{"origin": MemoryDriver(), "cache": MemoryDriver(), **settings})


def test_one_driver_cannot_be_origin_and_cache() -> None:
    driver = MemoryDriver()
    with pytest.raises(ConfigError, match="different"):
        ReadThrough(driver, driver, max_bytes=1)


async def test_block_that_does_not_fit_the_pool_is_rejected_at_open() -> None:
    layer = ReadThrough(MemoryDriver(), MemoryDriver(), max_bytes=GIB, block_size=4 * MiB)
    with pytest.raises(ConfigError, match="half of the pool"):
        async with opened(layer, pool=BufferPool(6 * MiB)):
            pass


GIB = 1024 * MiB


async def test_url_of_a_directory_is_not_synced(tmp_path: Path) -> None:
    layer = ReadThrough(MemoryDriver(), f"file://{tmp_path}", max_bytes=GIB)
    cache = layer.inner[1]
    assert isinstance(cache, LocalDriver)
    assert not cache._settings.fsync
    synced = ReadThrough(MemoryDriver(), f"file://{tmp_path}?fsync=true", max_bytes=GIB).inner[1]
    assert isinstance(synced, LocalDriver)
    assert synced._settings.fsync


async def test_dropped_generator_of_a_body_leaves_nothing() -> None:
    async with cached() as setup:
        await setup.put("key", content(10 * BLOCK))

        async def chunks() -> AsyncIterator[bytes]:
            async with setup.layer.get("bucket", "key", GetOptions()) as reader:
                while data := await reader.read(1000):
                    yield data

        async with aclosing(chunks()) as body:  # type: ignore[type-var]  # a generator
            await anext(body)
        await setup.settle()
        assert (setup.origin.open_readers, setup.origin.calls_under_way) == (0, 0)
