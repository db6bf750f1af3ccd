"""Buckets: made, looked at, listed and deleted, in a project."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    NotFoundError,
    PreconditionFailedError,
)
from trove_async.models import BucketInfo
from trove_async.paging import TokenCycle

from ._client import JSON
from ._encoding import bucket_path, check_bucket, encode_query
from ._errors import ConflictError
from ._resources import bucket_of

if TYPE_CHECKING:
    from ._client import Client

_ALL = "/storage/v1/b"


class Buckets:
    """The buckets of whoever it is that asks.

    Args:
        client: Sends requests.
        location: Where new ones are made; None: the service chooses.
        storage_class: The class of objects in new ones that are given none.
    """

    def __init__(self, client: Client, location: str | None, storage_class: str | None) -> None:
        self._client = client
        told = {"location": location, "storageClass": storage_class}
        self._told = {name: value for name, value in told.items() if value is not None}

    async def ping(self, project: str) -> None:
        """Ask for a bucket; that one may not see any is an answer, too."""
        query = encode_query({"project": project, "maxResults": "1", "fields": "kind"})
        await self._client.done("GET", _ALL + query, also={400, 403, 404})

    async def create(self, bucket: str, project: str) -> None:
        """Make a bucket."""
        said = {"name": check_bucket(bucket), **self._told}
        query = encode_query({"project": project, "fields": "name"})
        try:
            await self._client.ask("POST", _ALL + query, JSON, [_document(said)])
        except ConflictError as error:
            raise BucketExistsError("the bucket exists", bucket=bucket) from error

    async def delete(self, bucket: str) -> None:
        """Delete an empty bucket."""
        try:
            await self._client.done("DELETE", bucket_path(bucket))
        except NotFoundError as error:
            raise BucketNotFoundError(error.message, bucket=bucket) from error
        except (ConflictError, PreconditionFailedError) as error:
            raise BucketNotEmptyError(
                "the bucket has objects, or versions of some", bucket=bucket
            ) from error

    async def head(self, bucket: str) -> BucketInfo:
        """Return what is known of a bucket."""
        target = bucket_path(bucket) + encode_query({"fields": "name,timeCreated"})
        try:
            return bucket_of(await self._client.ask("GET", target))
        except NotFoundError as error:
            raise BucketNotFoundError(error.message, bucket=bucket) from error

    async def list(self, project: str) -> Sequence[BucketInfo]:
        """Return a project's buckets, sorted."""
        query = {"project": project, "fields": "items(name,timeCreated),nextPageToken"}
        buckets: list[BucketInfo] = []
        cycle = TokenCycle()
        while True:
            said = await self._client.page(_ALL + encode_query(query))
            buckets += map(bucket_of, said.get("items") or ())
            token = said.get("nextPageToken")
            if not token:
                return sorted(buckets, key=attrgetter("name"))
            cycle.check(token, empty=not said.get("items"))
            query["pageToken"] = token

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Make a bucket keep versions from now on, or no more."""
        target = bucket_path(bucket) + encode_query({"fields": "name"})
        said = {"versioning": {"enabled": enabled}}
        try:
            await self._client.ask("PATCH", target, JSON, [_document(said)])
        except NotFoundError as error:
            raise BucketNotFoundError(error.message, bucket=bucket) from error


def _document(said: Mapping[str, object]) -> memoryview:
    return memoryview(json.dumps(said).encode())
