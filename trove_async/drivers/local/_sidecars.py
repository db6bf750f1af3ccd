"""Sidecars: files for metadata that does not fit in an extended attribute.

A sidecar is named after the modification time and size of its file, and created exclusively, so it
belongs to one file. It is written before the file is renamed to its object's path. Backups and moves to
another disk keep the time and the size, so the sidecar still belongs to the file afterwards. They change
inode numbers, so the name contains none.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from io import FileIO
from typing import TYPE_CHECKING

from ._metadata import NO_METADATA, decode, decode_owner

if TYPE_CHECKING:
    from ._metadata import Metadata

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sidecar_name(status: os.stat_result) -> str:
    """Return the name of a file's sidecar."""
    return f"{status.st_mtime_ns}-{status.st_size}"


class Sidecars:
    """The sidecars of one root.

    Args:
        directory: The descriptor of their directory, or -1 if there is none and the root is open for
            reading only.
        mode: The mode of new sidecars.
        fsync: Whether sidecars must survive a power cut.

    Attributes:
        used: Whether there were sidecars when the root was opened, or this driver has written one.
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
        """Write the record of a file.

        Raises:
            FileExistsError: A different file has the same time and size.
        """
        self.used = True
        fd = os.open(sidecar_name(status), _NEW, self._mode, dir_fd=self._directory)
        try:
            remaining = memoryview(raw)
            while remaining:
                remaining = remaining[os.write(fd, remaining) :]
            if self._fsync:
                os.fsync(fd)
        except BaseException:
            self.remove(status)
            raise
        finally:
            os.close(fd)
        if self._fsync:
            os.fsync(self._directory)

    def read(self, bucket: str, key: str, status: os.stat_result) -> Metadata:
        """Return the metadata in a file's sidecar, or `NO_METADATA` if it has no valid one."""
        raw = self._read_raw(sidecar_name(status))
        record = None if raw is None else decode(raw, status)
        return record[0] if record is not None and record[1] == (bucket, key) else NO_METADATA

    def remove_if_owned(self, bucket: str, key: str, status: os.stat_result) -> None:
        """Remove the sidecar of a replaced or deleted file, if its record names this object.

        If the removal fails, a sweep removes the sidecar later.
        """
        if not os.access(sidecar_name(status), os.F_OK, dir_fd=self._directory):
            return  # usually there is none, and this check takes half the time of a failed open
        with contextlib.suppress(OSError):
            raw = self._read_raw(sidecar_name(status))
            # If another tool copied the file and its time, the sidecar belongs to the original.
            if raw is not None and decode_owner(raw) == (bucket, key):
                self.remove(status)

    def remove(self, status_or_name: os.stat_result | str) -> None:
        """Remove a sidecar, by its file's status or by its own name. Errors are ignored."""
        name = status_or_name if isinstance(status_or_name, str) else sidecar_name(status_or_name)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)

    def sample(self, count: int, min_age: float) -> list[tuple[str, bytes]]:
        """Return random sidecars, each as its name and its encoded record.

        Args:
            count: Maximum number of sidecars.
            min_age: Minimum age in seconds.
        """
        names = os.listdir(self._directory)  # noqa: PTH208 - a Path cannot list a descriptor
        sidecars: list[tuple[str, bytes]] = []
        for name in random.sample(names, min(count, len(names))):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                raw = self._read_raw(name) if status.st_mtime + min_age < time.time() else None
                if raw is not None:
                    sidecars.append((name, raw))
        return sidecars

    def _read_raw(self, name: str) -> bytes | None:
        if self._directory < 0:
            return None
        try:
            fd = os.open(name, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        with FileIO(fd) as file:
            return file.readall()
