"""`Hedged` over `ReadThrough`: which requests may fail because no connection is free."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.layers.cached import BLOCK, Cache, Origin, settle
from trove_async._concurrency import OwnedTask, speculative
from trove_async.layers import Hedged, ReadThrough
from trove_async.models import MiB
from trove_async.pool import BufferPool
from trove_async.testing import opened
from trove_async.testing._harness import assert_same, content, read, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.idle_time


class RecordingOrigin(Origin):
    """Records for each get whether it is speculative."""

    def __init__(self) -> None:
        super().__init__()
        self.speculative: list[bool] = []

    def get(self, *arguments: Any) -> Any:
        self.speculative.append(speculative.get())
        return super().get(*arguments)


class RecordingCache(Cache):
    """Records for each put and each get of a block whether it is speculative."""

    def __init__(self) -> None:
        super().__init__()
        self.speculative: list[bool] = []

    async def put(self, *arguments: Any) -> Any:
        self.speculative.append(speculative.get())
        return await super().put(*arguments)

    def get(self, *arguments: Any) -> Any:
        self.speculative.append(speculative.get())
        return super().get(*arguments)


class _At:
    """Latencies whose quantile does not change."""

    threshold = 0.0

    def add(self, seconds: float) -> None:
        del seconds


class Setup:
    """A hedged layer with an object of one block, and all memory of its pool leased."""

    def __init__(self, hedged: Hedged, layer: ReadThrough, pool: BufferPool) -> None:
        self.hedged = hedged
        self.layer = layer
        lease = pool.try_lease(pool.max_bytes)
        assert lease is not None
        self.lease = lease


@asynccontextmanager
async def slow_first_request(
    origin: RecordingOrigin, cache: RecordingCache
) -> AsyncIterator[Setup]:
    layer = ReadThrough(origin, cache, max_bytes=4 * BLOCK, block_size=BLOCK)
    hedged = Hedged(layer, budget=1)
    hedged._latencies = {"get": _At(), "head": _At()}  # type: ignore[dict-item]
    pool = BufferPool(16 * MiB)
    async with opened(hedged, pool=pool):
        await origin.create_bucket("bucket")
        await layer.wait_until_ready()
        await write(hedged, "bucket", "key", content(BLOCK))
        cache.speculative.clear()
        hedged._budget._tokens = 10
        setup = Setup(hedged, layer, pool)
        with setup.lease:
            yield setup


async def test_fill_that_a_second_request_starts_is_not_speculative() -> None:
    origin, cache = RecordingOrigin(), RecordingCache()
    async with slow_first_request(origin, cache) as setup:
        # Without memory, the first request bypasses the cache, and hangs.
        reached = origin.hang("get")
        reading = OwnedTask(read(setup.hedged, "bucket", "key"))
        await reached.wait()
        del origin.before["get"]
        setup.lease.release()
        assert_same(await reading.result(), content(BLOCK))
        await settle(setup.layer)
        assert origin.speculative == [False, False]
        assert setup.layer.statistics().misses == 1
        assert cache.speculative
        assert not any(cache.speculative)
        # Others read what it has stored.
        assert_same(await read(setup.layer, "bucket", "key"), content(BLOCK))
        assert setup.layer.statistics().hits == 1


async def test_second_request_that_bypasses_the_cache_is_speculative() -> None:
    origin, cache = RecordingOrigin(), RecordingCache()
    async with slow_first_request(origin, cache) as setup:
        reached = origin.hang("get")
        reading = OwnedTask(read(setup.hedged, "bucket", "key"))
        await reached.wait()
        del origin.before["get"]
        assert_same(await reading.result(), content(BLOCK))
        assert origin.speculative == [False, True]
        assert setup.layer.statistics().bypasses == 2
