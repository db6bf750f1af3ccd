"""Conformance tests of reading: whole bodies, chunks, buffers, files and ranges.

The ranges are those of the driver suite: a store must select the same bytes as its drivers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trove_async import (
    BodyConsumedError,
    ByteRange,
    ClosedError,
    NotSupportedError,
    RangeError,
    Trove,
)
from trove_async._concurrency import in_thread, task_group
from trove_async.testing._harness import assert_same, content, in_new_task
from trove_async.testing.driver.ranges import BEYOND, OF_EMPTY_OBJECT, SELECTING
from trove_async.testing.store._base import StoreTopic, capabilities_of

NEVER: list[tuple[int, int | None]] = [(0, 0), (5, 5), (5, 3), (-1, None), (-5, -1), (0, -1)]
"""Ranges that are invalid for an object of any size."""


class StoreReading(StoreTopic):
    """`get`, `read` and `get_ranges`."""

    async def test_chunks_join_to_the_body(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "key", body)
        async with store.get(bucket, "key") as obj:
            assert (obj.info.size, obj.range) == (len(body), (0, len(body)))
            chunks = [chunk async for chunk in obj]
        assert all(type(chunk) is bytes and chunk for chunk in chunks)
        assert_same(b"".join(chunks), body)

    async def test_read_readinto_and_iteration_can_be_mixed(
        self, store: Trove, bucket: str
    ) -> None:
        body = content(3_000_000)
        await store.put(bucket, "key", body)
        async with store.get(bucket, "key") as obj:
            got = await obj.read(1)
            # A read of size 0 returns b"" even before the end of the body.
            got += await obj.read(0)
            buffer = bytearray(1000)
            got += buffer[: await obj.readinto(buffer)]
            async for chunk in obj:
                got += chunk
                break
            got += await obj.read()
            assert_same(got, body)
            assert [await obj.read(), await obj.read(5), await obj.readinto(buffer)] == [
                b"",
                b"",
                0,
            ]

    async def test_empty_object_reads_as_empty_bytes(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"")
        async with store.get(bucket, "key") as obj:
            assert [chunk async for chunk in obj] == []
            assert obj.range == (0, 0)
        assert await store.read(bucket, "key") == b""

    async def test_save_writes_the_file(self, store: Trove, bucket: str, tmp_path: Path) -> None:
        body = content(2_500_000)
        await store.put(bucket, "key", body)
        target = tmp_path / "new" / "saved"  # in a new directory, to detect leftover files
        await in_thread(target.parent.mkdir)
        async with store.get(bucket, "key") as obj:
            await obj.save(target)
        assert_same(await in_thread(target.read_bytes), body)
        assert await in_thread(lambda: [path.name for path in target.parent.iterdir()]) == ["saved"]

    async def test_awaited_get_can_be_closed_in_another_task(
        self, store: Trove, bucket: str
    ) -> None:
        await store.put(bucket, "key", content(3_000_000))
        obj = await store.get(bucket, "key")
        assert await in_new_task(obj.read(10)) == content(3_000_000)[:10]
        for _ in range(2):
            await in_new_task(obj.aclose())
        with pytest.raises(ClosedError):
            await obj.read(1)

    async def test_get_can_be_opened_only_once(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"body")
        opening = store.get(bucket, "key")
        async with opening as obj:
            assert await obj.read() == b"body"
        with pytest.raises(BodyConsumedError):
            await opening

    async def test_read_of_body_larger_than_limit_raises(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"0123456789")
        assert await store.read(bucket, "key", limit=10) == b"0123456789"
        with pytest.raises(RangeError):
            await store.read(bucket, "key", limit=9)

    async def test_range_selects_the_same_bytes_as_the_driver(
        self, store: Trove, bucket: str
    ) -> None:
        await store.put(bucket, "key", b"0123456789")
        claimed = (await capabilities_of(store, bucket)).ranges
        for requested, span in SELECTING:
            if not claimed:
                with pytest.raises(NotSupportedError):
                    await store.read(bucket, "key", range=requested)
                continue
            async with store.get(bucket, "key", range=requested) as obj:
                assert (obj.range, obj.info.size) == (span, 10)
                assert await obj.read() == b"0123456789"[slice(*span)]
            if requested.suffix is None:
                as_tuple = requested.start, requested.end
                assert (
                    await store.read(bucket, "key", range=as_tuple) == b"0123456789"[slice(*span)]
                )

    async def test_range_that_selects_nothing_raises(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"0123456789")
        await store.put(bucket, "empty", b"")
        # A service may return the whole object for such a range, which must not reach a user.
        for key, ranges in (("key", BEYOND), ("empty", OF_EMPTY_OBJECT)):
            expected = (
                RangeError
                if (await capabilities_of(store, bucket, key)).ranges
                else NotSupportedError
            )
            for requested in ranges:
                with pytest.raises(expected):
                    await store.read(bucket, key, range=requested)

    async def test_invalid_range_raises_immediately(self, store: Trove, bucket: str) -> None:
        # The error comes before any I/O, and even before the get is awaited.
        for requested in NEVER:
            with pytest.raises(RangeError):
                store.get(bucket, "key", range=requested)
        with pytest.raises(RangeError):
            ByteRange.last(0)

    async def test_range_across_parts_selects_its_bytes(self, store: Trove, bucket: str) -> None:
        part = store.pool.part_size
        body = content(2 * part + 1)
        await store.put(bucket, "key", body)
        for start, end in [(part - 1, part + 1), (1, 2 * part), (2 * part, 2 * part + 1)]:
            if not (await capabilities_of(store, bucket)).ranges:
                with pytest.raises(NotSupportedError):
                    await store.read(bucket, "key", range=(start, end))
                continue
            assert_same(await store.read(bucket, "key", range=(start, end)), body[start:end])

    async def test_get_ranges_returns_bodies_in_the_requested_order(
        self, store: Trove, bucket: str
    ) -> None:
        body = content(3_000_000)
        await store.put(bucket, "key", body)
        requested: list[ByteRange | tuple[int, int | None]] = [
            ByteRange(5, 9),
            (0, 4),
            ByteRange.last(3),
            (5, 9),
            (1_000_000, 2_000_000),
            (1_500_000, 2_500_000),
            (2_999_999, None),
            (7, 10**12),
        ]
        if not (await capabilities_of(store, bucket)).ranges:
            with pytest.raises(NotSupportedError):
                await store.get_ranges(bucket, "key", requested)
            return
        assert list(await store.get_ranges(bucket, "key", requested)) == [
            body[5:9],
            body[:4],
            body[-3:],
            body[5:9],
            body[1_000_000:2_000_000],
            body[1_500_000:2_500_000],
            body[-1:],
            body[7:],
        ]
        assert list(await store.get_ranges(bucket, "key", [])) == []
        with pytest.raises(RangeError):
            await store.get_ranges(bucket, "key", [(0, 1), (3_000_000, None)])

    async def test_progress_of_a_get_ends_at_its_size(self, store: Trove, bucket: str) -> None:
        body = content(2_500_000)
        await store.put(bucket, "key", body)
        reports: list[tuple[int, int | None]] = []
        async with store.get(
            bucket, "key", progress=lambda done, total: reports.append((done, total))
        ) as obj:
            await obj.read()
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)
        assert reports[-1] == (len(body), len(body))

    async def test_idle_readers_do_not_block_others(self, store: Trove, bucket: str) -> None:
        body = content(3_000_000)
        await store.put(bucket, "key", body)
        readers = []
        try:
            # If connections are fewer than readers, the store must take connections from idle readers.
            for _ in range(20):
                readers.append(await store.get(bucket, "key"))
                assert_same(await readers[-1].read(1), body[:1])
            assert_same(await store.read(bucket, "key"), body)
            for reader in readers:
                assert_same(await reader.read(), body[1:])
        finally:
            for reader in readers:
                await reader.aclose()

    async def test_many_concurrent_get_put_copies_finish(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "from", body)

        async def copy(number: int) -> None:
            await store.put(bucket, f"to-{number}", store.get(bucket, "from"))

        async with task_group() as group:
            # If a get waited for memory while its put held some, the copies would deadlock.
            for number in range(20):
                group.start_soon(copy, number)
        for number in range(20):
            assert_same(await store.read(bucket, f"to-{number}"), body)
