"""A body that an earlier put has read is not stored again as an empty or a shortened object."""

from __future__ import annotations

import asyncio
import gc
import io
from typing import TYPE_CHECKING, Any

import aiofiles
import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import BodyConsumedError, ClosedError, Trove
from trove_async._engine import consumed
from trove_async.drivers import LocalDriver
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

BODY = content(2 * MiB + 17)


def chunks() -> Iterator[bytes]:
    for at in range(0, len(BODY), 100_001):
        yield BODY[at : at + 100_001]


async def async_chunks() -> AsyncIterator[bytes]:
    for chunk in chunks():
        yield chunk


class Chunks:
    """An iterator that is not a generator."""

    def __init__(self) -> None:
        self._chunks = chunks()

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)


class AsyncChunks:
    """An async iterator that is not a generator and not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self._chunks = chunks()

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    def __aiter__(self) -> AsyncChunks:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


class Reader:
    """An async reader that is not seekable."""

    def __init__(self) -> None:
        self._file = io.BytesIO(BODY)

    async def read(self, n: int) -> bytes:
        return self._file.read(n)


class SizedReader(Reader):
    """A reader of a different library that has `remaining`, like a store's reader."""

    @property
    def remaining(self) -> int:
        return len(BODY) - self._file.tell()


def stream_reader() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(BODY)
    reader.feed_eof()
    return reader


class MinimalFile:
    """A file with no method but `read`."""

    def __init__(self) -> None:
        self.read = io.BytesIO(BODY).read


SINGLE_USE: dict[str, Callable[[], Any]] = {
    "generator": chunks,
    "async generator": async_chunks,
    "iterator": Chunks,
    "async iterator": AsyncChunks,
    "iterator of a list": lambda: iter(list(chunks())),
    "map": lambda: map(bytes, chunks()),
    "async reader": Reader,
    "reader with a size": SizedReader,
    "StreamReader": stream_reader,
    "file with only read": MinimalFile,
    "BytesIO": lambda: io.BytesIO(BODY),
}


@pytest.mark.parametrize("kind", SINGLE_USE)
async def test_body_already_read_by_a_put_is_rejected(kind: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        body = SINGLE_USE[kind]()
        await store.put("bucket", "first", body)
        puts = fake.count("put")
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "first", body)
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "second", body, size=len(BODY))
        assert fake.count("put") == puts
        assert await store.read("bucket", "first") == BODY
        assert not await store.exists("bucket", "second")
        assert_idle(store, fake)


@pytest.mark.parametrize("kind", [kind for kind in SINGLE_USE if kind != "BytesIO"])
async def test_body_partly_read_by_a_failed_put_is_rejected(kind: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        body = SINGLE_USE[kind]()
        fake.fail("send", PermissionError("no"))
        with pytest.raises(PermissionError):
            await store.put("bucket", "key", body)
        fake.steps.clear()
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "key", body)
        assert fake.steps == []
        assert not await store.exists("bucket", "key")


async def test_file_left_at_its_end_by_a_put_is_rejected_until_a_seek(
    tmp_path: Path,
) -> None:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    async with store_of(Fake()) as store:
        with path.open("rb") as file:
            await store.put("bucket", "key", file)
            with pytest.raises(BodyConsumedError):
                await store.put("bucket", "again", file)
            file.seek(5)
            await store.put("bucket", "again", file)
            assert await store.read("bucket", "again") == BODY[5:]
        async with aiofiles.open(path, "rb") as handle:
            await store.put("bucket", "key", handle)
            with pytest.raises(BodyConsumedError):
                await store.put("bucket", "again", handle)
            await handle.seek(7)
            await store.put("bucket", "again", handle)
            assert await store.read("bucket", "again") == BODY[7:]


async def test_file_read_to_its_end_by_the_user_is_an_empty_body(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    async with store_of(Fake()) as store:
        with path.open("rb") as file:
            file.read()
            assert (await store.put("bucket", "key", file)).size == 0
        memory = io.BytesIO(BODY)
        memory.read()
        assert (await store.put("bucket", "key", memory)).size == 0


async def test_file_appended_to_after_a_put_stores_the_new_bytes(tmp_path: Path) -> None:
    async with store_of(Fake()) as store:
        with (tmp_path / "log").open("w+b") as log:
            log.write(b"first")
            log.seek(0)
            await store.put("bucket", "1", log)
            log.write(b"second")
            log.seek(5)
            await store.put("bucket", "2", log)
            assert await store.read("bucket", "2") == b"second"
            log.seek(0)
            log.truncate()
            assert (await store.put("bucket", "3", log)).size == 0


async def test_empty_body_may_be_put_twice() -> None:
    async with store_of(Fake()) as store:
        empty_file = MinimalFile()
        empty_file.read = io.BytesIO().read
        bodies: list[Any] = [io.BytesIO(), [], (), b"", empty_file]
        for body in bodies:
            for key in ("1", "2"):
                assert (await store.put("bucket", key, body)).size == 0


async def test_reiterable_body_may_be_put_twice() -> None:
    class Reiterable:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return async_chunks()

    async with store_of(Fake()) as store:
        for body in ([BODY], (BODY,), Reiterable()):
            for key in ("1", "2"):
                await store.put("bucket", key, body)
                assert await store.read("bucket", key) == BODY


async def test_generator_that_is_being_iterated_is_rejected() -> None:
    async with store_of(Fake()) as store:
        errors: list[BaseException] = []

        def put_itself() -> Iterator[bytes]:
            yield b"x"
            try:
                _start_put(store, body)
            except BodyConsumedError as error:
                errors.append(error)

        body = put_itself()
        list(body)
        assert len(errors) == 1


def _start_put(store: Trove, body: Any) -> None:
    """Run a put until it waits for the first time, and then close it."""
    coroutine = store.put("bucket", "key", body)
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


# -- readers of a store --------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "local"])
async def source_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Trove]:
    driver = Fake() if request.param == "memory" else LocalDriver(tmp_path)
    async with store_of(driver) as store:
        await store.put("bucket", "key", BODY)
        await store.put("bucket", "empty", b"")
        yield store


async def test_reader_that_was_read_to_its_end_is_rejected_before_any_request(
    source_store: Trove,
) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"existing")
        fake.steps.clear()
        async with source_store.get("bucket", "key") as reader:
            await reader.read()
            with pytest.raises(BodyConsumedError, match=r"store\.get"):
                await store.put("bucket", "key", reader)
        async with source_store.get("bucket", "key") as reader:
            async for _ in reader:
                pass
            with pytest.raises(BodyConsumedError):
                await store.put("bucket", "key", reader, size=0)
        assert fake.steps == []
        assert await store.read("bucket", "key") == b"existing"


async def test_reader_that_is_closed_is_rejected_before_any_request(source_store: Trove) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.steps.clear()
        for read in (False, True):
            async with source_store.get("bucket", "key") as reader:
                if read:
                    await reader.read()
            with pytest.raises(ClosedError, match=r"store\.get"):
                await store.put("bucket", "key", reader)
        assert fake.steps == []


async def test_already_opened_get_is_rejected_before_any_request(source_store: Trove) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        get = source_store.get("bucket", "key")
        await store.put("bucket", "key", get)
        fake.steps.clear()
        with pytest.raises(BodyConsumedError, match=r"store\.get"):
            await store.put("bucket", "key", get)
        get = source_store.get("bucket", "key")
        async with get:
            with pytest.raises(BodyConsumedError):
                await store.put("bucket", "key", get)
        assert fake.steps == []


async def test_partly_read_reader_stores_the_remaining_bytes(source_store: Trove) -> None:
    async with store_of(Fake()) as store, source_store.get("bucket", "key") as reader:
        assert await reader.read(10) == BODY[:10]
        await store.put("bucket", "key", reader)
        assert await store.read("bucket", "key") == BODY[10:]
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "key", reader)


async def test_reader_of_an_empty_object_is_an_empty_body(source_store: Trove) -> None:
    async with store_of(Fake()) as store, source_store.get("bucket", "empty") as reader:
        assert await reader.read() == b""
        assert (await store.put("bucket", "key", reader)).size == 0


async def test_reader_partly_read_by_a_failed_put_is_rejected(source_store: Trove) -> None:
    fake = Fake()
    async with store_of(fake) as store, source_store.get("bucket", "key") as reader:
        fake.fail("send", PermissionError("no"))
        with pytest.raises(PermissionError):
            await store.put("bucket", "key", reader)
        with pytest.raises(BodyConsumedError, match="failed"):
            await store.put("bucket", "key", reader)
        with pytest.raises(BodyConsumedError, match="failed"):
            await reader.read()
        assert not await store.exists("bucket", "key")


async def test_put_that_fails_before_it_reads_leaves_its_reader_unread(source_store: Trove) -> None:
    fake = Fake()
    async with store_of(fake) as store, source_store.get("bucket", "key") as reader:
        fake.fail("upload", PermissionError("no"))
        with pytest.raises(PermissionError):
            await store.put("bucket", "key", reader, size=len(BODY))
        await store.put("bucket", "key", reader)
        assert await store.read("bucket", "key") == BODY


@pytest.mark.parametrize("successful_calls", [0, 1])
async def test_get_whose_progress_callback_raises_is_never_stored_short(
    source_store: Trove, successful_calls: int
) -> None:
    calls = 0

    def progress(*_: int | None) -> None:
        nonlocal calls
        calls += 1
        if calls == successful_calls + 1:
            raise ZeroDivisionError

    async with store_of(Fake()) as store:
        async with source_store.get("bucket", "key", progress=progress) as reader:
            with pytest.raises(ZeroDivisionError):
                await store.put("bucket", "key", reader)
            if successful_calls:
                with pytest.raises(BodyConsumedError):
                    await store.put("bucket", "key", reader)
                assert not await store.exists("bucket", "key")
            else:  # nothing was read from the reader
                await store.put("bucket", "key", reader)
                assert await store.read("bucket", "key") == BODY
        calls = 0
        get = source_store.get("bucket", "key", progress=progress)
        with pytest.raises(ZeroDivisionError):
            await store.put("bucket", "new", get)
        with pytest.raises(BodyConsumedError):
            await store.put("bucket", "new", get)
        assert not await store.exists("bucket", "new")


# -- records ---------------------------------------------------------------------------------------


def test_record_is_dropped_with_its_body() -> None:
    gc.collect()
    before = len(consumed._records)
    body = Reader()
    consumed.record(body, to_end=False)
    consumed.record(body, to_end=True)
    assert len(consumed._records) == before + 1
    with pytest.raises(BodyConsumedError):
        consumed.check(body, empty=True)
    consumed.check(body, empty=False)
    del body
    gc.collect()
    assert len(consumed._records) == before


def test_only_the_latest_bodies_without_weak_references_stay_recorded() -> None:
    bodies = [iter([b"x"]) for _ in range(consumed._MAX_KEPT_ALIVE + 1)]
    for body in bodies:
        consumed.record(body, to_end=True)
        consumed.record(body, to_end=False)
    for body in bodies[1:]:
        with pytest.raises(BodyConsumedError):
            consumed.check(body, empty=False)
    consumed.check(bodies[0], empty=True)
    assert len(consumed._kept_alive) == consumed._MAX_KEPT_ALIVE
