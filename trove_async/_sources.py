"""What a user may give as a body, made one thing: a `Source` that the upload engine pulls from.

A source never reads ahead of what it was asked for, so what it holds back is at most one chunk that
its user made.
"""

from __future__ import annotations

import inspect
import io
import os
import stat
import threading
from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

import anyio
import anyio.to_thread

from ._concurrency import in_thread
from ._files import BodyFile, descriptor_of
from .models import KiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

_TAKE = 256 * KiB
"""Bytes of a piece where the choice is ours: above it a thread hop's cost no longer shows."""

_IOV_MAX = 1024  # Linux, include/uapi/linux/uio.h: UIO_MAXIOV

_END = object()
_NOTHING = memoryview(b"")


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


@runtime_checkable
class Replayable(Protocol):
    """A Source that may be a file of the system's, which can be read at any place, and again."""

    async def file(self) -> BodyFile | None:
        """Return all of the file, open until `aclose`, if nothing was taken; None: it is none.

        Nothing is pulled, and no code of the user's is called.
        """
        ...


def source_of(body: BodySource) -> Source:
    """Make a source of whatever a user gave, without any I/O.

    Raises:
        TypeError: It is no body; for a str it says how to make one.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return _Memory(memoryview(body))
    if isinstance(body, str):
        raise TypeError("a body is bytes, not str: put(..., text.encode()), or a pathlib.Path")
    if isinstance(body, os.PathLike):
        return _Path(body)
    read: Callable[..., Any] | None = getattr(body, "read", None)
    if inspect.iscoroutinefunction(read):
        return _reader_of(cast("AsyncReadable", body))
    if isinstance(body, AsyncIterable):
        return _Opening(body) if isinstance(body, Opening) else _Chunks(body)
    if read is not None:
        return _of_file(cast("BinaryIO", body))
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
        return _Blocking(iter(body))
    raise TypeError(
        "a body is bytes, a path, a binary file, a reader or an iterable of bytes,"
        f" not {type(body).__name__}"
    )


def _of_file(file: BinaryIO) -> Source:
    if isinstance(file, io.TextIOBase):
        raise TypeError("a body is bytes: open the file in binary mode ('rb')")
    if type(file) is io.BytesIO:
        rest = memoryview(file.getvalue())[file.tell() :]  # shares what it has, copies nothing
        file.seek(0, os.SEEK_END)
        return _Memory(rest)
    return _File(file)


def _extent(file: BinaryIO) -> tuple[int, int | None]:
    """Return a file's position, and how many bytes are left from there, where that can be known."""
    if not isinstance(file, (io.FileIO, io.BufferedReader, io.BufferedRandom)):
        return 0, None  # one that decompresses, say, would read all of it to find its end
    try:
        at = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(at)
    except (OSError, ValueError):
        return 0, None  # a pipe, a socket
    return at, max(0, end - at)


class _Memory:
    """Bytes that are all there: parts of them are views, and nothing is copied."""

    __slots__ = ("_at", "memory", "size")

    def __init__(self, view: memoryview) -> None:
        self.memory: memoryview | None = bytes_of(view).toreadonly()
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
        self._chunks: AsyncIterator[BytesLike] | None = aiter(chunks)
        # What was not taken yet of the last chunk. Let go of as soon as it is empty: a view of a
        # bytearray keeps its owner from resizing it.
        self._pending = _NOTHING

    async def ready(self) -> bool:
        while not self._pending:
            if self._chunks is None:
                return False
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._chunks = None
                return False
            self._pending = _view_of_chunk(chunk)
        return True

    async def take(self, limit: int) -> BytesLike:
        if not self._pending and not await self.ready():
            return b""
        return self._next(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not self._pending and not await self.ready():
            return 0
        # What has arrived goes in; the next chunk is waited for only by the next call.
        filled = 0
        for view in views:
            piece = self._next(len(view))
            view[: len(piece)] = piece
            filled += len(piece)
            if not self._pending:
                break
        return filled

    def _next(self, limit: int) -> memoryview:
        pending = self._pending
        if len(pending) <= limit:
            self._pending = _NOTHING
            return pending
        self._pending = pending[limit:]
        return pending[:limit]

    async def aclose(self) -> None:
        self._pending = _NOTHING
        chunks, self._chunks = self._chunks, None
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


async def _inline(chunks: Iterable[BytesLike]) -> AsyncIterator[BytesLike]:
    for chunk in chunks:
        yield chunk


class _StoreReader:
    """A reader of a store: it tells how much is left, so nothing is read before there is room."""

    memory: memoryview | None = None

    def __init__(self, reader: SizedReader) -> None:
        self._reader = reader
        self.size: int | None = reader.remaining

    async def ready(self) -> bool:
        return self._reader.remaining > 0

    async def take(self, limit: int) -> BytesLike:
        return await self._reader.read(min(limit, _TAKE * 4))

    async def fill(self, views: Sequence[memoryview]) -> int:
        data = await self.take(len(views[0]))
        views[0][: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        pass  # the reader is its user's to close


@runtime_checkable
class SizedReader(Protocol):
    """What a store's own readers look like."""

    @property
    def remaining(self) -> int:
        """Bytes that were not read yet."""
        ...

    async def read(self, n: int, /) -> bytes:
        """Return 1 to `n` bytes, ``b""`` at the end."""
        ...


def _reader_of(reader: AsyncReadable) -> Source:
    if isinstance(reader, SizedReader) and isinstance(reader.remaining, int):
        return _StoreReader(reader)
    return _Chunks(_read_all(reader))


async def _read_all(reader: AsyncReadable) -> AsyncIterator[BytesLike]:
    # Only no bytes are the end: None, which a file that would block returns, must not pass for it.
    while _view_of_chunk(chunk := await reader.read(_TAKE * 4)):
        yield chunk


@runtime_checkable
class Opening(Protocol):
    """A body that is opened by entering it, and can also be awaited: what `Trove.get` returns."""

    def __await__(self) -> Generator[Any, Any, AsyncReadable]: ...

    async def __aenter__(self) -> AsyncReadable: ...

    async def __aexit__(self, *about: object) -> bool | None: ...


class _Opening:
    """A get that has not been sent: opened when asked for, so that it tells its size."""

    memory: memoryview | None = None
    size: int | None = None

    def __init__(self, body: Opening) -> None:
        self._opening: Opening | None = body
        self._source: Source | None = None

    async def ready(self) -> bool:
        return await (await self._opened()).ready()

    async def take(self, limit: int) -> BytesLike:
        return await (await self._opened()).take(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        return await (await self._opened()).fill(views)

    async def _opened(self) -> Source:
        if self._source is None:
            assert self._opening is not None  # noqa: S101 - it is asked before it is closed
            self._source = _reader_of(await self._opening.__aenter__())
            self.size = self._source.size
        return self._source

    async def aclose(self) -> None:
        opening, self._opening = self._opening, None
        # One that was never opened is closed too, so that nobody is warned of it.
        if opening is not None:
            await opening.__aexit__(None, None, None)


class _Blocking(_Chunks):
    """An iterator or a file of a user's: it may read, wait or compute, so it runs in a thread.

    It may also block for ever. So it has a thread of its own, that of others' bodies or of our own
    file calls is never the one it blocks, and a cancel does not wait for it: what it returns then
    is dropped.
    """

    def __init__(self, chunks: Iterator[BytesLike], size: int | None = None) -> None:
        super().__init__(self._pulled(), size)
        self._iterator = chunks

    async def _pulled(self) -> AsyncIterator[BytesLike]:
        own = anyio.CapacityLimiter(1)
        while True:
            chunk = await anyio.to_thread.run_sync(
                next, self._iterator, _END, abandon_on_cancel=True, limiter=own
            )
            if chunk is _END:
                return
            yield cast("BytesLike", chunk)

    async def aclose(self) -> None:
        await super().aclose()
        if inspect.isgenerator(self._iterator):
            with suppress(ValueError):  # it still runs, in the thread that was left to itself
                await anyio.to_thread.run_sync(self._iterator.close)


class _File(_Blocking):
    """A file that its user opened: pulled as an iterator is, unless it may be read past its user."""

    def __init__(self, file: BinaryIO) -> None:
        # read1 gives what a pipe has; read would wait until it has as much as was asked for.
        read = file.read1 if isinstance(file, io.BufferedReader) else file.read
        self._start, size = _extent(file)
        super().__init__(iter(lambda: read(_TAKE), b""), size)
        self._file = file
        self._descriptor: int | None = None

    async def file(self) -> BodyFile | None:
        """Return what its user opened, by a descriptor of our own. See `Replayable.file`."""
        self._descriptor = descriptor_of(self._file)
        return None if self._descriptor is None else BodyFile(self._descriptor, self._start)

    async def aclose(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        await super().aclose()


class _Path:
    """A file by its path: opened when asked for, read straight into the pool's memory."""

    memory: memoryview | None = None

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._at = 0
        self._stream: _Chunks | None = None
        self.size: int | None = None

    async def file(self) -> BodyFile | None:
        """Return the file that is there. See `Replayable.file`."""
        file = await self._open()
        return BodyFile(file.fileno()) if self._stream is None else None

    async def _open(self) -> io.FileIO:
        if self._file is None:
            self._file = file = await _opened(self._path)
            status = os.fstat(file.fileno())
            # What says that it has no bytes may have some all the same: a FIFO, or /proc's files.
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
            if not self.size:
                self.size = None
                self._stream = _Blocking(iter(lambda: file.read(_TAKE), b""))
        return self._file

    async def ready(self) -> bool:
        await self._open()
        if self._stream is not None:
            return await self._stream.ready()
        return self._at < (self.size or 0)

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
        rest = trimmed(views, self.size - self._at)[:_IOV_MAX]
        count = await in_thread(os.readv, self._file.fileno(), rest)
        if not count:
            self.size = self._at  # it was cut short meanwhile: it ends here
        self._at += count
        return count

    async def aclose(self) -> None:
        file, self._file = self._file, None
        if self._stream is not None:
            await self._stream.aclose()
        if file is not None:
            await in_thread(file.close)


async def _opened(path: os.PathLike[str]) -> io.FileIO:
    """Open a file in a thread that a cancel leaves to itself: a FIFO may never have a writer."""
    lock = threading.Lock()
    abandoned = False
    found: io.FileIO | None = None

    def open_it() -> None:
        nonlocal found
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by the source
        with lock:
            if not abandoned:
                found = file
                return
        file.close()

    try:
        await anyio.to_thread.run_sync(
            open_it, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )
        assert found is not None  # noqa: S101 - or it would have raised
    except BaseException:
        with lock:
            abandoned = True
        if found is not None:
            found.close()
        raise
    return found


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


def bytes_of(view: memoryview) -> memoryview:
    """Return a view of single bytes, whatever the layout; a copy where there is no other way."""
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if view.nbytes and view.c_contiguous:
        return view.cast("B")
    return memoryview(view.tobytes())


def _view_of_chunk(chunk: object) -> memoryview:
    if isinstance(chunk, str):
        raise TypeError("the body yielded str: encode its chunks")
    try:
        view = memoryview(chunk)  # type: ignore[arg-type]  # what else it is, is told below
    except TypeError:
        raise TypeError(f"the body yielded {type(chunk).__name__}, not bytes") from None
    return bytes_of(view)
