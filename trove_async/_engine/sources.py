"""Turns every kind of body into a `Source` that the upload pulls from.

A source never reads ahead. It buffers at most one chunk: the user's, or the result of one read of a file.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from inspect import signature
from typing import Any, BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

from trove_async._views import BytesLike, byte_view

from . import consumed
from .body_file import BodyFile
from .chunks import source_of_async_iterable, source_of_iterable
from .client_responses import check_not_response
from .file_sources import ASYNC_READ_SIZE, AsyncFileSource, AsyncReadable, FileSource, PathSource

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
    """The size of the body, if known. Valid after `ready`."""

    memory: memoryview | None
    """The whole body, if it is in memory. It is then sent from there, and not pulled."""

    async def ready(self) -> bool:
        """Wait until a byte can be taken. Return False at the end. No memory is leased.

        Raises:
            BodyConsumedError: An earlier put has read the body to its end, or failed after reading
                part of it.
        """
        ...

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, or ``b""`` at the end."""
        ...

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill `views` from the start, in part or in full. Return the number of bytes, 0 at the end."""
        ...

    async def aclose(self) -> None:
        """Close a file that the source has opened, or a generator that it iterates over. Idempotent."""
        ...

    async def rewind(self) -> None:
        """Seek a seekable body back to its original position, after a put that failed.

        If a body is not seekable, record that part of it was read. Called after `aclose`. Only a
        cancel is raised, once the seek has finished.
        """
        ...


@runtime_checkable
class Replayable(Protocol):
    """A source that may be a plain file, which can be read at any offset and repeatedly."""

    async def file(self) -> BodyFile | None:
        """Return the file, open until `aclose`, or None if the source is not a plain file.

        Call this before any byte is taken. It runs no user code.
        """
        ...


def source_of(body: BodySource) -> Source:
    """Return a source for any kind of body. Nothing is read yet.

    Raises:
        TypeError: The object is not a body. For a str or a response of an HTTP client, the message
            names what to pass instead.
        BodyConsumedError: The body has been read before.
        ClosedError: The body is a closed reader of a store.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return _MemorySource(memoryview(body))
    if type(body) is io.BytesIO:
        return _BytesIOSource(body)
    if isinstance(body, str):
        raise TypeError("a body must be bytes, got str: pass text.encode(), or a pathlib.Path")
    if isinstance(body, os.PathLike):
        return PathSource(body)
    if isinstance(body, type):
        raise _wrong_body_error(body)
    if isinstance(body, _TroveReader):
        body._check_body()  # noqa: SLF001 - a reader of this library
    check_not_response(body)
    read: Callable[..., Any] | None = getattr(body, "read", None)
    if inspect.iscoroutinefunction(read):
        return _source_of_reader(cast("AsyncReadable", body))
    if isinstance(body, AsyncIterable):
        return (
            _OpeningSource(body)
            if isinstance(body, OpeningBody)
            else source_of_async_iterable(body)
        )
    return _source_of_other(body) if read is None else _source_of_file(cast("BinaryIO", body))


def _source_of_other(body: object) -> Source:
    view: memoryview | None = None
    with suppress(TypeError):
        view = memoryview(body)  # type: ignore[arg-type]  # raises TypeError unless it has a buffer
    if view is not None:
        return _MemorySource(view)
    # Iterating over a mapping would store its keys, and a set has no defined order.
    if isinstance(body, Iterable) and not isinstance(body, (Mapping, AbstractSet)):
        return source_of_iterable(body)
    raise _wrong_body_error(body)


def _wrong_body_error(body: object) -> TypeError:
    kind, advice = type(body).__name__, ""
    if isinstance(body, type):
        kind = "a class"
    if callable(body):
        advice = ": call it, and pass the result"
    elif inspect.iscoroutine(body):
        advice = ": await it, and pass the result"
    elif isinstance(body, AbstractSet):
        advice = ": pass a list of its chunks"
    return TypeError(
        "a body must be bytes, a path, a binary file, a reader or an iterable of bytes,"
        f" got {kind}{advice}"
    )


def _source_of_file(file: BinaryIO) -> Source:
    if isinstance(file, io.TextIOBase):
        raise TypeError("a body must be bytes, got a text file: open it in binary mode ('rb')")
    if not isinstance(file, io.IOBase):
        _check_read_takes_size(file)
    return FileSource(file)


def _check_read_takes_size(reader: AsyncReadable | BinaryIO) -> None:
    """Raise TypeError if `read` takes no size: the object is not a reader."""
    try:
        signature(reader.read).bind(1)
    except ValueError:
        pass  # implemented in C, without a signature
    except TypeError as error:
        raise TypeError(
            f"a body's read must take a number of bytes, but {type(reader).__name__}.read does not:"
            " pass its stream, or an iterable of its chunks"
        ) from error


class _MemorySource:
    """A body in memory. Parts are views of it, without a copy."""

    __slots__ = ("_position", "memory", "size")

    def __init__(self, view: memoryview) -> None:
        self.memory: memoryview | None = byte_view(view).toreadonly()
        self.size: int | None = view.nbytes
        self._position = 0

    async def ready(self) -> bool:
        return self._position < (self.size or 0)

    async def take(self, limit: int) -> BytesLike:
        assert self.memory is not None  # noqa: S101 - set in __init__
        piece = self.memory[self._position : self._position + limit]
        self._position += len(piece)
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        piece = await self.take(len(views[0]))
        views[0][: len(piece)] = piece
        return len(piece)

    async def aclose(self) -> None:
        pass

    async def rewind(self) -> None:
        pass


class _BytesIOSource(_MemorySource):
    """The unread bytes of an io.BytesIO. It is positioned at its end, like any file that was read."""

    __slots__ = ("_file", "_start")

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file
        self._start = file.tell()
        remaining = memoryview(file.getvalue())[self._start :]
        consumed.check(file, self._start, empty=not remaining)
        super().__init__(remaining)
        end = file.seek(0, os.SEEK_END)
        if remaining:
            consumed.record(file, end, to_end=True)

    async def rewind(self) -> None:
        if not self._file.closed:
            self._file.seek(self._start)


class _StoreReaderSource:
    """A reader of a store. Its remaining size is known, so nothing is read before memory is leased."""

    memory: memoryview | None = None

    def __init__(self, reader: SizedReader) -> None:
        self._reader = reader
        self._bytes_read = 0
        self.size: int | None = reader.remaining
        consumed.check(reader, empty=not self.size)

    async def ready(self) -> bool:
        return self._reader.remaining > 0

    async def take(self, limit: int) -> BytesLike:
        data = await self._reader.read(min(limit, ASYNC_READ_SIZE))
        self._bytes_read += len(data)
        if not self._reader.remaining:
            consumed.record(self._reader, to_end=True)
        return data

    async def fill(self, views: Sequence[memoryview]) -> int:
        data = await self.take(len(views[0]))
        views[0][: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        pass  # the user closes the reader

    async def rewind(self) -> None:
        if not self._bytes_read:
            return
        if isinstance(self._reader, _TroveReader):
            self._reader._mark_partly_read()  # noqa: SLF001 - a reader of this library
        else:
            consumed.record(self._reader, to_end=False)


@runtime_checkable
class SizedReader(Protocol):
    """A reader with a known remaining size, such as a store's reader."""

    @property
    def remaining(self) -> int:
        """The number of bytes not read yet."""
        ...

    async def read(self, n: int, /) -> bytes:
        """Return 1 to `n` bytes, or ``b""`` at the end."""
        ...


@runtime_checkable
class _TroveReader(Protocol):
    """The reader of `Trove.get`, which can check whether it can still be a body."""

    def _check_body(self) -> None:
        """Raise ClosedError or BodyConsumedError if the reader cannot be a body."""
        ...

    def _mark_partly_read(self) -> None:
        """Record that a failed put has read part of the body."""
        ...


def _source_of_reader(reader: AsyncReadable) -> Source:
    if isinstance(reader, SizedReader) and isinstance(reader.remaining, int):
        return _StoreReaderSource(reader)
    _check_read_takes_size(reader)
    return AsyncFileSource(reader)


@runtime_checkable
class OpeningBody(Protocol):
    """A body that is opened by entering or awaiting it, as `Trove.get` returns."""

    def __await__(self) -> Generator[Any, Any, AsyncReadable]: ...

    async def __aenter__(self) -> AsyncReadable: ...

    async def __aexit__(self, *exc_info: object) -> bool | None: ...


class _OpeningSource:
    """A get that was not sent yet. The first call opens it and sets `size`."""

    memory: memoryview | None = None
    size: int | None = None

    def __init__(self, body: OpeningBody) -> None:
        self._opening: OpeningBody | None = body
        self._source: Source | None = None

    async def ready(self) -> bool:
        return await (await self._opened()).ready()

    async def take(self, limit: int) -> BytesLike:
        return await (await self._opened()).take(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        return await (await self._opened()).fill(views)

    async def _opened(self) -> Source:
        if self._source is None:
            assert self._opening is not None  # noqa: S101 - not called after aclose
            self._source = _source_of_reader(await self._opening.__aenter__())
            self.size = self._source.size
        return self._source

    async def aclose(self) -> None:
        opening, self._opening = self._opening, None
        # Also close a get that was never opened, to prevent its warning.
        if opening is not None:
            await opening.__aexit__(None, None, None)

    async def rewind(self) -> None:
        pass  # a closed get cannot be opened again
