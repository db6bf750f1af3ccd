"""One lock for each key, between the threads of this process and between processes.

It is a byte of one file, locked through an open file description of its own ("open file
description locks", fcntl(2), Linux 3.15): such a lock is no other thread's, and goes with the
process that held it. A bucket is the range of all its keys' bytes, so what happens to a bucket
excludes what happens in it. Two keys may share a byte: then they wait for one another, no more.
Where there are no such locks, `flock` on the whole file does the same with less concurrency.
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
    from ._threads import Stop

NAME: Final = "locks"

_KEYS = 1 << 32  # bytes of a bucket's range: one for each value of a CRC-32
_BUCKETS = (1 << 30) - 1
_FLOCK = struct.Struct("hhqqi0q")  # fcntl(2), struct flock with 64-bit offsets
_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)

_FIRST_PAUSE = 0.00005
_LAST_PAUSE = 0.005
PATIENCE: Final = 30.0
"""Seconds after which a lock that is held in microseconds is given up: its holder is stopped."""


class Locks:
    """The locks of one root.

    Args:
        area: The descriptor of the directory that the lock file is in.
        mode: The lock file's mode, where it is made.
        ofd: False for `flock` even where there are better locks.
    """

    def __init__(self, area: int, mode: int, *, ofd: bool = True) -> None:
        self._area = area
        self._mode = mode
        self._idle = [self._open()]
        self._ofd = ofd and _SETLK is not None and self._probe()

    def key(self, bucket: str, key: str, stop: Stop) -> Lock:
        """Return the lock of one key, to be entered."""
        return Lock(self, _start(bucket) + zlib.crc32(key.encode()), 1, stop)

    def bucket(self, bucket: str, stop: Stop) -> Lock:
        """Return the lock of a bucket and all its keys, to be entered."""
        return Lock(self, _start(bucket), _KEYS, stop)

    def close(self) -> None:
        """Close the lock files. No lock is held any more."""
        while self._idle:
            os.close(self._idle.pop())

    def take(self, start: int, length: int, stop: Stop) -> int:
        """Take a lock, and return the open file description that holds it."""
        try:
            fd = self._idle.pop()
        except IndexError:
            fd = self._open()
        try:
            if not self._try(fd, start, length):
                self._wait(fd, start, length, stop)
        except BaseException:
            self._idle.append(fd)
            raise
        return fd

    def give_back(self, fd: int, start: int, length: int) -> None:
        """Release a lock that `take` took."""
        if self._ofd and _SETLK is not None:
            fcntl.fcntl(fd, _SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
        self._idle.append(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(NAME, flags, self._mode, dir_fd=self._area)

    def _try(self, fd: int, start: int, length: int) -> bool:
        try:
            if self._ofd and _SETLK is not None:
                fcntl.fcntl(fd, _SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
            else:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True

    def _wait(self, fd: int, start: int, length: int, stop: Stop) -> None:
        # Asked for again and again rather than waited for in the kernel, where no cancel reaches.
        deadline = time.monotonic() + PATIENCE
        pause = _FIRST_PAUSE
        while not self._try(fd, start, length):
            stop.check()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"another process has locked this key for {PATIENCE:g} s: is it stopped?"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_PAUSE)

    def _probe(self) -> bool:
        self._ofd = True
        try:
            self._try(self._idle[0], 0, 1)
        except OSError:  # EINVAL: an older kernel, or a file system that knows none
            return False
        self.give_back(self._idle.pop(), 0, 1)
        return True


class Lock:
    """One lock while it is wanted: ``with`` takes and releases it."""

    __slots__ = ("_fd", "_length", "_locks", "_start", "_stop")

    def __init__(self, locks: Locks, start: int, length: int, stop: Stop) -> None:
        self._locks = locks
        self._start = start
        self._length = length
        self._stop = stop
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = self._locks.take(self._start, self._length, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._locks.give_back(self._fd, self._start, self._length)


_HELD = frozenset((errno.EAGAIN, errno.EACCES))  # fcntl(2), F_OFD_SETLK


@lru_cache(maxsize=1024)
def _start(bucket: str) -> int:
    return (zlib.crc32(bucket.encode()) & _BUCKETS) * _KEYS
