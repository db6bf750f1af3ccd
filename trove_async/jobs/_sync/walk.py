"""Walks a directory in the order of its keys. All of it blocks, so it runs in a worker thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

from trove_async._names import MAX_KEY_BYTES
from trove_async.errors import InvalidNameError, ObjectChangedError

from .entries import FileEntry, VersionRecord
from .filters import Filters
from .paths import is_temporary
from .sorting import SortedSpool

RECORD_ATTRIBUTE: Final = "user.trove.sync"
"""The extended attribute of a downloaded file with its `VersionRecord`. Linux only."""

_BATCH: Final = 512
"""Entries of one batch, and so of one hop to a thread."""

_MARK_DIRECTORY: Final = b"/"

_MARK_UNKNOWN: Final = b"\0"
"""Marks a name that may be a directory: it cannot be examined, or is a link to something that is missing."""

_get_attribute = getattr(os, "getxattr", None)


@dataclass(slots=True)
class WalkBatch:
    """Some entries of a walk, in bytewise order of their keys.

    Attributes:
        entries: The entries.
        problems: Names that no entry can represent, with their errors.
        skips: Names that were skipped, with the reasons.
        incomplete: Whether a name or a directory could not be examined, so that files may be missing from
            the walk. Each is also a problem, or an entry with an error.
        temporaries: Keys of temporary files of a sync.
    """

    entries: list[FileEntry] = field(default_factory=list)
    problems: list[tuple[str, Exception]] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)
    incomplete: bool = False
    temporaries: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries) + len(self.problems) + len(self.skips) + len(self.temporaries)


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in.

    Attributes:
        path: Its path.
        base: The start of the keys of its files.
        identity: Its device and inode.
        spool: Its names.
        records: The remaining names, in order.
        has_vanished_names: Whether a name was missing when it was examined.
    """

    path: str
    base: str
    identity: tuple[int, int]
    spool: SortedSpool
    records: Iterator[bytes]
    has_vanished_names: bool = False


class Walk:
    """Iterates over the files below a directory.

    The names of one directory are held in memory up to a limit, then in a temporary file. So a directory
    may have any number of files, and a tree any number of directories.

    Args:
        root: The directory.
        filters: Selects the files. Directories that cannot contain a selected file are not entered.
        follow: Whether symbolic links are followed. A link to a directory that contains the link is skipped.
        read_records: Whether to read the records of downloaded files.
    """

    def __init__(
        self, root: str, filters: Filters, *, follow: bool, read_records: bool = False
    ) -> None:
        self._root = root
        self._filters = filters
        self._follow = follow
        self._read_records = read_records and _get_attribute is not None
        self._batch = WalkBatch()
        self._levels: list[_Level] = []
        self._batches = self._all()

    def next(self) -> WalkBatch | None:
        """Return the next batch, or None at the end."""
        return next(self._batches, None)

    def close(self) -> None:
        """Remove the temporary files. Idempotent."""
        self._batches.close()
        while self._levels:
            self._levels.pop().spool.close()

    def _all(self) -> Generator[WalkBatch, None, None]:
        # A stack instead of recursion: a tree may be deeper than Python's stack.
        status = os.stat(self._root)  # noqa: PTH116 - a Path takes three times as long
        self._enter(self._root, "", (status.st_dev, status.st_ino))
        while self._levels:
            level = self._levels[-1]
            record = next(level.records, None)
            if record is None:
                self._levels.pop().spool.close()
                if level.has_vanished_names:
                    self._check_same(level)
            elif record.endswith(_MARK_DIRECTORY):
                self._enter_subdirectory(level, os.fsdecode(record))
            elif record.endswith(_MARK_UNKNOWN):
                self._examine(level, os.fsdecode(record[:-1]), may_be_directory=True)
            else:
                self._examine(level, os.fsdecode(record), may_be_directory=False)
            if len(self._batch) >= _BATCH:
                yield self._take()
        if self._batch or self._batch.incomplete:
            yield self._take()

    def _take(self) -> WalkBatch:
        batch, self._batch = self._batch, WalkBatch()
        return batch

    def _enter(self, path: str, base: str, identity: tuple[int, int]) -> None:
        """List the names of a directory, and make it the current one.

        Args:
            path: Its path.
            base: The start of the keys of its files.
            identity: Its device and inode.
        """
        spool = SortedSpool()
        try:
            self._list_names(path, base, spool)
        except OSError as error:
            spool.close()
            if not base:
                raise
            self._add_failure(self._levels[-1], path, base, error)
            return
        self._levels.append(_Level(path, base, identity, spool, spool.records()))

    def _list_names(self, path: str, base: str, spool: SortedSpool) -> None:
        names: list[bytes] = []
        with os.scandir(path) as listed:
            for entry in listed:
                name = entry.name
                try:
                    encoded = name.encode()
                except UnicodeEncodeError:
                    shown = f"{base}{name}".encode(errors="surrogateescape")
                    self._batch.problems.append(
                        (
                            shown.decode(errors="backslashreplace"),
                            InvalidNameError(
                                "the file's name is not UTF-8, so no key can represent it: rename it"
                            ),
                        )
                    )
                    continue
                if is_temporary(name):
                    self._batch.temporaries.append(base + name)
                else:
                    names.append(encoded + _mark_of(entry, follow=self._follow))
                if len(names) >= _BATCH:
                    spool.add(names)
                    names.clear()
                    if spool.is_full:
                        spool.flush()
        spool.add(names)

    def _enter_subdirectory(self, parent: _Level, name: str) -> None:
        key = parent.base + name
        if not self._filters.may_select_below(key):
            return
        if len(key) > MAX_KEY_BYTES:
            self._batch.problems.append(
                (
                    key,
                    InvalidNameError(
                        f"no key has more than {MAX_KEY_BYTES} bytes: shorten the path"
                    ),
                )
            )
            return
        path = f"{parent.path}/{name[:-1]}"
        try:
            status = os.stat(path, follow_symlinks=self._follow)  # noqa: PTH116 - hot path
        except OSError as error:
            self._add_failure(parent, path, key, error)
            return
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISDIR(status.st_mode):
            self._add_incomplete(key, _replaced_error(key))
            return
        if any(level.identity == identity for level in self._levels):
            self._batch.skips.append((key, "directory loop"))
            return
        self._enter(path, key, identity)

    def _add_failure(self, parent: _Level, path: str, key: str, error: OSError) -> None:
        """Handle a directory that cannot be examined. One that was removed since it was listed is no problem."""
        if isinstance(error, FileNotFoundError) and not os.path.islink(path):  # noqa: PTH114 - hot path
            parent.has_vanished_names = True
        else:
            self._add_incomplete(key, error)

    def _add_incomplete(self, key: str, error: Exception) -> None:
        self._batch.incomplete = True
        self._batch.problems.append((key, error))

    def _check_same(self, level: _Level) -> None:
        """Check that a directory with vanished names is the one that was listed, not an empty mount point."""
        try:
            status = os.stat(level.path)  # noqa: PTH116 - a str
        except OSError as error:
            if self._levels:
                self._add_failure(self._levels[-1], level.path, level.base, error)
            else:
                self._add_incomplete(level.path, error)
            return
        if (status.st_dev, status.st_ino) != level.identity:
            name = level.base or level.path
            self._add_incomplete(name, _replaced_error(name))

    def _examine(self, level: _Level, name: str, *, may_be_directory: bool) -> None:
        """Add the entry of a name that was no directory when it was listed."""
        path, key = f"{level.path}/{name}", level.base + name
        selected = self._filters.selects(key)
        if may_be_directory:
            may_be_directory = self._filters.may_select_below(key + "/")
        if not selected and not may_be_directory:
            return
        try:
            status = os.stat(path, follow_symlinks=self._follow)  # noqa: PTH116 - hot path
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            if gone and not os.path.islink(path):  # noqa: PTH114 - hot path
                level.has_vanished_names = True
            elif selected:  # the entry keeps the object with this key
                self._batch.incomplete |= may_be_directory or not gone
                self._batch.entries.append(FileEntry(key, 0, 0, 0, "error", None, error))
            else:
                self._add_incomplete(key, error)
            return
        if stat.S_ISDIR(status.st_mode):  # its files are not in this walk
            self._add_incomplete(key + "/", _replaced_error(key))
            return
        if not selected:
            return
        mode = status.st_mode
        if stat.S_ISREG(mode):
            record = self._record_of(path) if self._read_records else None
            self._batch.entries.append(
                FileEntry(
                    key, status.st_size, status.st_mtime_ns, status.st_ctime_ns, "file", record
                )
            )
        elif stat.S_ISLNK(mode):
            self._batch.entries.append(FileEntry(key, 0, 0, 0, "link"))
        else:
            self._batch.entries.append(FileEntry(key, 0, 0, 0, "special"))

    def _record_of(self, path: str) -> VersionRecord | None:
        assert _get_attribute is not None  # noqa: S101 - checked by the constructor
        try:
            value = _get_attribute(path, RECORD_ATTRIBUTE, follow_symlinks=False)
        except OSError:
            return None  # the file has none, or its file system keeps none
        return VersionRecord.decode(value)


def _mark_of(entry: os.DirEntry[str], *, follow: bool) -> bytes:
    """Return the mark of a directory, of a name that may be one, or none."""
    try:
        if entry.is_dir(follow_symlinks=follow):
            return _MARK_DIRECTORY
        if follow and entry.is_symlink() and not entry.is_file():
            return _MARK_UNKNOWN  # the link may be broken
    except OSError:  # for example a link to itself
        return _MARK_UNKNOWN
    return b""


def _replaced_error(key: str) -> ObjectChangedError:
    return ObjectChangedError(f"{key!r} was replaced while the directory was listed: sync again")
