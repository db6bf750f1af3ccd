"""The media type that a key's name suggests."""

from __future__ import annotations

import mimetypes
from typing import Final

_TYPES: Final = mimetypes.MimeTypes().types_map[True]
"""Python's own table: a new object does not know what the machine's files would add."""

_COMPRESSED: Final = {
    ".bz2": "application/x-bzip2",
    ".gz": "application/gzip",
    ".xz": "application/x-xz",
    ".z": None,
    ".br": None,
    ".zst": "application/zstd",
}
"""What is compressed is stored as such: a ``.csv.gz`` that claimed to be text with a content encoding
would be unpacked by HTTP clients on the way."""


def type_of(key: str) -> str | None:
    """Return the media type that a key's extension stands for, None if it stands for none."""
    dot = key.rfind(".")
    if dot <= key.rfind("/") + 1:  # none, or a hidden file's name
        return None
    extension = key[dot:].lower()
    return _COMPRESSED[extension] if extension in _COMPRESSED else _TYPES.get(extension)
