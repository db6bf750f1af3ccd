"""Writes in doubt: an earlier try may have been done, though nobody heard of it.

Sent again as it was, such a write would replace what another has written since (and may have made
of it), or delete what another has made anew. So what is there is looked at first, and only that
version is then replaced or deleted ("Retry strategy": mutations are idempotent by a generation).

What cannot be told: an object that is gone may be one that was written, and then deleted by
another. And a try that is still on its way when the next one is sent has no condition.
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
from ._resources import FIELDS, generation_of, info_of

if TYPE_CHECKING:
    from ._client import Client

T = TypeVar("T")


class Doubts:
    """Settles what became of earlier tries.

    Args:
        client: Sends requests.
        known: Tells which bucket is missing.
        backend: For `ObjectInfo.backend`.
    """

    def __init__(self, client: Client, known: BucketExistenceCache, backend: str) -> None:
        self._client = client
        self._known = known
        self._backend = backend

    async def of_put(
        self, bucket: str, key: str, options: PutOptions
    ) -> ObjectInfo | dict[str, str]:
        """Return the object, if an earlier try made it; else the next one's condition.

        Raises:
            UnavailableError: Another may have replaced what the earlier try made.
        """
        try:
            info = await self._there(bucket, key, options)
        except ObjectNotFoundError:
            return {"ifGenerationMatch": "0"}
        except PermissionDeniedError:
            # Who may not look can still make what is not there, and harms nobody by it.
            return {"ifGenerationMatch": "0"}
        if options.write_id is not None and info.write_id == options.write_id:
            return info
        return {"ifGenerationMatch": generation_of(info.etag)}

    async def of_delete(self, bucket: str, key: str, options: DeleteOptions) -> dict[str, str]:
        """Return the next try's condition.

        Raises:
            ObjectNotFoundError: It is gone.
            UnavailableError: Another may have made it anew.
        """
        return {"ifGenerationMatch": generation_of((await self._there(bucket, key, options)).etag)}

    async def _there(
        self, bucket: str, key: str, options: PutOptions | DeleteOptions
    ) -> ObjectInfo:
        target = object_path(bucket, key) + encode_query({"fields": FIELDS})
        answer = await found(self._known, bucket, key, self._client.send("GET", target, {}))
        info = info_of(await self._client.document(answer), bucket=bucket, backend=self._backend)
        mine = options.write_id is not None and info.write_id == options.write_id
        if mine or is_earlier(info.write_id, options.write_id) or _is_older(info, answer, options):
            return info
        raise UnavailableError(
            "whether this was done is not known: the answer to it was lost, and another may have"
            " written the object since; look at what is there",
            bucket=bucket,
            key=key,
            retryable=False,
        )


def _is_older(info: ObjectInfo, answer: Response, options: PutOptions | DeleteOptions) -> bool:
    """Tell whether the object was surely written before the earlier try, by the service's clock."""
    assert options.in_doubt_since is not None  # noqa: S101 - asked for those only
    passed = asyncio.get_running_loop().time() - options.in_doubt_since
    try:
        now = parse_service_date(
            answer.headers.get("date", "")
        )  # to the second, and never too late
    except ValueError:
        return False
    return info.last_modified < now - timedelta(seconds=passed)


@contextmanager
def replaced_meanwhile() -> Iterator[None]:
    """Have a write tried once more whose object was replaced since it was looked at."""
    try:
        yield
    except ObjectChangedError:
        raise  # it is a copy's source that is another
    except PreconditionFailedError as error:
        raise UnavailableError("another wrote the object in that very moment") from error


async def found(known: BucketExistenceCache, bucket: str, key: str, work: Awaitable[T]) -> T:
    """Return what `work` returns; a 404 is the object's or the bucket's, which is then asked."""
    try:
        return await work
    except NotFoundError as error:
        if isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
            raise
        if await known.exists(bucket):
            raise ObjectNotFoundError(error.message, bucket=bucket, key=key) from error
        raise BucketNotFoundError(error.message, bucket=bucket) from error
