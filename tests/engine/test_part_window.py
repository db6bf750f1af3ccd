"""How many parts of one upload are sent at once, over fast and slow networks."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import BufferPool
from trove_async._concurrency import OwnedTask
from trove_async._engine import part_window
from trove_async._engine.part_window import PartWindow
from trove_async.driver import Capabilities
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trove_async.options import Part

SIZE = 8 * MiB


def window_of(parallel_parts: int, max_writes: int | None = 64) -> PartWindow:
    capabilities = Capabilities(parallel_parts=parallel_parts, max_writes=max_writes)
    return PartWindow(capabilities, BufferPool(64 * MiB))


async def limits_of(window: PartWindow, count: int, rate: Callable[[int], float]) -> list[int]:
    """Send parts in simulated time, as many at once as the window allows. Return its limits.

    Args:
        window: The window.
        count: The number of parts.
        rate: The bytes per second of a part, given the number of parts in flight.
    """
    now = 0.0
    in_flight: list[tuple[float, float, int]] = []
    limits: list[int] = []
    for _ in range(count):
        while window.in_flight >= window.limit:
            ended, started, others = heappop(in_flight)
            now = ended
            window.sent(SIZE, ended - started, others)
        others = await window.start()
        heappush(in_flight, (now + SIZE / rate(max(others, 8)), now, others))
        limits.append(window.limit)
    return limits


async def test_fast_network_gets_the_first_parts_only() -> None:
    assert set(await limits_of(window_of(16), 100, lambda _: 100 * MiB)) == {8}


async def test_network_that_limits_each_connection_gets_more_parts() -> None:
    limits = await limits_of(window_of(16), 100, lambda _: 40 * MiB)
    assert limits[:8] == [8] * 8
    assert limits[24:] == [16] * 76


async def test_full_link_gets_the_first_parts_again() -> None:
    limits = await limits_of(window_of(16), 100, lambda in_flight: 100 * MiB / in_flight)
    assert max(limits) == 16
    assert limits[40:] == [8] * 60


async def test_full_processor_gets_the_first_parts_again() -> None:
    """Each part is slower than the network because there are so many."""
    limits = await limits_of(window_of(64), 300, lambda in_flight: 1000 * MiB / in_flight)
    assert limits[:32] == [32] * 32
    assert limits[200:] == [32] * 100


@pytest.mark.parametrize(
    ("parallel_parts", "max_writes", "first", "maximum"),
    [(1, 64, 1, 1), (4, 64, 4, 4), (8, None, 8, 8), (12, None, 8, 12), (64, None, 32, 64),
     (16, 8, 8, 8), (64, 160, 32, 40)],
)  # fmt: skip
async def test_maximum_depends_on_the_driver(
    parallel_parts: int, max_writes: int | None, first: int, maximum: int
) -> None:
    limits = await limits_of(window_of(parallel_parts, max_writes), 300, lambda _: MiB)
    assert (limits[0], max(limits)) == (first, maximum)


async def test_no_more_parts_are_sent_while_the_pool_is_nearly_full() -> None:
    pool = BufferPool(64 * MiB)
    window = PartWindow(Capabilities(parallel_parts=16), pool)
    await limits_of(window, 30, lambda _: MiB)
    assert window.limit == 16
    while window.in_flight > 8:
        window.sent(SIZE, 8, 16)
    with await pool.lease(49 * MiB):
        waiting = OwnedTask(window.start())
        await asyncio.sleep(0)
        assert not waiting.done
        window.sent(SIZE, 1, 8)
        assert await waiting.result() == 8
    assert await window.start() == 9


class CountingDriver(Fake):
    """Counts the parts that it is sent at once."""

    def __init__(self) -> None:
        super().__init__(parallel_parts=16)
        self.in_flight = self.peak = 0

    def upload(self, bucket: str, key: str, options: Any) -> Any:
        upload = super().upload(bucket, key, options)
        send = upload.send

        async def count_and_send(part: Part, views: Sequence[memoryview]) -> None:
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            for _ in range(100):
                await asyncio.sleep(0)
            await send(part, views)
            self.in_flight -= 1

        upload.send = count_and_send
        return upload


async def test_bytes_are_sent_with_all_parts_at_once() -> None:
    """They hold no memory of the pool, so that a full one does not matter either."""
    driver = CountingDriver()
    pool = BufferPool(64 * MiB, part_size=MiB)
    async with store_of(driver, pool=pool) as store:
        with await pool.lease(60 * MiB):
            await store.put("bucket", "key", content(32 * MiB))
    assert driver.peak == 16


@pytest.mark.parametrize(("fast_rate", "peak"), [(0.0, 8), (float("inf"), 16)])
async def test_slow_parts_add_more(
    fast_rate: float, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_window, "_FAST_RATE", fast_rate)
    monkeypatch.setattr(part_window, "_MIN_GAIN", 0.0)
    driver = CountingDriver()
    body = content(64 * MiB)
    async with store_of(driver, pool=BufferPool(64 * MiB, part_size=MiB)) as store:
        pieces = [body[start : start + MiB] for start in range(0, len(body), MiB)]
        await store.put("bucket", "key", pieces, size=len(body))
        assert await store.read("bucket", "key") == body
        assert_idle(store, driver)
    assert driver.peak == peak
