"""Sources for files: opened by the user, blocking or async, or named by a path."""

from __future__ import annotations

import inspect
import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import anyio
import anyio.to_thread

from trove_async._concurrency import CLEANUP_SECONDS, in_thread, run_cleanup
from trove_async._views import BytesLike, take, view_of_chunk
from trove_async.models import KiB

from . import consumed
from .body_file import IOV_MAX, BodyFile, descriptor_of
from .chunks import BlockingChunkSource, ChunkSource

_READ_SIZE = 256 * KiB
"""Bytes per read of a blocking file. From this size on, the cost of a thread hop is negligible."""

ASYNC_READ_SIZE = 4 * _READ_SIZE
"""Bytes requested per read of an async reader, which may return fewer."""


class FileSource(BlockingChunkSource):
    """A binary file opened by the user. It is read in a thread, or through the `BodyFile` of `file`.

    Args:
        file: The file. A put that fails leaves a seekable file at its original position.

    Raises:
        BodyConsumedError: An earlier put has read the file to its end, or failed and could not seek
            it back, and its position is still the same.
    """

    def __init__(self, file: BinaryIO) -> None:
        start, size = _position_and_size(file)
        super().__init__(iter(self._read_piece, b""), size, body=file)
        # read1 returns what a pipe has; read would wait for the full size.
        self._read = file.read1 if isinstance(file, io.BufferedReader) else file.read
        self._file = file
        self._start = start
        self._position_known = start is not None
        if start is not None:
            consumed.check(file, start, empty=not size)
        self._read_lock = threading.Lock()
        self._started = self._abandoned = False
        self._descriptor: int | None = None

    async def file(self) -> BodyFile | None:
        """Return the user's file through a duplicate descriptor. See `Replayable.file`."""
        self._descriptor = descriptor_of(self._file)
        if self._descriptor is None:
            return None
        body = BodyFile(self._descriptor, self._start or 0)
        self._started = True
        self._pulled_bytes = body.size  # descriptor_of has positioned the file at its end
        consumed.record(self._file, self._position, to_end=True)
        return body

    async def aclose(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        await super().aclose()

    async def rewind(self) -> None:
        self._abandoned = True
        if not self._started:
            return  # a thread that starts only now reads nothing
        if self._position_known and self._start is None:
            await super().rewind()
        else:
            # Seek back even if the put is cancelled again. An abandoned thread may still be reading.
            await run_cleanup(self._seek_back(), 2 * CLEANUP_SECONDS)

    def _read_piece(self) -> bytes:
        """Read the next piece, in a thread."""
        self._started = True
        with self._read_lock:
            if self._abandoned:
                return b""
            try:
                self._check_position()
                return self._read(_READ_SIZE)
            finally:
                if self._abandoned:  # during the read; `_seek_after_read` may have timed out
                    self._seek_to_start()

    def _check_position(self) -> None:
        if self._position_known:
            return
        self._position_known = True
        self._start = _position_of(self._file)
        if self._start is not None:
            consumed.check(self._file, self._start, empty=False)

    async def _seek_back(self) -> None:
        await anyio.to_thread.run_sync(self._seek_after_read, limiter=anyio.CapacityLimiter(1))

    def _seek_after_read(self) -> None:
        if self._read_lock.acquire(timeout=CLEANUP_SECONDS):
            try:
                self._seek_to_start()
            finally:
                self._read_lock.release()

    def _seek_to_start(self) -> None:
        if self._start is None:
            return
        try:
            self._file.seek(self._start)
        except Exception:  # noqa: BLE001 - the error of the put is the one to raise
            consumed.record(self._file, _position_of(self._file), to_end=False)


@runtime_checkable
class AsyncReadable(Protocol):
    """An object with ``async read(n)``, such as an asyncio.StreamReader or an aiofiles handle."""

    async def read(self, n: int, /) -> bytes:
        """Return 1 to `n` bytes, or ``b""`` at the end."""
        ...


class AsyncFileSource(ChunkSource):
    """An async reader, such as a file of aiofiles or anyio, or Starlette's UploadFile.

    Args:
        reader: The reader. A put that fails leaves a seekable reader at its original position.
    """

    def __init__(self, reader: AsyncReadable) -> None:
        self._reader = reader
        super().__init__(self._read_all(), body=reader)

    async def _read_all(self) -> AsyncIterator[BytesLike]:
        self._start = await _async_position_of(self._reader)
        if self._start is not None:
            consumed.check(self._reader, self._start, empty=False)
        # Only b"" is the end. view_of_chunk rejects None, which a non-blocking file returns when it
        # has no data yet.
        while view_of_chunk(chunk := await self._reader.read(ASYNC_READ_SIZE)):
            yield chunk

    async def rewind(self) -> None:
        if self._start is None:
            await super().rewind()
            return
        try:
            await run_cleanup(self._seek_back(self._start))
        except Exception:  # noqa: BLE001 - the error of the put is the one to raise
            consumed.record(self._reader, await _async_position_of(self._reader), to_end=False)

    async def _seek_back(self, start: int) -> None:
        await _await_if_awaitable(cast("Any", self._reader).seek(start))


class PathSource:
    """A file named by a path, opened on first use. A regular file is read straight into the views."""

    memory: memoryview | None = None

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._position = 0
        self._stream: ChunkSource | None = None
        self.size: int | None = None

    async def file(self) -> BodyFile | None:
        """Return the file, if it is a regular one with bytes. See `Replayable.file`."""
        file = await self._open()
        return BodyFile(file.fileno()) if self._stream is None else None

    async def _open(self) -> io.FileIO:
        if self._file is None:
            self._file = file = await _open_path(self._path)
            status = os.fstat(file.fileno())
            # A FIFO or a file in /proc reports no size and may still have bytes.
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
            if not self.size:
                self.size = None
                self._stream = BlockingChunkSource(iter(lambda: file.read(_READ_SIZE), b""))
        return self._file

    async def ready(self) -> bool:
        await self._open()
        if self._stream is not None:
            return await self._stream.ready()
        return self._position < (self.size or 0)

    async def take(self, limit: int) -> BytesLike:
        if self._stream is not None:
            return await self._stream.take(limit)
        piece = memoryview(bytearray(limit))
        return piece[: await self.fill([piece])]

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not await self.ready():
            return 0
        if self._stream is not None:
            return await self._stream.fill(views)
        assert self._file is not None and self.size is not None  # noqa: S101, PT018 - ready
        remaining = take(views, self.size - self._position)[:IOV_MAX]
        count = await in_thread(os.readv, self._file.fileno(), remaining)
        if not count:
            self.size = self._position  # truncated by another process: the body ends here
        self._position += count
        return count

    async def aclose(self) -> None:
        file, self._file = self._file, None
        if self._stream is not None:
            await self._stream.aclose()
        if file is not None:
            await in_thread(file.close)

    async def rewind(self) -> None:
        pass  # each put opens the file itself


def _position_and_size(file: BinaryIO) -> tuple[int | None, int | None]:
    """Return a file's position and the number of unread bytes, each None if unknown."""
    if not isinstance(file, (io.FileIO, io.BufferedReader, io.BufferedRandom)):
        # Do not seek to the end: a file that decompresses would have to read everything.
        return None, _declared_length(file)
    try:
        position = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(position)
    except (OSError, ValueError):
        return None, None  # a pipe or a socket
    return position, max(0, end - position)


def _declared_length(file: BinaryIO) -> int | None:
    """Return the declared length of a urllib response, or None for any other file.

    Without it, a urllib response that broke off would look complete.
    """
    if type(file).__module__ != "http.client":
        return None
    length = getattr(file, "length", None)
    return length if isinstance(length, int) else None


def _position_of(file: BinaryIO) -> int | None:
    """Return the position of a file if it is seekable. Runs user code, so call it in a thread."""
    with suppress(Exception):
        seekable = getattr(file, "seekable", None)
        if hasattr(file, "seek") and (seekable is None or seekable()):
            position = file.tell()
            return position if isinstance(position, int) else None
    return None


async def _async_position_of(reader: object) -> int | None:
    """Return the position of an async reader if it is seekable."""
    if not hasattr(reader, "seek"):
        return None
    # An UploadFile has no tell, but its file has.
    for candidate in (reader, getattr(reader, "file", None)):
        tell = getattr(candidate, "tell", None)
        if tell is not None:
            with suppress(Exception):
                position = await _await_if_awaitable(tell())
                return position if isinstance(position, int) else None
    return None


async def _await_if_awaitable(value: Any) -> Any:  # noqa: ANN401 - returned by user code
    return await value if inspect.isawaitable(value) else value


async def _open_path(path: os.PathLike[str]) -> io.FileIO:
    """Open a file in a thread that a cancel abandons: a FIFO may never get a writer."""
    lock = threading.Lock()
    abandoned = False
    opened: io.FileIO | None = None

    def open_file() -> None:
        nonlocal opened
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by the source
        with lock:
            if not abandoned:
                opened = file
                return
        file.close()

    try:
        await anyio.to_thread.run_sync(
            open_file, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )
        assert opened is not None  # noqa: S101 - set by open_file, or it raised
    except BaseException:
        with lock:
            abandoned = True
        if opened is not None:
            opened.close()
        raise
    return opened
