"""Uploads: parts, promises, limits, and what is visible when they fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import (
    BucketNotFoundError,
    BufferPool,
    Event,
    IntegrityError,
    NotSupportedError,
    PoolTimeoutError,
    Trove,
    UnavailableError,
)
from trove_async._parts import part_size
from trove_async._sources import source_of
from trove_async._upload import Put
from trove_async.driver import Capabilities
from trove_async.models import KiB, MiB, Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.models import ObjectInfo

BODY = content(4 * MiB + 123)
OLD = b"old"


async def stream(body: bytes, chunk: int = 256 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), chunk):
        await asyncio.sleep(0)
        yield body[at : at + chunk]


class Watched(Fake):
    """Notes the parts that it is sent."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(**capabilities)
        self.parts: list[Part] = []

    def upload(self, bucket: str, key: str, options: Any) -> Any:
        upload = super().upload(bucket, key, options)
        send = upload.send

        async def noting(part: Part, views: Any) -> None:
            assert sum(map(len, views)) == part.size
            assert all(views)
            self.parts.append(part)
            await send(part, views)

        upload.send = noting
        return upload


def assert_covers(parts: list[Part], size: int, part: int) -> None:
    """Assert that the parts are the body, once, and all but the last are equal."""
    ordered = sorted(parts, key=lambda one: one.number)
    assert [one.number for one in ordered] == list(range(1, len(ordered) + 1))
    assert [one.offset for one in ordered] == [n * part for n in range(len(ordered))]
    assert all(one.size == part for one in ordered[:-1])
    assert sum(one.size for one in ordered) == size
    assert [one.last for one in ordered] == [False] * (len(ordered) - 1) + [True]


# -- planning ----------------------------------------------------------------------------------------


@given(
    size=st.none() | st.integers(0, 10**14),
    pool_part=st.integers(1, 64),
    min_part=st.integers(1, 10**8),
    max_part=st.integers(1, 10**10),
    multiple=st.sampled_from([1, 3, 256 * KiB, 320 * KiB, MiB]),
    max_parts=st.integers(1, 10_000),
)
def test_planned_parts_are_allowed_and_cover_the_body(  # noqa: PLR0917 - as drawn
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
    # No larger than the pool asks for, unless a limit does.
    least = max(min_part, 1 if size is None else -(-size // max_parts), 1)
    assert part <= max(pool.part_size, -(-least // multiple) * multiple)


def test_object_beyond_the_backends_limit_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="at most 10 bytes"):
        part_size(11, Capabilities(max_object=10), BufferPool())


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("size", [2 * MiB, 2 * MiB + 1, 3 * MiB - 1, 4 * MiB])
async def test_parts_cover_the_body(size: int, *, known: bool, memory: bool) -> None:
    fake = Watched(parallel_parts=3)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        body = content(size)
        await store.put(
            "bucket", "key", body if memory else stream(body), size=size if known else None
        )
        assert_covers(fake.parts, size, MiB)
        assert await store.read("bucket", "key") == body
        assert_idle(store, fake)


async def test_parts_follow_the_backends_limits() -> None:
    fake = Watched(min_part=3 * MiB // 2, part_multiple=256 * KiB, max_parts=3)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        await store.put("bucket", "key", stream(BODY))
        assert_covers(fake.parts, len(BODY), 3 * MiB // 2)
        fake.parts.clear()
        body = content(7 * MiB)
        await store.put("bucket", "key", stream(body), size=len(body))
        assert_covers(fake.parts, len(body), 10 * 256 * KiB)


async def test_stream_longer_than_all_parts_says_what_to_do() -> None:
    fake = Fake(max_parts=3)
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="give put its size"):
            await store.put("bucket", "key", stream(BODY))
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_part_beyond_half_of_the_pool_says_what_to_do() -> None:
    fake = Fake(min_part=5 * MiB)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        with pytest.raises(NotSupportedError, match="BufferPool"):
            await store.put("bucket", "key", stream(BODY))
        await store.put("bucket", "key", BODY)  # in memory, it needs none of the pool
        assert_idle(store, fake)


async def test_stream_beyond_the_largest_object_is_refused() -> None:
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


async def test_parts_are_sent_side_by_side_and_in_any_order() -> None:
    fake = Watched(parallel_parts=3)
    async with store_of(fake, pool=BufferPool(16 * MiB, MiB)) as store:
        waiting: list[asyncio.Event] = []
        most = 0

        async def last_first() -> None:
            nonlocal most
            mine = asyncio.Event()
            waiting.append(mine)
            most = max(most, len(waiting))
            if len(waiting) == 3 or fake.count("send") == 5:
                while waiting:
                    waiting.pop().set()
            await mine.wait()

        fake.before["send"] = last_first
        await store.put("bucket", "key", stream(BODY))
        assert most == 3
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_next_part_is_filled_while_one_is_under_way() -> None:
    fake = Fake(parallel_parts=1)
    async with store_of(fake, pool=BufferPool(8 * MiB, MiB)) as store:
        asked: list[int] = []

        async def body() -> AsyncIterator[bytes]:
            for number in range(4):
                asked.append(number)
                yield content(MiB, str(number))

        reached = fake.hang("send")
        put = asyncio.get_running_loop().create_task(store.put("bucket", "key", body()))
        await reached.wait()
        while len(asked) < 3:
            await asyncio.sleep(0)
        assert store.pool.statistics().leased == 2 * MiB
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert_idle(store, fake)


# -- promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("upload", [True, False])
@pytest.mark.parametrize("off", [-MiB, -1, 1, MiB, 3 * MiB])
@pytest.mark.parametrize("size", [0, 10, MiB, 2 * MiB + 10])
async def test_body_of_another_size_than_promised_is_no_object(
    size: int, off: int, *, upload: bool
) -> None:
    fake = Fake(upload=upload)
    if size + off < 0:
        pytest.skip("no such promise")
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        body = content(size)
        bodies: list[Any] = [body, stream(body), stream(body, 1 + size // 10), [body], iter([body])]
        for one in bodies:
            with pytest.raises(IntegrityError):
                await store.put("bucket", "key", one, size=size + off)
        assert await store.read("bucket", "key") == OLD
        assert_idle(store, fake)


async def test_promise_of_nothing_that_is_kept() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        bodies: list[Any] = [b"", stream(b""), []]
        for body in bodies:
            assert (await store.put("bucket", "key", body, size=0)).size == 0


async def test_body_is_pulled_no_further_than_promised() -> None:
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield bytes(MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(IntegrityError):
            await store.put("bucket", "key", endless(), size=2 * MiB)
        assert pulled <= 3


async def test_body_that_fails_leaves_the_old_object() -> None:
    async def failing(after: int) -> AsyncIterator[bytes]:
        for _ in range(after):
            yield bytes(512 * KiB)
        raise KeyError("the user's")

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            await store.put("bucket", "key", OLD)
            for after in range(8):
                with pytest.raises(KeyError, match="the user's"):
                    await store.put("bucket", "key", failing(after))
                assert await store.read("bucket", "key") == OLD
                assert_idle(store, fake)


async def test_failure_groups_of_a_body_come_out_as_they_are() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(3 * MiB)
        raise ExceptionGroup("the user's", [KeyError(), ValueError()])

    async with store_of(Fake()) as store:
        with pytest.raises(ExceptionGroup, match="the user's"):
            await store.put("bucket", "key", failing(), size=4 * MiB)


# -- retries -----------------------------------------------------------------------------------------


async def test_body_is_pulled_once_whatever_is_tried_again() -> None:
    pulled = 0

    async def once() -> AsyncIterator[bytes]:
        nonlocal pulled
        for at in range(0, len(BODY), 256 * KiB):
            pulled += 1
            yield BODY[at : at + 256 * KiB]

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            for step in ("put", "upload", "send", "send.done", "commit", "commit.done"):
                fake.fail(step)
            pulled = 0
            await store.put("bucket", "key", once())
            assert pulled == -(-len(BODY) // (256 * KiB))
            assert await store.read("bucket", "key") == BODY
            assert_idle(store, fake)


# -- integrity ---------------------------------------------------------------------------------------


def wrong_checksum(info: ObjectInfo) -> ObjectInfo:
    return replace(info, checksums={"crc32c": "AAAAAA=="})


def wrong_size(info: ObjectInfo) -> ObjectInfo:
    return replace(info, size=info.size, stored_size=info.size + 1)


@pytest.mark.parametrize("lie", [wrong_checksum, wrong_size])
@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "commit"])
@pytest.mark.parametrize("removable", [True, False])
async def test_object_that_was_stored_wrong_is_told_and_removed(
    lie: Any, body: bytes, *, removable: bool
) -> None:
    fake = Fake(delete_if_match=removable)
    async with store_of(fake) as store:
        fake.lie = lie
        for one in (body, stream(body)):
            with pytest.raises(IntegrityError) as caught:
                await store.put("bucket", "key", one)
            assert (caught.value.backend, caught.value.key) == ("default", "key")
        assert await store.exists("bucket", "key") is not removable
        fake.fail("delete", *[UnavailableError("no") for _ in range(5)])
        with pytest.raises(IntegrityError):  # and not that it could not be removed
            await store.put("bucket", "key", body)
        assert_idle(store, fake)


async def test_backend_that_reports_no_checksum_is_believed() -> None:
    fake = Fake(checksums=frozenset())
    async with store_of(fake) as store:
        fake.lie = lambda info: replace(info, checksums={})
        await store.put("bucket", "key", stream(BODY))
        assert await store.read("bucket", "key") == BODY


async def test_large_body_in_memory_is_hashed_in_a_thread() -> None:
    fake = Fake(upload=False)
    async with store_of(fake) as store:
        body = content(5 * MiB)
        await store.put("bucket", "key", body)
        assert await store.read("bucket", "key") == body


@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "commit"])
async def test_body_that_is_not_what_was_announced_is_not_sent(body: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:

        async def missing(error: BucketNotFoundError) -> None:
            raise error

        put = Put(
            store._core.backends["default"],
            "bucket",
            "key",
            PutOptions(checksums={"crc32c": "AAAAAA=="}),
            pool=store.pool,
            events=store.events,
            progress=None,
            missing=missing,
        )
        with pytest.raises(IntegrityError, match="announced"):
            await put.run(source_of(body))
        assert fake.count("put") == fake.count("commit") == 0
        assert_idle(store, fake)


async def test_source_that_is_not_what_it_says_is_not_copied() -> None:
    fake, other = Fake(), Fake()
    async with store_of(fake, other) as store:
        for body in (b"body", BODY):
            await store.put("bucket", "key", body)
            held = fake._buckets["bucket"].objects["key"]
            spoilt = replace(held.info, checksums={"crc32c": "AAAAAA=="})
            fake._buckets["bucket"].objects["key"] = held._replace(info=spoilt)
            with pytest.raises(IntegrityError):
                await store.copy("bucket", "key", "bucket", "b/key")
            assert not await store.exists("bucket", "b/key")
        assert_idle(store, fake, other)


# -- backends that take no parts ---------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_backend_without_uploads_gets_large_bodies_from_a_file(*, known: bool) -> None:
    fake = Fake(upload=False)
    seen: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(seen.append)
        await store.put("bucket", "key", stream(BODY), size=len(BODY) if known else None)
        assert await store.read("bucket", "key") == BODY
        assert [one.size for one in seen if one.kind == "spill"] == [len(BODY)]
        assert store.pool.statistics().peak <= MiB
        assert_idle(store, fake)


async def test_backend_without_uploads_and_no_room_for_a_file_says_what_to_do() -> None:
    fake = Fake(upload=False)
    for room in (0, MiB, 2 * MiB):
        async with store_of(fake, pool=small_pool(spill_max_bytes=room)) as store:
            with pytest.raises(NotSupportedError, match="spill_max_bytes"):
                await store.put("bucket", "key", stream(BODY))
            assert not await store.exists("bucket", "key")
            assert_idle(store, fake)


@pytest.mark.parametrize("upload", [True, False])
async def test_largest_put_is_honoured(*, upload: bool) -> None:
    fake = Fake(upload=upload, max_put=100 * KiB)
    async with store_of(fake) as store:
        pulled = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal pulled
            for at in range(0, 200 * KiB, 10 * KiB):
                pulled += 1
                yield BODY[at : at + 10 * KiB]

        await store.put("bucket", "small", BODY[: 100 * KiB])
        await store.put("bucket", "small", stream(BODY[: 100 * KiB]))
        if upload:
            await store.put("bucket", "key", body())
            assert await store.read("bucket", "key") == BODY[: 200 * KiB]
            await store.put("bucket", "key", BODY[: 200 * KiB])
        else:
            with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                await store.put("bucket", "key", body(), size=200 * KiB)
            assert pulled == 0
            for one in (BODY[: 200 * KiB], body(), stream(BODY)):
                with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                    await store.put("bucket", "key", one)
        assert fake.count("put") == 2
        assert_idle(store, fake)


# -- spilled parts -----------------------------------------------------------------------------------


async def test_part_that_gets_no_memory_is_spilled() -> None:
    fake = Fake(parallel_parts=2)
    seen: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(seen.append)
        with await store.pool.lease(2 * MiB):
            await store.put("bucket", "key", stream(BODY))
            await store.put("bucket", "small", stream(b"small"))
        assert await store.read("bucket", "key") == BODY
        assert await store.read("bucket", "small") == b"small"
        spilled = [one.size for one in seen if one.kind == "spill"]
        assert spilled == [MiB, MiB, MiB, MiB, 123, 5]
        assert len([one for one in seen if one.kind == "wait"]) == 6
        assert store.pool.statistics().spilled_total == sum(spilled)
        assert_idle(store, fake)


async def test_part_that_gets_neither_memory_nor_a_file_is_given_up() -> None:
    fake = Fake()
    pool = small_pool(spill_max_bytes=0, deadline=0.02)
    async with store_of(fake, pool=pool) as store:
        with await store.pool.lease(2 * MiB), pytest.raises(PoolTimeoutError):
            await store.put("bucket", "key", stream(BODY))
        assert_idle(store, fake)


@pytest.mark.parametrize("upload", [True, False])
async def test_disk_that_fails_is_told_and_leaves_nothing(*, upload: bool, tmp_path: Any) -> None:
    fake = Fake(upload=upload)
    async with store_of(fake, pool=small_pool(spill_dir=tmp_path / "missing")) as store:
        lease = await store.pool.lease(2 * MiB if upload else MiB)
        with lease, pytest.raises(FileNotFoundError):
            await store.put("bucket", "key", stream(BODY))
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


# -- progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "parts"])
async def test_progress_is_monotonic_and_complete(body: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        for one, total in ((body, len(body)), (stream(body), None)):
            seen: list[tuple[int, int | None]] = []
            await store.put(
                "bucket", "key", one, progress=lambda *figures, to=seen: to.append(figures)
            )
            assert [done for done, _ in seen] == sorted({done for done, _ in seen})
            assert seen[-1][0] == len(body)
            assert {figure for _, figure in seen} <= {total, len(body)}


async def test_progress_that_raises_aborts_the_upload() -> None:
    def stop(done: int, total: int | None) -> None:  # noqa: ARG001 - as it is called
        raise KeyError("enough")

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(KeyError, match="enough"):
            await store.put("bucket", "key", BODY, progress=stop)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_every_part_is_told() -> None:
    fake = Fake()
    seen: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(seen.append)
        await store.put("bucket", "key", BODY)
        parts = [one for one in seen if one.kind == "part"]
        assert sum(one.size for one in parts) == len(BODY)
        assert {(one.operation, one.backend, one.bucket, one.key) for one in parts} == {
            ("put", "default", "bucket", "key")
        }


# -- missing buckets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 10, 3 * MiB])
async def test_missing_bucket_is_made_and_the_body_pulled_once(size: int, *, known: bool) -> None:
    fake, other = Fake(), Fake()
    async with store_of(fake, other) as store:
        await store.backend("b").delete_bucket("bucket")
        body = content(size)
        for one in (body, stream(body)):
            await store.put("bucket", "b/key", one, size=size if known else None)
            assert await store.read("bucket", "b/key") == body
            await store.delete("bucket", "b/key")
            await store.backend("b").delete_bucket("bucket")
        assert_idle(store, fake, other)


async def test_missing_bucket_shows_before_a_byte_of_a_promised_body_is_pulled() -> None:
    pulled = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal pulled
        pulled += 1
        yield bytes(3 * MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(BucketNotFoundError):
            await store.put("missing", "key", body(), size=3 * MiB)
        assert pulled == 0
        with pytest.raises(BucketNotFoundError):
            await store.put("missing", "key", body())
        assert_idle(store, fake)


async def test_bucket_that_may_not_be_made_is_told() -> None:
    async with Trove(Fake(), backends={"b": Fake()}, routes=[("b/*", "b")],
                     create_missing_buckets=False) as store:  # fmt: skip
        await store.create_bucket("bucket")
        for body in (b"body", BODY, stream(BODY)):
            with pytest.raises(BucketNotFoundError):
                await store.put("bucket", "b/key", body)
