"""The paths of buckets and keys below the root. Pure functions, without I/O.

A key is *plain* if the file system can hold it under its own name: then its path is
``<bucket>/<key>``, as other tools expect. All other keys, and those that need a directory where a
file is, are in the overflow, ``.trove/overflow/<bucket>/…``. There a key is split into pieces of 64
bytes, escaped so that no file system confuses two. The last piece is a file, with a suffix that no
escaped piece has; the others are directories. Pieces of a fixed size sort as the keys do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from trove_async._names import has_dot_segment
from trove_async.errors import InvalidNameError

AREA: Final = ".trove"
"""The driver's own directory in a root. No key's path leads into one, even of a nested root."""

OVERFLOW: Final = f"{AREA}/overflow"

MAX_NAME: Final = 255  # POSIX <limits.h>, NAME_MAX, on every file system in common use
MAX_KEY: Final = 1024  # trove_async._names.MAX_KEY_BYTES

PIECE: Final = 64
"""Bytes of a piece: escaped, at most 192, which leaves room in a name; 1,024 make 16 of them."""

SUFFIX: Final = ".o"

_KEEP = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = [chr(byte) if byte in _KEEP else f"%{byte:02x}" for byte in range(256)]
_ESCAPE = re.compile(r"%([0-9a-f]{2})")

# Names that no file system folds: lower case, ASCII, no dot at the end (VFAT drops it).
_UNFOLDED = re.compile(r"(?:[a-z0-9._-]*[a-z0-9_-](?:/|\Z))+")


def escape(data: bytes) -> str:
    """Return `data` as a name of lower-case letters, digits, ``_``, ``-`` and ``%xx``."""
    return "".join(map(_ESCAPED.__getitem__, data))


def unescape(name: str) -> bytes | None:
    """Undo `escape`. Return None for a name that `escape` does not return."""
    if not name.isascii():
        return None
    data = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name).encode("latin-1")
    return data if escape(data) == name else None


class Location:
    """The possible paths of one object.

    Attributes:
        bucket: Its bucket.
        key: Its key.
        directory: The bucket's directory, a name in the root.
        plain: Its path from the root under its own name, or None if the key is not plain.
    """

    __slots__ = ("_overflow", "bucket", "directory", "key", "plain")

    def __init__(self, bucket: str, key: str, directory: str, plain: str | None) -> None:
        self.bucket = bucket
        self.key = key
        self.directory = directory
        self.plain = plain
        self._overflow: str | None = None

    @property
    def overflow(self) -> str:
        """The path from the root in the overflow."""
        if self._overflow is None:
            data = self.key.encode()
            pieces = [escape(data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
            self._overflow = f"{OVERFLOW}/{self.directory}/{'/'.join(pieces)}{SUFFIX}"
        return self._overflow


class Layout:
    """The path rules of one root.

    Args:
        folding: Whether the file system treats different names as equal (upper and lower case,
            two Unicode forms, a dot at the end). Then only names that it never folds are plain.
    """

    __slots__ = ("folding",)

    def __init__(self, *, folding: bool = False) -> None:
        self.folding = folding

    def locate(self, bucket: str, key: str) -> Location:
        """Return the possible paths of the object."""
        directory = self.directory(bucket)
        return Location(bucket, key, directory, f"{directory}/{key}" if self.plain(key) else None)

    def plain(self, key: str) -> bool:
        """Return whether the file system can hold the key under its own name."""
        if key[0] == "/" or key[-1] == "/" or "//" in key:
            return False
        if "." in key and has_dot_segment(key):
            return False  # its path would leave the bucket; stores refuse such keys earlier
        if AREA in key and AREA in key.split("/"):
            return False  # reserved for the area of a root nested in this one
        # A code point has at most 4 bytes, so short keys need no further check.
        if len(key) * 4 > MAX_NAME and any(
            len(segment.encode()) > MAX_NAME for segment in key.split("/")
        ):
            return False
        return not self.folding or _UNFOLDED.fullmatch(key) is not None

    def directory(self, bucket: str) -> str:
        """Return the name of the bucket's directory.

        Raises:
            InvalidNameError: The file system cannot hold the name, even escaped.
        """
        if self.folding and not _UNFOLDED.fullmatch(bucket):
            name = f"%={escape(bucket.encode())}"
            if len(name) > MAX_NAME:
                raise InvalidNameError(
                    "the bucket's name is too long for a file system that folds names",
                    bucket=bucket,
                )
            return name
        return f"%{bucket}" if bucket.startswith((AREA, "%")) else bucket

    def bucket(self, directory: str) -> str | None:
        """Return the bucket of a directory in the root, or None if it is not a bucket's."""
        if directory.startswith("%="):
            data = unescape(directory[2:])
            try:
                bucket = "" if data is None else data.decode()
            except UnicodeDecodeError:
                return None
        else:
            bucket = directory.removeprefix("%")
        if not bucket or not is_text(bucket):
            return None
        return bucket if self.directory(bucket) == directory else None


def is_text(name: str) -> bool:
    """Return whether a name that Python read from a directory is UTF-8."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_folding(exists: Callable[[str], bool], made: str) -> bool:
    """Return whether a directory that holds only `made` (`PROBE`) also finds similar names."""
    lower, decomposed, dotless = made.lower(), made.replace("é", "e\u0301"), made.rstrip(".")
    return any(map(exists, (lower, decomposed, dotless)))


PROBE: Final = "Prob\u00e9."
