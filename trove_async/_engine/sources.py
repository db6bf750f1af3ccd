"""What a user may give as a body, made one thing: a `Source` that the upload engine pulls from.

A source never reads ahead of what it was asked for, so what it holds back is at most one chunk that
its user made.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Sequence
from contextlib import suppress
from inspect import signature
from typing import Any, BinaryIO, Protocol, TypeAlias, cast, runtime_checkable

from trove_async._views import BytesLike, byte_view

from . import consumed
from .body_file import BodyFile
from .chunks import source_of_async_iterable, source_of_iterable
from .client_responses import refuse_response
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
    """All its bytes, where known; asked for only after `ready`."""

    memory: memoryview | None
    """The whole body, where it is in memory already: then nothing is pulled."""

    async def ready(self) -> bool:
        """Wait until there is a byte to take; False at the end. Leases no memory.

        Raises:
            BodyConsumedError: There is none, and an earlier put has read the body to its end.
        """
        ...

    async def take(self, limit: int) -> BytesLike:
        """Return the next 1 to `limit` bytes, ``b""`` at the end."""
        ...

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill some of `views` from the start; return how many bytes, 0 at the end."""
        ...

    async def aclose(self) -> None:
        """Close what the source itself opened, or began to iterate. Idempotent."""
        ...

    async def rewind(self) -> None:
        """After a put that failed: leave a body that can be sought in where it was found.

        Of any other that was read from, remember that it is no longer whole. Called after `aclose`;
        never raises anything but a cancel, and that once all is done.
        """
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
        TypeError: It is not a body; for a str, or a response of an HTTP client, the message names
            what to pass instead.
        BodyConsumedError: It was read before.
        ClosedError: It is a reader of a store, and closed.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return _MemorySource(memoryview(body))
    if type(body) is io.BytesIO:
        return _BytesIOSource(body)
    if isinstance(body, str):
        raise TypeError("a body is bytes, not str: put(..., text.encode()), or a pathlib.Path")
    if isinstance(body, os.PathLike):
        return PathSource(body)
    if isinstance(body, _TroveReader):
        body._check_body()  # noqa: SLF001 - a reader of ours
    refuse_response(body)
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
    with suppress(TypeError):
        return _MemorySource(memoryview(body))  # type: ignore[arg-type]  # whether it is one, we ask
    if isinstance(body, Iterable):
        return source_of_iterable(body)
    raise TypeError(
        "a body is bytes, a path, a binary file, a reader or an iterable of bytes,"
        f" not {type(body).__name__}"
    )


def _source_of_file(file: BinaryIO) -> Source:
    if isinstance(file, io.TextIOBase):
        raise TypeError("a body is bytes: open the file in binary mode ('rb')")
    if not isinstance(file, io.IOBase):
        _check_takes_size(file)
    return FileSource(file)


def _check_takes_size(reader: AsyncReadable | BinaryIO) -> None:
    """Raise TypeError if `read` takes no number of bytes: it is then no reader's."""
    try:
        signature(reader.read).bind(1)
    except ValueError:
        pass  # built in, or in C: there is none to look at
    except TypeError as error:
        raise TypeError(
            f"a body's read takes a number of bytes, and that of {type(reader).__name__} does not:"
            " pass its stream, or an iterable of its chunks"
        ) from error


class _MemorySource:
    """Bytes that are all there: parts of them are views, and nothing is copied."""

    __slots__ = ("_at", "memory", "size")

    def __init__(self, view: memoryview) -> None:
        self.memory: memoryview | None = byte_view(view).toreadonly()
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

    async def rewind(self) -> None:
        pass


class _BytesIOSource(_MemorySource):
    """The rest of a file in memory, which it shares. It is left at its end, as any file is."""

    __slots__ = ("_file", "_home")

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file
        self._home = file.tell()
        rest = memoryview(file.getvalue())[self._home :]
        consumed.check(file, self._home, empty=not rest)
        super().__init__(rest)
        end = file.seek(0, os.SEEK_END)
        if rest:
            consumed.record(file, end, whole=True)

    async def rewind(self) -> None:
        if not self._file.closed:
            self._file.seek(self._home)


class _StoreReaderSource:
    """A reader of a store: it knows how much is left, so nothing is read before there is room."""

    memory: memoryview | None = None

    def __init__(self, reader: SizedReader) -> None:
        self._reader = reader
        self._taken = 0
        self.size: int | None = reader.remaining
        consumed.check(reader, empty=not self.size)

    async def ready(self) -> bool:
        return self._reader.remaining > 0

    async def take(self, limit: int) -> BytesLike:
        data = await self._reader.read(min(limit, ASYNC_READ_SIZE))
        self._taken += len(data)
        if not self._reader.remaining:
            consumed.record(self._reader, whole=True)
        return data

    async def fill(self, views: Sequence[memoryview]) -> int:
        data = await self.take(len(views[0]))
        views[0][: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        pass  # the reader is its user's to close

    async def rewind(self) -> None:
        if not self._taken:
            return
        if isinstance(self._reader, _TroveReader):
            self._reader._tear()  # noqa: SLF001 - a reader of ours
        else:
            consumed.record(self._reader, whole=False)


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


@runtime_checkable
class _TroveReader(Protocol):
    """What `Trove.get` gives, which knows itself whether it can still be a body."""

    def _check_body(self) -> None:
        """Raise ClosedError or BodyConsumedError if it cannot."""
        ...

    def _tear(self) -> None:
        """Note that some of it was read for what did not come to be."""
        ...


def _source_of_reader(reader: AsyncReadable) -> Source:
    if isinstance(reader, SizedReader) and isinstance(reader.remaining, int):
        return _StoreReaderSource(reader)
    _check_takes_size(reader)
    return AsyncFileSource(reader)


@runtime_checkable
class OpeningBody(Protocol):
    """A body that is opened by entering it, and can also be awaited: what `Trove.get` returns."""

    def __await__(self) -> Generator[Any, Any, AsyncReadable]: ...

    async def __aenter__(self) -> AsyncReadable: ...

    async def __aexit__(self, *about: object) -> bool | None: ...


class _OpeningSource:
    """A get that has not been sent: opened when asked for, so that its size is known."""

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
            assert self._opening is not None  # noqa: S101 - it is asked before it is closed
            self._source = _source_of_reader(await self._opening.__aenter__())
            self.size = self._source.size
        return self._source

    async def aclose(self) -> None:
        opening, self._opening = self._opening, None
        # One that was never opened is closed too, so that nobody is warned of it.
        if opening is not None:
            await opening.__aexit__(None, None, None)

    async def rewind(self) -> None:
        pass  # it is closed, and opens only once
