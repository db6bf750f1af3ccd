"""All kinds of bodies, and objects that are rejected as a body."""

from __future__ import annotations

import array
import asyncio
import ctypes
import gc
import gzip
import io
import os
import tempfile
import threading
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import aiofiles
import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import IntegrityError, NotSupportedError, ObjectReader
from trove_async._concurrency import OwnedTask
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SIZES = [0, 1, 10, 256 * KiB, MiB - 1, MiB, MiB + 1, 2 * MiB, 2 * MiB + 5]
CHUNK = 100_001


def split(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), CHUNK):
        yield body[at : at + CHUNK]


async def split_slowly(body: bytes) -> AsyncIterator[bytes]:
    for chunk in split(body):
        await asyncio.sleep(0)
        yield chunk


class Reader:
    """An async reader that may return fewer bytes than requested."""

    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    async def read(self, n: int) -> bytes:
        return self._file.read(min(n, CHUNK))


class MinimalFile:
    """A file object with no method but `read`."""

    def __init__(self, body: bytes) -> None:
        self.read = io.BytesIO(body).read


class Iterable:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return split(self._body)


class AsyncIterable:
    """An async iterator without `aclose`."""

    def __init__(self, body: bytes) -> None:
        self._chunks = split(body)

    def __aiter__(self) -> AsyncIterable:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


def seekable(body: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the test
    file.write(b"before" + body)
    file.seek(6)
    return file


def spooled(body: bytes) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=MiB)  # noqa: SIM115 - closed by the test
    file.write(body)
    file.seek(0)
    return file


def piped(body: bytes) -> Any:
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(body)

    threading.Thread(target=write).start()
    return os.fdopen(read_end, "rb")


def bytesio(body: bytes) -> io.BytesIO:
    file = io.BytesIO(b"before" + body)
    file.seek(6)
    return file


def zipped(body: bytes) -> Any:
    return gzip.open(io.BytesIO(gzip.compress(body, 1)))


def words(body: bytes) -> Any:
    """Return a buffer with items of two bytes, or of one byte if the size is odd."""
    return array.array("H", body) if len(body) % 2 == 0 else bytearray(body)


def backwards(body: bytes) -> memoryview:
    return memoryview(body[::-1])[::-1]


def every_other(body: bytes) -> memoryview:
    spaced = bytearray(2 * len(body))
    spaced[::2] = body
    return memoryview(spaced)[::2]


BODIES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda body: body,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "words": words,
    "backwards": backwards,
    "every other byte": every_other,
    "seekable file": seekable,
    "spooled file": spooled,
    "pipe": piped,
    "gzip": zipped,
    "BytesIO": bytesio,
    "file with only read": MinimalFile,
    "async reader": Reader,
    "list": lambda body: list(split(body)),
    "tuple": lambda body: tuple(split(body)),
    "generator": split,
    "iterable": Iterable,
    "async generator": split_slowly,
    "async iterable": AsyncIterable,
    "bytearray chunks": lambda body: [bytearray(chunk) for chunk in split(body)],
    "chunks of words": lambda body: [words(chunk) for chunk in split(body)],
    "empty chunks": lambda body: [b"", *split(body), b"", b""],
}


@pytest.mark.parametrize("upload", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", BODIES)
async def test_body_of_any_kind_and_size_is_stored(kind: str, size: int, *, upload: bool) -> None:
    fake = Fake(upload=upload)
    async with store_of(fake) as store:
        expected = content(size)
        body: Any = BODIES[kind](expected)
        reports: list[tuple[int, int | None]] = []
        info = await store.put(
            "bucket", "key", body, progress=lambda done, total: reports.append((done, total))
        )
        assert info.size == size
        assert await store.read("bucket", "key") == expected
        assert reports[-1][0] == size
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)
        assert {total for _, total in reports} <= {size, None}
        if hasattr(body, "close"):
            body.close()
        assert_idle(store, fake)


@pytest.mark.parametrize("size", SIZES)
async def test_path_is_stored(size: int, tmp_path: Path) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        expected = content(size)
        path = tmp_path / "body"
        path.write_bytes(expected)
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == expected
        assert_idle(store, fake)


async def test_path_of_a_fifo_is_stored(tmp_path: Path) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        path, body = tmp_path / "fifo", content(2 * MiB + 5)
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=[body])
        writer.start()
        await store.put("bucket", "key", path)
        writer.join()
        assert await store.read("bucket", "key") == body
        assert_idle(store, fake)


async def test_put_of_a_fifo_without_a_writer_can_be_cancelled(tmp_path: Path) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        put = OwnedTask(store.put("bucket", "key", path))
        # Let a thread start to open the file. There is no event to wait for.
        await asyncio.sleep(0.05)
        await put.aclose()
        assert_idle(store, fake)
        os.close(os.open(path, os.O_RDWR))  # releases the thread that is opening the other end


async def test_file_that_reports_size_zero_may_have_bytes() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        assert (await store.put("bucket", "key", Path("/proc/self/status"))).size > 0


async def test_missing_path_or_directory_raises(tmp_path: Path) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(FileNotFoundError):
            await store.put("bucket", "key", tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            await store.put("bucket", "key", tmp_path)
        assert_idle(store, fake)


async def test_file_truncated_during_a_put_is_not_stored(tmp_path: Path) -> None:
    fake = Fake(parallel_parts=1)
    async with store_of(fake) as store:
        path = tmp_path / "body"
        path.write_bytes(content(4 * MiB))

        async def truncate() -> None:
            os.truncate(path, 2 * MiB + 10)

        fake.before["upload"] = truncate
        with pytest.raises(IntegrityError, match="when it was opened, got only"):
            await store.put("bucket", "key", path)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_file_that_grows_during_a_put_is_stored_with_its_original_size(
    tmp_path: Path,
) -> None:
    fake = Fake(parallel_parts=1)
    async with store_of(fake) as store:
        path = tmp_path / "body"
        path.write_bytes(content(2 * MiB + 10))

        async def grow() -> None:
            os.truncate(path, 4 * MiB)

        fake.before["upload"] = grow
        assert (await store.put("bucket", "key", path)).size == 2 * MiB + 10


async def test_aiofiles_handle_is_an_async_reader(tmp_path: Path) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        body = content(MiB + 9)
        (tmp_path / "body").write_bytes(body)
        async with aiofiles.open(tmp_path / "body", "rb") as file:
            await store.put("bucket", "key", file)
        assert await store.read("bucket", "key") == body


async def test_stream_reader_is_an_async_reader() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        reader = asyncio.StreamReader()
        reader.feed_data(b"streamed")
        reader.feed_eof()
        await store.put("bucket", "key", reader)
        assert await store.read("bucket", "key") == b"streamed"


@pytest.mark.parametrize("is_open", [False, True])
async def test_reader_of_a_store_is_a_body_of_known_size(*, is_open: bool) -> None:
    source, target = Fake(max_connections=1), Fake(upload=False)
    async with store_of(source, target) as store:
        body = content(3 * MiB + 1)
        await store.put("bucket", "key", body)
        reports: list[int | None] = []
        if is_open:
            async with store.get("bucket", "key") as obj:
                assert await obj.read(10) == body[:10]
                await store.put(
                    "bucket", "b/key", obj, progress=lambda _, total: reports.append(total)
                )
            body = body[10:]
        else:
            get = store.get("bucket", "key")
            await store.put("bucket", "b/key", get, progress=lambda _, total: reports.append(total))
        assert await store.read("bucket", "b/key") == body
        assert set(reports) == {len(body)}
        assert_idle(store, source, target)


async def test_get_as_a_body_is_closed_when_the_put_fails() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        await store.put("bucket", "key", content(3 * MiB))
        target.fail("upload", PermissionError("no"))
        with pytest.raises(PermissionError):
            await store.put("bucket", "b/key", store.get("bucket", "key"))
        with pytest.raises(FileNotFoundError):
            await store.put("bucket", "b/key", store.get("bucket", "missing"))
        assert_idle(store, source, target)


async def test_get_as_a_body_of_a_rejected_put_does_not_warn() -> None:
    source, target = Fake(), Fake(metadata=False)
    async with store_of(source, target) as store:
        await store.put("bucket", "key", b"body")
        with pytest.raises(NotSupportedError):
            await store.put("bucket", "b/key", store.get("bucket", "key"), metadata={"a": "b"})
        gc.collect()  # a get that was never opened would warn here
        assert_idle(store, source, target)


async def test_buffer_of_any_item_type_is_stored_as_its_bytes() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        bodies: list[Any] = [
            memoryview(b"abcd").cast("I"),
            memoryview(b"abcd").cast("B", (2, 2)),
            ctypes.create_string_buffer(b"abcd", 4),
            (ctypes.c_uint16 * 2).from_buffer_copy(b"abcd"),
            array.array("b", b"abcd"),
        ]
        for body in bodies:
            for kind in (body, [body]):
                await store.put("bucket", "key", kind)
                assert await store.read("bucket", "key") == b"abcd"


# -- invalid bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("text", r"\.encode\(\)"),
        (5, "got int"),
        (True, "got bool"),
        (1.5, "got float"),
        (None, "got NoneType"),
        (io.StringIO("text"), "binary mode"),
        (object(), "got object"),
        ({}, "got dict"),
        ({b"chunk": 1}, "got dict"),
        ({"a": 1}, "got dict"),
        (MappingProxyType({}), "got mappingproxy"),
        ({b"chunk"}, "got set: pass a list"),
        (frozenset(), "got frozenset: pass a list"),
        ({}.keys(), "got dict_keys: pass a list"),
        (split, "got function: call it"),
        (split_slowly, "got function: call it"),
        (io.BytesIO, "got a class: call it"),
        (Reader, "got a class: call it"),
        (ObjectReader, "got a class: call it"),
        ((ctypes.py_object * 1)(), "got an array of Python objects"),
    ],
)
async def test_invalid_body_is_rejected_before_any_io(body: Any, message: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.steps.clear()
        with pytest.raises(TypeError, match=message):
            await store.put("bucket", "key", body)
        assert fake.steps == []


async def test_coroutine_is_rejected_as_a_body() -> None:
    async with store_of(Fake()) as store:
        body: Any = store.read("bucket", "key")
        with pytest.raises(TypeError, match="got coroutine: await it"):
            await store.put("bucket", "key", body)
        body.close()


@pytest.mark.parametrize("chunk", ["text", 5, None, object()])
@pytest.mark.parametrize("size", [0, 3 * MiB])
async def test_chunk_that_is_not_bytes_is_rejected(chunk: Any, size: int) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(TypeError, match="the body yielded"):
            await store.put("bucket", "key", [*split(content(size)), chunk])
        with pytest.raises(TypeError, match="the body yielded"):
            await store.put("bucket", "key", (c for c in [*split(content(size)), chunk]))
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)
