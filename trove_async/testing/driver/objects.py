"""Conformance tests of single objects: what you put is what you get back.

They include the rules that drivers break most easily: views are borrowed only until put returns, a
reader never mixes two versions, and the store's read-ahead may move a reader between tasks.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from trove_async._checksums import running_crc32c
from trove_async._concurrency import in_thread, task_group
from trove_async.driver import AsyncDriver, Capabilities, Fetching, ReadsInto, SpansFile
from trove_async.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    RangeError,
    UnavailableError,
)
from trove_async.models import ByteRange, KiB, MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.testing._harness import (
    assert_same,
    bulk_deleting,
    content,
    delete,
    in_new_task,
    keys,
    list_all,
    read,
    read_to_end,
    views,
    write,
)
from trove_async.testing.driver._base import DriverTopic, needs

SIZES = [0, 1, 2, 4 * KiB, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, MiB, MiB + 1, 3 * MiB + 7]


class DriverObjects(DriverTopic):
    """`put`, `get`, `head`, `delete`, `delete_many`, `place`, `ping` and `aclose`."""

    @pytest.mark.parametrize("size", SIZES)
    async def test_put_then_get_returns_the_same_bytes(
        self, backend: AsyncDriver, bucket: str, size: int
    ) -> None:
        body = content(size)
        info = await write(backend, bucket, "key", body)
        assert info.size == size
        assert_same(await read(backend, bucket, "key"), body)

    @pytest.mark.parametrize("size", [1, 7, 1000])
    async def test_put_concatenates_its_views(
        self, backend: AsyncDriver, bucket: str, size: int
    ) -> None:
        body = content(3001)
        await backend.put(bucket, "key", views(body, size), PutOptions())
        assert_same(await read(backend, bucket, "key"), body)

    async def test_put_without_views_creates_empty_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        info = await backend.put(bucket, "key", [], PutOptions())
        assert info.size == 0
        async with backend.get(bucket, "key", GetOptions()) as reader:
            assert reader.range == (0, 0)
            assert await reader.read(10) == b""
        assert (await backend.head(bucket, "key")).size == 0

    async def test_put_copies_its_views(self, backend: AsyncDriver, bucket: str) -> None:
        memory = bytearray(b"first")
        await backend.put(bucket, "key", [memoryview(memory)], PutOptions())
        # The store reuses its buffers as soon as put returns.
        memory[:] = b"other"
        assert await read(backend, bucket, "key") == b"first"

    async def test_views_can_be_put_twice(self, backend: AsyncDriver, bucket: str) -> None:
        # The store retries a put with the same views.
        pieces = views(content(10_000), 3000)
        for _ in range(2):
            await backend.put(bucket, "key", pieces, PutOptions())
        assert_same(await read(backend, bucket, "key"), content(10_000))

    async def test_put_head_and_get_report_the_same_info(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        put = await write(backend, bucket, "dir/key", b"12345")
        head = await backend.head(bucket, "dir/key")
        async with backend.get(bucket, "dir/key", GetOptions()) as reader:
            got = reader.info
        for info in (put, head, got):
            assert (info.bucket, info.key, info.size) == (bucket, "dir/key", 5)
            assert info.etag == put.etag
            assert info.etag
            assert info.last_modified.utcoffset() == timedelta(0)
        # A service may report the time of its response to the put instead of the object's time.
        assert abs(put.last_modified - head.last_modified) < timedelta(minutes=5)
        assert got.last_modified.replace(microsecond=0) == head.last_modified.replace(microsecond=0)
        assert head.complete

    async def test_put_replaces_existing_object(self, backend: AsyncDriver, bucket: str) -> None:
        old = await write(backend, bucket, "key", b"a longer body")
        new = await write(backend, bucket, "key", b"short")
        assert new.etag != old.etag
        assert await read(backend, bucket, "key") == b"short"
        assert (await backend.head(bucket, "key")).etag == new.etag

    async def test_etags_of_bodies_of_one_size_differ(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        bodies = [b"%03d" % number for number in range(20)]
        # Timestamps are too coarse to distinguish two writes in one second. Etags must differ.
        etags = {(await write(backend, bucket, "key", body)).etag for body in bodies}
        assert len(etags) == len(bodies)

    async def test_etag_of_unchanged_object_is_stable(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        put = await write(backend, bucket, "key")
        await write(backend, bucket, "other")
        await read(backend, bucket, "key")
        assert (await backend.head(bucket, "key")).etag == put.etag

    async def test_missing_object_raises_not_found(self, backend: AsyncDriver, bucket: str) -> None:
        await write(backend, bucket, "key/below")
        # "key" is only a prefix here. A file system has a directory with this name.
        for key in ("missing", "key", "key/", "key/below/it"):
            with pytest.raises(ObjectNotFoundError) as caught:
                await backend.head(bucket, key)
            assert not caught.value.retryable
            with pytest.raises(ObjectNotFoundError):
                await read(backend, bucket, key)

    async def test_delete_removes_only_its_object(self, backend: AsyncDriver, bucket: str) -> None:
        # A delete by prefix would also remove keys that start with the same characters.
        for key in ("a", "a/b", "a/c", "ab"):
            await write(backend, bucket, key)
        await delete(backend, bucket, "a/b")
        with pytest.raises(ObjectNotFoundError):
            await backend.head(bucket, "a/b")
        with pytest.raises(ObjectNotFoundError):
            await read(backend, bucket, "a/b")
        assert sorted(await keys(backend, bucket)) == ["a", "a/c", "ab"]
        await delete(backend, bucket, "a")
        assert sorted(await keys(backend, bucket)) == ["a/c", "ab"]

    async def test_delete_of_missing_object_succeeds(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key")
        for _ in range(2):
            await delete(backend, bucket, "key")
        await delete(backend, bucket, "never/was")
        await delete(backend, bucket, "key/below")

    async def test_deleted_key_can_be_put_again(self, backend: AsyncDriver, bucket: str) -> None:
        await write(backend, bucket, "key", b"old")
        await delete(backend, bucket, "key")
        await write(backend, bucket, "key", b"new")
        assert await read(backend, bucket, "key") == b"new"
        assert await keys(backend, bucket) == ["key"]

    @pytest.mark.parametrize("size", [1, 3, 1000])
    async def test_read_returns_at_most_size_bytes(
        self, backend: AsyncDriver, bucket: str, size: int
    ) -> None:
        body = content(1234)
        await write(backend, bucket, "key", body)
        assert await read(backend, bucket, "key", size=size) == body

    async def test_read_at_the_end_keeps_returning_empty_bytes(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key", b"body")
        async with backend.get(bucket, "key", GetOptions()) as reader:
            assert reader.range == (0, 4)
            assert await read_to_end(reader) == b"body"
            assert [await reader.read(1), await reader.read(MiB)] == [b"", b""]

    async def test_readinto_fills_the_buffer_from_its_start(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body = content(200_000)
        await write(backend, bucket, "key", body)
        async with backend.get(bucket, "key", GetOptions()) as reader:
            if not isinstance(reader, ReadsInto):
                assert not hasattr(reader, "readinto")
                return
            got = bytearray()
            memory = memoryview(bytearray(7000))
            while count := await reader.readinto(memory):
                got += memory[:count]
            assert_same(got, body)
            assert await reader.readinto(memory) == 0

    @pytest.mark.parametrize("size", [0, 1, 1000, 64 * KiB, 3 * MiB])
    async def test_fetch_opens_what_get_opens(
        self, backend: AsyncDriver, bucket: str, size: int
    ) -> None:
        if not isinstance(backend, Fetching):
            assert not hasattr(backend, "fetch")
            return
        body = content(size)
        await write(backend, bucket, "key", body)
        async with backend.get(bucket, "key", GetOptions()) as opened:
            expected = opened.info
        reader = await backend.fetch(bucket, "key", GetOptions())
        try:
            assert reader.info == expected
            assert reader.range == (0, size)
            assert reader.whole in {None, body}
            assert_same(await read_to_end(reader, 1000), body)
        finally:
            await reader.__aexit__(None, None, None)
            await reader.__aexit__(None, None, None)  # idempotent
        with pytest.raises(ObjectNotFoundError):
            await backend.fetch(bucket, "missing", GetOptions())

    @pytest.mark.parametrize("end", [20, None])
    async def test_fetch_honours_ranges(
        self, backend: AsyncDriver, bucket: str, end: int | None
    ) -> None:
        if not (isinstance(backend, Fetching) and backend.capabilities.ranges):
            return  # `ranges` is tested with get
        await write(backend, bucket, "key", content(1000))
        byte_range = ByteRange(10, end)
        reader = await backend.fetch(bucket, "key", GetOptions(range=byte_range))
        assert reader.range == (10, end or 1000)
        assert reader.info.size == 1000
        assert reader.whole in {None, content(1000)[10:end]}
        assert_same(await read_to_end(reader, 7), content(1000)[10:end])
        await reader.__aexit__(None, None, None)
        with pytest.raises(RangeError):
            await backend.fetch(bucket, "key", GetOptions(range=ByteRange(1000, None)))

    async def test_file_spans_and_reads_together_return_the_body(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body = content(3 * MiB)
        await write(backend, bucket, "key", body)
        async with backend.get(bucket, "key", GetOptions()) as reader:
            if not isinstance(reader, SpansFile):
                return
            got = bytearray(await reader.read(1000))
            spans = [
                await reader.file_span(MiB, running_crc32c([got])),
                await reader.file_span(1000, None),
            ]
            rest = await read_to_end(reader)
        # A span outlives its reader.
        for span in spans:
            if span is not None:
                with span.file:
                    assert 0 < span.size <= MiB
                    assert span.offset == len(got)
                    got += await in_thread(os.pread, span.file.fileno(), span.size, span.offset)
                assert span.crc32c in {running_crc32c([got]), None}
        assert_same(got + rest, body)

    async def test_reader_can_be_left_early(self, backend: AsyncDriver, bucket: str) -> None:
        body = content(3 * MiB)
        await write(backend, bucket, "key", body)
        # Many readers: if their connections were not released, none would be left.
        for size in range(1, 30):
            async with backend.get(bucket, "key", GetOptions()) as reader:
                if size % 2:
                    got = await reader.read(size)
                    assert got
                    assert body.startswith(got)
        assert_same(await read(backend, bucket, "key"), body)

    async def test_reader_does_not_suppress_errors(self, backend: AsyncDriver, bucket: str) -> None:
        await write(backend, bucket, "key", content(MiB))
        with pytest.raises(ZeroDivisionError):
            async with backend.get(bucket, "key", GetOptions()) as reader:
                await reader.read(1)
                raise ZeroDivisionError
        assert_same(await read(backend, bucket, "key"), content(MiB))

    async def test_reader_can_be_used_and_left_in_other_tasks(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body = content(2 * MiB)
        await write(backend, bucket, "key", body)
        # Once read to the end, and once left with most of the body unread.
        for to_the_end in (True, False):
            # Each step runs in a new task, so no cancel scope or task group can span two steps.
            context = backend.get(bucket, "key", GetOptions())
            reader = await in_new_task(context.__aenter__())
            got = await in_new_task(reader.read(1000))
            if to_the_end:
                got += await in_new_task(read_to_end(reader))
            await in_new_task(context.__aexit__(None, None, None))
            assert_same(got, body[: len(got)])
            assert len(got) == len(body) or not to_the_end

    async def test_readers_of_one_object_are_independent(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body = content(300_000)
        await write(backend, bucket, "key", body)
        count = min(8, backend.capabilities.max_reads or 8)
        got: list[bytes] = []

        async def collect(size: int) -> None:
            got.append(await read(backend, bucket, "key", size=size))

        async with task_group() as group:
            for number in range(count):
                group.start_soon(collect, 10_000 + number)
        assert got == [body] * count

    @pytest.mark.parametrize("change", ["replaced", "deleted"])
    async def test_reader_never_mixes_two_versions(
        self, backend: AsyncDriver, bucket: str, change: str
    ) -> None:
        body = content(4 * MiB, "old")
        await write(backend, bucket, "key", body)
        async with backend.get(bucket, "key", GetOptions()) as reader:
            got = await reader.read(1000)
            if change == "replaced":
                await write(backend, bucket, "key", content(4 * MiB, "new"))
            else:
                await delete(backend, bucket, "key")
            try:
                got += await read_to_end(reader)
            except (UnavailableError, ObjectChangedError):
                # The bytes before the error must be a prefix of the old body.
                assert_same(got, body[: len(got)])
            else:
                assert_same(got, body)

    async def test_concurrent_puts_of_one_key_leave_one_whole_body(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        bodies = [content(100_000 + number, str(number)) for number in range(8)]

        async def put(body: bytes) -> None:
            await write(backend, bucket, "key", body)

        async with task_group() as group:
            for body in bodies:
                group.start_soon(put, body)
        info = await backend.head(bucket, "key")
        # The last writer wins, and any writer may be the last.
        assert await read(backend, bucket, "key") in bodies
        assert info.size == len(await read(backend, bucket, "key"))
        assert await keys(backend, bucket) == ["key"]

    async def test_recorded_write_id_is_reported(self, backend: AsyncDriver, bucket: str) -> None:
        put = await write(backend, bucket, "key", write_id="write-1")
        assert put.write_id in {None, "write-1"}
        # After a lost response, the store recognises its own write by this id.
        assert (await backend.head(bucket, "key")).write_id == put.write_id
        await write(backend, bucket, "key", write_id="write-2")
        assert (await backend.head(bucket, "key")).write_id in {None, "write-2"}

    async def test_place_differs_for_different_names(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        names = [("b", "k"), ("b", "k/"), ("b", "K"), ("b", "a/k"), ("b.a", "k"), ("b", "\u00e9")]
        assert len({backend.place(*name) for name in names}) == len(names)
        assert backend.place(bucket, "key") == backend.place(bucket, "key")

    async def test_bulk_delete_reports_every_key(self, backend: AsyncDriver, bucket: str) -> None:
        capabilities = needs(backend, "bulk_delete")
        for key in ("a", "b", "c/d", "other"):
            await write(backend, bucket, key)
        requested = ["a", "missing", "c/d", "b"][: capabilities.bulk_delete]
        results = await bulk_deleting(backend).delete_many(bucket, requested)
        assert sorted(result.key for result in results) == sorted(requested)
        assert all(result.error is None for result in results)
        assert "other" in await keys(backend, bucket)
        assert not set(requested) & set(await keys(backend, bucket))

    async def test_ping_succeeds(self, backend: AsyncDriver) -> None:
        await backend.ping()

    async def test_name_and_capabilities_are_constant(self, backend: AsyncDriver) -> None:
        assert backend.name
        assert isinstance(backend.capabilities, Capabilities)
        assert backend.capabilities == backend.capabilities

    async def test_aclose_is_idempotent(self, backend: AsyncDriver) -> None:
        await backend.ping()
        for _ in range(2):
            await backend.aclose()

    async def test_new_bucket_lists_nothing(self, backend: AsyncDriver, bucket: str) -> None:
        assert await list_all(backend, bucket) == []
