"""Conformance tests of put: a body of any kind is stored completely or not at all.

The sizes are those at which the store works differently: nothing, one byte, one part, and one byte
more than a part.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from trove_async import (
    BodyConsumedError,
    BodySource,
    ClosedError,
    IntegrityError,
    ObjectNotFoundError,
    Trove,
    TroveError,
)
from trove_async._concurrency import in_thread, task_group
from trove_async.testing._harness import assert_same, content, crc32c_of
from trove_async.testing.store._base import StoreTopic, assert_nothing_held

PIECE = 70_000
"""The size of the pieces of a stream in bytes. Part sizes are usually not multiples of it."""


class AsyncFile:
    """A minimal async file: an object with `read(n)`."""

    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, at most `PIECE`."""
        return self._file.read(min(n, PIECE))


def pieces(body: bytes, size: int = PIECE) -> Iterator[bytes]:
    """Split a body into pieces, with an empty piece before each. A store must skip empty pieces."""
    for start in range(0, len(body), size):
        yield b""
        yield body[start : start + size]


async def async_chunks(body: bytes, size: int = PIECE) -> AsyncIterator[bytes]:
    """Yield the pieces of a body asynchronously."""
    for piece in pieces(body, size):
        yield piece


BODIES: dict[str, Callable[[bytes, Path], BodySource]] = {
    "bytes": lambda body, _: body,
    "bytearray": lambda body, _: bytearray(body),
    "memoryview": lambda body, _: memoryview(body),
    "path": lambda _, path: path,
    "file": lambda body, _: io.BytesIO(body),
    "async reader": lambda body, _: AsyncFile(body),
    "list": lambda body, _: list(pieces(body)),
    "iterator": lambda body, _: pieces(body),
    "async iterator": lambda body, _: async_chunks(body),
}


async def body_of(kind: str, body: bytes, path: Path) -> BodySource:
    """Return a body of one of the kinds in `BODIES`."""
    if kind == "path":
        await in_thread(path.write_bytes, body)
    return BODIES[kind](body, path)


class StoreBodies(StoreTopic):
    """`put` of every kind of `BodySource`, and the info and errors of single objects."""

    @pytest.mark.parametrize("length", ["empty", "a byte", "a part", "a part and a byte"])
    @pytest.mark.parametrize("kind", BODIES)
    async def test_put_accepts_every_kind_of_body(
        self, store: Trove, bucket: str, tmp_path: Path, kind: str, length: str
    ) -> None:
        part = store.pool.part_size
        size = {"empty": 0, "a byte": 1, "a part": part, "a part and a byte": part + 1}[length]
        body = content(size)
        info = await store.put(bucket, "key", await body_of(kind, body, tmp_path / "body"))
        assert info.size == size
        assert_same(await store.read(bucket, "key"), body)

    @pytest.mark.parametrize("kind", BODIES)
    async def test_put_verifies_its_size_argument(
        self, store: Trove, bucket: str, tmp_path: Path, kind: str
    ) -> None:
        body = content(200_000)
        await store.put(bucket, "key", await body_of(kind, body, tmp_path / "a"), size=200_000)
        assert_same(await store.read(bucket, "key"), body)
        # Too small, too large, empty, and large enough for an upload in parts.
        for size in (199_999, 200_001, 0, 10**8):
            with pytest.raises(IntegrityError):
                await store.put(
                    bucket, "key", await body_of(kind, b"x" + body[1:], tmp_path / "b"), size=size
                )
        assert_same(await store.read(bucket, "key"), body)

    async def test_put_of_many_parts(self, store: Trove, bucket: str) -> None:
        body = content(3 * store.pool.part_size + 12_345)
        await store.put(bucket, "memory", body)
        await store.put(bucket, "stream", async_chunks(body, 999_999))
        # The store sends slices of memory without a copy, but joins the pieces of a stream.
        for key in ("memory", "stream"):
            assert_same(await store.read(bucket, key), body)

    async def test_put_of_very_many_pieces(self, store: Trove, bucket: str) -> None:
        body = content(50_000)
        await store.put(bucket, "key", async_chunks(body, 7))
        assert_same(await store.read(bucket, "key"), body)

    async def test_put_accepts_the_result_of_get(self, store: Trove, bucket: str) -> None:
        body = content(store.pool.part_size + 1)
        await store.put(bucket, "from", body)
        await store.put(bucket, "unopened", store.get(bucket, "from"))
        async with store.get(bucket, "from") as obj:
            await store.put(bucket, "open", obj)
        async with store.get(bucket, "from") as obj:
            # A partly read reader is a body of its remaining bytes.
            assert_same(await obj.read(1), body[:1])
            await store.put(bucket, "partly read", obj)
        assert_same(await store.read(bucket, "unopened"), body)
        assert_same(await store.read(bucket, "open"), body)
        assert_same(await store.read(bucket, "partly read"), body[1:])

    async def test_put_of_an_invalid_body_raises_type_error(
        self, store: Trove, bucket: str
    ) -> None:
        with pytest.raises(TypeError, match="encode"):
            await store.put(bucket, "key", "text")  # type: ignore[arg-type]  # tested at run time
        for wrong in (None, 42, object()):
            with pytest.raises(TypeError):
                await store.put(bucket, "key", wrong)  # type: ignore[arg-type]  # tested at run time
        assert not await store.exists(bucket, "key")

    async def test_put_with_failing_body_keeps_old_object(self, store: Trove, bucket: str) -> None:
        part = store.pool.part_size
        await store.put(bucket, "old", b"old")

        async def failing(size: int) -> AsyncIterator[bytes]:
            for piece in pieces(content(size)):
                yield piece
            raise ZeroDivisionError

        # The body fails before, in and after the first part.
        for size in (0, 1, part - 1, part + 1, 2 * part + 1):
            for key in ("old", "new"):
                with pytest.raises(ZeroDivisionError):
                    await store.put(bucket, key, failing(size))
                await assert_nothing_held(store)
        assert await store.read(bucket, "old") == b"old"
        assert not await store.exists(bucket, "new")

    @pytest.mark.parametrize("length", ["a byte", "a part and a byte"])
    async def test_failed_put_restores_the_file_position(
        self, store: Trove, bucket: str, tmp_path: Path, length: str
    ) -> None:
        size = 1 if length == "a byte" else store.pool.part_size + 1
        body = content(size)

        def fail(*_: int | None) -> None:
            raise ZeroDivisionError

        path = tmp_path / "body"
        await in_thread(path.write_bytes, b"head" + body)
        for file in (io.BytesIO(b"head" + body), await in_thread(path.open, "rb")):
            file.seek(4)  # a put starts at the position of its file
            # These puts fail: the size is wrong, the progress callback raises, the bucket is missing.
            with pytest.raises(IntegrityError):
                await store.put(bucket, "key", file, size=size + 1)
            with pytest.raises(ZeroDivisionError):
                await store.put(bucket, "other", file, progress=fail)
            with pytest.raises(TroveError):
                await store.put(self.bucket_name(), "key", file)
            assert file.tell() == 4
            await store.put(bucket, "key", file)
            assert_same(await store.read(bucket, "key"), body)
            await in_thread(file.close)

    async def test_consumed_reader_cannot_be_put(self, store: Trove, bucket: str) -> None:
        body = content(1000)
        await store.put(bucket, "key", body)
        async with store.get(bucket, "key") as obj:
            assert_same(await obj.read(), body)
            with pytest.raises(BodyConsumedError):
                await store.put(bucket, "key", obj)
        with pytest.raises(ClosedError):
            await store.put(bucket, "key", obj)
        assert_same(await store.read(bucket, "key"), body)

    @pytest.mark.parametrize("kind", BODIES)
    async def test_progress_of_a_put_ends_at_its_size(
        self, store: Trove, bucket: str, tmp_path: Path, kind: str
    ) -> None:
        size = 2 * store.pool.part_size + 1
        reports: list[tuple[int, int | None]] = []
        body = await body_of(kind, content(size), tmp_path / "body")
        await store.put(
            bucket, "key", body, progress=lambda done, total: reports.append((done, total))
        )
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)
        assert reports[-1][0] == size
        assert {total for _, total in reports} <= {None, size}  # a stream has no known size

    async def test_put_and_head_report_the_same_info(self, store: Trove, bucket: str) -> None:
        body = content(1000)
        put = await store.put(bucket, "dir/key", body)
        head = await store.head(bucket, "dir/key")
        assert (put.bucket, put.key, put.size, put.etag) == (bucket, "dir/key", 1000, head.etag)
        assert put.backend == head.backend == (await store.explain(bucket, "dir/key")).backend
        assert head.complete
        # A backend may record no CRC-32C, but never a wrong one.
        for info in (put, head):
            assert info.checksums.get("crc32c", crc32c_of(body)) == crc32c_of(body)

    async def test_body_can_put_other_objects(self, store: Trove, bucket: str) -> None:
        part = store.pool.part_size

        async def nesting(depth: int) -> AsyncIterator[bytes]:
            yield content(part, str(depth))
            if depth:
                await store.put(bucket, str(depth - 1), nesting(depth - 1))
            yield b"!"

        # If a put held memory while its body waited for another put, the two could deadlock.
        await store.put(bucket, "3", nesting(3))
        for depth in range(4):
            assert await store.read(bucket, str(depth)) == content(part, str(depth)) + b"!"

    async def test_many_puts_at_once_share_the_memory(self, store: Trove, bucket: str) -> None:
        size = store.pool.part_size + 1

        async def put(number: int) -> None:
            await store.put(bucket, str(number), async_chunks(content(size, str(number)), 500_000))

        async with task_group() as group:
            # More parts than fit into the pool.
            for number in range(24):
                group.start_soon(put, number)
        for number in range(24):
            assert_same(await store.read(bucket, str(number)), content(size, str(number)))
        assert store.pool.statistics().peak <= store.pool.max_bytes

    async def test_put_replaces_existing_object(self, store: Trove, bucket: str) -> None:
        old = await store.put(bucket, "key", b"a longer body")
        new = await store.put(bucket, "key", b"short")
        assert old.etag != new.etag
        assert await store.read(bucket, "key") == b"short"

    async def test_missing_object_raises_not_found(self, store: Trove, bucket: str) -> None:
        assert not await store.exists(bucket, "key")
        with pytest.raises(ObjectNotFoundError) as caught:
            await store.head(bucket, "key")
        assert (caught.value.bucket, caught.value.key) == (bucket, "key")
        assert isinstance(caught.value, FileNotFoundError)
        with pytest.raises(ObjectNotFoundError):
            await store.read(bucket, "key")
        with pytest.raises(ObjectNotFoundError):
            async with store.get(bucket, "key"):
                raise AssertionError
