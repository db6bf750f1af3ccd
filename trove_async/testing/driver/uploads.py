"""Conformance tests of uploads in parts: invisible until the commit, complete after it.

The store may send parts concurrently, in any order, and again if a response was lost. A driver must
therefore place parts by number, not in the order in which they arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from trove_async._concurrency import task_group
from trove_async.driver import AsyncDriver, Upload
from trove_async.errors import (
    IntegrityError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import KiB
from trove_async.options import Part, PutOptions
from trove_async.testing._harness import (
    ReusingSource,
    assert_same,
    content,
    delete,
    keys,
    part_size,
    parts,
    read,
    streaming,
    upload,
    uploading,
    write,
)
from trove_async.testing.driver._base import DriverTopic, needs

_RACERS = 12

Pieces = Sequence[tuple[Part, Sequence[memoryview]]]


class DriverUploads(DriverTopic):
    """`upload`, `send`, `send_stream` and `commit`."""

    @pytest.mark.parametrize(
        ("full_parts", "extra"), [(0, 1), (1, -1), (1, 0), (1, 1), (2, 0), (3, 500), (5, 0)]
    )
    async def test_upload_joins_its_parts(
        self, backend: AsyncDriver, bucket: str, full_parts: int, extra: int
    ) -> None:
        body = content(full_parts * part_size(needs(backend, "upload")) + extra)
        info = await upload(backend, bucket, "dir/key", body)
        head = await backend.head(bucket, "dir/key")
        assert (info.key, info.size, info.etag) == ("dir/key", len(body), head.etag)
        assert head.size == len(body)
        assert_same(await read(backend, bucket, "dir/key"), body)
        assert await keys(backend, bucket) == ["dir/key"]

    async def test_parts_can_be_sent_in_reverse_order(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body, pieces = _make_parts(backend, 4)
        if backend.capabilities.parallel_parts > 1:  # otherwise the store sends them in order
            pieces = pieces[::-1]
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            await _send(running, pieces)
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_parts_can_be_sent_concurrently(self, backend: AsyncDriver, bucket: str) -> None:
        body, pieces = _make_parts(backend, 12)
        senders = min(4, backend.capabilities.parallel_parts)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            async with task_group() as group:
                for first in range(senders):
                    group.start_soon(_send, running, pieces[first::senders])
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_parts_may_differ_in_size(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "uneven_parts")
        size = part_size(backend.capabilities)
        body, pieces, offset = content(6 * size - 300), [], 0
        for number, count in enumerate((2, 1, 3), 1):
            piece = body[offset : offset + count * size]
            part = Part(number=number, offset=offset, size=len(piece), last=number == 3)
            pieces.append((part, [memoryview(piece)]))
            offset += len(piece)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            await _send(running, pieces)
            info = await running.commit({})
        assert info.size == len(body)
        assert_same(await read(backend, bucket, "key"), body)

    async def test_part_can_be_sent_again(self, backend: AsyncDriver, bucket: str) -> None:
        body, pieces = _make_parts(backend, 3)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            # A part whose response was lost is sent again, possibly after later parts.
            await _send(running, [pieces[0], pieces[1], pieces[0], pieces[2], pieces[2], pieces[1]])
            info = await running.commit({})
        assert info.size == len(body)
        assert_same(await read(backend, bucket, "key"), body)

    async def test_send_copies_its_views(self, backend: AsyncDriver, bucket: str) -> None:
        body, pieces = _make_parts(backend, 3)
        memory = bytearray(part_size(backend.capabilities))
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            for part, piece in pieces:
                memory[: part.size] = b"".join(piece)
                await running.send(part, [memoryview(memory)[: part.size]])
                memory[:] = bytes(len(memory))  # the store reuses the memory of a sent part
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_part_can_have_many_views(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "upload")
        body = content(20 * KiB)
        (part, _), *others = parts(body, len(body))
        assert not others
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            views = [memoryview(body)[start : start + 100] for start in range(0, len(body), 100)]
            await running.send(part, views)
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_streamed_part_is_read_once(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "streamed_parts")
        body, pieces = _make_parts(backend, 3)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            for part, views in (pieces[1], pieces[0], pieces[1], pieces[2]):
                source = ReusingSource(b"".join(views))
                await streaming(running).send_stream(part, source)
                assert source.open_count == 0
                assert source.opened_count == 1
            info = await running.commit({})
        assert info.size == len(body)
        assert_same(await read(backend, bucket, "key"), body)

    async def test_part_can_be_sent_after_its_stream_failed(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "streamed_parts")
        body, pieces = _make_parts(backend, 2)
        changed = IntegrityError("the source has changed")
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            for part, views in pieces:
                source = ReusingSource(b"".join(views), error=changed)
                with pytest.raises(IntegrityError) as caught:
                    await streaming(running).send_stream(part, source)
                assert caught.value is changed
                assert source.open_count == 0
                await running.send(part, views)
            await running.commit({})
        assert_same(await read(backend, bucket, "key"), body)

    async def test_object_is_invisible_before_commit(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        body, pieces = _make_parts(backend, 3)
        async with uploading(backend).upload(bucket, "new", PutOptions()) as running:
            await _send(running, pieces)
            assert await keys(backend, bucket) == []
            with pytest.raises(ObjectNotFoundError):
                await backend.head(bucket, "new")
            await running.commit({})
            assert await keys(backend, bucket) == ["new"]
            assert_same(await read(backend, bucket, "new"), body)
        assert_same(await read(backend, bucket, "new"), body)

    @pytest.mark.parametrize("exit_kind", ["normal", "error"])
    async def test_upload_without_commit_leaves_nothing(
        self, backend: AsyncDriver, bucket: str, exit_kind: str
    ) -> None:
        _, pieces = _make_parts(backend, 3)
        await write(backend, bucket, "old", b"old")
        for key in ("old", "new"):
            # After no part, some parts and all parts.
            for count in range(len(pieces) + 1):
                try:
                    async with uploading(backend).upload(bucket, key, PutOptions()) as running:
                        await _send(running, pieces[:count])
                        if exit_kind == "error":
                            raise ZeroDivisionError  # noqa: TRY301 - it leaves the block
                except ZeroDivisionError:
                    assert exit_kind == "error"
        assert await keys(backend, bucket) == ["old"]
        assert await read(backend, bucket, "old") == b"old"

    async def test_old_object_stays_until_commit(self, backend: AsyncDriver, bucket: str) -> None:
        body, pieces = _make_parts(backend, 2)
        old = await write(backend, bucket, "key", b"old")
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            await _send(running, pieces)
            # Readers see the old object until the commit.
            assert await read(backend, bucket, "key") == b"old"
            new = await running.commit({})
        assert new.etag != old.etag
        assert_same(await read(backend, bucket, "key"), body)

    async def test_second_commit_changes_nothing(self, backend: AsyncDriver, bucket: str) -> None:
        body, pieces = _make_parts(backend, 2)
        async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
            await _send(running, pieces)
            first = await running.commit({})
            try:
                # The store commits again if the response to a commit was lost.
                second = await running.commit({})
            except ObjectNotFoundError:
                assert (await backend.head(bucket, "key")).etag == first.etag
            else:
                assert second.etag == first.etag
        assert_same(await read(backend, bucket, "key"), body)

    async def test_concurrent_uploads_of_one_key_do_not_mix(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        first_body, first_pieces = _make_parts(backend, 3, "one")
        second_body, second_pieces = _make_parts(backend, 3, "two")
        driver = uploading(backend)
        async with (
            driver.upload(bucket, "key", PutOptions()) as first,
            driver.upload(bucket, "key", PutOptions()) as second,
        ):
            for first_piece, second_piece in zip(first_pieces, second_pieces, strict=True):
                await first.send(*first_piece)
                await second.send(*second_piece)
            # The upload that was opened first is committed last, and wins.
            await second.commit({})
            assert_same(await read(backend, bucket, "key"), second_body)
            await first.commit({})
        assert_same(await read(backend, bucket, "key"), first_body)

    async def test_commit_if_none_match_keeps_existing_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "upload", "put_if_none_match", "commit_conditions")
        body, pieces = _make_parts(backend, 2)
        options = PutOptions(if_none_match="*")
        async with uploading(backend).upload(bucket, "key", options) as running:
            await _send(running, pieces)
            await write(backend, bucket, "key", b"current")
            with pytest.raises(ObjectExistsError):
                await running.commit({})
        assert await read(backend, bucket, "key") == b"current"
        await delete(backend, bucket, "key")
        await upload(backend, bucket, "key", body, if_none_match="*")
        assert_same(await read(backend, bucket, "key"), body)

    @pytest.mark.parametrize("condition", ["if_none_match", "if_match"])
    async def test_racing_commits_have_one_winner(
        self, backend: AsyncDriver, bucket: str, condition: str
    ) -> None:
        needs(backend, "upload", f"put_{condition}", "commit_conditions")
        options = PutOptions(if_none_match="*")
        if condition == "if_match":
            options = PutOptions(if_match=(await write(backend, bucket, "key", b"old")).etag)
        driver = uploading(backend)
        winners: list[bytes] = []
        failures: list[TroveError] = []

        async def commit(running: Upload, body: bytes) -> None:
            try:
                await running.commit({})
            except TroveError as failure:
                failures.append(failure)
            else:
                winners.append(body)

        async with AsyncExitStack() as stack:
            uploads: list[tuple[Upload, bytes]] = []
            for number in range(_RACERS):
                body, pieces = _make_parts(backend, 1, str(number))
                running = await stack.enter_async_context(driver.upload(bucket, "key", options))
                await _send(running, pieces)
                uploads.append((running, body))
            async with task_group() as group:
                for running, body in uploads:
                    group.start_soon(commit, running, body)
        assert len(winners) == 1
        expected = ObjectExistsError if condition == "if_none_match" else PreconditionFailedError
        # A service may also reject a commit because another one is in flight. The store retries it.
        assert [
            error for error in failures if not (error.retryable or type(error) is expected)
        ] == []
        assert_same(await read(backend, bucket, "key"), winners[0])

    async def test_commit_if_match_replaces_only_the_matching_object(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "upload", "put_if_match", "commit_conditions")
        body, pieces = _make_parts(backend, 2)
        old = await write(backend, bucket, "key", b"old")
        options = PutOptions(if_match=old.etag)
        async with uploading(backend).upload(bucket, "key", options) as running:
            await _send(running, pieces)
            current = await write(backend, bucket, "key", b"current")
            with pytest.raises(PreconditionFailedError):
                await running.commit({})
        assert await read(backend, bucket, "key") == b"current"
        # The condition applies at the commit, not at the start of the upload.
        await upload(backend, bucket, "key", body, if_match=current.etag)
        assert_same(await read(backend, bucket, "key"), body)

    async def test_upload_records_the_write_id_if_put_does(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "upload")
        put = await write(backend, bucket, "key", write_id="write-1")
        await upload(backend, bucket, "key", b"body", write_id="write-2")
        recorded = (await backend.head(bucket, "key")).write_id
        assert recorded == (None if put.write_id is None else "write-2")


def _make_parts(backend: AsyncDriver, count: int, seed: str = "") -> tuple[bytes, Pieces]:
    """Return a body of `count` parts, the last of them shorter, and its parts."""
    size = part_size(needs(backend, "upload"))
    body = content(count * size - 300, seed)
    return body, parts(body, size)


async def _send(running: Upload, pieces: Pieces) -> None:
    for part, views in pieces:
        await running.send(part, views)
