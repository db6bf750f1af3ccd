"""Sorts and holds any number of records in bounded memory, with temporary files.

All calls block, so they run in a worker thread.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""Bytes of records that are held before they are written to a temporary file."""

_RECORD_OVERHEAD: Final = 64
"""Bytes that Python needs for a record besides its content, with its place in a list."""

_READ_SIZE: Final = 64 * 1024
_LENGTH_BYTES: Final = 4


class Spool:
    """Records in the order in which they were added.

    Args:
        max_held: The maximum number of bytes to hold in memory.
    """

    def __init__(self, max_held: int = MAX_HELD_BYTES) -> None:
        self._max_held = max_held
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._files: list[BinaryIO] = []

    @property
    def has_files(self) -> bool:
        """Whether records were written to files."""
        return bool(self._files)

    @property
    def is_full(self) -> bool:
        """Whether `flush` should be called."""
        return self._held_bytes > self._max_held

    def add(self, records: Iterable[bytes]) -> None:
        """Add records. Does no I/O: call `flush` in a thread once `is_full`."""
        for record in records:
            self._held.append(record)
            self._held_bytes += len(record) + _RECORD_OVERHEAD

    def flush(self) -> None:
        """Write the records that are held to a file."""
        self._prepare()
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._files.append(file)
        for record in self._held:
            file.write(len(record).to_bytes(_LENGTH_BYTES))
            file.write(record)
        file.seek(0)
        self._held.clear()
        self._held_bytes = 0

    def records(self) -> Iterator[bytes]:
        """Iterate over all records, once."""
        self._prepare()
        for file in self._files:
            yield from _read_records(file)
        yield from self._held

    def close(self) -> None:
        """Remove the temporary files. Idempotent."""
        files, self._files = self._files, []
        self._held.clear()
        for file in files:
            file.close()

    def _prepare(self) -> None:
        """Do what is due before records are written or read. `SortedSpool` sorts them."""


class SortedSpool(Spool):
    """Records that are returned in bytewise order: an external merge sort."""

    def records(self) -> Iterator[bytes]:
        """Iterate over all records in order, once."""
        self._prepare()
        return heapq.merge(*(_read_records(file) for file in self._files), self._held)

    def _prepare(self) -> None:
        self._held.sort()


def _read_records(file: BinaryIO) -> Iterator[bytes]:
    data = b""
    position = 0
    while True:
        end = position + _LENGTH_BYTES
        size = int.from_bytes(data[position:end])
        if len(data) < end + size or len(data) < end:
            more = file.read(max(_READ_SIZE, size))
            if not more:
                return
            data, position = data[position:] + more, 0
            continue
        yield data[end : end + size]
        position = end + size
