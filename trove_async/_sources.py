"""What a user may give as a body, made one thing: a `Source` that the upload engine pulls from.

A source never reads ahead of what it was asked for, so what it holds back is at most one chunk that
its user made.
"""

from __future__ import annotations

import inspect
import io
import os
import stat
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

import aiofiles
import anyio.to_thread

from .models import KiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aiofiles.threadpool.binary import AsyncFileIO

_TAKE = 256 * KiB
"""Bytes of a piece where the choice is ours: above it a thread hop's cost no longer shows."""


@runtime_checkable
class AsyncReadable(Protocol):
    """Anything with ``async read(n)``: an asyncio.StreamReader, an aiofiles handle, a reader."""

    async def read(self, n: int, /) -> bytes:
        """Return 1 to `n` bytes, ``b""`` at the end."""
        ...


BytesLike: TypeAlias = bytes | bytearray | memoryview
BodySource: TypeAlias = (
    BytesLike
    | os.PathLike[str]
    | BinaryIO
    | AsyncReadable
    | Iterable[BytesLike]
    | AsyncIterable[BytesLike]
)


class Source(Protocol):
    """A body that is read once, from its start."""

    size: int | None
    """All its bytes, where known; asked for only after `ready`."""

    memory: memoryview | None
    """The whole body, where it is in memory already: then nothing is pulled."""

    async def ready(self) -> bool:
        """Wait until there is a byte to take; False at the end. Leases no memory."""
        ...

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, ``b""`` at the end."""
        ...

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill some of `views` from the start; return how many bytes, 0 at the end."""
        ...

    async def aclose(self) -> None:
        """Close what the source itself opened, or began to iterate."""
        ...


def source_of(body: BodySource) -> Source:
    """Make a source of whatever a user gave, without any I/O.

    Raises:
        TypeError: It is no body; for a str it says how to make one.
    """
    if isinstance(body, str):
        raise TypeError("a body is bytes, not str: put(..., text.encode()), or a pathlib.Path")
    if isinstance(body, os.PathLike):
        return _Path(body)
    read: Callable[..., Any] | None = getattr(body, "read", None)
    if inspect.iscoroutinefunction(read):
        return _AsyncReader(cast("AsyncReadable", body))
    if isinstance(body, AsyncIterable):
        return _Chunks(body)
    if read is not None:
        return _File(cast("BinaryIO", body))
    return _memory_of(body) or _iterable_of(body)


def _memory_of(body: object) -> Source | None:
    try:
        return _Memory(memoryview(body))  # type: ignore[arg-type]  # whether it is one, we ask
    except TypeError:
        return None


def _iterable_of(body: object) -> Source:
    if isinstance(body, (list, tuple)):
        return _Chunks(_inline(body))
    if isinstance(body, Iterable):
        return _Chunks(_in_thread(iter(body)))
    raise TypeError(
        "a body is bytes, a path, a binary file, a reader or an iterable of bytes,"
        f" not {type(body).__name__}"
    )


class _Memory:
    """Bytes that are all there: parts of them are views, and nothing is copied."""

    def __init__(self, view: memoryview) -> None:
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B") if view.contiguous else memoryview(view.tobytes())
        self.memory: memoryview | None = view.toreadonly()
        self.size: int | None = view.nbytes
        self._at = 0

    async def ready(self) -> bool:
        return self._at < (self.size or 0)

    async def take(self, limit: int) -> BytesLike:
        assert self.memory is not None  # noqa: S101 - as made above
        piece = self.memory[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        piece = await self.take(len(views[0]))
        views[0][: len(piece)] = piece
        return len(piece)

    async def aclose(self) -> None:
        pass


class _Chunks:
    """An async iterable of chunks of any size."""

    memory: memoryview | None = None

    def __init__(self, chunks: AsyncIterable[BytesLike], size: int | None = None) -> None:
        self.size = size
        self._chunks: AsyncIterator[BytesLike] = aiter(chunks)
        self._pending = memoryview(b"")

    async def ready(self) -> bool:
        while not self._pending:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                return False
            self._pending = _view_of_chunk(chunk)
        return True

    async def take(self, limit: int) -> BytesLike:
        if not await self.ready():
            return b""
        piece = self._pending[:limit]
        self._pending = self._pending[len(piece) :]
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        filled = 0
        for view in views:
            room = view
            while room:
                # What has arrived goes in; the next chunk is waited for only if nothing has.
                if not self._pending and (filled or not await self.ready()):
                    return filled
                count = min(len(room), len(self._pending))
                room[:count] = self._pending[:count]
                room = room[count:]
                self._pending = self._pending[count:]
                filled += count
        return filled

    async def aclose(self) -> None:
        self._pending = memoryview(b"")
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


class _AsyncReader(_Chunks):
    """Anything with ``async read(n)``; a reader of a store also tells how much is left."""

    def __init__(self, reader: AsyncReadable) -> None:
        remaining = getattr(reader, "remaining", None)
        super().__init__(_read_all(reader), remaining if isinstance(remaining, int) else None)


async def _read_all(reader: AsyncReadable) -> AsyncIterator[BytesLike]:
    while chunk := await reader.read(_TAKE * 4):
        yield chunk


async def _inline(chunks: Iterable[BytesLike]) -> AsyncIterator[BytesLike]:
    for chunk in chunks:
        yield chunk


async def _in_thread(chunks: Iterator[BytesLike]) -> AsyncIterator[BytesLike]:
    # A generator may read files or compute: it must not do so on the loop.
    end = object()
    while (chunk := await anyio.to_thread.run_sync(next, chunks, end)) is not end:
        yield chunk  # type: ignore[misc]  # not the end, so a chunk


class _File(_Chunks):
    """A binary file object of the user's, read from where it stands, in a thread."""

    def __init__(self, file: BinaryIO) -> None:
        if isinstance(file, io.TextIOBase):
            raise TypeError("a body is bytes: open the file in binary mode ('rb')")
        super().__init__(_in_thread(iter(lambda: file.read(_TAKE), b"")), _bytes_left(file))


def _bytes_left(file: BinaryIO) -> int | None:
    try:
        at = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(at)
    except (AttributeError, OSError, ValueError):
        return None  # a pipe, a socket, or an object that can only read
    return max(0, end - at)


class _Path:
    """A file by its path: opened when asked for, read straight into the pool's memory."""

    memory: memoryview | None = None

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._handle: AsyncFileIO | None = None
        self._at = 0
        self.size: int | None = None

    async def ready(self) -> bool:
        if self._handle is None:
            self._handle = await aiofiles.open(self._path, "rb", buffering=0)
            status = os.fstat(self._handle.fileno())
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        return self.size is None or self._at < self.size

    async def take(self, limit: int) -> BytesLike:
        piece = bytearray(limit)
        count = await self.fill([memoryview(piece)])
        return memoryview(piece)[:count]

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not await self.ready():
            return 0
        assert self._handle is not None  # noqa: S101 - ready has opened it
        if self.size is not None:
            views = trimmed(views, self.size - self._at)
        # anyio waits for the thread even if cancelled, so nobody writes to the views afterwards.
        count = await anyio.to_thread.run_sync(os.readv, self._handle.fileno(), views)
        self._at += count
        return count

    async def aclose(self) -> None:
        if self._handle is not None:
            await self._handle.close()


def trimmed(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return the first `size` bytes of `views`, as views."""
    kept: list[memoryview] = []
    for view in views:
        if size <= 0:
            break
        kept.append(view[:size])
        size -= len(kept[-1])
    return kept


def without(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return `views` without their first `size` bytes, as views."""
    kept: list[memoryview] = []
    for view in views:
        if size < len(view):
            kept.append(view[size:])
        size = max(0, size - len(view))
    return kept


def _view_of_chunk(chunk: object) -> memoryview:
    if isinstance(chunk, str):
        raise TypeError("the body yielded str: encode its chunks")
    try:
        view = memoryview(chunk)  # type: ignore[arg-type]  # what else it is, is told below
    except TypeError:
        raise TypeError(f"the body yielded {type(chunk).__name__}, not bytes") from None
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
