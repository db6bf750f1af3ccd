"""Reading bodies chunk by chunk: in which task, how much at once, and after errors and cancels."""

from __future__ import annotations

import array
import asyncio
import io
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async._concurrency import OwnedTask
from trove_async._engine.sources import source_of
from trove_async._views import byte_view
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

CHUNK = 100_001


class Reader:
    """An async reader that may return fewer bytes than requested."""

    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    async def read(self, n: int) -> bytes:
        return self._file.read(min(n, CHUNK))


def bytesio(body: bytes) -> io.BytesIO:
    file = io.BytesIO(b"before" + body)
    file.seek(6)
    return file


# -- handling of bodies ----------------------------------------------------------------------------


async def test_bytesio_is_left_at_its_end_and_can_be_written_again() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        file = bytesio(b"body")
        await store.put("bucket", "key", file)
        assert file.tell() == 10
        file.write(b"more" * 1000)


async def test_chunk_is_released_before_the_next_is_read() -> None:
    async def resized_chunks() -> AsyncIterator[bytearray]:
        chunk = bytearray(b"x" * 10)
        for size in (10, 20, 5):
            yield chunk
            chunk += bytes(size)  # raises BufferError if a view still exists

    fake = Fake()
    async with store_of(fake) as store:
        info = await store.put("bucket", "key", resized_chunks())
        assert info.size == 10 + 20 + 40


@pytest.mark.parametrize("sync", [False, True])
async def test_generator_is_closed_when_the_put_fails(*, sync: bool) -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(MiB)
        finally:
            closed.set()

    async def async_endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(MiB)
        finally:
            await asyncio.sleep(0)
            closed.set()

    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("send", PermissionError("no"))
        with pytest.raises(PermissionError):
            await store.put("bucket", "key", endless() if sync else async_endless())
        assert closed.is_set()
        assert_idle(store, fake)


async def test_body_is_read_by_the_task_that_called_put() -> None:
    tasks = set()

    async def body() -> AsyncIterator[bytes]:
        async with asyncio.timeout(60):  # must be entered and exited in one task
            for _ in range(5):
                tasks.add(asyncio.current_task())
                yield bytes(MiB)

    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", body())
    assert tasks == {asyncio.current_task()}


async def test_body_that_blocks_forever_can_be_cancelled() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "wb") as pipe, os.fdopen(read_end, "rb") as body:
            put = OwnedTask(store.put("bucket", "key", body))
            for _ in range(20):
                await asyncio.sleep(0)
            await put.aclose()
            assert_idle(store, fake)
            pipe.close()  # releases the thread


async def test_generator_that_blocks_during_a_cancel_is_abandoned() -> None:
    started, release = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        started.set()
        release.wait(10)
        yield b"late"

    fake = Fake()
    async with store_of(fake) as store:
        put = OwnedTask(store.put("bucket", "key", body()))
        while not started.is_set():
            await asyncio.sleep(0)
        await put.aclose()
        release.set()
        assert_idle(store, fake)


async def test_output_of_a_process_is_read_as_it_arrives() -> None:
    command = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen(  # noqa: ASYNC220, S603 - the test needs its file object
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        source = source_of(process.stdout)
        assert bytes(await source.take(10)) == b"x"  # fewer bytes than the limit
        process.stdin.close()
        assert not await source.ready()
        await source.aclose()


@pytest.mark.parametrize("size", [0, 10])
async def test_take_and_fill_read_a_source_to_its_end(size: int, tmp_path: Path) -> None:
    expected = content(size)
    (tmp_path / "body").write_bytes(expected)
    for body in (expected, tmp_path / "body", [expected]):
        source = source_of(body)
        piece = bytes(await source.take(4))
        buffer = bytearray(20)
        count = await source.fill([memoryview(buffer)])
        assert piece + bytes(buffer[:count]) == expected
        assert not await source.ready()
        assert await source.fill([memoryview(buffer)]) == 0
        assert bytes(await source.take(4)) == b""
        await source.aclose()
        await source.aclose()


def test_byte_view_is_one_dimensional_for_any_layout() -> None:
    for view in (
        memoryview(b"body"),
        memoryview(b"body")[::-1],
        memoryview(array.array("I", [1, 2])),
        memoryview(array.array("I")),
        memoryview(b"abcdef").cast("B", (2, 3)),
        memoryview(b""),
    ):
        assert bytes(byte_view(view)) == view.tobytes()
        assert (byte_view(view).format, byte_view(view).ndim) == ("B", 1)


class UnreadyReader(Reader):
    """A non-blocking reader: it returns None if it has no data yet."""

    async def read(self, n: int) -> bytes:
        return await super().read(n) or cast("bytes", None)


async def test_none_is_not_the_end_of_a_reader() -> None:
    async with store_of(Fake()) as store:
        with pytest.raises(TypeError, match="NoneType, not bytes"):
            await store.put("bucket", "key", UnreadyReader(b"body"))
        assert not await store.exists("bucket", "key")
