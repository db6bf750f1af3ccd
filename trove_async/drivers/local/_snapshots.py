"""Sorted directories, remembered while they are unchanged."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 250_000
"""Names that are remembered, all directories together: some 20 MB."""


class Snapshots:
    """Sorted directories, remembered while they are unchanged. Shared by the threads.

    Args:
        tick: Nanoseconds by which a file system's times may be behind: a directory that changed
            so lately may change again without its times telling (as git's index has it: "racy").
        limit: Names remembered at most.
    """

    def __init__(self, tick: int, limit: int = REMEMBERED) -> None:
        self._tick = tick
        self._limit = limit
        self._kept: OrderedDict[tuple[str, int, int], tuple[int, int, list[str]]] = OrderedDict()
        self._count = 0
        self._guard = threading.Lock()

    def get(self, kind: str, status: os.stat_result) -> list[str] | None:
        """Return the directory as it was read, if it still is so."""
        place = (kind, status.st_dev, status.st_ino)
        with self._guard:
            kept = self._kept.get(place)
            if kept is None or kept[:2] != (status.st_mtime_ns, status.st_ctime_ns):
                return None
            self._kept.move_to_end(place)
            return kept[2]

    def add(self, kind: str, status: os.stat_result, names: list[str]) -> None:
        """Remember the directory, which was `status` before it was read."""
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
