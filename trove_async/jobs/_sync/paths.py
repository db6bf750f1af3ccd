"""Keys as paths below a directory, and the names of temporary files."""

from __future__ import annotations

import os
import re
from typing import Final

from trove_async.errors import InvalidNameError

TEMPORARY_PREFIX: Final = ".trove-sync-"
TEMPORARY_SUFFIX: Final = ".part"

_TEMPORARY: Final = re.compile(r"\.trove-sync-[0-9a-f]{16}\.part")
_DRIVE: Final = re.compile(r"[A-Za-z]:")

_RESERVED_ON_WINDOWS: Final = re.compile(
    r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE
)  # Win32, "Naming Files, Paths, and Namespaces"


def temporary_name() -> str:
    """Return a random name for a temporary file. It does not contain the final name, which may be long."""
    return f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}{TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Return whether a file's name is that of a temporary file of a sync."""
    return name.startswith(TEMPORARY_PREFIX) and _TEMPORARY.fullmatch(name) is not None


def check_path(key: str, *, windows: bool = os.name == "nt") -> None:
    """Raise InvalidNameError if a key is no path of a file below a directory.

    Args:
        key: The key without the prefix.
        windows: Whether the rules of Windows apply as well.
    """
    if key.startswith("/"):
        raise InvalidNameError(f"the key {key!r} is an absolute path, so no file was written")
    if "\0" in key:
        raise InvalidNameError(f"the key {key!r} contains NUL, so no file was written")
    segments = key.split("/")
    if "." in segments or ".." in segments:
        raise InvalidNameError(
            f"the key {key!r} has a '.' or '..' segment, which may lead out of the directory: no file was"
            " written"
        )
    if "" in segments:
        raise InvalidNameError(
            f"the key {key!r} has an empty segment, which no path can have: no file was written"
        )
    if is_temporary(segments[-1]):
        raise InvalidNameError(
            f"the key {key!r} has the name of a temporary file of a sync: no file was written"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidNameError(f"the key {key!r} has no UTF-8 form: no file was written") from None
    if windows:
        _check_on_windows(key, segments)


def _check_on_windows(key: str, segments: list[str]) -> None:
    if "\\" in key:
        reason = "a backslash, which separates directories on Windows"
    elif _DRIVE.match(key) or any(character in '<>:"|?*' for character in key):
        reason = "a drive letter, or a character that Windows does not allow"
    elif any(_RESERVED_ON_WINDOWS.fullmatch(segment) for segment in segments):
        reason = "the name of a device of Windows"
    elif any(segment[-1] in " ." for segment in segments):
        reason = "a segment that ends with a space or a dot, which Windows removes"
    else:
        return
    raise InvalidNameError(f"the key {key!r} has {reason}: no file was written")


class FolderConflicts:
    """Finds keys that need a folder where another key is a file: ``a`` and ``a/b``.

    Keys are passed in bytewise order. Only the keys that may still have another key below them are kept:
    each is the start of the next, so there are at most as many as a key has characters.
    """

    __slots__ = ("_starts",)

    def __init__(self) -> None:
        self._starts: list[str] = []

    def file_above(self, key: str) -> str | None:
        """Record a key. Return the recorded key that is a file where `key` needs a folder, or None."""
        starts = self._starts
        while starts and not key.startswith(starts[-1]):
            starts.pop()
        for start in reversed(starts):
            if key[len(start)] == "/":
                return start
        starts.append(key)
        return None
