"""A file that a body is, read at any place and as often as need be: the same file every time."""

from __future__ import annotations

import io
import os
import stat
from typing import BinaryIO, NamedTuple

from trove_async.errors import IntegrityError


class _Mark(NamedTuple):
    """What changes when somebody writes to a file. Its name does not count: it is open."""

    device: int
    inode: int
    size: int
    modified_ns: int


class BodyFile:
    """A regular file from some place on, as it was at first.

    Its methods block. Those of several threads do not disturb one another, nor the position of
    whoever else reads it: none is used.

    Args:
        descriptor: The open file; it stays its opener's to close.
        start: Where the body begins.

    Attributes:
        size: The body's bytes.
    """

    def __init__(self, descriptor: int, start: int = 0) -> None:
        self._descriptor = descriptor
        self._start = start
        self._mark = _mark_of(descriptor)
        self.size = max(0, self._mark.size - start)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `offset` on.

        Raises:
            IntegrityError: The file is no longer what it was when this began.
            OSError: It cannot be read.
        """
        while view:
            count = os.preadv(self._descriptor, [view], self._start + offset)
            if not count:
                break
            view, offset = view[count:], offset + count
        # Looked at after the reading, so that a write in between shows, except one through a
        # mapping, which marks the file later: that, the checksum of the next pass finds.
        if view or _mark_of(self._descriptor) != self._mark:
            raise changed()


def changed() -> IntegrityError:
    """Return the error for a file that is not what it was."""
    return IntegrityError("the file was changed while it was being sent: nothing of it was stored")


def descriptor_of(file: BinaryIO) -> int | None:
    """Return a descriptor of a user's open file, to be closed; None: it is no such file.

    Only of a regular file in Python's own classes: any other is code of its user's, and what it
    reads may be another thing than its descriptor's bytes. The file is left at its end, as one is
    that was read.
    """
    raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
    known = type(file) in {io.FileIO, io.BufferedReader, io.BufferedRandom}
    if not known or not isinstance(raw, io.FileIO) or type(raw) is not io.FileIO:
        return None
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return None
    file.seek(0, os.SEEK_END)  # which also writes out what a file held back that is written to
    return os.dup(raw.fileno())


def _mark_of(descriptor: int) -> _Mark:
    status = os.fstat(descriptor)
    return _Mark(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
