"""Keys that some services store under another name, or without their body. Pure.

MinIO and SeaweedFS drop empty segments, so that ``a//b`` is ``a/b``: a put replaces another object,
and a move deletes its source, which is its destination. SeaweedFS takes a backslash for a slash and
stores an object whose key ends in a slash as a directory, without its body.
"""

from __future__ import annotations

import re
from enum import Enum

from trove_async._names import MAX_KEY_BYTES

_ROOM = MAX_KEY_BYTES - 16
"""Bytes of a key to try something on: what is tried may add some."""

_SLASHES = re.compile(r"(?<=[^/])//+")


class Oddity(Enum):
    """What is unusual about a key. The value is a phrase for messages."""

    LEADING = "a leading slash"
    EMPTY = "an empty segment"
    TRAILING = "a trailing slash"
    BACKSLASH = "a backslash"


ALL: frozenset[Oddity] = frozenset(Oddity)


def is_usual(key: str) -> bool:
    """Return whether every known service stores the key as it is."""
    return not ("//" in key or "\\" in key or key.startswith("/") or key.endswith("/"))


def oddities_of(key: str) -> list[Oddity]:
    """Return what is unusual about a key."""
    found = []
    if key.startswith("/"):
        found.append(Oddity.LEADING)
    if _SLASHES.search(key):
        found.append(Oddity.EMPTY)
    if key.endswith("/"):
        found.append(Oddity.TRAILING)
    if "\\" in key:
        found.append(Oddity.BACKSLASH)
    return found


def folded(key: str, oddity: Oddity) -> str:
    """Return the key under which a service that folds the oddity stores a key that has it."""
    if oddity is Oddity.LEADING:
        return key.lstrip("/")
    if oddity is Oddity.TRAILING:
        return key.rstrip("/")
    if oddity is Oddity.EMPTY:
        return _SLASHES.sub("/", key)
    return key.replace("\\", "/")


def sample(key: str, oddity: Oddity, name: str) -> str:
    """Return a key that has the oddity alone, beside a key that has it, for an object to try it on.

    Beside it, because credentials may be limited to a prefix.

    Args:
        key: A key with the oddity.
        oddity: Which one.
        name: A name that no other object has.
    """
    if oddity is Oddity.LEADING:
        return f"/{name}"
    # Up to the first oddity of any kind.
    usual = sibling(re.split(r"^/|//|\\|/$", key, maxsplit=1)[0], name)
    if oddity is Oddity.TRAILING:
        return f"{usual}/"
    return f"{usual}//x" if oddity is Oddity.EMPTY else f"{usual}\\x"


def sibling(key: str, name: str) -> str:
    """Return a key that differs from another one in its last segment.

    It is nearer to the root where it would be too long there.
    """
    directory = key[: key.rfind("/") + 1]
    while len(directory.encode()) + len(name) > _ROOM:
        directory = directory[: directory.rfind("/", 0, -1) + 1]
    return directory + name
