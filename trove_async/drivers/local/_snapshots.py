"""A cache of the sorted names in directories. A snapshot is valid while its directory is unchanged."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

MAX_NAMES: Final = 250_000
"""Maximum number of cached names in all directories together: about 20 MB."""


class Snapshots:
    """A thread-safe cache of the sorted names in directories.

    Args:
        tick_ns: Resolution of the file system's times. A directory that changed within the last tick
            is not cached, because another change may leave its times the same ("racy" in git).
        limit: Maximum number of cached names.
    """

    def __init__(self, tick_ns: int, limit: int = MAX_NAMES) -> None:
        self._tick_ns = tick_ns
        self._limit = limit
        # The first entry is the least recently used one.
        self._entries: OrderedDict[tuple[str, int, int], tuple[int, int, list[str]]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def get(self, kind: str, status: os.stat_result) -> list[str] | None:
        """Return the names in a directory by name scheme `kind`, or None if no valid ones are cached."""
        directory = (kind, status.st_dev, status.st_ino)
        with self._lock:
            entry = self._entries.get(directory)
            if entry is None or entry[:2] != (status.st_mtime_ns, status.st_ctime_ns):
                return None
            self._entries.move_to_end(directory)
            return entry[2]

    def add(self, kind: str, status: os.stat_result, names: list[str]) -> None:
        """Cache the names. `status` is the directory's status from before it was read."""
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        if len(names) > self._limit or changed_ns + self._tick_ns > time.time_ns():
            return
        directory = (kind, status.st_dev, status.st_ino)
        with self._lock:
            self._drop(directory)
            self._entries[directory] = (status.st_mtime_ns, status.st_ctime_ns, names)
            self._count += len(names) + 1
            while self._count > self._limit:
                self._drop(next(iter(self._entries)))

    def _drop(self, directory: tuple[str, int, int]) -> None:
        entry = self._entries.pop(directory, None)
        if entry is not None:
            self._count -= len(entry[2]) + 1
