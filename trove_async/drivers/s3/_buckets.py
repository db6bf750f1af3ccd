"""What buckets need beside a plane's requests."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from trove_async.errors import (
    BucketExistsError,
    BucketNotFoundError,
    NotFoundError,
    PermissionDeniedError,
)
from trove_async.models import BucketInfo

if TYPE_CHECKING:
    from ._data_plane import Plane


async def head(plane: Plane, bucket: str) -> BucketInfo:
    """Return what is known of a bucket; a missing one is a BucketNotFoundError."""
    try:
        return await plane.head_bucket(bucket)
    except NotFoundError as error:
        raise BucketNotFoundError(error.message) from error


async def in_order(plane: Plane) -> Sequence[BucketInfo]:
    """Return the buckets that the credentials own, sorted by name."""
    return sorted(await plane.list_buckets(), key=attrgetter("name"))


async def create(plane: Plane, bucket: str) -> None:
    """Make a bucket, which must not exist.

    us-east-1 takes a second making of one's own bucket for a success (S3 API Reference,
    "CreateBucket": BucketAlreadyOwnedByYou). Of others' buckets it says that they exist.
    """
    try:
        await head(plane, bucket)
    except (BucketNotFoundError, PermissionDeniedError):
        await plane.create_bucket(bucket)
    else:
        raise BucketExistsError("the bucket exists", bucket=bucket)
