"""Directories of a bucket: the prefixes of its keys up to a slash.

A directory exists as long as a key starts with its path and a slash. A key that ends with a slash is the
marker of a directory, and not a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from trove_async import BucketNotFoundError, ObjectNotFoundError, Prefix, Trove
from trove_async._concurrency import for_each

from . import paths
from .paths import Entry

_CONCURRENT_LISTINGS: Final = 16


async def has_children(store: Trove, path: str) -> bool:
    """Return whether a bucket exists, or a key starts with the path of a directory. One request."""
    bucket, key = paths.split(path)
    prefix = f"{key}/" if key else ""
    listing = store.list(bucket, prefix=prefix, page_size=1)
    try:
        async for _ in listing:
            return True
    except BucketNotFoundError:
        return False
    return not key


async def children(
    store: Trove, path: str, *, prefix: str = "", exact_sizes: bool = False
) -> list[Entry]:
    """Return the files and directories in a directory.

    Args:
        store: The store.
        path: The root (``""``), a bucket or a directory.
        prefix: Return only names that start with this.
        exact_sizes: Whether to head objects whose size the listing does not contain.

    Raises:
        BucketNotFoundError: The bucket does not exist.
    """
    if not path:
        buckets = await store.list_buckets()
        return [paths.bucket(info) for info in buckets if info.name.startswith(prefix)]
    bucket, key = paths.split(path)
    base = f"{key}/" if key else ""
    entries: list[Entry] = []
    listing = store.list(
        bucket, prefix=base + prefix, delimiter="/", details=exact_sizes and _may_encode(store)
    )
    for item in await listing.all():
        if not isinstance(item, Prefix):
            if not item.key.endswith("/"):
                entries.append(paths.file(item))
        # A path cannot end with a slash, so the directory "a//" has no path of its own.
        elif (name := item.prefix.rstrip("/")) and name != key:
            entries.append(paths.directory(f"{bucket}/{name}"))
    return entries


async def find(
    store: Trove,
    path: str,
    *,
    maxdepth: int | None = None,
    withdirs: bool = False,
    prefix: str = "",
    exact_sizes: bool = False,
) -> dict[str, Entry]:
    """Return the files below a directory, or the file itself, by path and sorted.

    Without `maxdepth`, the bucket is listed without a delimiter, so the number of requests does not depend on
    the number of directories.

    Args:
        store: The store.
        path: The root (``""``), a bucket, a directory or a file.
        maxdepth: The number of levels to descend. None: all.
        withdirs: Whether to return directories as well, `path` included.
        prefix: Return only what is in names on the first level that start with this.
        exact_sizes: As in `children`.
    """
    found: dict[str, Entry] = {}

    async def add_all(bucket_path: str) -> None:
        with suppress(BucketNotFoundError):
            await _add_all_below(
                store, bucket_path, found, prefix=prefix if path else "", exact_sizes=exact_sizes
            )

    async def add_level(directory: str) -> None:
        with suppress(BucketNotFoundError):
            entries = await children(store, directory, prefix=first, exact_sizes=exact_sizes)
            found.update((entry["name"], entry) for entry in entries)
            below.extend(entry["name"] for entry in entries if entry["type"] == "directory")

    # 1. List whole buckets, or one level after the other.
    level, below, first, depth = [path], list[str](), prefix, 0
    while level and (depth < maxdepth if maxdepth is not None else not (path or depth)):
        await for_each(level, add_level, limit=_CONCURRENT_LISTINGS)
        level, below, first, depth = below, list[str](), "", depth + 1
    if maxdepth is None:
        await for_each(level, add_all, limit=_CONCURRENT_LISTINGS)
    # 2. Add the path itself.
    bucket, key = paths.split(path)
    if not found and key and not prefix:
        with suppress(BucketNotFoundError, ObjectNotFoundError):
            return {path: paths.file(await store.head(bucket, key))}
    if withdirs and path and (found or (not key and await has_children(store, path))):
        found[path] = paths.directory(path)
    return {
        name: found[name] for name in sorted(found) if withdirs or found[name]["type"] == "file"
    }


async def _add_all_below(
    store: Trove, path: str, found: dict[str, Entry], *, prefix: str, exact_sizes: bool
) -> None:
    """Add the files below a bucket or directory, and the directories that contain them."""
    bucket, key = paths.split(path)
    base = f"{key}/" if key else ""
    listing = store.list(bucket, prefix=base + prefix, details=exact_sizes and _may_encode(store))
    for info in await listing.all():
        if not info.key.endswith("/"):
            found[f"{bucket}/{info.key}"] = paths.file(info)
        for parent in _parents(info.key, base):
            name = f"{bucket}/{parent}"
            if name in found:
                break  # and so are its parents
            found[name] = paths.directory(name)


def _parents(key: str, base: str) -> Iterator[str]:
    """Yield the directories between `base` and a key, the deepest first."""
    end = key.rfind("/")
    while end > len(base):
        if key[end - 1] != "/":
            yield key[:end]
        end = key.rfind("/", 0, end)


def _may_encode(store: Trove) -> bool:
    """Return whether a middleware may have changed the size of objects."""
    return bool(store._core.transforms.configured)  # noqa: SLF001 - part of the library
