"""`get_ranges`: order, coalescing, invalid ranges and objects that change."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import CallLog, fill, single_attempt_store
from trove_async import (
    ByteRange,
    NotSupportedError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeError,
)
from trove_async._engine.ranges import coalesce
from trove_async.drivers.memory import MemoryDriver
from trove_async.models import KiB, MiB
from trove_async.options import DeleteOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async import Trove

BODY = hashlib.shake_128(b"ranges").digest(2 * MiB)


@pytest.fixture
async def store_and_driver() -> AsyncIterator[tuple[Trove, CallLog]]:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)
        yield store, driver


async def test_ranges_are_returned_in_request_order_with_duplicates(
    store_and_driver: tuple[Trove, CallLog],
) -> None:
    store, driver = store_and_driver
    ranges: list[ByteRange | tuple[int, int | None]] = [
        (MiB, MiB + 5), (0, 3), ByteRange.last(4), (0, 3), (1, 2), (2 * MiB - 1, None),
        (MiB, 10 * MiB), ByteRange.last(10 * MiB),
    ]  # fmt: skip
    assert await store.get_ranges("data", "key", ranges) == [
        BODY[MiB : MiB + 5], BODY[:3], BODY[-4:], BODY[:3], BODY[1:2], BODY[-1:], BODY[MiB:], BODY,
    ]  # fmt: skip
    assert driver.calls.count("get") == 1


async def test_near_ranges_are_fetched_together_and_distant_ones_separately(
    store_and_driver: tuple[Trove, CallLog],
) -> None:
    store, driver = store_and_driver
    ranges = [(n * 512 * KiB, n * 512 * KiB + 10) for n in range(4)] + [(20, 30), (40, 50)]
    assert await store.get_ranges("data", "key", ranges) == [BODY[a:b] for a, b in ranges]
    assert driver.calls.count("get") == 4


@pytest.mark.parametrize(
    "invalid",
    [(2 * MiB, None), (2 * MiB, 2 * MiB + 1), (5, 5), (5, 4), (-1, 4), ByteRange(9 * MiB)],
)
async def test_one_invalid_range_fails_all_before_a_byte_is_read(
    store_and_driver: tuple[Trove, CallLog], invalid: tuple[int, int | None]
) -> None:
    store, driver = store_and_driver
    with pytest.raises(RangeError):
        await store.get_ranges("data", "key", [(0, 1), invalid])
    assert "get" not in driver.calls


async def test_every_range_of_an_empty_object_raises(
    store_and_driver: tuple[Trove, CallLog],
) -> None:
    store, driver = store_and_driver
    await fill(driver, "data")
    await store.put("data", "empty", b"")
    for byte_range in (ByteRange(0), ByteRange(0, 1), ByteRange.last(1)):
        with pytest.raises(RangeError):
            await store.get_ranges("data", "empty", [byte_range])
    assert await store.get_ranges("data", "empty", []) == []


@pytest.mark.parametrize("invalid", [None, (1,), (1, 2, 3), "ab", 5, range(3), [0, 1]])
async def test_invalid_range_type_raises_type_error(
    store_and_driver: tuple[Trove, CallLog], invalid: object
) -> None:
    store, _ = store_and_driver
    with pytest.raises(TypeError, match=r"\(start, end\)"):
        await store.get_ranges("data", "key", [(0, 1), invalid])  # type: ignore[list-item]  # tested at run time


@pytest.mark.parametrize("conditions", [True, False])
async def test_object_replaced_between_two_requests_raises(*, conditions: bool) -> None:
    driver = CallLog(get_conditions=conditions)
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)

        async def replace_object() -> None:
            driver.before.clear()
            await MemoryDriver.put(driver, "data", "key", [memoryview(BODY)], PutOptions())

        driver.before["get"] = replace_object
        with pytest.raises(ObjectChangedError) as caught:
            await store.get_ranges("data", "key", [(0, 1), (MiB, MiB + 1)])
        assert (caught.value.operation, caught.value.key) == ("get_ranges", "key")


async def test_object_deleted_between_two_requests_raises(
    store_and_driver: tuple[Trove, CallLog],
) -> None:
    store, driver = store_and_driver

    async def delete_object() -> None:
        await MemoryDriver.delete(driver, "data", "key", DeleteOptions())

    driver.before["get"] = delete_object
    with pytest.raises(ObjectChangedError):
        await store.get_ranges("data", "key", [(0, 1), (MiB, MiB + 1)])


async def test_missing_object_and_backend_without_ranges_raise(
    store_and_driver: tuple[Trove, CallLog],
) -> None:
    store, _ = store_and_driver
    with pytest.raises(ObjectNotFoundError):
        await store.get_ranges("data", "missing", [(0, 1)])
    driver = CallLog(ranges=False)
    async with single_attempt_store(driver) as store_without_ranges:
        with pytest.raises(NotSupportedError, match="cannot read a range"):
            await store_without_ranges.get_ranges("data", "key", [(0, 1)])
    assert driver.calls == ["open", "aclose"]


async def test_requests_have_limited_concurrency(store_and_driver: tuple[Trove, CallLog]) -> None:
    store, driver = store_and_driver
    running = peak = 0

    async def wait() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    driver.before["get"] = wait
    ranges = [(start, start + 1) for start in range(0, 2 * MiB, 100 * KiB)]
    assert await store.get_ranges("data", "key", ranges) == [BODY[a:b] for a, b in ranges]
    assert driver.calls.count("get") == len(ranges)
    assert 4 < peak <= 8


spans = st.tuples(st.integers(0, 40 * MiB), st.integers(1, 12 * MiB)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


@given(st.lists(spans | spans.map(lambda span: (span[0], span[0] + 1)), max_size=30))
def test_coalesced_spans_cover_each_span_once_and_waste_little(
    ranges: list[tuple[int, int]],
) -> None:
    requests = coalesce(ranges)
    covered = [span for _, spans in requests for span in spans]
    assert sorted(covered) == sorted(set(ranges))
    for (start, end), spans_of_request in requests:
        assert start == min(span_start for span_start, _ in spans_of_request)
        assert end == max(span_end for _, span_end in spans_of_request)
        assert end - start <= 8 * MiB or (start, end) in spans_of_request
        covered_end = start
        for span_start, span_end in sorted(spans_of_request):
            assert span_start - covered_end <= 64 * KiB
            covered_end = max(covered_end, span_end)
    assert [request for request, _ in requests] == sorted(request for request, _ in requests)
