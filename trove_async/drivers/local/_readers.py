"""Bodies of gets. Small bodies are read when they are opened, larger ones on demand."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
from collections import deque
from concurrent.futures import Future
from io import FileIO
from typing import TYPE_CHECKING, Final

from aiofiles.threadpool import wrap

from trove_async._checksums import running_crc32c
from trove_async.driver import FileSpan
from trove_async.errors import ClosedError, PreconditionFailedError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions
from trove_async.pool import SLOT, BufferPool, Lease

from ._errors import translate_error, translated
from ._metadata import describe, etag
from ._objects import find, find_nowait
from ._threads import CancelFlag, FileExecutor

if TYPE_CHECKING:
    from ._layout import Location
    from ._objects import ObjectFile
    from ._root import Root
    from ._threads import Threads

SMALL_BODY: Final = 256 * 1024
"""Size of the largest body that is read when it is opened. Copying it costs less than a second thread
hop."""

_PREFETCHED: Final = 2 * SLOT
"""Bytes that one hop to a thread prefetches. With more, the allocator returns the memory of each piece to the system,
which costs more than the hops (256 MiB: 70 ms with two slots, 167 with four)."""

_PREFETCH_SHARE: Final = 8
"""Prefetches of more than one slot use at most ``1 / _PREFETCH_SHARE`` of the pool."""

_HASHED: Final = 256 * 1024
"""Bytes that are read at a time to be hashed. They fit in the second-level cache of a processor."""

_WOULD_BLOCK = frozenset((errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.EINTR))
"""Errors of preadv(2) with `Root.read_flags` that mean that the file must be read in a thread."""


class BufferedBody:
    """A small body in memory, without an open file."""

    __slots__ = ("_data", "_position", "info", "range")

    def __init__(self, info: ObjectInfo, span: tuple[int, int], data: bytes) -> None:
        self.info = info
        self.range = span
        self._data = data
        self._position = 0

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        start = self._position
        chunk = self._data[start : start + size]
        self._position = start + len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Release the memory."""
        self._data = b""


class FileBody:
    """A body that the driver's threads read from its file on demand.

    While the caller reads at least `SLOT` bytes at a time, the next `_PREFETCHED` bytes are prefetched if the
    pool has memory for them, or else the next `SLOT` bytes.

    Args:
        object_file: The open file, positioned at the start of the range. The body closes it.
        info: The object's info.
        span: The range to read, as start and end.
        threads: The driver's threads.
        pool: The store's pool.
    """

    __slots__ = (
        "_executor",
        "_file",
        "_handle",
        "_has_moved",
        "_is_streaming",
        "_lease",
        "_object_file",
        "_piece_offset",
        "_pieces",
        "_pool",
        "_prefetch",
        "_prefetch_in_use",
        "_remaining",
        "_threads",
        "info",
        "range",
    )

    def __init__(
        self,
        object_file: ObjectFile,
        info: ObjectInfo,
        span: tuple[int, int],
        threads: Threads,
        pool: BufferPool,
    ) -> None:
        self.info = info
        self.range = span
        self._object_file = object_file
        self._remaining = span[1] - span[0]
        self._threads = threads
        self._pool = pool
        self._executor = FileExecutor(threads)
        self._file = FileIO(object_file.fd, "rb")
        self._handle = wrap(self._file, loop=asyncio.get_running_loop(), executor=self._executor)
        self._prefetch: Future[list[bytes]] | None = None
        self._pieces: deque[bytes] = deque()  # prefetched, and not returned
        self._piece_offset = 0  # the bytes of the first piece that were returned
        self._prefetch_in_use = False
        self._lease: Lease | None = None
        self._is_streaming = False
        self._has_moved = False  # whether the file's position may not be that of the body

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        if not self._remaining:
            return b""
        try:
            chunk = await self._next_chunk(min(size, self._remaining))
        except asyncio.CancelledError:
            await self._executor.wait_idle()
            raise
        except OSError as error:
            raise translate_error(error, self.info.bucket, self.info.key) from error
        self._remaining -= len(chunk)
        # If the file was changed, raise at the end: earlier chunks may be of a different version.
        if not chunk or (not self._remaining and not is_unchanged(self._object_file)):
            raise _changed_in_place()
        # One large read does not make a stream: it may be the only one.
        was_streaming, self._is_streaming = self._is_streaming, size >= SLOT
        if was_streaming and self._is_streaming and self._remaining and not self._pieces:
            self._start_prefetch()
        return chunk

    async def file_span(self, size: int, crc32c: int | None) -> FileSpan | None:
        """Return the next bytes as a range of the file, hashed in a thread. See `SpansFile`."""
        if self._prefetch is not None or self._pieces:
            return None
        start, size = self.range[1] - self._remaining, min(size, self._remaining)
        cancel = CancelFlag()
        # The duplicate shares its position with the body's file. sendfile may move both.
        self._has_moved = True
        file = FileIO(os.dup(self._file.fileno()), "rb")
        try:
            with translated(self.info.bucket, self.info.key):
                crc32c = await self._threads.run(
                    lambda: _hash_range(
                        file.fileno(), self._object_file.status, (start, size), crc32c, cancel
                    ),
                    cancel=cancel,
                )
        except BaseException:
            file.close()
            raise
        self._remaining -= size
        return FileSpan(file=file, offset=start, size=size, crc32c=crc32c)

    async def aclose(self) -> None:
        """Close the file in a thread: if it was deleted, closing it frees its disk space, which is slow."""
        self._prefetch_in_use = True  # the pool can no longer revoke the lease
        try:
            await self._executor.wait_idle()
        finally:
            self._drop_prefetch()
            try:
                await self._threads.finish(self._file.close)
            except ClosedError:  # the driver was closed before its reader
                self._file.close()

    async def _next_chunk(self, size: int) -> bytes:
        prefetch = self._prefetch
        if prefetch is None and not self._pieces:
            if self._has_moved:
                self._file.seek(self.range[1] - self._remaining)
                self._has_moved = False
            chunk: bytes = await self._handle.read(size)
            return chunk
        if prefetch is not None:
            self._prefetch_in_use = True
            try:
                pieces = (
                    prefetch.result() if prefetch.done() else await asyncio.wrap_future(prefetch)
                )
            except BaseException:
                self._drop_prefetch()
                raise
            finally:
                self._prefetch = None
                self._prefetch_in_use = False
            self._pieces.extend(pieces)
        return self._next_prefetched(size)

    def _next_prefetched(self, size: int) -> bytes:
        """Return up to `size` bytes of the first piece. Release the memory after the last one."""
        if not self._pieces:  # the file has become shorter
            self._drop_prefetch()
            return b""
        piece, start = self._pieces[0], self._piece_offset
        chunk = piece[start : start + size]
        self._piece_offset = start + len(chunk)
        if self._piece_offset == len(piece):
            self._pieces.popleft()
            self._piece_offset = 0
            if not self._pieces:
                self._drop_prefetch()
        return chunk

    def _start_prefetch(self) -> None:
        # A hop to the thread takes as long as reading 1 MiB, so several slots are read by one. While others use
        # the memory, one slot is better than none.
        size, pool = min(self._remaining, _PREFETCHED), self._pool
        if size <= pool.max_bytes:
            self._lease = pool.try_lease(size, revoke=self._revoke_prefetch, share=_PREFETCH_SHARE)
        if self._lease is None:
            size = min(size, SLOT)
            self._lease = pool.try_lease(size, revoke=self._revoke_prefetch)
        if self._lease is not None:
            # The lease only accounts for the memory. `read` returns new bytes, which saves a copy.
            self._prefetch = self._executor.submit(self._read_pieces, size)

    def _read_pieces(self, size: int) -> list[bytes]:
        """Read the next `size` bytes in pieces, fewer at the end of the file. This blocks."""
        pieces = []
        while size and (piece := self._file.read(min(size, SLOT))):
            pieces.append(piece)
            size -= len(piece)
        return pieces

    def _revoke_prefetch(self) -> bool:
        """Drop the prefetched data if it is complete and not in use. Return whether it was dropped.

        The next read then reads the file again, from the position of the body.
        """
        if self._prefetch_in_use or (self._prefetch is not None and not self._prefetch.done()):
            return False
        self._has_moved = True
        self._drop_prefetch()
        return True

    def _drop_prefetch(self) -> None:
        self._prefetch = None
        self._pieces.clear()
        self._piece_offset = 0
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def open_body(
    root: Root, location: Location, options: GetOptions
) -> BufferedBody | tuple[ObjectFile, tuple[int, int], ObjectInfo]:
    """Open the object for a get, and read it if it is small. This blocks.

    Returns:
        The body, or arguments for a `FileBody`, which must be created on the event loop.
    """
    object_file = find(root, location)
    try:
        info, span = resolve_get(root, location, object_file, options)
        if span[1] - span[0] <= SMALL_BODY:
            body = _buffered_body(
                object_file, info, span, os.pread(object_file.fd, span[1] - span[0], span[0])
            )
            object_file.close()
            return body
        os.lseek(object_file.fd, span[0], os.SEEK_SET)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(object_file.fd, span[0], 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        object_file.close()
        raise
    return object_file, span, info


def open_body_nowait(root: Root, location: Location, options: GetOptions) -> BufferedBody | None:
    """Open and read a small object on the event loop. Return None if this requires a thread.

    A thread is required unless the path and the body are in the kernel's cache. This takes 20 µs. A
    thread hop takes 100 to 300 µs.
    """
    if root.read_flags is None or (object_file := find_nowait(root, location)) is None:
        return None
    try:
        info, span = resolve_get(root, location, object_file, options)
        size = span[1] - span[0]
        if size > SMALL_BODY:
            return None
        buffer = bytearray(size)
        if size and os.preadv(object_file.fd, [buffer], span[0], root.read_flags) != size:
            return None
        return _buffered_body(object_file, info, span, bytes(buffer))
    except OSError as error:
        if error.errno in _WOULD_BLOCK:
            return None
        raise
    finally:
        object_file.close()


def read_now(
    root: Root, location: Location, start: int, end: int, if_match: str | None
) -> bytes | None:
    """Return a range of at most `SLOT` bytes if it is in the kernel's cache, else None."""
    size = end - start
    if root.read_flags is None or not 0 < size <= SLOT:
        return None
    object_file = find_nowait(root, location)
    if object_file is None:
        return None
    try:
        if if_match is not None and etag(object_file.status) != if_match:
            return None
        # Reading into memory that is mapped already, and copying from there, takes half the time of reading
        # into a new bytearray. Nothing else runs between the two.
        buffer = root.scratch[:size]
        if os.preadv(object_file.fd, [buffer], start, root.read_flags) != size:
            return None
        return bytes(buffer) if is_unchanged(object_file) else None
    except OSError:
        return None
    finally:
        object_file.close()


def resolve_get(
    root: Root, location: Location, object_file: ObjectFile, options: GetOptions
) -> tuple[ObjectInfo, tuple[int, int]]:
    """Check the conditions of a get, and return the object's info and the range to read.

    Raises:
        PreconditionFailedError: A condition does not hold.
        RangeError: The range selects no bytes.
    """
    status = object_file.status
    if options.if_match is not None and options.if_match not in {"*", etag(status)}:
        raise PreconditionFailedError("if_match: the current version has a different etag")
    if options.if_none_match is not None and options.if_none_match in {"*", etag(status)}:
        raise PreconditionFailedError("if_none_match: the current version has this etag")
    span = (0, status.st_size) if options.range is None else options.range.resolve(status.st_size)
    return describe(location, status, object_file.metadata, root.backend), span


def is_unchanged(object_file: ObjectFile) -> bool:
    """Return whether the file is unchanged since it was opened."""
    return _has_status(object_file.fd, object_file.status)


def _has_status(fd: int, opened: os.stat_result) -> bool:
    current = os.fstat(fd)
    return (current.st_mtime_ns, current.st_size) == (opened.st_mtime_ns, opened.st_size)


def _hash_range(
    fd: int, opened: os.stat_result, span: tuple[int, int], crc32c: int | None, cancel: CancelFlag
) -> int | None:
    """Read a range of a file, and return its CRC-32C. This blocks.

    Args:
        fd: The file.
        opened: The status of the file when it was opened.
        span: The offset and the size of the range.
        crc32c: The CRC-32C of the bytes before the range. None: only read it, into the page cache.
        cancel: Set if the caller is cancelled.

    Raises:
        UnavailableError: The file was changed in place.
    """
    offset, remaining = span
    # Page-aligned memory, which stays in the processor's cache. A mapping of the file would cost half, but a
    # process dies if another one truncates a file that it has mapped.
    buffer = memoryview(mmap.mmap(-1, _HASHED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    while remaining:
        cancel.check()
        count = os.preadv(fd, [buffer[:remaining]], offset)
        if not count:
            raise _changed_in_place()
        if crc32c is not None:
            crc32c = running_crc32c([buffer[:count]], crc32c)
        offset += count
        remaining -= count
    if not _has_status(fd, opened):
        raise _changed_in_place()
    return crc32c


def _buffered_body(
    object_file: ObjectFile, info: ObjectInfo, span: tuple[int, int], data: bytes
) -> BufferedBody:
    if len(data) != span[1] - span[0] or not is_unchanged(object_file):
        raise _changed_in_place()
    return BufferedBody(info, span, data)


def _changed_in_place() -> UnavailableError:
    return UnavailableError("the file must not change while it is read, but it was changed: retry")
