"""Listings: the keys of a bucket in bytewise order, from the directories that are on the way.

A directory is read once, sorted as keys sort (``a.b`` before ``a/…``, because ``.`` comes before
``/``), and entered only where the listing gets to it. A large one that page after page is taken from
is remembered, for as long as its times say that it is unchanged.
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
from ._metadata import etag_of, written
from ._openat2 import ABSENT, DIRECTORY

if TYPE_CHECKING:
    from ._layout import Layout
    from ._root import Root
    from ._threads import Stop

_RUN: Final = 256
"""Entries that are looked at together: more would be looked through in vain for a small page."""


class _Names(Protocol):
    """How a tree of directories spells keys.

    An *entry* is what a directory's name adds to a key, with `mark` after it if it is a directory
    itself: so entries sort as the keys do to which they lead.
    """

    kind: str
    mark: str

    def scan(self, fd: int, base: str) -> list[str]:
        """Return the entries of a directory, sorted."""
        ...

    def towards(self, rest: str) -> str | None:
        """Return the directory entry that a key's `rest` leads through, if any."""
        ...

    def grown(self, base: str, entry: str) -> str:
        """Return what is spelled when the directory of `entry` is entered."""
        ...

    def name(self, entry: str) -> str:
        """Return the entry's name in its directory."""
        ...


class _PlainNames:
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

    def towards(self, rest: str) -> str | None:
        head, slash, _ = rest.partition("/")
        return head + slash if slash else None

    def grown(self, base: str, entry: str) -> str:
        return base + entry

    def name(self, entry: str) -> str:
        return entry.removesuffix("/")


class _OverflowNames:
    """Keys in escaped pieces; here spelled in Latin-1, one character for each byte of UTF-8."""

    kind = "overflow"
    mark = "\0"  # in no key, and before all that is in one

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

    def towards(self, rest: str) -> str | None:
        return rest[:PIECE] + "\0" if len(rest) > PIECE else None

    def grown(self, base: str, entry: str) -> str:
        return base + entry[:-1]

    def name(self, entry: str) -> str:
        if entry[-1] == "\0":
            return escape(entry[:-1].encode("latin-1"))
        return escape(entry.encode("latin-1")) + SUFFIX


class _Frame:
    """A directory that the walk is in: what it spells, its path, its entries, and the next one."""

    __slots__ = ("base", "entries", "index", "path")

    def __init__(self, base: str, path: str, entries: list[str]) -> None:
        self.base = base
        self.path = path
        self.entries = entries
        self.index = 0


class Walk:
    """A walk through one tree, that can be set to any key. It holds one directory open.

    Args:
        root: The root.
        bucket: The bucket, for what is told of its keys.
        names: How the tree spells keys.
        path: Its top, from the root.
        prefix: The walk may end where keys no longer begin so.
        stop: Whether to go on at all.
        fresh: Read every directory, whatever is remembered.
    """

    def __init__(
        self,
        root: Root,
        bucket: str,
        names: _Names,
        path: str,
        *,
        prefix: str,
        stop: Stop,
        fresh: bool,
    ) -> None:
        self._root = root
        self._bucket = bucket
        self._names = names
        self._escapes = names.kind != _PlainNames.kind
        self._prefix = prefix
        self._stop = stop
        self._fresh = fresh
        self._fd = -1
        self._frames: list[_Frame] = []
        self.exists = self._enter("", path)

    def seek(self, start: str) -> Iterator[tuple[str, str]]:
        """Yield ``(key, entry)`` for the keys from `start` on. One such iterator lives at a time."""
        for base, run in self.runs(start):
            for entry in run:
                yield base + entry, entry

    def runs(self, start: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the same, many files of one directory at a time: what they spell, their entries."""
        self._set(start)
        mark = self._names.mark
        while self._frames:
            frame = self._frames[-1]
            base, entries, first = frame.base, frame.entries, frame.index
            end = min(first + _RUN, len(entries))
            last = first
            while last < end and entries[last][-1] != mark:
                last += 1
            frame.index = last
            if last > first:
                yield base, entries[first:last]
            elif last == len(entries):
                self._leave()
            else:
                frame.index = last + 1
                deeper = self._names.grown(base, entries[last])
                if self._leads_on(deeper):
                    self._enter(deeper, f"{frame.path}/{self._names.name(entries[last])}")
                elif deeper > self._prefix:
                    return

    def load(self, key: str, entry: str) -> ObjectInfo | None:
        """Return what is known of the key that was just yielded; None if it is no file any more."""
        name = self._names.name(entry) if self._escapes else entry
        found = self._load_all([(key, name)])
        return found[0] if found else None

    def load_run(self, base: str, run: list[str]) -> list[ObjectInfo]:
        """Return what is known of the keys that were just yielded, but those that are no files."""
        if self._escapes:
            return self._load_all([(base + entry, self._names.name(entry)) for entry in run])
        return self._load_all([(base + entry, entry) for entry in run])

    def _load_all(self, names: list[tuple[str, str]]) -> list[ObjectInfo]:
        if self._fd < 0:
            try:
                self._fd = self._root.beneath.open(self._frames[-1].path, DIRECTORY)
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
            info = ObjectInfo.listed(bucket, key, size, backend=backend, find=_worked_out, raw=raw)
            found.append(info)
        return found

    def close(self) -> None:
        """Close the directory that is held open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _set(self, start: str) -> None:
        frames = self._frames
        while len(frames) > 1 and not start.startswith(frames[-1].base):
            self._leave()
        while frames:
            frame = frames[-1]
            rest = start[len(frame.base) :] if start.startswith(frame.base) else ""
            entries = frame.entries
            frame.index = bisect_left(entries, rest)
            towards = self._names.towards(rest)
            if towards is None:
                return
            index = bisect_left(entries, towards)
            if index == len(entries) or entries[index] != towards:
                return
            frame.index = index + 1
            path = f"{frame.path}/{self._names.name(towards)}"
            if not self._enter(self._names.grown(frame.base, towards), path):
                return

    def _leads_on(self, base: str) -> bool:
        return base.startswith(self._prefix) or self._prefix.startswith(base)

    def _enter(self, base: str, path: str) -> bool:
        """Read a directory and go on in it; False if it is gone."""
        self._stop.check()
        self.close()
        try:
            self._fd = self._root.beneath.open(path, DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return False
            raise
        try:
            entries = self._entries(base)
        except BaseException:
            self.close()
            raise
        self._frames.append(_Frame(base, path, entries))
        return True

    def _entries(self, base: str) -> list[str]:
        kind, snapshots = self._names.kind, self._root.snapshots
        status = os.fstat(self._fd)
        entries = None if self._fresh else snapshots.get(kind, status)
        if entries is None:
            entries = self._names.scan(self._fd, base)
            if len(base) * 4 < MAX_KEY - MAX_NAME:  # else it lacks what does not fit behind `base`
                snapshots.add(kind, status, entries)
        return entries

    def _leave(self) -> None:
        self.close()
        self._frames.pop()


class Walks:
    """The walks through both trees of a bucket, as one.

    Args:
        root: The root.
        bucket: The bucket.
        stop: Whether to go on at all.
        prefix: What the keys begin with that are wanted.
        fresh: Read every directory, whatever is remembered.

    Raises:
        BucketNotFoundError: There is no such bucket.
    """

    def __init__(
        self, root: Root, bucket: str, stop: Stop, *, prefix: str = "", fresh: bool = False
    ) -> None:
        home = root.layout.home(bucket)
        self._bucket = bucket
        plain = _PlainNames(root.layout)
        self._plain = Walk(root, bucket, plain, home, prefix=prefix, stop=stop, fresh=fresh)
        if not self._plain.exists:
            raise missing_bucket(bucket)
        path = f"{OVERFLOW}/{home}"
        hidden = _latin(prefix)
        try:
            self._hidden = Walk(
                root, bucket, _OverflowNames(), path, prefix=hidden, stop=stop, fresh=fresh
            )
        except BaseException:
            self._plain.close()
            raise

    def page(self, options: ListOptions) -> Page:
        """Return one page of the bucket's objects."""
        if self._hidden.exists:
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
        """Tell whether there is an object."""
        return any(next(walk.seek(""), None) for walk in (self._plain, self._hidden))

    def close(self) -> None:
        """Close what is held open."""
        self._plain.close()
        self._hidden.close()

    def _seek(self, start: str) -> Iterator[tuple[str, tuple[Walk, str]]]:
        plain, hidden = self._plain, self._hidden
        plains = plain.seek(start)
        hiddens = _decoded(hidden.seek(_latin(start)))
        left, right = next(plains, None), next(hiddens, None)
        while left is not None or right is not None:
            if right is None or (left is not None and left[0] <= right[0]):
                assert left is not None  # noqa: S101 - one of the two is not
                if right is not None and left[0] == right[0]:
                    right = next(hiddens, None)  # the plain file wins
                yield left[0], (plain, left[1])
                left = next(plains, None)
            else:
                yield right[0], (hidden, right[1])
                right = next(hiddens, None)


def _worked_out(status: tuple[float, int, int, int], name: str) -> object:
    if name == "etag":
        return etag_of(*status[1:])
    return written(status[0]) if name == "last_modified" else None


def _load(key: str, at: tuple[Walk, str]) -> ObjectInfo | None:
    walk, entry = at
    return walk.load(key, entry)


def _latin(text: str) -> str:
    return text.encode().decode("latin-1")


def _decoded(found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for key, entry in found:
        try:
            yield key.encode("latin-1").decode(), entry
        except UnicodeDecodeError:
            continue  # another tool's file: no key is spelled so
