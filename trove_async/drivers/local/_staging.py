"""Staged files, which are written before they become objects, and removal of abandoned ones.

Each open driver has a directory in ``.trove/staging``, and beside it a file that it keeps locked. If
the file is not locked, the driver's process has died, and any other driver may remove the directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ._openat2 import DIRECTORY

if TYPE_CHECKING:
    from ._metadata import Metadata
    from ._sidecars import Sidecars
    from ._threads import CancelFlag

XATTR: Final = "user.trove"

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_AT_ONCE = 4 * 1024 * 1024  # between two checks for a cancel
_MAX_VIEWS = 512  # below IOV_MAX, 1,024 on Linux (<limits.h>)

# Errors of setxattr for a record that does not fit, or where attributes are not supported. ENOSPC
# need not mean a full disk: if the disk is full, writing the sidecar fails as well.
_NO_XATTR = frozenset(
    (errno.ENOTSUP, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE, errno.EPERM)
)


class StagedFile:
    """A file that is not an object yet. The caller publishes or discards it.

    Attributes:
        fd: Its descriptor, open for writing.
        name: Its name in the staging directory.
        status: The status of the file after `seal`.
    """

    __slots__ = ("_sidecar", "_staging", "fd", "name", "status")

    def __init__(self, staging: Staging, fd: int, name: str) -> None:
        self._staging = staging
        self._sidecar = False
        self.fd = fd
        self.name = name
        self.status: os.stat_result | None = None

    def write(self, views: Sequence[memoryview], offset: int, cancel: CancelFlag) -> None:
        """Write `views` in order, starting at `offset`."""
        if (
            len(views) == 1
            and len(views[0]) <= _WRITE_AT_ONCE
            and os.pwritev(self.fd, views, offset) == len(views[0])
        ):
            return
        for batch in _batches(views):
            cancel.check()
            rest = batch
            while rest:
                count = os.pwritev(self.fd, rest, offset)
                offset += count
                rest = _after(rest, count)

    def truncate(self, size: int) -> None:
        """Truncate the file to `size`."""
        os.ftruncate(self.fd, size)

    def seal(self, bucket: str, key: str, record: Metadata) -> os.stat_result:
        """Set the file's time and metadata, make them durable, and return its status."""
        staging = self._staging
        # Two puts may get the same time from the kernel, which only counts ticks.
        now = time.time_ns()
        os.utime(self.fd, ns=(now, now))
        self.status = status = os.fstat(self.fd)
        if not (staging.xattrs and _set_xattr(self.fd, record.encode(status))):
            try:
                staging.sidecars.write(status, record.encode(status, (bucket, key)))
            except FileExistsError:  # another file has the same time and size
                return self.seal(bucket, key, record)
            self._sidecar = True
        if staging.fsync:
            os.fsync(self.fd)
        return status

    def mark_published(self) -> None:
        """Keep the sidecar, because the file is now an object."""
        self._sidecar = False

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Remove the file and its sidecar. Idempotent."""
        if self.fd < 0:
            return
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self._staging.directory)
        if self._sidecar and self.status is not None:
            self._staging.sidecars.remove(self.status)


class Staging:
    """The staging directory of one open driver.

    Args:
        parent: The descriptor of ``.trove/staging``.
        sidecars: For metadata that does not fit an extended attribute.
        file_mode: The mode of files.
        dir_mode: The mode of directories.
        fsync: Whether a sealed file must survive a power cut.

    Attributes:
        directory: Its descriptor.
        xattrs: Whether files support extended attributes.
    """

    def __init__(
        self, parent: int, sidecars: Sidecars, *, file_mode: int, dir_mode: int, fsync: bool
    ) -> None:
        self._parent = parent
        self._mode = file_mode
        self._numbers = itertools.count()
        self.sidecars = sidecars
        self.fsync = fsync
        self.xattrs = False
        self._lock, self._name = self._take_name()
        try:
            os.mkdir(self._name, dir_mode, dir_fd=parent)
            self.directory = os.open(self._name, DIRECTORY, dir_fd=parent)
        except BaseException:
            os.close(self._lock)
            raise

    def create(self) -> StagedFile:
        """Create a staged file."""
        while True:
            name = f"{next(self._numbers):x}"
            try:
                return StagedFile(
                    self, os.open(name, _NEW, self._mode, dir_fd=self.directory), name
                )
            except FileExistsError:  # a forked child counts in the same way
                continue

    def close(self) -> None:
        """Remove the directory and release its lock."""
        os.close(self.directory)
        with contextlib.suppress(OSError):  # then the next sweep removes it
            _clear(self._parent, self._name)
        os.close(self._lock)

    def sweep(self) -> None:
        """Remove the directories of dead drivers."""
        for name in {entry.removesuffix(_LOCK) for entry in os.listdir(self._parent)}:  # noqa: PTH208 - as above
            if name != self._name:
                with contextlib.suppress(OSError):  # another driver sweeps as well
                    self._sweep(name)

    def _sweep(self, name: str) -> None:
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(name + _LOCK, flags, dir_fd=self._parent)
        except FileNotFoundError:
            _clear(self._parent, name)  # the lock is removed last: its owner was killed before that
            return
        try:
            if _try_flock(lock):
                self._forget_sidecars(name)
                _clear(self._parent, name)
        finally:
            os.close(lock)

    def _forget_sidecars(self, name: str) -> None:
        with contextlib.suppress(
            FileNotFoundError
        ):  # its owner was killed before it created the directory
            directory = os.open(name, DIRECTORY, dir_fd=self._parent)
            try:
                for staged in os.listdir(directory):  # noqa: PTH208 - as above
                    status = os.stat(staged, dir_fd=directory, follow_symlinks=False)
                    if status.st_nlink == 1:  # else it was published by a link
                        self.sidecars.remove(status)
            finally:
                os.close(directory)

    def _take_name(self) -> tuple[int, str]:
        while True:
            name = secrets.token_hex(8)
            lock = os.open(name + _LOCK, _NEW, self._mode, dir_fd=self._parent)
            try:
                if _try_flock(lock) and os.fstat(lock).st_nlink:
                    return lock, name
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # another driver removed it before it was locked


_LOCK = ".lock"


def _clear(parent: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=parent)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name + _LOCK, dir_fd=parent)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_xattr(fd: int, raw: bytes) -> bool:
    try:
        os.setxattr(fd, XATTR, raw)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        return False
    return True


def _batches(views: Sequence[memoryview]) -> list[list[memoryview]]:
    batches: list[list[memoryview]] = []
    size = 0
    for view in views:
        if not batches or size + view.nbytes > _WRITE_AT_ONCE or len(batches[-1]) == _MAX_VIEWS:
            batches.append([])
            size = 0
        batches[-1].append(view)
        size += view.nbytes
    return batches


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if count < view.nbytes:
            return [view[count:], *views[index + 1 :]]
        count -= view.nbytes
    return []
