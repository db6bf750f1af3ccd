"""What a sync needs of a bucket besides its methods."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from trove_async.bucket import Bucket
from trove_async.models import ObjectInfo
from trove_async.store import Trove


def store_of(bucket: Bucket) -> Trove:
    """Return the store, or the pinned handle, that a bucket belongs to."""
    store = bucket._store  # noqa: SLF001 - jobs are part of the library
    assert isinstance(store, Trove)  # noqa: S101 - only Trove makes buckets
    return store


def may_transform(bucket: Bucket) -> bool:
    """Return whether the store has middleware, so that listings may have the sizes of encoded bodies."""
    return bool(store_of(bucket)._core.transforms.configured)  # noqa: SLF001 - jobs are part of the library


class MetadataSupport:
    """Finds out whether the backend of a key stores metadata."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._keeps: dict[str, bool] = {}

    async def keeps(self, key: str) -> bool:
        """Return whether the backend of a key stores metadata."""
        if not self._keeps:
            # Some capabilities are known only once the store is open.
            backends = store_of(self._bucket).backends
            self._keeps = {name: info.capabilities.metadata for name, info in backends.items()}
        if all(self._keeps.values()):
            return True
        return self._keeps[(await self._bucket.explain(key)).backend]


def kept_headers(info: ObjectInfo) -> dict[str, Any]:
    """Return the arguments of a put that give a copy in another store the headers and tags of an object."""
    return {
        "content_type": info.content_type or "",
        "metadata": info.metadata,
        "tags": info.tags,
        "cache_control": info.cache_control,
        "content_disposition": info.content_disposition,
        "content_encoding": info.content_encoding,
        "content_language": info.content_language,
        "expires": info.expires,
    }


async def delete_objects(
    bucket: Bucket, prefix: str, keys: Sequence[str]
) -> Sequence[Exception | None]:
    """Delete up to 1,000 objects. Return one result for each."""
    async with aclosing(aiter(bucket.delete_many(prefix + key for key in keys))) as results:
        return [result.error async for result in results]
