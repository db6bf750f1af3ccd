"""Keys that some services store under a different name or without a body.

MinIO and SeaweedFS drop empty segments, so ``a//b`` and ``a/b`` are the same object. A put to one
replaces the other, and a move from one to the other deletes the object. SeaweedFS treats a
backslash as a slash and stores an object whose key ends in a slash as a directory, without its
body.
"""

from __future__ import annotations

import re
from enum import Enum

from trove_async._names import MAX_KEY_BYTES

_MAX_SIBLING_BYTES = MAX_KEY_BYTES - 16
"""Maximum number of bytes of a sibling key. Trials append suffixes of up to 16 bytes."""

_SLASHES = re.compile(r"(?<=[^/])//+")


class Oddity(Enum):
    """An unusual property of a key. The value is a phrase for messages."""

    LEADING = "a leading slash"
    EMPTY = "an empty segment"
    TRAILING = "a trailing slash"
    BACKSLASH = "a backslash"


ALL: frozenset[Oddity] = frozenset(Oddity)


find_oddity = re.compile(r"//|\\|\A/|/\Z").search
"""Finds an oddity in a key. Every request looks for one, and a function would cost another call."""


def is_usual(key: str) -> bool:
    """Return whether a key has no oddity."""
    return find_oddity(key) is None


def oddities_of(key: str) -> list[Oddity]:
    """Return the oddities of a key."""
    oddities = []
    if key.startswith("/"):
        oddities.append(Oddity.LEADING)
    if _SLASHES.search(key):
        oddities.append(Oddity.EMPTY)
    if key.endswith("/"):
        oddities.append(Oddity.TRAILING)
    if "\\" in key:
        oddities.append(Oddity.BACKSLASH)
    return oddities


def folded(key: str, oddity: Oddity) -> str:
    """Return the name under which a service that folds the oddity stores the key."""
    if oddity is Oddity.LEADING:
        return key.lstrip("/")
    if oddity is Oddity.TRAILING:
        return key.rstrip("/")
    if oddity is Oddity.EMPTY:
        return _SLASHES.sub("/", key)
    return key.replace("\\", "/")


def sample(key: str, oddity: Oddity, name: str) -> str:
    """Return a key with only this oddity, for a trial object.

    Credentials may be limited to a prefix, so the returned key is in the directory of `key`. If that
    directory has an oddity too, the returned key is in the last directory before the oddity. A key
    with a leading slash is at the root.

    Args:
        key: A key with the oddity.
        oddity: The oddity.
        name: A unique name.
    """
    if oddity is Oddity.LEADING:
        return f"/{name}"
    # Use the part of the key before its first oddity of any kind.
    usual = sibling(re.split(r"^/|//|\\|/$", key, maxsplit=1)[0], name)
    if oddity is Oddity.TRAILING:
        return f"{usual}/"
    return f"{usual}//x" if oddity is Oddity.EMPTY else f"{usual}\\x"


def sibling(key: str, name: str) -> str:
    """Return the key with its last segment replaced by `name`.

    If the result would be too long, it is placed in a directory closer to the root.
    """
    directory = key[: key.rfind("/") + 1]
    while len(directory.encode()) + len(name) > _MAX_SIBLING_BYTES:
        directory = directory[: directory.rfind("/", 0, -1) + 1]
    return directory + name
