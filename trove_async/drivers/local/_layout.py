"""The paths of buckets and keys below the root. Pure functions, without I/O.

A key is *plain* if the file system can hold it under its own name. Its path is then
``<bucket>/<key>``, as other tools expect. Keys that are not plain are in the *overflow*,
``.trove/overflow/<bucket>/…``. So is a plain key if, when it is created, its path conflicts with another:
it needs a directory where a file exists, or a file where a directory exists.

In the overflow, a key is split into pieces of 64 bytes. They are escaped, because some file systems
treat different names as equal. The last piece, with a suffix that no escaped piece has, is the name of
a file. The other pieces are directories. Pieces of a fixed size sort as the keys do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from trove_async._names import has_dot_segment
from trove_async.errors import InvalidNameError

AREA: Final = ".trove"
"""The driver's own directory in a root. No component of a plain path has this name, so none leads into
the area of a nested root."""

OVERFLOW: Final = f"{AREA}/overflow"

MAX_NAME: Final = 255  # bytes; POSIX <limits.h>, NAME_MAX, as on most file systems
MAX_KEY: Final = 1024  # trove_async._names.MAX_KEY_BYTES

PIECE: Final = 64
"""Size of a piece of a key in bytes. Its escaped name has at most 192 characters, so that it is shorter
than `MAX_NAME` even with the suffix. The longest key has 16 pieces."""

SUFFIX: Final = ".o"

_UNESCAPED = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = [chr(byte) if byte in _UNESCAPED else f"%{byte:02x}" for byte in range(256)]
_ESCAPE = re.compile(r"%([0-9a-f]{2})")

PROBE: Final = "Prob\u00e9."
"""The name of a file that a folding file system also finds under similar names. See `is_folding`."""

# Names that no file system folds: lower case, ASCII, no dot at the end (VFAT drops it).
_UNFOLDED = re.compile(r"(?:[a-z0-9._-]*[a-z0-9_-](?:/|\Z))+")


def escape(data: bytes) -> str:
    """Return `data` as a name of lower-case letters, digits, ``_``, ``-`` and ``%xx``."""
    return "".join(map(_ESCAPED.__getitem__, data))


def unescape(name: str) -> bytes | None:
    """Return the data that `escape` turns into `name`, or None if there is none."""
    if not name.isascii():
        return None
    data = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name).encode("latin-1")
    return data if escape(data) == name else None


class Location:
    """The possible paths of one object.

    Attributes:
        bucket: The bucket's name.
        key: The object's key.
        directory: The name of the bucket's directory in the root.
        plain: The plain path, relative to the root; None if the key is not plain.
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
        """The path in the overflow, relative to the root."""
        if self._overflow is None:  # computed on demand: most calls do not need it
            data = self.key.encode()
            pieces = [escape(data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
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
        return Location(
            bucket, key, directory, f"{directory}/{key}" if self.is_plain(key) else None
        )

    def is_plain(self, key: str) -> bool:
        """Return whether the file system can hold the key under its own name."""
        if key[0] == "/" or key[-1] == "/" or "//" in key:
            return False
        if "." in key and has_dot_segment(key):
            return False  # its path could lead out of the bucket
        if AREA in key and AREA in key.split("/"):
            return False  # reserved for the area of a root nested in this one
        # A code point has at most 4 bytes in UTF-8, so short keys cannot have long segments.
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
                    "the bucket's name is too long when it is escaped for this file system",
                    bucket=bucket,
                )
            return name
        return f"%{bucket}" if bucket.startswith((AREA, "%")) else bucket

    def bucket(self, directory: str) -> str | None:
        """Return the name of the bucket with this directory in the root; None if it is not a bucket's."""
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
    """Return whether a name that Python read from a directory is valid UTF-8."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_folding(exists: Callable[[str], bool]) -> bool:
    """Return whether a file system folds names.

    Args:
        exists: Returns whether a name exists in a directory that contains only a file `PROBE`.
    """
    lower_case, without_dot = PROBE.lower(), PROBE.rstrip(".")
    decomposed = PROBE.replace("\u00e9", "e\u0301")
    return any(map(exists, (lower_case, decomposed, without_dot)))
