"""A failed put restores the position of its file, so that the next put stores the whole body."""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import io
import os
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiofiles
import anyio
import pytest
from starlette.datastructures import UploadFile

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import (
    BackendNotFoundError,
    BodyConsumedError,
    BucketNotFoundError,
    ClosedError,
    IntegrityError,
    NotSupportedError,
    RetryPolicy,
    Trove,
)
from trove_async._concurrency import OwnedTask
from trove_async.drivers import MemoryDriver
from trove_async.middlewares import Compression
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

BEFORE_BODY = b"before"
"""The bytes of a file before its body."""

SMALL = content(10)
LARGE = content(2 * MiB + 17)
"""More than one part."""


class Subclass(io.BytesIO):
    pass


class Seekable:
    """A minimal seekable file."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.read, self.seek, self.tell = self._file.read, self._file.seek, self._file.tell
        self.close = self._file.close


def spooled(data: bytes, path: Path) -> Any:
    del path
    file = tempfile.SpooledTemporaryFile(max_size=MiB)  # noqa: SIM115 - closed by the test
    file.write(data)
    return file


def write_file(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


async def aiofiles_file(data: bytes, path: Path) -> Any:
    return await aiofiles.open(write_file(data, path), "rb")


async def anyio_file(data: bytes, path: Path) -> Any:
    return await anyio.open_file(write_file(data, path), "rb")


async def upload_file(data: bytes, path: Path) -> Any:
    return UploadFile(spooled(data, path))


FILES: dict[str, Callable[[bytes, Path], Any]] = {
    "BytesIO": lambda data, _: io.BytesIO(data),
    "subclass of BytesIO": lambda data, _: Subclass(data),
    "read, seek and tell": lambda data, _: Seekable(data),
    "FileIO": lambda data, path: write_file(data, path).open("rb", buffering=0),
    "BufferedReader": lambda data, path: write_file(data, path).open("rb"),
    "BufferedRandom": lambda data, path: write_file(data, path).open("r+b"),
    "SpooledTemporaryFile": spooled,
    "gzip": lambda data, _: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data, 1))),
    "aiofiles": aiofiles_file,
    "anyio": anyio_file,
    "UploadFile": upload_file,
}


async def open_at_body(kind: str, body: bytes, path: Path) -> Any:
    """Return a file positioned at the start of its body."""
    file = FILES[kind](BEFORE_BODY + body, path)
    if inspect.isawaitable(file):
        file = await file
    await call(file.seek, len(BEFORE_BODY))
    return file


async def call(method: Callable[..., Any], *arguments: object) -> Any:
    """Call a sync or async method."""
    result = method(*arguments)
    return await result if inspect.isawaitable(result) else result


async def position(file: Any) -> int:
    return int(await call(file.file.tell if isinstance(file, UploadFile) else file.tell))


@dataclass
class Scene:
    """A store on a fake, and a file that is positioned at the start of its body."""

    store: Trove
    fake: Fake
    file: Any
    body: bytes


async def missing_bucket(scene: Scene) -> None:
    with pytest.raises(BucketNotFoundError):
        await scene.store.put("missing", "key", scene.file)


async def invalid_key(scene: Scene) -> None:
    with pytest.raises(ValueError, match="key"):
        await scene.store.put("bucket", "a/../b", scene.file)


async def invalid_option(scene: Scene) -> None:
    with pytest.raises(TypeError):
        await scene.store.put("bucket", "key", scene.file, metadata={"a": 5})  # type: ignore[dict-item]


async def unsupported_option(scene: Scene) -> None:
    with pytest.raises(NotSupportedError):
        await scene.store.put("bucket", "key", scene.file, storage_class="COLD")


async def unknown_backend(scene: Scene) -> None:
    with pytest.raises(BackendNotFoundError):
        await scene.store.put("bucket", "nowhere", scene.file)


async def failing_step(scene: Scene) -> None:
    for step in ("put", "send", "commit", "put.done", "commit.done"):
        scene.fake.fail(step, PermissionError("no"))
        try:
            await scene.store.put("bucket", "key", scene.file)
        except PermissionError:
            assert await position(scene.file) == len(BEFORE_BODY)
        else:  # a put of this body does not pass the step
            await call(scene.file.seek, len(BEFORE_BODY))
        scene.fake._faults.clear()


async def wrong_size(scene: Scene) -> None:
    for size in (1, len(scene.body) + 1, len(scene.body) - 1, 4 * MiB):
        with pytest.raises(IntegrityError):
            await scene.store.put("bucket", "key", scene.file, size=size)
        assert await position(scene.file) == len(BEFORE_BODY)


async def raising_progress(scene: Scene) -> None:
    def progress(*_: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await scene.store.put("bucket", "key", scene.file, progress=progress)


async def closed_store(scene: Scene) -> None:
    async with Trove(Fake()) as store:
        pass
    with pytest.raises(ClosedError):
        await store.put("bucket", "key", scene.file)


async def cancelled_step(scene: Scene) -> None:
    for step in ("put", "upload", "send", "put.done", "send.done"):
        reached = scene.fake.hang(step)
        put = OwnedTask(scene.store.put("bucket", "key", scene.file))
        hung = OwnedTask(reached.wait())
        await asyncio.wait([put._task, hung._task], return_when="FIRST_COMPLETED")
        ended = put.done
        await hung.aclose()
        await put.aclose()
        del scene.fake.before[step]
        if ended:  # a put of this body does not pass the step
            await put.result()
            await call(scene.file.seek, len(BEFORE_BODY))
        assert await position(scene.file) == len(BEFORE_BODY)


async def cancel_after_any_number_of_iterations(scene: Scene) -> None:
    steps, ended = 0, False
    while not ended:
        put = OwnedTask(scene.store.put("bucket", "key", scene.file))
        for _ in range(steps):
            await asyncio.sleep(0)
            if put.done:
                break
        await put.aclose()
        ended = not put._task.cancelled()
        if ended:  # the put ended before the cancel
            await put.result()
            await call(scene.file.seek, len(BEFORE_BODY))
        assert await position(scene.file) == len(BEFORE_BODY)
        steps += 1 + steps // 4


FAILURES = (
    missing_bucket,
    invalid_key,
    invalid_option,
    unsupported_option,
    unknown_backend,
    failing_step,
    wrong_size,
    raising_progress,
    closed_store,
    cancelled_step,
    cancel_after_any_number_of_iterations,
)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
@pytest.mark.parametrize("kind", FILES)
async def test_failed_put_restores_the_position_of_its_file(
    kind: str, failure: Callable[[Scene], Awaitable[None]], body: bytes, tmp_path: Path
) -> None:
    fake = Fake(storage_class=False)
    async with Trove(
        fake,
        route_functions=[lambda _, key: "unknown" if key == "nowhere" else None],
        retry=RetryPolicy(attempts=1),
    ) as store:
        await store.create_bucket("bucket")
        file = await open_at_body(kind, body, tmp_path / "file")
        await failure(Scene(store, fake, file, body))
        assert await position(file) == len(BEFORE_BODY)
        await store.put("bucket", "key", file)
        assert await store.read("bucket", "key") == body
        assert_idle(store, fake)
        await call(file.close)


async def test_error_of_a_put_is_raised_even_if_the_file_cannot_seek_back() -> None:
    class FailingSeek(io.BytesIO):
        def seek(self, *_: object) -> int:
            raise OSError("seek failed")

    fake = Fake()
    async with store_of(fake) as store:
        file = FailingSeek(LARGE)
        fake.fail("send", PermissionError("why"))
        with pytest.raises(PermissionError, match="why"):
            await store.put("bucket", "key", file)
        with pytest.raises(BodyConsumedError, match="failed"):
            await store.put("bucket", "key", file)
        assert not await store.exists("bucket", "key")


class SlowFile(io.BytesIO):
    """A file whose read blocks until it is released."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.reading, self.release = threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        self.reading.set()
        self.release.wait(50)
        return super().read(size)


async def test_cancel_waits_for_a_running_read_and_then_seeks_back() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        file = SlowFile(LARGE)
        put = OwnedTask(store.put("bucket", "key", file))
        while not file.reading.is_set():
            await asyncio.sleep(0)
        put._task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not put.done
        put._task.cancel()  # a second cancel does not stop the cleanup
        for _ in range(20):
            await asyncio.sleep(0)
        assert not put.done
        file.release.set()
        await put.aclose()
        assert file.tell() == 0
        await store.put("bucket", "key", file)
        assert await store.read("bucket", "key") == LARGE


async def test_position_is_restored_after_a_read_that_outlasts_the_cleanup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trove_async._engine.file_sources.CLEANUP_SECONDS", 0.01)
    fake = Fake()
    async with store_of(fake) as store:
        file = SlowFile(LARGE)
        put = OwnedTask(store.put("bucket", "key", file))
        while not file.reading.is_set():
            await asyncio.sleep(0)
        await put.aclose()  # the read is still running
        file.seek(5)  # so that the loop below ends only once the position 0 is restored
        file.release.set()
        while file.tell():
            await asyncio.sleep(0)


async def test_pipe_of_a_failed_put_is_rejected() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "wb") as pipe, os.fdopen(read_end, "rb") as body:
            pipe.write(b"some")
            pipe.flush()
            failed = OwnedTask(store.put("bucket", "key", body, size=2))
            with pytest.raises(IntegrityError):
                await failed.result()
            pipe.write(b"and more")
            pipe.close()
            with pytest.raises(BodyConsumedError):
                await store.put("bucket", "key", body)
        assert not await store.exists("bucket", "key")


async def test_urllib_response_that_ends_early_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # http.client returns the end of file for a body that the server broke off (HTTPResponse.read).
    class Response(io.BytesIO):
        length = 10

    monkeypatch.setattr(Response, "__module__", "http.client")
    async with store_of(Fake()) as store:
        with pytest.raises(IntegrityError, match="only 4"):
            await store.put("bucket", "key", Response(b"body"))
        assert not await store.exists("bucket", "key")


@pytest.mark.parametrize("size", [0, 10, 200_000, 2 * MiB])
async def test_path_of_an_encoded_body_is_closed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "body"
    path.write_bytes(bytes(size))
    async with Trove(MemoryDriver(), middleware=[Compression(min_size=0)]) as store:
        await store.create_bucket("data")
        # A file that is not closed emits a ResourceWarning, which fails the test.
        await store.put("data", "key", path)
        gc.collect()
        assert await store.read("data", "key") == bytes(size)
