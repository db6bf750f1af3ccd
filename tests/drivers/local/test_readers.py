"""Bodies of gets: ranges, prefetching, and files that change during a read."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import asynccontextmanager
from io import FileIO
from typing import TYPE_CHECKING

import pytest
from crc32c import crc32c

from trove_async import BufferPool
from trove_async._concurrency import in_thread, task_group
from trove_async.driver import SpansFile
from trove_async.drivers.local import LocalDriver, _readers
from trove_async.drivers.local._threads import FileExecutor
from trove_async.errors import BackendError, RangeError, UnavailableError
from trove_async.models import ByteRange, MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient
    from trove_async.driver import DriverReader, FileSpan

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]

BODY = os.urandom(5 * MiB)


@pytest.mark.parametrize("size", [0, 1, 4096, 256 * 1024, 256 * 1024 + 1, 3 * MiB])
async def test_get_returns_the_body_that_was_put(any_client: BucketClient, size: int) -> None:
    body = os.urandom(size)
    await any_client.put("k", body)
    assert await any_client.read("k") == body
    async with any_client.driver.get("b", "k", GetOptions()) as reader:
        assert reader.range == (0, size)
        received = b""
        while chunk := await reader.read(size + 10):
            received += chunk
        assert received == body
        assert await reader.read(10) == b""


@pytest.mark.parametrize("size", [1000, MiB])
async def test_range_returns_the_same_bytes_as_a_slice(any_client: BucketClient, size: int) -> None:
    body = os.urandom(size)
    await any_client.put("k", body)
    for byte_range in [
        ByteRange(10, 20),
        ByteRange(0),
        ByteRange(size - 5, size + 5),
        ByteRange.last(7),
    ]:
        start, end = byte_range.resolve(size)
        assert await any_client.read("k", range=byte_range) == body[start:end]
    for key in ["k", "empty"]:
        await any_client.put("empty")
        with pytest.raises(RangeError):
            await any_client.read(key, range=ByteRange(size))


async def test_file_truncated_during_a_read_raises_unavailable(client: BucketClient) -> None:
    await client.put("big", bytes(1024 * 1024))
    async with client.driver.get("b", "big", GetOptions()) as reader:
        await reader.read(1000)
        os.truncate(client.bucket / "big", 2000)
        assert await reader.read(1000)
        with pytest.raises(UnavailableError):
            await reader.read(1000)


async def test_file_modified_during_a_read_raises_unavailable(client: BucketClient) -> None:
    await client.put("big", bytes(1024 * 1024))
    async with client.driver.get("b", "big", GetOptions(range=ByteRange(0, 500_000))) as reader:
        await reader.read(1000)
        with (client.bucket / "big").open("r+b") as file:
            file.write(b"!")
        await reader.read(400_000)
        with pytest.raises(UnavailableError):
            await reader.read(100_000)


@asynccontextmanager
async def open_stream(root: Path, pool: BufferPool) -> AsyncIterator[DriverReader]:
    """Open a reader and read 2 MiB in two calls, which starts prefetching."""
    async with opened(LocalDriver(root), pool=pool) as driver:
        await driver.create_bucket("b")
        await driver.put("b", "k", [memoryview(BODY)], PutOptions())
        async with driver.get("b", "k", GetOptions()) as reader:
            assert await reader.read(MiB) + await reader.read(MiB) == BODY[: 2 * MiB]
            yield reader
        assert pool.statistics().leased == 0


async def read_to_end(reader: DriverReader, size: int) -> bytes:
    """Read the remaining bytes, `size` at a time."""
    received = b""
    while chunk := await reader.read(size):
        received += chunk
    return received


@pytest.mark.parametrize("size", [MiB, 1000, 3 * MiB])
async def test_prefetched_data_serves_smaller_and_larger_reads(tmp_path: Path, size: int) -> None:
    pool = BufferPool(4 * MiB)
    async with open_stream(tmp_path, pool) as reader:
        assert pool.statistics().leased == MiB
        assert await read_to_end(reader, size) == BODY[2 * MiB :]


async def test_waiting_lease_gets_the_prefetched_memory(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, 1 * MiB)
    async with open_stream(tmp_path, pool) as reader:
        async with asyncio.timeout(10):
            with await pool.lease(MiB), await pool.lease(MiB):
                assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]
        assert await read_to_end(reader, MiB) == BODY[3 * MiB :]


@pytest.mark.parametrize("size", [MiB, 1000, 3 * MiB])
async def test_two_slots_are_prefetched_from_a_large_pool(tmp_path: Path, size: int) -> None:
    pool = BufferPool(16 * MiB)
    async with open_stream(tmp_path, pool) as reader:
        assert pool.statistics().leased == 2 * MiB
        assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]
        assert pool.statistics().leased == 2 * MiB  # until the second piece is read as well
        assert await read_to_end(reader, size) == BODY[3 * MiB :]


async def test_waiting_lease_gets_the_memory_of_a_partly_read_prefetch(tmp_path: Path) -> None:
    pool = BufferPool(16 * MiB)
    async with open_stream(tmp_path, pool) as reader:
        assert await reader.read(1000) == BODY[2 * MiB : 2 * MiB + 1000]
        async with asyncio.timeout(10):
            with await pool.lease(8 * MiB), await pool.lease(8 * MiB):
                assert await reader.read(MiB) == BODY[2 * MiB + 1000 : 3 * MiB + 1000]
        assert await read_to_end(reader, MiB) == BODY[3 * MiB + 1000 :]


async def test_nothing_is_prefetched_without_free_memory(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, 1 * MiB)
    async with opened(LocalDriver(tmp_path), pool=pool) as driver:
        await driver.create_bucket("b")
        await driver.put("b", "k", [memoryview(BODY)], PutOptions())
        with await pool.lease(MiB), await pool.lease(MiB):
            async with driver.get("b", "k", GetOptions()) as reader:
                assert await read_to_end(reader, MiB) == BODY


async def test_failed_prefetch_raises_in_the_read_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileExecutor.submit

    def fail() -> bytes:
        raise OSError(errno.EIO, "input/output error")

    def submit(executor: FileExecutor, work: Callable[..., object], *arguments: object) -> object:
        # Only a prefetch passes its size as an argument.
        return real(executor, fail) if arguments else real(executor, work)

    async with open_stream(tmp_path, BufferPool(4 * MiB)) as reader:
        assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]
        with monkeypatch.context() as patch:
            patch.setattr(FileExecutor, "submit", submit)
            assert await reader.read(MiB) == BODY[3 * MiB : 4 * MiB]
        with pytest.raises(BackendError, match="the disk failed"):
            await reader.read(MiB)


# -- spans of the file, for sendfile ----------------------------------------------------------------


async def read_span(span: FileSpan) -> bytes:
    with span.file:
        return await in_thread(os.pread, span.file.fileno(), span.size, span.offset)


async def test_spans_of_a_range_are_hashed_from_the_given_checksum(client: BucketClient) -> None:
    await client.put("k", BODY)
    async with client.driver.get("b", "k", GetOptions(range=ByteRange(7, 4 * MiB))) as reader:
        assert isinstance(reader, SpansFile)
        first = await reader.file_span(MiB, 0)
        second = await reader.file_span(2 * MiB, None)
        assert first is not None
        assert second is not None
        assert (first.offset, first.size, first.crc32c) == (7, MiB, crc32c(BODY[7 : MiB + 7]))
        assert (second.offset, second.size, second.crc32c) == (MiB + 7, 2 * MiB, None)
        assert await read_span(first) == BODY[7 : MiB + 7]
        # The position of the spans' file does not matter to the reads that follow.
        second.file.seek(1)
        second.file.close()
        assert await read_to_end(reader, MiB) == BODY[3 * MiB + 7 : 4 * MiB]


async def test_span_belongs_to_the_version_that_was_opened(client: BucketClient) -> None:
    await client.put("k", BODY)
    async with client.driver.get("b", "k", GetOptions()) as reader:
        assert isinstance(reader, SpansFile)
        await client.put("k", bytes(MiB))
        span = await reader.file_span(MiB, None)
    assert span is not None
    assert await read_span(span) == BODY[:MiB]


@pytest.mark.parametrize("size", [len(BODY), 2 * MiB])
async def test_span_of_a_changed_file_raises_unavailable(client: BucketClient, size: int) -> None:
    await client.put("k", BODY)
    async with client.driver.get("b", "k", GetOptions()) as reader:
        assert isinstance(reader, SpansFile)
        with (client.bucket / "k").open("r+b") as file:
            file.write(b"!")
            file.truncate(size)
        with pytest.raises(UnavailableError):
            await reader.file_span(3 * MiB, 0)


async def test_prefetched_bytes_are_read_before_a_span(tmp_path: Path) -> None:
    async with open_stream(tmp_path, BufferPool(4 * MiB)) as reader:
        assert isinstance(reader, SpansFile)
        assert await reader.file_span(MiB, None) is None
        assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]


async def test_cancelled_span_closes_its_file(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[FileIO] = []

    def open_file(fd: int, mode: str) -> FileIO:
        files.append(FileIO(fd, mode))
        return files[-1]

    await client.put("k", BODY)
    async with client.driver.get("b", "k", GetOptions()) as reader:
        assert isinstance(reader, SpansFile)
        monkeypatch.setattr(_readers, "FileIO", open_file)
        async with task_group() as group:
            group.start_soon(reader.file_span, 4 * MiB, 0)
            await asyncio.sleep(0)
            group.cancel_scope.cancel()
        assert [file.closed for file in files] == [True]
