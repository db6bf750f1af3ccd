"""Staged files: written here, then published as objects or discarded.

Each open driver has a directory in ``.trove/staging`` and holds a lock on a lock file next to it. If the
lock file is not locked, the driver's process has died, and any other driver may remove the directory and
the lock file.
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
_LOCK_SUFFIX = ".lock"
_MAX_WRITE = 4 * 1024 * 1024  # bytes between checks for a cancel, except in larger views
_MAX_VIEWS = 512  # below IOV_MAX, 1,024 on Linux (<limits.h>)

# Errors of setxattr(2) if the record does not fit or the file system has no extended attributes. ENOSPC
# usually means that only the inode is full. If the disk is full, writing the sidecar fails as well.
_NO_XATTR = frozenset(
    (errno.ENOTSUP, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE, errno.EPERM)
)


class StagedFile:
    """A file that is not an object yet. The caller publishes or discards it.

    Attributes:
        fd: The descriptor of the file, open for writing.
        name: The file's name in the staging directory.
        status: The status that `seal` returned, or None before that.
    """

    __slots__ = ("_has_sidecar", "_staging", "fd", "name", "status")

    def __init__(self, staging: Staging, fd: int, name: str) -> None:
        self._staging = staging
        self._has_sidecar = False
        self.fd = fd
        self.name = name
        self.status: os.stat_result | None = None

    def write(self, views: Sequence[memoryview], offset: int, cancel: CancelFlag) -> None:
        """Write `views` in order, starting at `offset`."""
        # 1. The usual case: one call writes everything.
        if (
            len(views) == 1
            and len(views[0]) <= _MAX_WRITE
            and os.pwritev(self.fd, views, offset) == len(views[0])
        ):
            return
        # 2. Otherwise write in batches, and continue after short writes.
        for batch in _batches(views):
            cancel.check()
            remaining = batch
            while remaining:
                count = os.pwritev(self.fd, remaining, offset)
                offset += count
                remaining = _skip(remaining, count)

    def truncate(self, size: int) -> None:
        """Truncate the file to `size`."""
        os.ftruncate(self.fd, size)

    def seal(self, bucket: str, key: str, metadata: Metadata) -> os.stat_result:
        """Set the file's modification time and metadata, sync it if required, and return its status."""
        staging = self._staging
        # 1. Set the modification time. The kernel's own time would be the same for all files of one
        #    timer tick, so two versions of an object might get the same etag.
        now = time.time_ns()
        os.utime(self.fd, ns=(now, now))
        self.status = status = os.fstat(self.fd)
        # 2. Write the record to an extended attribute, or to a sidecar if it does not fit.
        if not (staging.xattrs and _set_xattr(self.fd, metadata.encode(status))):
            try:
                staging.sidecars.write(status, metadata.encode(status, (bucket, key)))
            except FileExistsError:  # another file has this time and size: seal with a new time
                return self.seal(bucket, key, metadata)
            self._has_sidecar = True
        # 3. Sync the file.
        if staging.fsync:
            os.fsync(self.fd)
        return status

    def mark_published(self) -> None:
        """Record that the file is now an object, so that `discard` keeps its sidecar."""
        self._has_sidecar = False

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Close and remove the file, and remove its sidecar. Do nothing if the file is closed."""
        if self.fd < 0:
            return
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self._staging.directory)
        if self._has_sidecar and self.status is not None:
            self._staging.sidecars.remove(self.status)


class Staging:
    """The staging directory of one open driver.

    Args:
        parent: The descriptor of ``.trove/staging``.
        sidecars: The root's sidecars.
        file_mode: The mode of staged files.
        dir_mode: The mode of the directory.
        fsync: Whether a sealed file must survive a power cut.

    Attributes:
        directory: The descriptor of the directory.
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
        self._lock, self._name = self._claim_name()
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
            except FileExistsError:  # a forked process continues with the same numbers
                continue

    def close(self) -> None:
        """Remove the directory and release its lock."""
        os.close(self.directory)
        with contextlib.suppress(OSError):  # the next sweep tries again
            _remove(self._parent, self._name)
        os.close(self._lock)

    def sweep(self) -> None:
        """Remove the directories of dead drivers."""
        entries = os.listdir(self._parent)  # noqa: PTH208 - a Path cannot list a descriptor
        for name in {entry.removesuffix(_LOCK_SUFFIX) for entry in entries}:
            if name != self._name:
                with contextlib.suppress(OSError):  # another driver may sweep at the same time
                    self._sweep(name)

    def _sweep(self, name: str) -> None:
        """Remove the directory `name` and its lock file, unless its driver is alive."""
        # 1. Open the lock file. If it is missing, the driver is gone: the lock file is created before
        #    the directory and removed after it.
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(name + _LOCK_SUFFIX, flags, dir_fd=self._parent)
        except FileNotFoundError:
            _remove(self._parent, name)
            return
        # 2. If it is not locked, the driver is dead.
        try:
            if _try_flock(lock):
                self._remove_sidecars(name)
                _remove(self._parent, name)
        finally:
            os.close(lock)

    def _remove_sidecars(self, name: str) -> None:
        """Remove the sidecars of the staged files in the directory `name`."""
        # The directory is missing if the driver was killed before it created one.
        with contextlib.suppress(FileNotFoundError):
            directory = os.open(name, DIRECTORY, dir_fd=self._parent)
            try:
                for staged in os.listdir(directory):  # noqa: PTH208 - as above
                    status = os.stat(staged, dir_fd=directory, follow_symlinks=False)
                    # A file with a second link is already an object.
                    if status.st_nlink == 1:
                        self.sidecars.remove(status)
            finally:
                os.close(directory)

    def _claim_name(self) -> tuple[int, str]:
        """Return the descriptor of a new, locked lock file, and the name of its directory."""
        while True:
            name = secrets.token_hex(8)
            lock = os.open(name + _LOCK_SUFFIX, _NEW, self._mode, dir_fd=self._parent)
            try:
                if _try_flock(lock) and os.fstat(lock).st_nlink:
                    return lock, name
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # another driver swept the file before it was locked


def _remove(parent: int, name: str) -> None:
    """Remove a driver's directory and lock file."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=parent)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name + _LOCK_SUFFIX, dir_fd=parent)


def _try_flock(fd: int) -> bool:
    """Lock a file, or return False if it is locked already."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_xattr(fd: int, raw: bytes) -> bool:
    """Write a record to the extended attribute. Return False if it does not fit."""
    try:
        os.setxattr(fd, XATTR, raw)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        return False
    return True


def _batches(views: Sequence[memoryview]) -> list[list[memoryview]]:
    """Divide views into batches for pwritev(2). A view above `_MAX_WRITE` is a batch of its own."""
    batches: list[list[memoryview]] = []
    size = 0
    for view in views:
        if not batches or size + view.nbytes > _MAX_WRITE or len(batches[-1]) == _MAX_VIEWS:
            batches.append([])
            size = 0
        batches[-1].append(view)
        size += view.nbytes
    return batches


def _skip(views: list[memoryview], count: int) -> list[memoryview]:
    """Return the views without their first `count` bytes."""
    for index, view in enumerate(views):
        if count < view.nbytes:
            return [view[count:], *views[index + 1 :]]
        count -= view.nbytes
    return []
