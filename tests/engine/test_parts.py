"""How a body is split into parts, and the limits on parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import (
    BufferPool,
    NotSupportedError,
)
from trove_async._checksums import crc32c_of
from trove_async._engine.parts import part_size
from trove_async.driver import Capabilities
from trove_async.drivers import GCSDriver, LocalDriver, S3Driver
from trove_async.models import KiB, MiB, TiB
from trove_async.options import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.driver import AsyncDriver


BODY = content(4 * MiB + 123)


async def stream(body: bytes, chunk: int = 256 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), chunk):
        await asyncio.sleep(0)
        yield body[at : at + chunk]


class RecordingDriver(Fake):
    """Records the parts that it receives."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(**capabilities)
        self.parts: list[Part] = []

    def upload(self, bucket: str, key: str, options: Any) -> Any:
        upload = super().upload(bucket, key, options)
        send = upload.send

        async def record_and_send(part: Part, views: Any) -> None:
            assert sum(map(len, views)) == part.size
            assert all(views)
            assert part.checksums == {"crc32c": crc32c_of(views)}
            self.parts.append(part)
            await send(part, views)

        upload.send = record_and_send
        return upload


def assert_covers(parts: list[Part], body_size: int, size: int) -> None:
    """Assert that the parts make up the body, and that all but the last have this size."""
    ordered = sorted(parts, key=lambda part: part.number)
    assert [part.number for part in ordered] == list(range(1, len(ordered) + 1))
    assert [part.offset for part in ordered] == [n * size for n in range(len(ordered))]
    assert all(part.size == size for part in ordered[:-1])
    assert sum(part.size for part in ordered) == body_size
    assert [part.last for part in ordered] == [False] * (len(ordered) - 1) + [True]


# -- planning ----------------------------------------------------------------------------------------


@given(
    size=st.none() | st.integers(0, 10**14),
    pool_part=st.integers(1, 64),
    min_part=st.integers(1, 10**8),
    max_part=st.integers(1, 10**10),
    multiple=st.sampled_from([1, 3, 256 * KiB, 320 * KiB, MiB]),
    max_parts=st.integers(1, 10_000),
)
def test_planned_parts_are_allowed_and_cover_the_body(  # noqa: PLR0917 - drawn by Hypothesis
    size: int | None,
    pool_part: int,
    min_part: int,
    max_part: int,
    multiple: int,
    max_parts: int,
) -> None:
    pool = BufferPool(128 * MiB, pool_part * MiB)
    limits = Capabilities(
        min_part=min_part, max_part=max_part, part_multiple=multiple, max_parts=max_parts
    )
    try:
        part = part_size(size, limits, pool)
    except NotSupportedError:
        allowed = range(-(-min_part // multiple) * multiple, max_part + 1, multiple)
        too_large = size is not None and allowed and size > allowed[-1] * max_parts
        assert not allowed or too_large or (size is not None and size > limits.max_object)
        return
    assert min_part <= part <= max_part
    assert part % multiple == 0
    if size is not None:
        assert part * max_parts >= size
    # A part is larger than the pool's part size only if a limit requires it.
    smallest = max(min_part, 1 if size is None else -(-size // max_parts), 1)
    assert part <= max(pool.part_size, -(-smallest // multiple) * multiple)


def test_object_larger_than_the_backend_allows_is_rejected() -> None:
    with pytest.raises(NotSupportedError, match="at most 10 bytes"):
        part_size(11, Capabilities(max_object=10), BufferPool())


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("size", [2 * MiB, 2 * MiB + 1, 3 * MiB - 1, 4 * MiB])
async def test_parts_cover_the_body(size: int, *, size_known: bool, memory: bool) -> None:
    fake = RecordingDriver(parallel_parts=3)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        body = content(size)
        await store.put(
            "bucket", "key", body if memory else stream(body), size=size if size_known else None
        )
        assert_covers(fake.parts, size, MiB)
        assert await store.read("bucket", "key") == body
        assert_idle(store, fake)


async def test_parts_follow_the_backends_limits() -> None:
    fake = RecordingDriver(min_part=3 * MiB // 2, part_multiple=256 * KiB, max_parts=3)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        await store.put("bucket", "key", stream(BODY))
        assert_covers(fake.parts, len(BODY), 3 * MiB // 2)
        fake.parts.clear()
        body = content(7 * MiB)
        await store.put("bucket", "key", stream(body), size=len(body))
        assert_covers(fake.parts, len(body), 10 * 256 * KiB)


@pytest.mark.parametrize(
    ("driver", "size"),
    [
        (S3Driver(), 5 * TiB),
        (GCSDriver(), 5 * TiB),
        (LocalDriver("/nowhere"), 60 * TiB),
    ],
    ids=["s3", "gcs", "local"],
)
def test_largest_objects_are_planned_in_parts_that_can_be_sent(
    driver: AsyncDriver, size: int
) -> None:
    pool, limits = BufferPool(), driver.capabilities
    assert size <= limits.max_object
    part = part_size(size, limits, pool)
    assert part * limits.max_parts >= size
    assert limits.streamed_parts or part <= pool.max_bytes // 2


async def test_stream_longer_than_all_parts_raises_with_advice() -> None:
    fake = Fake(max_parts=3)
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="pass its size to put"):
            await store.put("bucket", "key", stream(BODY))
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_part_larger_than_half_of_the_pool_raises_with_advice() -> None:
    fake = Fake(min_part=5 * MiB)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        with pytest.raises(NotSupportedError, match="BufferPool"):
            await store.put("bucket", "key", stream(BODY))
        await store.put("bucket", "key", BODY)  # a body in memory needs no pool
        assert_idle(store, fake)


async def test_body_larger_than_the_backend_allows_is_rejected() -> None:
    fake = Fake(max_object=3 * MiB)
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="at most"):
            await store.put("bucket", "key", stream(BODY))
        with pytest.raises(NotSupportedError, match="at most"):
            await store.put("bucket", "key", stream(BODY), size=len(BODY))
        with pytest.raises(NotSupportedError, match="at most"):
            await store.put("bucket", "key", BODY)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_parts_are_sent_in_parallel_and_in_any_order() -> None:
    fake = RecordingDriver(parallel_parts=3)
    async with store_of(fake, pool=BufferPool(16 * MiB, MiB)) as store:
        waiting: list[asyncio.Event] = []
        peak = 0

        async def release_last_first() -> None:
            nonlocal peak
            released = asyncio.Event()
            waiting.append(released)
            peak = max(peak, len(waiting))
            if len(waiting) == 3 or fake.count("send") == 5:
                while waiting:
                    waiting.pop().set()
            await released.wait()

        fake.before["send"] = release_last_first
        await store.put("bucket", "key", stream(BODY))
        assert peak == 3
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_next_part_is_filled_while_another_is_in_flight() -> None:
    fake = Fake(parallel_parts=1)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        yielded: list[int] = []

        async def body() -> AsyncIterator[bytes]:
            for number in range(4):
                yielded.append(number)
                yield content(MiB, str(number))

        reached = fake.hang("send")
        put = asyncio.get_running_loop().create_task(store.put("bucket", "key", body()))
        await reached.wait()
        while len(yielded) < 3:
            await asyncio.sleep(0)
        assert store.pool.statistics().leased == 2 * MiB
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert_idle(store, fake)
