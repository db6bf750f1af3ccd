"""List the keys of a bucket in bytewise order.

A directory is read when the listing reaches it, and sorted as keys sort (``a.b`` before ``a/…``,
because ``.`` comes before ``/``). Its names stay in a cache while its times are unchanged, so that
the next page need not read it again.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from trove_async.models import ObjectInfo
from trove_async.options import ListOptions, Page
from trove_async.paging import first_key, paginate

from ._errors import missing_bucket
from ._layout import AREA, MAX_KEY, MAX_NAME, OVERFLOW, PIECE, SUFFIX, escape, is_text, unescape
from ._metadata import etag_of, modified_at
from ._openat2 import ABSENT, DIRECTORY

if TYPE_CHECKING:
    from ._layout import Layout
    from ._root import Root
    from ._threads import CancelFlag

_RUN: Final = 256
"""Entries in one batch. Small pages would not use the rest of a larger one."""


class _Spelling(Protocol):
    """How keys become names in a tree of directories.

    An *entry* is the part that a name adds to a key, followed by `mark` for a directory. So entries
    sort as their keys do.
    """

    kind: str
    mark: str

    def scan(self, fd: int, base: str) -> list[str]:
        """Return the entries of a directory, sorted."""
        ...

    def child(self, rest: str) -> str | None:
        """Return the directory entry that a key's `rest` leads through, if any."""
        ...

    def join(self, base: str, entry: str) -> str:
        """Return what is spelled when the directory of `entry` is entered."""
        ...

    def name(self, entry: str) -> str:
        """Return the entry's name in its directory."""
        ...


class _PlainSpelling:
    """Keys under their own names."""

    kind = "plain"
    mark = "/"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def scan(self, fd: int, base: str) -> list[str]:
        names: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
                elif entry.name != AREA and entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + "/")
        if self._layout.folding:
            names = [name for name in names if self._layout.plain(name.removesuffix("/"))]
        if not all(map(str.isascii, names)):
            names = [name for name in names if is_text(name)]
        room = MAX_KEY - len(base.encode())
        if room <= MAX_NAME:
            names = [name for name in names if len(name.encode()) <= room]
        names.sort()
        return names

    def child(self, rest: str) -> str | None:
        head, slash, _ = rest.partition("/")
        return head + slash if slash else None

    def join(self, base: str, entry: str) -> str:
        return base + entry

    def name(self, entry: str) -> str:
        return entry.removesuffix("/")


class _OverflowSpelling:
    """Keys in escaped pieces; here spelled in Latin-1, one character for each byte of UTF-8."""

    kind = "overflow"
    mark = "\0"  # in no key, and sorts before all characters of keys

    def scan(self, fd: int, base: str) -> list[str]:  # noqa: ARG002 - the rule is the same at all depths
        names: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    piece = unescape(entry.name)
                    if piece is not None and len(piece) == PIECE:
                        names.append(piece.decode("latin-1") + "\0")
                elif entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                    piece = unescape(entry.name.removesuffix(SUFFIX))
                    if piece is not None and 0 < len(piece) <= PIECE:
                        names.append(piece.decode("latin-1"))
        names.sort()
        return names

    def child(self, rest: str) -> str | None:
        return rest[:PIECE] + "\0" if len(rest) > PIECE else None

    def join(self, base: str, entry: str) -> str:
        return base + entry[:-1]

    def name(self, entry: str) -> str:
        if entry[-1] == "\0":
            return escape(entry[:-1].encode("latin-1"))
        return escape(entry.encode("latin-1")) + SUFFIX


class _Level:
    """An entered directory: its key prefix, its path, its entries, and the index of the next."""

    __slots__ = ("base", "entries", "index", "path")

    def __init__(self, base: str, path: str, entries: list[str]) -> None:
        self.base = base
        self.path = path
        self.entries = entries
        self.index = 0


class TreeWalk:
    """A walk through one tree that can seek to any key. It holds one directory open.

    Args:
        root: The root.
        bucket: The bucket, for what is told of its keys.
        names: How the tree spells keys.
        path: Its top, from the root.
        prefix: The walk may end where keys no longer begin so.
        cancel: Stops the listing when its call is cancelled.
        fresh: Read every directory, without the cache.
    """

    def __init__(
        self,
        root: Root,
        bucket: str,
        names: _Spelling,
        path: str,
        *,
        prefix: str,
        cancel: CancelFlag,
        fresh: bool,
    ) -> None:
        self._root = root
        self._bucket = bucket
        self._spelling = names
        self._escapes = names.kind != _PlainSpelling.kind
        self._prefix = prefix
        self._cancel = cancel
        self._fresh = fresh
        self._fd = -1
        self._levels: list[_Level] = []
        self.exists = self._enter("", path)

    def seek(self, start: str) -> Iterator[tuple[str, str]]:
        """Yield ``(key, entry)`` for the keys from `start` on. One such iterator lives at a time."""
        for base, run in self.runs(start):
            for entry in run:
                yield base + entry, entry

    def runs(self, start: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the same, many files of one directory at a time: what they spell, their entries."""
        self._position_at(start)
        mark = self._spelling.mark
        while self._levels:
            level = self._levels[-1]
            base, entries, first = level.base, level.entries, level.index
            end = min(first + _RUN, len(entries))
            last = first
            while last < end and entries[last][-1] != mark:
                last += 1
            level.index = last
            if last > first:
                yield base, entries[first:last]
            elif last == len(entries):
                self._leave()
            else:
                level.index = last + 1
                deeper = self._spelling.join(base, entries[last])
                if self._may_match(deeper):
                    self._enter(deeper, f"{level.path}/{self._spelling.name(entries[last])}")
                elif deeper > self._prefix:
                    return

    def load(self, key: str, entry: str) -> ObjectInfo | None:
        """Return the info of the key that was just yielded, or None if its file is gone."""
        name = self._spelling.name(entry) if self._escapes else entry
        found = self._load_all([(key, name)])
        return found[0] if found else None

    def load_run(self, base: str, run: list[str]) -> list[ObjectInfo]:
        """Return the infos of the keys that were just yielded, without those whose file is gone."""
        if self._escapes:
            return self._load_all([(base + entry, self._spelling.name(entry)) for entry in run])
        return self._load_all([(base + entry, entry) for entry in run])

    def _load_all(self, names: list[tuple[str, str]]) -> list[ObjectInfo]:
        if self._fd < 0:
            try:
                self._fd = self._root.confined.open(self._levels[-1].path, DIRECTORY)
            except OSError as error:
                if error.errno in ABSENT:
                    return []
                raise
        bucket, backend, fd, found = self._bucket, self._root.backend, self._fd, []
        for key, name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            size = status.st_size
            raw = (status.st_mtime, status.st_mtime_ns, size, status.st_ino)
            info = ObjectInfo.listed(bucket, key, size, backend=backend, find=_lazy_field, raw=raw)
            found.append(info)
        return found

    def close(self) -> None:
        """Close the directory that is held open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _position_at(self, start: str) -> None:
        levels = self._levels
        while len(levels) > 1 and not start.startswith(levels[-1].base):
            self._leave()
        while levels:
            level = levels[-1]
            rest = start[len(level.base) :] if start.startswith(level.base) else ""
            entries = level.entries
            level.index = bisect_left(entries, rest)
            child = self._spelling.child(rest)
            if child is None:
                return
            index = bisect_left(entries, child)
            if index == len(entries) or entries[index] != child:
                return
            level.index = index + 1
            path = f"{level.path}/{self._spelling.name(child)}"
            if not self._enter(self._spelling.join(level.base, child), path):
                return

    def _may_match(self, base: str) -> bool:
        return base.startswith(self._prefix) or self._prefix.startswith(base)

    def _enter(self, base: str, path: str) -> bool:
        """Read and enter a directory. Return False if it is gone."""
        self._cancel.check()
        self.close()
        try:
            self._fd = self._root.confined.open(path, DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return False
            raise
        try:
            entries = self._entries(base)
        except BaseException:
            self.close()
            raise
        self._levels.append(_Level(base, path, entries))
        return True

    def _entries(self, base: str) -> list[str]:
        kind, snapshots = self._spelling.kind, self._root.snapshots
        status = os.fstat(self._fd)
        entries = None if self._fresh else snapshots.get(kind, status)
        if entries is None:
            entries = self._spelling.scan(self._fd, base)
            if len(base) * 4 < MAX_KEY - MAX_NAME:  # else it lacks what does not fit behind `base`
                snapshots.add(kind, status, entries)
        return entries

    def _leave(self) -> None:
        self.close()
        self._levels.pop()


class BucketWalk:
    """The merged walks through both trees of a bucket.

    Args:
        root: The root.
        bucket: The bucket.
        cancel: Stops the listing when its call is cancelled.
        prefix: What the keys begin with that are wanted.
        fresh: Read every directory, without the cache.

    Raises:
        BucketNotFoundError: The bucket does not exist.
    """

    def __init__(
        self, root: Root, bucket: str, cancel: CancelFlag, *, prefix: str = "", fresh: bool = False
    ) -> None:
        directory = root.layout.directory(bucket)
        self._bucket = bucket
        plain = _PlainSpelling(root.layout)
        self._plain = TreeWalk(
            root, bucket, plain, directory, prefix=prefix, cancel=cancel, fresh=fresh
        )
        if not self._plain.exists:
            raise missing_bucket(bucket)
        path = f"{OVERFLOW}/{directory}"
        overflow = _latin(prefix)
        try:
            self._overflow = TreeWalk(
                root, bucket, _OverflowSpelling(), path, prefix=overflow, cancel=cancel, fresh=fresh
            )
        except BaseException:
            self._plain.close()
            raise

    def page(self, options: ListOptions) -> Page:
        """Return one page of the bucket's objects."""
        if self._overflow.exists:
            return paginate(self._bucket, options, self._seek, _load)
        if options.delimiter:
            return paginate(self._bucket, options, self._plain.seek, self._plain.load)
        return self._page_of_runs(options)

    def _page_of_runs(self, options: ListOptions) -> Page:
        """Return the page that `paginate` does where every key is an entry, in two thirds of its time."""
        entries: list[ObjectInfo] = []
        prefix, limit = options.prefix, options.limit
        for base, run in self._plain.runs(first_key(options)):
            ends = not (base + run[-1]).startswith(prefix)
            wanted = [one for one in run if (base + one).startswith(prefix)] if ends else run
            at = 0
            while at < len(wanted):
                if len(entries) == limit:
                    return Page(entries=entries, token=base + wanted[at])
                piece = wanted[at : at + limit - len(entries)]
                entries += self._plain.load_run(base, piece)
                at += len(piece)
            if ends:
                break
        return Page(entries=entries)

    def any(self) -> bool:
        """Return whether the bucket has an object."""
        return any(next(walk.seek(""), None) for walk in (self._plain, self._overflow))

    def close(self) -> None:
        """Close the open directories."""
        self._plain.close()
        self._overflow.close()

    def _seek(self, start: str) -> Iterator[tuple[str, tuple[TreeWalk, str]]]:
        plain, overflow = self._plain, self._overflow
        plain_keys = plain.seek(start)
        overflow_keys = _decoded(overflow.seek(_latin(start)))
        left, right = next(plain_keys, None), next(overflow_keys, None)
        while left is not None or right is not None:
            if right is None or (left is not None and left[0] <= right[0]):
                assert left is not None  # noqa: S101 - one of the two is not
                if right is not None and left[0] == right[0]:
                    right = next(overflow_keys, None)  # the plain file wins
                yield left[0], (plain, left[1])
                left = next(plain_keys, None)
            else:
                yield right[0], (overflow, right[1])
                right = next(overflow_keys, None)


def _lazy_field(status: tuple[float, int, int, int], name: str) -> object:
    if name == "etag":
        return etag_of(*status[1:])
    return modified_at(status[0]) if name == "last_modified" else None


def _load(key: str, at: tuple[TreeWalk, str]) -> ObjectInfo | None:
    walk, entry = at
    return walk.load(key, entry)


def _latin(text: str) -> str:
    return text.encode().decode("latin-1")


def _decoded(found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for key, entry in found:
        try:
            yield key.encode("latin-1").decode(), entry
        except UnicodeDecodeError:
            continue  # another tool's file, which is not a key
