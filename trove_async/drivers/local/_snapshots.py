"""A cache of sorted directories, valid while they are unchanged."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

MAX_NAMES: Final = 250_000
"""Cached names of all directories together: about 20 MB."""


class Snapshots:
    """A thread-safe cache of sorted directories.

    Args:
        tick: Resolution of the file system's times in nanoseconds. A directory that changed within
            the last tick may change again with the same times (git's index calls it "racy").
        limit: Maximum number of cached names.
    """

    def __init__(self, tick: int, limit: int = MAX_NAMES) -> None:
        self._tick = tick
        self._limit = limit
        self._kept: OrderedDict[tuple[str, int, int], tuple[int, int, list[str]]] = OrderedDict()
        self._count = 0
        self._guard = threading.Lock()

    def get(self, kind: str, status: os.stat_result) -> list[str] | None:
        """Return the cached names if the directory is unchanged, else None."""
        place = (kind, status.st_dev, status.st_ino)
        with self._guard:
            kept = self._kept.get(place)
            if kept is None or kept[:2] != (status.st_mtime_ns, status.st_ctime_ns):
                return None
            self._kept.move_to_end(place)
            return kept[2]

    def add(self, kind: str, status: os.stat_result, names: list[str]) -> None:
        """Cache the names. `status` is the directory's status from before it was read."""
        last = max(status.st_mtime_ns, status.st_ctime_ns)
        if len(names) > self._limit or last + self._tick > time.time_ns():
            return
        place = (kind, status.st_dev, status.st_ino)
        with self._guard:
            self._drop(place)
            self._kept[place] = (status.st_mtime_ns, status.st_ctime_ns, names)
            self._count += len(names) + 1
            while self._count > self._limit:
                self._drop(next(iter(self._kept)))

    def _drop(self, place: tuple[str, int, int]) -> None:
        kept = self._kept.pop(place, None)
        if kept is not None:
            self._count -= len(kept[2]) + 1
