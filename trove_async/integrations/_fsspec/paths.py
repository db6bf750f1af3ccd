"""Paths as bucket and key, and the dicts that describe what is there."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from trove_async import BucketInfo, ObjectInfo

from .errors import is_directory_error

Entry: TypeAlias = dict[str, Any]
"""The description of a file or directory: the result of `info`, and an item of `ls`."""


def split(path: str) -> tuple[str, str]:
    """Return the bucket and the key of a path without protocol. Either may be empty."""
    bucket, _, key = path.partition("/")
    return bucket, key


def address(path: str) -> tuple[str, str]:
    """Return the bucket and the key of an object's path.

    Raises:
        IsADirectoryError: The path is the root or a bucket.
    """
    bucket, key = split(path)
    if not key:
        raise is_directory_error(path)
    return bucket, key


def file(info: ObjectInfo) -> Entry:
    """Describe an object."""
    return {
        "name": f"{info.bucket}/{info.key}",
        "type": "file",
        "size": info.size,
        "mtime": info.last_modified,  # pyarrow looks for this name
        "last_modified": info.last_modified,
        "etag": info.etag,
        "content_type": info.content_type,
        "metadata": info.metadata,
        "storage_class": info.storage_class,
        "version_id": info.version_id,
        "backend": info.backend,
    }


def directory(path: str, created: datetime | None = None) -> Entry:
    """Describe the root, a bucket or a prefix."""
    entry: Entry = {"name": path, "type": "directory", "size": 0}
    return entry if created is None else {**entry, "created": created}


def bucket(info: BucketInfo) -> Entry:
    """Describe a bucket."""
    return directory(info.name, info.created)
