"""Random access to the file that a put stores. Detects changes to the file."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from typing import BinaryIO, Final, NamedTuple

from trove_async._views import drop
from trove_async.errors import IntegrityError

IOV_MAX: Final = 1024
"""The maximum number of views that one call fills. Linux, include/uapi/linux/uio.h: UIO_MAXIOV."""


class _FileState(NamedTuple):
    """The identity, size and modification time of an open file. A write usually changes one of them."""

    device: int
    inode: int
    size: int
    modified_ns: int


class BodyFile:
    """The bytes of a regular file from an offset to its end. The file must not change during the put.

    Methods block and are thread-safe. They neither use nor move the file's position.

    Args:
        descriptor: The open file. The caller closes it.
        start: The offset at which the body begins.

    Attributes:
        size: The size of the body.
    """

    def __init__(self, descriptor: int, start: int = 0) -> None:
        self._descriptor = descriptor
        self._start = start
        self._state = _state_of(descriptor)
        self.size = max(0, self._state.size - start)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes of the body that start at `offset`.

        Raises:
            IntegrityError: The file has changed since this object was created.
            OSError: The file cannot be read.
        """
        count = self._read_into(offset, [view])
        # Check after the read, to detect a concurrent write. A write through a memory mapping may
        # not update the timestamp until later. If a part is read again, its checksum detects such a
        # write.
        if count < len(view) or _state_of(self._descriptor) != self._state:
            raise file_changed_error()

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill `views`, as `read`, but accept a file that has changed and has not become shorter.

        For bytes that are read only once, from a log that is still being written, for example.

        Args:
            offset: The offset in the body.
            views: The memory to fill, at most `IOV_MAX` views.
        """
        end = offset + self._read_into(offset, views)
        if end < offset + sum(map(len, views)):
            raise IntegrityError(
                f"the body had {self.size} bytes when it was opened, got only {end}: the file was truncated,"
                " or its size is not that of its content; nothing was stored"
            )

    def _read_into(self, offset: int, views: Sequence[memoryview]) -> int:
        """Fill `views`, unless the file ends before. Return the number of bytes."""
        filled = 0
        while views and (
            count := os.preadv(self._descriptor, views, self._start + offset + filled)
        ):
            views, filled = drop(views, count), filled + count
        return filled


def file_changed_error() -> IntegrityError:
    """Return the error for a file that changed during a put."""
    return IntegrityError(
        "the file changed while it was being sent; nothing was stored: put it again"
    )


def descriptor_of(file: BinaryIO) -> int | None:
    """Duplicate the descriptor of a user's open file, or return None if the file is not plain.

    A plain file is a regular file represented by one of Python's own file classes. A subclass or a
    wrapper may return bytes that differ from those of its descriptor.

    The position of a plain file moves to its end, as if it had been read. The caller closes the
    descriptor.
    """
    raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
    is_builtin = type(file) in {io.FileIO, io.BufferedReader, io.BufferedRandom}
    if not is_builtin or not isinstance(raw, io.FileIO) or type(raw) is not io.FileIO:
        return None
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return None
    file.seek(0, os.SEEK_END)  # also flushes a file that is open for writing
    return os.dup(raw.fileno())


def _state_of(descriptor: int) -> _FileState:
    status = os.fstat(descriptor)
    return _FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
