"""Bodies of gets: one that was read as it was opened, and one that is read as it is asked for."""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import Future
from io import FileIO
from typing import TYPE_CHECKING, Final

from aiofiles.threadpool import wrap

from trove_async.errors import ClosedError, PreconditionFailedError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions
from trove_async.pool import SLOT, BufferPool, Lease

from ._errors import failure
from ._metadata import describe, etag
from ._objects import find, find_nowait
from ._threads import Lane

if TYPE_CHECKING:
    from ._layout import Spot
    from ._objects import Found
    from ._root import Root
    from ._threads import Threads

WHOLE: Final = 256 * 1024
"""Bytes up to which a body is read as it is opened: then copying it costs less than another hop."""


class HeldBody:
    """A small body, in memory already; no file is open for it."""

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
        """Let the memory go."""
        self._data = b""


class OpenBody:
    """A body that is read from its file in hops, by the driver's own threads.

    A stream that asks for a `SLOT` at a time finds the next one read, if the pool has room for it.

    Args:
        found: The open file, which is the reader's from here on, set to the first byte.
        info: The object.
        span: What of it is to be read.
        threads: The driver's.
        pool: The store's.
    """

    __slots__ = (
        "_ahead",
        "_file",
        "_found",
        "_handle",
        "_lane",
        "_lease",
        "_left",
        "_pool",
        "_streaming",
        "_threads",
        "_wanted",
        "info",
        "range",
    )

    def __init__(
        self,
        found: Found,
        info: ObjectInfo,
        span: tuple[int, int],
        threads: Threads,
        pool: BufferPool,
    ) -> None:
        self.info = info
        self.range = span
        self._found = found
        self._left = span[1] - span[0]
        self._threads = threads
        self._pool = pool
        self._lane = Lane(threads)
        self._file = FileIO(found.fd, "rb")
        self._handle = wrap(self._file, loop=asyncio.get_running_loop(), executor=self._lane)
        self._ahead: Future[bytes] | None = None
        self._lease: Lease | None = None
        self._streaming = self._wanted = False

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        if not self._left:
            return b""
        try:
            chunk = await self._next(min(size, self._left))
        except asyncio.CancelledError:
            await self._lane.quiet()
            raise
        except OSError as error:
            raise failure(error, self.info.bucket, self.info.key) from error
        self._left -= len(chunk)
        if not chunk or (not self._left and not steady(self._found)):
            raise _changed()
        before, self._streaming = self._streaming, size >= SLOT
        if before and self._streaming and self._left:
            self._read_ahead()
        return chunk

    async def aclose(self) -> None:
        """Close the file, in a thread: the last one to close a deleted file also frees its room."""
        self._wanted = True  # nothing is revoked any more
        try:
            await self._lane.quiet()
        finally:
            self._drop()
            try:
                await self._threads.finish(self._file.close)
            except ClosedError:  # the driver is closed, and was not waited for
                self._file.close()

    async def _next(self, size: int) -> bytes:
        ahead = self._ahead
        if ahead is None:
            chunk: bytes = await self._handle.read(size)
            return chunk
        self._wanted = True
        try:
            chunk = ahead.result() if ahead.done() else await asyncio.wrap_future(ahead)
        finally:
            self._wanted = False
            self._drop()
        if len(chunk) > size:  # not a stream's way of reading
            self._file.seek(size - len(chunk), os.SEEK_CUR)
        return chunk[:size]

    def _read_ahead(self) -> None:
        self._lease = self._pool.try_lease(SLOT, revoke=self._revoke)
        if self._lease is not None:
            # What is read takes the place of the slot: as bytes, a user gets it without a copy.
            self._ahead = self._lane.submit(self._file.read, min(SLOT, self._left))

    def _revoke(self) -> bool:
        """Give up what was read and nobody came for: it will be read again."""
        if self._ahead is None or self._wanted or not self._ahead.done():
            return False
        if self._ahead.exception() is None:
            self._file.seek(-len(self._ahead.result()), os.SEEK_CUR)
        self._drop()
        return True

    def _drop(self) -> None:
        self._ahead = None
        if self._lease is not None:
            self._lease.release()


def open_body(
    root: Root, spot: Spot, options: GetOptions
) -> HeldBody | tuple[Found, tuple[int, int], ObjectInfo]:
    """Open the object for a get, and read it if it is small. For a thread.

    Returns:
        The body, or what `OpenBody` is made of: that takes an event loop.
    """
    found = find(root, spot)
    try:
        info, span = admit(root, spot, found, options)
        if span[1] - span[0] <= WHOLE:
            body = _held(found, info, span, os.pread(found.fd, span[1] - span[0], span[0]))
            found.close()
            return body
        os.lseek(found.fd, span[0], os.SEEK_SET)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(found.fd, span[0], 0, os.POSIX_FADV_SEQUENTIAL)
    except BaseException:
        found.close()
        raise
    return found, span, info


def open_body_nowait(root: Root, spot: Spot, options: GetOptions) -> HeldBody | None:
    """Open the object and read it, if it is small and all of it is in the kernel's cache.

    For the event loop: 20 µs, against 100 to 300 for a hop to a thread. None: it takes a thread.
    """
    if root.read_flags is None or (found := find_nowait(root, spot)) is None:
        return None
    try:
        info, span = admit(root, spot, found, options)
        size = span[1] - span[0]
        if size > WHOLE:
            return None
        buffer = bytearray(size)
        if size and os.preadv(found.fd, [buffer], span[0], root.read_flags) != size:
            return None
        return _held(found, info, span, bytes(buffer))
    except OSError as error:
        if error.errno in _NOT_NOW:
            return None
        raise
    finally:
        found.close()


def admit(
    root: Root, spot: Spot, found: Found, options: GetOptions
) -> tuple[ObjectInfo, tuple[int, int]]:
    """Return the object and the bytes that a get is to have.

    Raises:
        PreconditionFailedError: Its conditions do not hold.
        RangeError: Its range selects nothing.
    """
    status = found.status
    if options.if_match is not None and options.if_match not in {"*", etag(status)}:
        raise PreconditionFailedError("the object is another version than was asked for")
    if options.if_none_match is not None and options.if_none_match in {"*", etag(status)}:
        raise PreconditionFailedError("the object still is the version that was excluded")
    span = (0, status.st_size) if options.range is None else options.range.resolve(status.st_size)
    return describe(spot, status, found.record, root.backend), span


def steady(found: Found) -> bool:
    """Tell whether the file is still what it was when it was opened: nobody writes into it."""
    now, then = os.fstat(found.fd), found.status
    return (now.st_mtime_ns, now.st_size) == (then.st_mtime_ns, then.st_size)


def _held(found: Found, info: ObjectInfo, span: tuple[int, int], data: bytes) -> HeldBody:
    if len(data) != span[1] - span[0] or not steady(found):
        raise _changed()
    return HeldBody(info, span, data)


def _changed() -> UnavailableError:
    return UnavailableError("the file was changed in place while it was read, by another tool")


_NOT_NOW = frozenset((errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.EINTR))
