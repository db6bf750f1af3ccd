"""Objects as files: seekable reading of one version, and writing that commits when the file is closed.

`Trove.open_file` returns an `OpeningFile`, which opens a `FileReader` or a `FileWriter`.

A `FileReader` reads from one open `ObjectReader`. Its range is exact after a seek, so that a random read
transfers no other bytes. If the reads continue where the last one ended, the range grows with the number of
bytes read in a row, up to the end of the object.

A `FileWriter` feeds the body of one `Trove.put`, which runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypedDict, TypeVar

from ._concurrency import OwnedTask
from ._engine.backends import BackendInfo
from ._engine.pinning import pinned_options
from ._engine.upload import Progress
from ._version_identity import is_same
from ._views import BytesLike, byte_view
from .errors import (
    ClosedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
)
from .models import KiB, MiB, ObjectInfo
from .reader import ObjectReader, OpeningReader

_FIRST_BLOCK: Final = 64 * KiB
"""Bytes that opening a file reads. The response has the size and the version, and serves reads of a header."""

_MAX_SKIP: Final = 128 * KiB
"""Maximum number of bytes that a seek forwards reads and drops: at 10 MB/s this costs less than a request."""

_MIN_READ_AHEAD: Final = 256 * KiB
"""Size of the first range that is larger than the read. At 10 MB/s it takes as long as one request."""

_UNBOUNDED_READ_AHEAD: Final = 8 * MiB
"""A range of this size or more extends to the end of the object."""

_GROWTH: Final = 4
"""A range has up to this many times the bytes read in a row: at most 4 of 5 transferred bytes are unused."""

_MAX_PENDING: Final = 1 * MiB
"""Bytes that a `FileWriter` holds for the put. The put takes all of them at once."""


class WriteArguments(TypedDict, total=False):
    """The keyword arguments of `Trove.put` that a file opened for writing accepts."""

    content_type: str | None
    metadata: Mapping[str, str] | None
    tags: Mapping[str, str] | None
    storage_class: str | None
    cache_control: str | None
    content_disposition: str | None
    content_encoding: str | None
    content_language: str | None
    expires: datetime | None
    progress: Progress | None


class FileStore(Protocol):
    """The methods of `Trove` that files use. `Trove` opens files, so this module cannot import it."""

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """As `Trove.backends`."""
        ...

    def backend(self, name: str, /) -> FileStore:
        """As `Trove.backend`."""
        ...

    def get(
        self,
        bucket: str,
        key: str,
        *,
        range: tuple[int, int | None],
        version_id: str | None,
        if_match: str | ObjectInfo | None,
    ) -> OpeningReader:
        """As `Trove.get`."""
        ...


class FileReader:
    """One version of an object, open for reading at any position. Use it in one task at a time.

    All bytes are of the version that was opened. If that version no longer exists when more of it must be
    requested, reading raises ObjectChangedError.

    Args:
        store: The store, pinned to the backend of the object.
        info: The version.
        version_id: The version id that the user has passed, if any.
        first: The first bytes of the object, if they were read already.

    Attributes:
        info: The metadata of the version.
    """

    __slots__ = (
        "_closed",
        "_first",
        "_position",
        "_run_start",
        "_store",
        "_stream",
        "_version_id",
        "info",
    )

    def __init__(
        self, store: FileStore, info: ObjectInfo, version_id: str | None, first: bytes
    ) -> None:
        self.info = info
        self._store = store
        self._version_id = version_id
        self._first = first
        self._stream: ObjectReader | None = None
        self._position = 0
        self._run_start = 0  # where the reads that continue one another began
        self._closed = False

    def __repr__(self) -> str:
        if not hasattr(self, "_closed"):
            return "<FileReader, not initialised>"  # its constructor raised
        state = "closed" if self._closed else f"at {self._position} of {self.size} bytes"
        return f"<FileReader {self.info.bucket}/{self.info.key}: {state}>"

    @property
    def size(self) -> int:
        """The size of the object in bytes."""
        return self.info.size

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    async def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the next read, and return it. No request is sent.

        A position after the end is allowed: reads return ``b""`` there.

        Args:
            offset: The number of bytes from the place that `whence` names.
            whence: ``os.SEEK_SET``: the start; ``os.SEEK_CUR``: the position; ``os.SEEK_END``: the end.

        Raises:
            ValueError: The position would be negative, or `whence` is unknown.
        """
        self._check_open()
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in origins:
            raise ValueError(f"whence must be 0 (start), 1 (position) or 2 (end), got {whence!r}")
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"a position must not be negative, got {position}")
        if position != self._position:
            self._position = self._run_start = position
        return position

    async def read(self, n: int | None = -1) -> bytes:
        """Return `n` bytes, or fewer at the end of the object.

        After an error or a cancel, the position is unchanged.

        Args:
            n: The number of bytes. None or a negative number: all remaining bytes.

        Raises:
            ClosedError: The file or the store is closed.
            ObjectChangedError: The object was replaced or deleted.
            TroveError: As `ObjectReader.read`.
        """
        self._check_open()
        start, size = self._position, self.size
        end = size if n is None or n < 0 else min(start + n, size)
        position, pieces = start, []
        try:
            while position < end:
                piece = await self._read_at(position, end)
                pieces.append(piece)
                position += len(piece)
        except BaseException:
            await self._close_stream()  # it is behind by the bytes of `pieces`
            raise
        self._position = position
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer`, or only its start at the end of the object. Return the number of bytes.

        Raises:
            TypeError: The buffer is read-only.
            TroveError: As `read`.
        """
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError(
                "the buffer must be writable, such as a bytearray, got a read-only buffer"
            )
        data = await self.read(len(view))
        view[: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        """Release the connection, if one is open. Idempotent."""
        self._closed = True
        self._first = b""
        await self._close_stream()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _read_at(self, position: int, end: int) -> bytes:
        """Return 1 or more bytes of those from `position` to `end`."""
        if position < len(self._first):
            return self._first[position:end]
        with _changes_translated(self.info):
            stream = await self._stream_at(position, end)
            piece = await stream.read(end - position)
        if not stream.remaining:
            await self._close_stream()
        return piece

    async def _stream_at(self, position: int, end: int) -> ObjectReader:
        """Return the open stream, positioned at `position`, or open one there."""
        stream = self._stream
        if stream is not None:
            gap = position - (stream.range[1] - stream.remaining)
            if 0 <= gap <= _MAX_SKIP and gap < stream.remaining:
                while gap:
                    gap -= len(await stream.read(gap))
                return stream
            await self._close_stream()
        options = pinned_options(
            self._store.backends[self.info.backend], self.info, version_id=self._version_id
        )
        stream = await self._store.get(
            self.info.bucket,
            self.info.key,
            range=(position, self._range_end(position, end)),
            if_match=options.if_match,
            version_id=options.version_id,
        )
        self._stream = stream
        if not is_same(self.info, stream.info):
            raise ObjectChangedError(
                "the service gives no proof that the object is still the version that was opened"
            )
        return stream

    def _range_end(self, position: int, end: int) -> int:
        """Return the end of the range to request for a read up to `end`."""
        in_a_row = position - self._run_start
        if not in_a_row:
            return end
        ahead = max(_MIN_READ_AHEAD, _GROWTH * in_a_row)
        if ahead >= _UNBOUNDED_READ_AHEAD:
            return self.size
        return min(max(position + ahead, end), self.size)

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this file is closed: open it again with store.open_file")


@contextmanager
def _changes_translated(info: ObjectInfo) -> Iterator[None]:
    """Raise ObjectChangedError if a request reveals that the version no longer exists."""
    try:
        yield
    except (PreconditionFailedError, ObjectNotFoundError) as error:
        message = "the object was replaced or deleted while its file was open: open it again"
        raise ObjectChangedError(
            error.message if isinstance(error, ObjectChangedError) else message,
            operation="open_file",
            backend=info.backend,
            bucket=info.bucket,
            key=info.key,
        ) from error


async def open_reader(
    store: FileStore,
    bucket: str,
    key: str,
    *,
    version_id: str | None,
    if_match: str | ObjectInfo | None,
) -> FileReader:
    """Open an object for reading. One request reads the first bytes, unless the version is known."""
    if isinstance(if_match, ObjectInfo) and _describes(if_match, store, bucket, key):
        return FileReader(store.backend(if_match.backend), if_match, version_id, b"")
    first = b""
    try:
        async with store.get(
            bucket, key, range=(0, _FIRST_BLOCK), version_id=version_id, if_match=if_match
        ) as reader:
            info = reader.info
            first = await reader.read()
    except RangeError as error:  # the object is empty
        if not isinstance(error.info, ObjectInfo):
            raise
        info = error.info
    return FileReader(store.backend(info.backend), info, version_id, first)


def _describes(info: ObjectInfo, store: FileStore, bucket: str, key: str) -> bool:
    """Return whether the metadata is all that is needed to read the object."""
    is_known = (info.bucket, info.key) == (bucket, key) and info.backend in store.backends
    return is_known and info.complete


class FileWriter:
    """A new object, written from its start. Use it in one task at a time.

    `aclose` stores the object. If ``async with`` is left by an exception or a cancel, nothing is stored, and an
    existing object stays as it was. At most 1 MiB, or one larger chunk, waits for the put.

    Args:
        body: The body of the put.
        put: The put, which is running.
        check_usable: Raises ClosedError if the store is not open.

    Attributes:
        info: The object as stored, once `aclose` has returned. None before.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_check_usable",
        "_closed",
        "_loop",
        "_put",
        "_size",
        "info",
    )

    def __init__(
        self, body: _PutBody, put: OwnedTask[ObjectInfo], check_usable: Callable[[], None]
    ) -> None:
        self._body = body
        self._put = put
        self._check_usable = check_usable
        self._loop = asyncio.get_running_loop()
        self._size = 0
        self._closed = False
        self.info: ObjectInfo | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "_closed"):
            return "<FileWriter, not initialised>"  # its constructor raised
        state = "closed" if self._closed else "open"
        return f"<FileWriter, {state}, {self._size} bytes written>"

    @property
    def closed(self) -> bool:
        """Whether `aclose` or `abort` was called."""
        return self._closed

    async def tell(self) -> int:
        """Return the number of bytes written."""
        return self._size

    async def write(self, data: BytesLike) -> int:
        """Write all of `data`, and return its size in bytes. Wait while the put is slower.

        A cancelled write has written nothing. The buffer may be reused once this has returned.

        Raises:
            ClosedError: The file or the store is closed.
            TypeError: `data` is not bytes-like.
            TroveError: The put failed, as `Trove.put`. Nothing was stored.
        """
        self._check_open()
        self._check_usable()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, got {type(data).__name__}")
        chunk = data if isinstance(data, bytes) else bytes(byte_view(memoryview(data)))
        await self._body.wait_for_room()
        self._check_open()  # another task may have closed the file
        if self._put.done:
            await self._put.result()  # raises, because the body has not ended
        self._body.append(chunk)
        self._size += len(chunk)
        return len(chunk)

    async def aclose(self) -> None:
        """Store the object. Idempotent.

        A cancel aborts the put. If it arrives while the put completes, it may leave the new object.

        Raises:
            ClosedError: The store is closed. Nothing was stored.
            TroveError: The put failed, as `Trove.put`. Nothing was stored.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._check_usable()
            self._body.end()
            self.info = await self._put.result()
        except BaseException:
            await self._put.aclose()  # cancels it, unless it has ended
            raise

    async def abort(self) -> None:
        """Close the file and store nothing. After `aclose`, this does nothing."""
        self._closed = True
        await self._put.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            await self.abort()

    def __del__(self) -> None:
        if getattr(self, "_closed", True):
            return
        warnings.warn(
            f"{self!r} was never closed, so nothing is stored: use async with",
            ResourceWarning,
            stacklevel=2,
        )
        # The garbage collector may run in any thread.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put.cancel)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this file is closed: open it again with store.open_file")


class _PutBody:
    """The body of a put, appended by a `FileWriter` and iterated over by the put.

    Attributes:
        requested: Set once the put has checked its arguments and asks for bytes, or has failed.
    """

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._ended = False
        self._may_append = asyncio.Event()
        self._may_append.set()
        self._may_take = asyncio.Event()
        self.requested = asyncio.Event()

    def append(self, chunk: bytes) -> None:
        """Add bytes. Call `wait_for_room` before."""
        if not chunk:
            return
        self._pending.append(chunk)
        self._pending_size += len(chunk)
        self._may_take.set()
        if self._pending_size >= _MAX_PENDING:
            self._may_append.clear()

    async def wait_for_room(self) -> None:
        """Wait until bytes may be added, or the put has ended."""
        await self._may_append.wait()

    def end(self) -> None:
        """Mark the end of the body."""
        self._ended = True
        self._may_take.set()

    def put_ended(self) -> None:
        """Wake whoever waits for the put."""
        self._may_append.set()
        self.requested.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.requested.set()
        await self._may_take.wait()
        if not self._pending:
            raise StopAsyncIteration
        # Small writes are joined, so that the put handles them together.
        chunk = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        self._may_append.set()
        if not self._ended:
            self._may_take.clear()
        return chunk


async def open_writer(
    put: Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, ObjectInfo]],
    check_usable: Callable[[], None],
) -> FileWriter:
    """Start a put, and return the file that feeds it, once the put asks for its body.

    Raises:
        TroveError: The put has failed before that, for example because of its arguments.
    """
    body = _PutBody()
    task = OwnedTask(put(body))
    task.when_done(body.put_ended)
    try:
        await body.requested.wait()
        if task.done:
            await task.result()
    except BaseException:
        await task.aclose()
        raise
    return FileWriter(body, task, check_usable)


F = TypeVar("F", bound=FileReader | FileWriter)


class OpeningFile(Generic[F]):
    """A file that has not been opened yet.

    ``async with store.open_file(…) as file`` opens and closes it. ``file = await store.open_file(…)`` opens it,
    and you close it.
    """

    __slots__ = ("_address", "_file", "_open", "_used")

    def __init__(self, open: Callable[[], Coroutine[Any, Any, F]], address: str) -> None:
        self._open = open
        self._address = address
        self._used = False

    def __await__(self) -> Generator[Any, Any, F]:
        self._used = True
        return self._open().__await__()

    async def __aenter__(self) -> F:
        self._file = await self
        return self._file

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._file.__aexit__(kind, error, traceback)

    def __del__(self) -> None:
        if not getattr(self, "_used", True):
            warnings.warn(
                f"store.open_file({self._address}) was never opened: use async with, or await it",
                ResourceWarning,
                stacklevel=2,
            )
