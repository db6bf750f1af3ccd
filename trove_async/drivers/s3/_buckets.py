"""The bucket operations of the driver contract, built from requests of the data plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
)
from trove_async.models import BucketInfo

from ._errors import bucket_not_found, object_not_found

if TYPE_CHECKING:
    from ._data_plane import DataPlane


async def head(plane: DataPlane, bucket: str) -> BucketInfo:
    """Return information about a bucket, or raise BucketNotFoundError."""
    try:
        return await plane.head_bucket(bucket)
    except NotFoundError as error:
        raise bucket_not_found(error) from error


async def list_sorted(plane: DataPlane) -> Sequence[BucketInfo]:
    """Return the buckets of the credentials' account, sorted by name."""
    return sorted(await plane.list_buckets(), key=attrgetter("name"))


async def create(plane: DataPlane, bucket: str) -> None:
    """Create a bucket, or raise BucketExistsError.

    A HEAD comes first, because us-east-1 reports success if you already own the bucket (S3 API
    Reference, "CreateBucket": BucketAlreadyOwnedByYou). If another account owns it, the PUT fails.
    """
    try:
        await head(plane, bucket)
    except (BucketNotFoundError, PermissionDeniedError):
        await plane.create_bucket(bucket)
    else:
        raise BucketExistsError("the bucket exists", bucket=bucket)


async def specific_error(
    error: NotFoundError, bucket: str, exists: Callable[[str], Awaitable[bool]]
) -> NotFoundError:
    """Return an ObjectNotFoundError or a BucketNotFoundError in place of a NotFoundError.

    The response to a HEAD has no document, so it does not show which of the two is missing.
    """
    if isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
        return error
    if await exists(bucket):
        return object_not_found(error)
    return bucket_not_found(error)
