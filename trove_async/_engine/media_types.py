"""Guesses a media type from the extension of a key."""

from __future__ import annotations

import mimetypes
from typing import Final

_TYPES: Final = mimetypes.MimeTypes().types_map[True]
"""Python's built-in table, without the additions from the machine's files."""

_COMPRESSED: Final = {
    ".bz2": "application/x-bzip2",
    ".gz": "application/gzip",
    ".xz": "application/x-xz",
    ".z": None,
    ".br": None,
    ".zst": "application/zstd",
}
"""Types of compressed files. A ``.csv.gz`` stored as text with a content encoding would be decompressed
by HTTP clients."""


def type_of(key: str) -> str | None:
    """Return the media type of a key's extension, or None if it is unknown."""
    dot = key.rfind(".")
    if dot <= key.rfind("/") + 1:  # no extension, or a hidden file
        return None
    extension = key[dot:].lower()
    return _COMPRESSED[extension] if extension in _COMPRESSED else _TYPES.get(extension)
