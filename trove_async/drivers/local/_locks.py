"""One lock for each key, which excludes other threads and other processes.

A key's lock is a lock on one byte of the root's lock file ("open file description locks", fcntl(2),
Linux 3.15). Each held lock has a separate open file description, so it also excludes other threads,
and the system releases it if the process dies. A bucket's lock covers the bytes of all its keys, so it
excludes calls on these keys. If two keys share a byte, their calls merely wait for each other.
Where such locks are not available, `flock` on the whole file has the same effect with less concurrency.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
import zlib
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from trove_async.errors import UnavailableError

if TYPE_CHECKING:
    from ._threads import CancelFlag

NAME: Final = "locks"

_KEYS_PER_BUCKET = 1 << 32  # one byte for each value of a CRC-32
_BUCKET_MASK = (1 << 30) - 1  # offsets in a file are signed 64-bit integers
_FLOCK = struct.Struct("hhqqi0q")  # fcntl(2), struct flock with 64-bit offsets
_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)

_LOCKED = frozenset((errno.EAGAIN, errno.EACCES))  # fcntl(2), F_OFD_SETLK

_MIN_PAUSE = 0.00005
_MAX_PAUSE = 0.005
LOCK_TIMEOUT: Final = 30.0
"""Seconds to wait for a lock. Most locks are held for microseconds, so a process that holds one for this
long is probably suspended."""


class Locks:
    """The locks of one root.

    Args:
        area: The descriptor of the directory with the lock file.
        mode: The mode of a new lock file.
        ofd: False to use `flock` even if open file description locks are available.
    """

    def __init__(self, area: int, mode: int, *, ofd: bool = True) -> None:
        self._area = area
        self._mode = mode
        # Open descriptors that hold no lock. If none is left, a new one is opened.
        self._idle = [self._open()]
        self._ofd = ofd and _SETLK is not None and self._probe()

    def key(self, bucket: str, key: str, cancel: CancelFlag) -> Lock:
        """Return a context manager that holds the lock of one key."""
        return Lock(self, _start(bucket) + zlib.crc32(key.encode()), 1, cancel)

    def bucket(self, bucket: str, cancel: CancelFlag) -> Lock:
        """Return a context manager that holds the lock of a bucket and all its keys."""
        return Lock(self, _start(bucket), _KEYS_PER_BUCKET, cancel)

    def close(self) -> None:
        """Close all descriptors. No lock may be held."""
        while self._idle:
            os.close(self._idle.pop())

    def acquire(self, start: int, length: int, cancel: CancelFlag) -> int:
        """Lock `length` bytes from `start` on, and return the descriptor that holds the lock.

        Raises:
            UnavailableError: The lock was not released within `LOCK_TIMEOUT`.
            CallCancelled: The call was cancelled while it waited.
        """
        try:
            fd = self._idle.pop()
        except IndexError:
            fd = self._open()
        try:
            if not self._try_lock(fd, start, length):
                self._wait_for_lock(fd, start, length, cancel)
        except BaseException:
            self._idle.append(fd)
            raise
        return fd

    def release(self, fd: int, start: int, length: int) -> None:
        """Release the lock that `acquire` returned as `fd`, with the same `start` and `length`."""
        if self._ofd and _SETLK is not None:
            fcntl.fcntl(fd, _SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
        self._idle.append(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(NAME, flags, self._mode, dir_fd=self._area)

    def _try_lock(self, fd: int, start: int, length: int) -> bool:
        try:
            if self._ofd and _SETLK is not None:
                fcntl.fcntl(fd, _SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
            else:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED:
                return False
            raise
        return True

    def _wait_for_lock(self, fd: int, start: int, length: int, cancel: CancelFlag) -> None:
        # Poll, because a wait in the kernel cannot be cancelled.
        deadline = time.monotonic() + LOCK_TIMEOUT
        pause = _MIN_PAUSE
        while not self._try_lock(fd, start, length):
            cancel.check()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the lock of the key or bucket was not released in {LOCK_TIMEOUT:g} s: is the"
                    " process that holds it suspended?"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE)

    def _probe(self) -> bool:
        self._ofd = True
        try:
            self._try_lock(self._idle[0], 0, 1)
        except OSError:  # EINVAL: an older kernel, or a file system without such locks
            return False
        self.release(self._idle.pop(), 0, 1)
        return True


class Lock:
    """A context manager that acquires and releases one lock."""

    __slots__ = ("_cancel", "_fd", "_length", "_locks", "_start")

    def __init__(self, locks: Locks, start: int, length: int, cancel: CancelFlag) -> None:
        self._locks = locks
        self._start = start
        self._length = length
        self._cancel = cancel
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = self._locks.acquire(self._start, self._length, self._cancel)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._locks.release(self._fd, self._start, self._length)


@lru_cache(maxsize=1024)
def _start(bucket: str) -> int:
    return (zlib.crc32(bucket.encode()) & _BUCKET_MASK) * _KEYS_PER_BUCKET
