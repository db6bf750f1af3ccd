"""Which path a bucket and a key have below the root. Pure: nothing here touches a file.

A key is *plain* where the file system can hold it under its own name: then its path is
``<bucket>/<key>``, and other tools see what they expect. The others, and those that meet a file
where they need a directory, lie in the overflow, ``.trove/overflow/<bucket>/…``: there a key's bytes
are cut in pieces of 64, each escaped so that no file system can take two for one. All pieces but the
last are directories, the last is a file with a suffix that an escaped piece cannot have. Pieces of
a fixed size sort as the keys do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from trove_async._names import has_dot_segment
from trove_async.errors import InvalidNameError

AREA: Final = ".trove"
"""The driver's own directory in the root. No key's path leads into one, of whichever root."""

OVERFLOW: Final = f"{AREA}/overflow"

MAX_NAME: Final = 255  # POSIX <limits.h>, NAME_MAX, on every file system in common use
MAX_KEY: Final = 1024  # trove_async._names.MAX_KEY_BYTES: a longer path is no object's

PIECE: Final = 64
"""Bytes of a piece: escaped, at most 192, which leaves room in a name; 1,024 make 16 of them."""

SUFFIX: Final = ".o"

_KEEP = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = [chr(byte) if byte in _KEEP else f"%{byte:02x}" for byte in range(256)]
_ESCAPE = re.compile(r"%([0-9a-f]{2})")

# What no file system changes: one case, ASCII, no name that ends in a dot (VFAT drops it).
_UNFOLDED = re.compile(r"(?:[a-z0-9._-]*[a-z0-9_-](?:/|\Z))+")


def escape(data: bytes) -> str:
    """Return `data` as a name of lower-case letters, digits, ``_``, ``-`` and ``%xx``."""
    return "".join(map(_ESCAPED.__getitem__, data))


def unescape(name: str) -> bytes | None:
    """Return what `escape` made `name` of; None if it did not make it."""
    if not name.isascii():
        return None
    data = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name).encode("latin-1")
    return data if escape(data) == name else None


class Spot:
    """Where one object may lie.

    Attributes:
        bucket: Its bucket.
        key: Its key.
        home: The bucket's directory, a name in the root.
        plain: Its path from the root under its own name; None where it can have none.
    """

    __slots__ = ("_overflow", "bucket", "home", "key", "plain")

    def __init__(self, bucket: str, key: str, home: str, plain: str | None) -> None:
        self.bucket = bucket
        self.key = key
        self.home = home
        self.plain = plain
        self._overflow: str | None = None

    @property
    def overflow(self) -> str:
        """Its path from the root in the overflow."""
        if self._overflow is None:
            data = self.key.encode()
            pieces = [escape(data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
            self._overflow = f"{OVERFLOW}/{self.home}/{'/'.join(pieces)}{SUFFIX}"
        return self._overflow


class Layout:
    """The rules of one root.

    Args:
        folding: Whether its file system takes different names for one (upper and lower case, two
            Unicode forms, a dot at the end): then only names that it leaves alone are plain.
    """

    __slots__ = ("folding",)

    def __init__(self, *, folding: bool = False) -> None:
        self.folding = folding

    def spot(self, bucket: str, key: str) -> Spot:
        """Return where the object may lie."""
        home = self.home(bucket)
        return Spot(bucket, key, home, f"{home}/{key}" if self.plain(key) else None)

    def plain(self, key: str) -> bool:
        """Tell whether the file system can hold the key under its own name."""
        if key[0] == "/" or key[-1] == "/" or "//" in key:
            return False
        if "." in key and has_dot_segment(key):
            return False  # its path would lead out of the bucket: stores refuse it before this
        if AREA in key and AREA in key.split("/"):
            return False  # there the area of a root would be, that lies in this one
        # A code point has at most 4 bytes: the short ones, which most are, need no second look.
        if len(key) * 4 > MAX_NAME and any(
            len(segment.encode()) > MAX_NAME for segment in key.split("/")
        ):
            return False
        return not self.folding or _UNFOLDED.fullmatch(key) is not None

    def home(self, bucket: str) -> str:
        """Return the name of the bucket's directory.

        Raises:
            InvalidNameError: The file system cannot hold the name, nor an escaped form of it.
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

    def bucket(self, home: str) -> str | None:
        """Return the bucket of which `home` is the directory; None if it is nobody's."""
        if home.startswith("%="):
            data = unescape(home[2:])
            try:
                bucket = "" if data is None else data.decode()
            except UnicodeDecodeError:
                return None
        else:
            bucket = home.removeprefix("%")
        if not bucket or not is_text(bucket):
            return None
        return bucket if self.home(bucket) == home else None


def is_text(name: str) -> bool:
    """Tell whether the name, as Python read it from a directory, is UTF-8."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_folding(exists: Callable[[str], bool], made: str) -> bool:
    """Tell whether a directory that holds only `made` (`PROBE`) also answers to like names."""
    lower, decomposed, dotless = made.lower(), made.replace("é", "e\u0301"), made.rstrip(".")
    return any(map(exists, (lower, decomposed, dotless)))


PROBE: Final = "Prob\u00e9."
