"""Records that are kept in files, where an attribute of the object's file cannot hold them.

One is named by its file's moment and size, and made only where there is none of that name; so it is
one file's. It is written before its file takes its place, and becomes valid by that, at once. It stays
with its file through a backup and a move to another disk, which keep times but not inodes.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from io import FileIO
from typing import TYPE_CHECKING

from ._metadata import FOREIGN, decode, decode_owner

if TYPE_CHECKING:
    from ._metadata import Record

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def name_of(status: os.stat_result) -> str:
    """Return what the sidecar of a file is called."""
    return f"{status.st_mtime_ns}-{status.st_size}"


class Sidecars:
    """The sidecars of one root.

    Args:
        directory: The descriptor of the directory that they are in; -1: there is none, as of a
            root that is open for reading only.
        mode: Their mode.
        fsync: Whether they must outlive a power cut.

    Attributes:
        used: Whether there may be any, as far as this process knows.
    """

    def __init__(self, directory: int, mode: int, *, fsync: bool) -> None:
        self._directory = directory
        self._mode = mode
        self._fsync = fsync
        self.used = False
        if directory >= 0:
            with os.scandir(directory) as entries:
                self.used = next(entries, None) is not None

    def write(self, status: os.stat_result, raw: bytes) -> None:
        """Keep the record of a file.

        Raises:
            FileExistsError: Another file has the same moment and size.
        """
        self.used = True
        fd = os.open(name_of(status), _NEW, self._mode, dir_fd=self._directory)
        try:
            rest = memoryview(raw)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if self._fsync:
                os.fsync(fd)
        except BaseException:
            self.remove(status)
            raise
        finally:
            os.close(fd)
        if self._fsync:
            os.fsync(self._directory)

    def read(self, bucket: str, key: str, status: os.stat_result) -> Record:
        """Return the record of a file; `FOREIGN` if none is kept here."""
        raw = self._raw(name_of(status))
        found = None if raw is None else decode(raw, status)
        return found[0] if found is not None and found[1] == (bucket, key) else FOREIGN

    def forget(self, bucket: str, key: str, status: os.stat_result) -> None:
        """Remove the record of a file that was an object. It is litter if that fails."""
        if not os.access(name_of(status), os.F_OK, dir_fd=self._directory):
            return  # as most often: half the time of an error's
        with contextlib.suppress(OSError):
            raw = self._raw(name_of(status))
            # A copy that another tool made has the times of its original, whose record this is.
            if raw is not None and decode_owner(raw) == (bucket, key):
                self.remove(status)

    def remove(self, status: os.stat_result | str) -> None:
        """Remove a record of which it is certain that no object needs it."""
        name = status if isinstance(status, str) else name_of(status)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)

    def sample(self, count: int, older: float) -> list[tuple[str, bytes]]:
        """Return some records, drawn at random, with their names: a sweep need not read all.

        Args:
            count: How many to draw.
            older: Only those that were written so many seconds ago: their files are in place.
        """
        names = os.listdir(self._directory)  # noqa: PTH208 - no path leads to a descriptor
        drawn: list[tuple[str, bytes]] = []
        for name in random.sample(names, min(count, len(names))):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                raw = self._raw(name) if status.st_mtime + older < time.time() else None
                if raw is not None:
                    drawn.append((name, raw))
        return drawn

    def _raw(self, name: str) -> bytes | None:
        if self._directory < 0:
            return None
        try:
            fd = os.open(name, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        with FileIO(fd) as file:
            return file.readall()
