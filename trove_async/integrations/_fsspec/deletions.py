"""Deletes directories and buckets in bulk, beside the listing of their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trove_async import Trove

from . import listings, paths


async def delete_tree(store: Trove, path: str) -> None:
    """Delete an object and all objects in the directory of that path, or a bucket with all its objects.

    Raises:
        FileNotFoundError: There is neither an object nor a directory.
        PermissionError: The path is the root.
    """
    bucket, key = paths.split(path)
    if not bucket:
        raise PermissionError("the root cannot be deleted, only buckets and objects")
    if not key:
        await store.delete_many(bucket, _keys_below(store, bucket, ""))
        await store.delete_bucket(bucket)
        return
    if not (await listings.has_children(store, path) or await store.exists(bucket, key)):
        raise FileNotFoundError(path)
    await store.delete_many(bucket, _keys_below(store, bucket, key))


async def _keys_below(store: Trove, bucket: str, key: str) -> AsyncIterator[str]:
    """Yield a key and all keys in the directory of that path, markers included. ``""``: all keys."""
    if key:
        yield key
    async for info in store.list(bucket, prefix=f"{key}/" if key else ""):
        yield info.key
