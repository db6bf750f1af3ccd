"""Retries writes whose earlier attempt may have succeeded, although its response was lost.

An unconditional retry could replace or delete an object that another client has written since that
attempt. The driver therefore reads the current version first, and makes the retry conditional on it
(Cloud Storage documentation, "Retry strategy": operations are idempotent if they are conditional on a
generation).

Two cases are not detected. If another client has deleted the object that the earlier attempt wrote, the
retry creates it again. If the earlier attempt is still in flight, it may replace what the retry writes,
because it has no condition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from trove_async._http import Response
from trove_async._http.services import BucketExistenceCache
from trove_async._http_dates import parse_service_date
from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import DeleteOptions, PutOptions, is_earlier

from ._encoding import encode_query, object_path
from ._errors import bucket_not_found, object_not_found
from ._resources import FIELDS, info_from_resource, require_generation

if TYPE_CHECKING:
    from ._client import Client

T = TypeVar("T")


class LostResponses:
    """Finds out whether an earlier attempt succeeded.

    Args:
        client: Sends requests.
        bucket_cache: Checks whether buckets exist.
        backend: For `ObjectInfo.backend`.
    """

    def __init__(self, client: Client, bucket_cache: BucketExistenceCache, backend: str) -> None:
        self._client = client
        self._bucket_cache = bucket_cache
        self._backend = backend

    async def before_put(
        self, bucket: str, key: str, options: PutOptions
    ) -> ObjectInfo | dict[str, str]:
        """Return the object if an earlier attempt stored it, else the condition of the retry.

        Raises:
            UnavailableError: Another client may have replaced what the earlier attempt stored.
        """
        try:
            info = await self._current(bucket, key, options)
        except (ObjectNotFoundError, PermissionDeniedError):
            # Without permission to read the object, only a retry that replaces nothing is safe.
            return {"ifGenerationMatch": "0"}
        if options.write_id is not None and info.write_id == options.write_id:
            return info
        return {"ifGenerationMatch": require_generation(info.etag)}

    async def before_delete(self, bucket: str, key: str, options: DeleteOptions) -> dict[str, str]:
        """Return the condition of the retry.

        Raises:
            ObjectNotFoundError: The object does not exist.
            UnavailableError: Another client may have written it since the earlier attempt.
        """
        info = await self._current(bucket, key, options)
        return {"ifGenerationMatch": require_generation(info.etag)}

    async def _current(
        self, bucket: str, key: str, options: PutOptions | DeleteOptions
    ) -> ObjectInfo:
        """Return the current object if the retry may replace or delete it.

        Raises:
            UnavailableError: Another client may have written it since the earlier attempt.
        """
        # 1. Read the object.
        target = object_path(bucket, key) + encode_query({"fields": FIELDS})
        response = await resolve_not_found(
            self._bucket_cache, bucket, key, self._client.send("GET", target, {})
        )
        info = info_from_resource(
            await self._client.read_document(response), bucket=bucket, backend=self._backend
        )
        # 2. A retry is safe if this operation wrote the object, or if the object is older: by the order
        # of this store's own writes, or by the service's clock.
        is_own = options.write_id is not None and info.write_id == options.write_id
        if (
            is_own
            or is_earlier(info.write_id, options.write_id)
            or _is_older(info, response, options)
        ):
            return info
        raise UnavailableError(
            "the outcome of this write is unknown: the response was lost, and another client may have"
            " written the object since. Check the current object",
            bucket=bucket,
            key=key,
            retryable=False,
        )


def _is_older(info: ObjectInfo, response: Response, options: PutOptions | DeleteOptions) -> bool:
    """Return whether the object is older than the earlier attempt, by the service's clock."""
    assert options.in_doubt_since is not None  # noqa: S101 - called for retries only
    elapsed = asyncio.get_running_loop().time() - options.in_doubt_since
    try:
        now = parse_service_date(response.headers.get("date", ""))  # in whole seconds, rounded down
    except ValueError:
        return False
    return info.last_modified < now - timedelta(seconds=elapsed)


@contextmanager
def retry_if_replaced() -> Iterator[None]:
    """Convert a failed condition to a retryable error: the object was written after it was read."""
    try:
        yield
    except ObjectChangedError:
        raise  # it is about the source of a copy
    except PreconditionFailedError as error:
        raise UnavailableError("another client wrote the object at the same time") from error


async def resolve_not_found(
    bucket_cache: BucketExistenceCache, bucket: str, key: str, work: Awaitable[T]
) -> T:
    """Await `work`; if it raises a NotFoundError, determine whether the object or the bucket is missing."""
    try:
        return await work
    except NotFoundError as error:
        if isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
            raise
        if await bucket_cache.exists(bucket):
            raise object_not_found(error, bucket, key) from error
        raise bucket_not_found(error, bucket) from error
