"""Parts that are too large to be held in memory.

While such a part is sent, it is read from its file through a window, a small buffer.
"""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    Event,
    IntegrityError,
    NotSupportedError,
    PoolTimeoutError,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask, OwnedTasks
from trove_async._engine.backends import Backend
from trove_async._engine.body_file import BodyFile
from trove_async._engine.streamed_parts import StreamedParts
from trove_async.layers import Mapped
from trove_async.models import KiB, MiB
from trove_async.options import Part
from trove_async.testing import Faulty

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BODY = content(7 * MiB + 1)


class StreamingDriver(Fake):
    """A driver that by default accepts up to three parts of any size, and records streamed ones."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(**{"streamed_parts": True, "max_parts": 3, **capabilities})
        self.parts: list[Part] = []

    def upload(self, bucket: str, key: str, options: Any) -> Any:
        upload = super().upload(bucket, key, options)
        send = upload.send_stream

        async def record_and_send(part: Part, source: Any) -> None:
            self.parts.append(part)
            await send(part, source)

        upload.send_stream = record_and_send
        return upload


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    return path


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# -- bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel_parts", [1, 3])
@pytest.mark.parametrize("pool", [2, 3, 4, 6])
@pytest.mark.parametrize(
    ("size", "multiple", "lengths"),
    [
        (9 * MiB + 1, 1, [3 * MiB + 1, 3 * MiB + 1, 3 * MiB - 1]),
        (9 * MiB + 3, 1, [3 * MiB + 1, 3 * MiB + 1, 3 * MiB + 1]),
        (8 * MiB + 1, 4 * MiB, [4 * MiB, 4 * MiB, 1]),
        (7 * MiB, 7 * MiB, [7 * MiB]),
    ],
)
async def test_file_is_stored_in_parts_larger_than_half_of_the_pool(
    size: int, multiple: int, lengths: list[int], *, pool: int, parallel_parts: int, tmp_path: Path
) -> None:
    body = content(size)
    path = tmp_path / "body"
    path.write_bytes(body)
    fake = StreamingDriver(part_multiple=multiple, parallel_parts=parallel_parts)
    memory = BufferPool(pool * MiB, MiB, spill_max_bytes=0)
    async with store_of(fake, pool=memory) as store:
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == body
        assert sorted(part.number for part in fake.parts) == list(range(1, len(lengths) + 1))
        ordered = sorted(fake.parts, key=lambda part: part.number)
        assert [part.size for part in ordered] == lengths
        assert [part.last for part in ordered] == [False] * (len(lengths) - 1) + [True]
        assert store.pool.statistics().peak <= min(pool, 2 * (parallel_parts + 1)) * MiB
        assert_idle(store, fake)


def open_buffered(path: Path) -> Any:
    return path.open("rb")


def open_unbuffered(path: Path) -> Any:
    return path.open("rb", buffering=0)


def open_unflushed(path: Path) -> Any:
    file = path.open("w+b")
    file.write(BODY)  # the last bytes are still in the file's buffer
    return file


@pytest.mark.parametrize("open_file", [open_buffered, open_unbuffered, open_unflushed])
@pytest.mark.parametrize("start", [0, 1, 100 * KiB])
async def test_open_file_is_sent_from_its_position_and_left_at_its_end(
    path: Path, open_file: Callable[[Path], Any], start: int
) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:
        with open_file(path) as file:
            file.seek(start)
            await store.put("bucket", "key", file)
            assert file.tell() == len(BODY)
        assert await store.read("bucket", "key") == BODY[start:]
        assert len(fake.parts) == 3
        assert_idle(store, fake)


async def test_open_file_may_be_closed_by_the_user_during_a_put(path: Path) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:
        file = path.open("rb")

        async def close() -> None:
            file.close()

        fake.before["upload"] = close
        await store.put("bucket", "key", file)
        assert await store.read("bucket", "key") == BODY


async def test_parts_that_fit_the_pool_are_held(path: Path) -> None:
    fake = StreamingDriver(max_parts=8)
    async with store_of(fake) as store:
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == BODY
        assert fake.parts == []
        assert fake.count("send") == 8


async def test_body_smaller_than_the_smallest_part_is_put_in_one_request(tmp_path: Path) -> None:
    fake = Fake(min_part=5 * MiB)
    path = tmp_path / "small"
    await asyncio.to_thread(path.write_bytes, b"small")
    async with store_of(fake) as store:
        await store.put("bucket", "key", path)
        await store.put("bucket", "key", [b"small"], size=5)
        assert fake.count("put") == 2


async def test_layers_forward_streamed_parts(path: Path) -> None:
    fake = StreamingDriver()
    async with store_of(Mapped(Faulty(fake), into="below", prefix="under/")) as store:
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == BODY
        assert len(fake.parts) == 3


# -- retries and progress ----------------------------------------------------------------------------


async def test_broken_part_is_sent_again_and_its_bytes_are_counted_once(path: Path) -> None:
    fake = StreamingDriver(parallel_parts=1)
    reports: list[tuple[int, int | None]] = []
    events: list[Event] = []
    async with store_of(fake, pool=BufferPool(4 * MiB, MiB)) as store:
        store.events.subscribe(events.append)

        async def fail_in_the_second_part() -> None:
            if fake.count("piece") == 3 + 2:  # every part has 3 pieces
                raise UnavailableError("broken")

        fake.before["piece"] = fail_in_the_second_part
        await store.put(
            "bucket", "key", path, progress=lambda done, total: reports.append((done, total))
        )
        assert await store.read("bucket", "key") == BODY
        assert [part.number for part in fake.parts] == [1, 2, 2, 3]
        assert fake.count("piece") == 3 + 2 + 3 + 3
        assert_idle(store, fake)
    counts = [done for done, _ in reports]
    assert counts == sorted(set(counts))
    assert counts[-1] == len(BODY)
    assert len(counts) >= 7, "progress is reported while parts are sent"
    assert {total for _, total in reports} == {len(BODY)}
    assert sum(event.size for event in events if event.kind == "part") == len(BODY)


async def test_every_step_that_fails_once_is_retried(path: Path) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:
        for step in ("upload", "send", "piece", "send.done", "commit", "commit.done"):
            fake.fail(step)
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == BODY
        assert_idle(store, fake)


async def test_progress_that_raises_aborts_the_upload(path: Path) -> None:
    def progress(*_: int | None) -> None:
        raise KeyError("enough")

    fake = StreamingDriver()
    async with store_of(fake) as store:
        with pytest.raises(KeyError, match="enough"):
            await store.put("bucket", "key", path, progress=progress)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


# -- files that change -------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"changed")


def overwrite_keeping_times(path: Path) -> None:
    """Change some bytes, and restore the file's timestamps."""
    status = path.stat()
    overwrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 100)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"another file")
    other.rename(path)


@pytest.mark.parametrize("change", [overwrite, grow, shrink])
@pytest.mark.parametrize("step", ["upload.done", "send", "piece"])
async def test_file_changed_during_a_put_is_not_stored(
    path: Path, change: Callable[[Path], None], step: str
) -> None:
    fake = StreamingDriver()
    os.utime(path, (1, 1))  # an old timestamp, which any write changes, even with a coarse clock
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"old")

        async def change_once() -> None:
            del fake.before[step]
            await asyncio.to_thread(change, path)

        fake.before[step] = change_once
        with pytest.raises(IntegrityError, match="changed while"):
            await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == b"old"
        assert fake.count("commit") == 0
        assert_idle(store, fake)


async def test_part_that_differs_in_its_second_attempt_is_not_sent_completely(path: Path) -> None:
    fake = StreamingDriver(parallel_parts=1)
    async with store_of(fake) as store:

        async def overwrite_and_fail() -> None:
            del fake.before["piece"]
            await asyncio.to_thread(overwrite_keeping_times, path)
            raise UnavailableError("broken")

        fake.before["piece"] = overwrite_and_fail
        with pytest.raises(IntegrityError, match="changed while"):
            await store.put("bucket", "key", path)
        assert fake.count("send.done") == 0
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_file_replaced_during_a_put_is_stored_with_its_original_content(path: Path) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:

        async def replace_file() -> None:
            await asyncio.to_thread(replace, path)

        fake.before["upload"] = replace_file
        await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == BODY


@pytest.mark.parametrize("difference", [-1, 1, 5 * MiB])
async def test_file_whose_size_is_not_the_declared_one_is_not_stored(
    path: Path, difference: int
) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:
        with path.open("rb") as file:
            for body in (path, file):
                with pytest.raises(IntegrityError, match="as declared"):
                    await store.put("bucket", "key", body, size=len(BODY) + difference)
        assert fake.count("upload") == 0
        assert_idle(store, fake)


# -- bodies that cannot be streamed ----------------------------------------------------------------


class FileWithoutDescriptor(io.RawIOBase):
    """A raw file that counts its reads and has no descriptor."""

    def __init__(self) -> None:
        self.read_count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.read_count += 1
        return len(buffer)


class CustomFileIO(io.FileIO):
    """A raw file with its own `readinto`, which counts its reads."""

    read_count = 0

    def readinto(self, buffer: Any) -> int:
        self.read_count += 1
        return super().readinto(buffer)


async def test_body_that_cannot_be_streamed_is_rejected_before_it_is_read(path: Path) -> None:
    fake = StreamingDriver()
    read_count = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal read_count
        read_count += 1
        yield BODY

    async with store_of(fake) as store:
        no_descriptor, custom = FileWithoutDescriptor(), CustomFileIO(path)
        with custom, io.BufferedReader(CustomFileIO(path)) as buffered:
            for body in (stream(), iter([BODY]), no_descriptor, custom, buffered):
                with pytest.raises(NotSupportedError) as caught:
                    await store.put("bucket", "key", body, size=len(BODY))
                assert "at most 3145728 bytes" in caught.value.message
                assert "pass a path" in caught.value.message
                assert "BufferPool(max_bytes=6291456)" in caught.value.message
                assert "\n" not in caught.value.message
            assert no_descriptor.read_count == custom.read_count == read_count == 0
        assert fake.count("upload") == fake.count("put") == 0
        assert_idle(store, fake)
    async with store_of(fake, pool=BufferPool(6 * MiB, MiB)) as store:
        await store.put("bucket", "key", stream(), size=len(BODY))
        assert await store.read("bucket", "key") == BODY


async def test_fifo_is_rejected_for_any_declared_size(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    fake = StreamingDriver()
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="BufferPool"):
            await store.put("bucket", "key", path, size=len(BODY))
        with path.open("rb") as file, pytest.raises(NotSupportedError, match="BufferPool"):
            await store.put("bucket", "key", file, size=len(BODY))
        assert_idle(store, fake)
    os.close(writer)


@pytest.mark.parametrize("capability", ["streamed_parts", "upload"])
async def test_body_is_rejected_unread_if_the_backend_has_no_streamed_parts(
    path: Path, capability: str
) -> None:
    fake = StreamingDriver(**{capability: False})
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="BufferPool") as caught:
            await store.put("bucket", "key", path)
        assert "pass a path" not in caught.value.message
        assert fake.count("upload") == fake.count("put") == 0
        assert_idle(store, fake)


async def test_body_that_needs_parts_larger_than_allowed_is_rejected(path: Path) -> None:
    fake = StreamingDriver(max_part=2 * MiB)
    async with store_of(fake) as store:
        with pytest.raises(NotSupportedError, match="must fit in 3 parts"):
            await store.put("bucket", "key", path)
        assert_idle(store, fake)


# -- cancels and lack of memory ----------------------------------------------------------------------


@pytest.mark.idle_time
async def test_cancel_at_any_step_leaves_nothing(path: Path) -> None:
    for step in range(100):
        fake = StreamingDriver(parallel_parts=2)
        async with store_of(fake, pool=small_pool(spill_max_bytes=0)) as store:
            fake.steps.clear()
            fake.hang_at = step
            put = OwnedTask(store.put("bucket", "key", path))
            reached = OwnedTask(fake.reached.wait())
            put.when_done(fake.reached.set)
            await reached.result()
            ended = put.done
            await put.aclose()
            assert_idle(store, fake)
            fake.hang_at = None
            stored = await store.exists("bucket", "key")
            assert stored == ("commit.done" in fake.steps)
        if ended:
            break
    assert step > 20, "the put has fewer steps than expected"


async def test_cancel_during_a_read_waits_until_the_window_is_unused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = StreamingDriver()
    loop = asyncio.get_running_loop()
    reading, read_offsets = asyncio.Event(), []
    read = BodyFile.read
    gate = os.pipe()

    def read_once_released(self: BodyFile, offset: int, view: memoryview) -> None:
        loop.call_soon_threadsafe(reading.set)
        os.read(gate[0], 1)
        read(self, offset, view)
        read_offsets.append(offset)

    monkeypatch.setattr(BodyFile, "read", read_once_released)
    async with store_of(fake) as store:
        put = loop.create_task(store.put("bucket", "key", path))
        await reading.wait()
        put.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not put.done()
        assert store.pool.statistics().leased == MiB
        os.write(gate[1], b".")
        with pytest.raises(asyncio.CancelledError):
            await put
        assert read_offsets == [0]
        assert_idle(store, fake)
    for end in gate:
        os.close(end)


async def test_window_is_a_spill_file_if_no_memory_is_free(path: Path) -> None:
    fake = StreamingDriver()
    async with store_of(fake) as store:
        with await store.pool.lease(2 * MiB):
            await store.put("bucket", "key", path)
        assert await store.read("bucket", "key") == BODY
        assert store.pool.statistics().spilled_total == 3 * MiB
        assert_idle(store, fake)


async def test_window_times_out_without_memory_or_a_spill_file(path: Path) -> None:
    fake = StreamingDriver()
    pool = small_pool(spill_max_bytes=0, deadline=0.02)
    async with store_of(fake, pool=pool) as store:
        with await store.pool.lease(2 * MiB), pytest.raises(PoolTimeoutError):
            await store.put("bucket", "key", path)
        assert_idle(store, fake)


# -- PartSource, as the driver uses it ---------------------------------------------------------------


async def test_pass_over_a_part_ends_when_a_second_pass_starts(path: Path) -> None:
    pool = BufferPool(4 * MiB, MiB)
    descriptor = os.open(path, os.O_RDONLY)
    backend = Backend("default", Fake(), OwnedTasks())
    events: list[object] = []
    parts = StreamedParts(
        BodyFile(descriptor), len(BODY), pool, backend, lambda *event: events.append(event)
    )
    part = await parts.next()
    assert part is not None
    async with part:
        assert part.checksums == parts.checksums
        async with part.pieces() as first_pass:
            assert await anext(first_pass) == BODY[:MiB]
            async with part.pieces() as pieces:
                assert b"".join([bytes(piece) async for piece in pieces]) == BODY
            with pytest.raises(ClosedError):
                await anext(first_pass)
        context = part.pieces()
        unfinished_pass = await context.__aenter__()
        await anext(unfinished_pass)
    assert pool.statistics().leased == 0
    with pytest.raises(ClosedError):
        await anext(unfinished_pass)
    with suppress(StopAsyncIteration):
        await context.__aexit__(None, None, None)
    assert await parts.next() is None
    os.close(descriptor)
