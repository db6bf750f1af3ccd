"""Create, look up, list and delete buckets, and set their versioning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    NotFoundError,
    PreconditionFailedError,
)
from trove_async.models import BucketInfo
from trove_async.paging import TokenCycle

from ._client import JSON
from ._encoding import bucket_path, check_bucket, encode_query
from ._errors import ConflictError, bucket_not_found
from ._resources import bucket_from_resource

if TYPE_CHECKING:
    from ._client import Client

_BUCKETS_PATH = "/storage/v1/b"


class Buckets:
    """Performs operations on buckets.

    Args:
        client: Sends requests.
        location: The location of new buckets. None: the service chooses.
        storage_class: The default storage class of new buckets. None: the service chooses.
    """

    def __init__(self, client: Client, location: str | None, storage_class: str | None) -> None:
        self._client = client
        fields = {"location": location, "storageClass": storage_class}
        self._new_bucket_fields = {
            name: value for name, value in fields.items() if value is not None
        }

    async def ping(self, project: str) -> None:
        """Check that the service responds, by listing at most one bucket.

        It is reachable even if it rejects the project or denies the permission.
        """
        query = encode_query({"project": project, "maxResults": "1", "fields": "kind"})
        await self._client.execute("GET", _BUCKETS_PATH + query, accepted_statuses={400, 403, 404})

    async def create(self, bucket: str, project: str) -> None:
        """Create a bucket."""
        document = {"name": check_bucket(bucket), **self._new_bucket_fields}
        query = encode_query({"project": project, "fields": "name"})
        try:
            await self._client.request(
                "POST", _BUCKETS_PATH + query, JSON, [_encode_json(document)]
            )
        except ConflictError as error:
            raise BucketExistsError("the bucket already exists", bucket=bucket) from error

    async def delete(self, bucket: str) -> None:
        """Delete an empty bucket."""
        try:
            await self._client.execute("DELETE", bucket_path(bucket))
        except NotFoundError as error:
            raise bucket_not_found(error, bucket) from error
        except (ConflictError, PreconditionFailedError) as error:
            raise BucketNotEmptyError(
                "the bucket must be empty: delete its objects and their versions first",
                bucket=bucket,
            ) from error

    async def head(self, bucket: str) -> BucketInfo:
        """Return information about a bucket."""
        target = bucket_path(bucket) + encode_query({"fields": "name,timeCreated"})
        try:
            return bucket_from_resource(await self._client.request("GET", target))
        except NotFoundError as error:
            raise bucket_not_found(error, bucket) from error

    async def list(self, project: str) -> Sequence[BucketInfo]:
        """Return the buckets of a project, sorted by name."""
        query = {"project": project, "fields": "items(name,timeCreated),nextPageToken"}
        buckets: list[BucketInfo] = []
        cycle = TokenCycle()
        while True:
            document = await self._client.get_page(_BUCKETS_PATH + encode_query(query))
            buckets += map(bucket_from_resource, document.get("items") or ())
            token = document.get("nextPageToken")
            if not token:
                return sorted(buckets, key=attrgetter("name"))
            cycle.check(token, empty=not document.get("items"))
            query["pageToken"] = token

    async def set_versioning(self, bucket: str, *, enabled: bool) -> None:
        """Turn versioning of a bucket on or off."""
        target = bucket_path(bucket) + encode_query({"fields": "name"})
        document = {"versioning": {"enabled": enabled}}
        try:
            await self._client.request("PATCH", target, JSON, [_encode_json(document)])
        except NotFoundError as error:
            raise bucket_not_found(error, bucket) from error


def _encode_json(document: Mapping[str, object]) -> memoryview:
    return memoryview(json.dumps(document).encode())
