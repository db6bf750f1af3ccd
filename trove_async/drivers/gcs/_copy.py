"""Copies objects on the server, by rewrite requests that are repeated until the copy is complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trove_async._http.services import BucketExistenceCache, map_condition_errors
from trove_async.errors import (
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions

from ._client import JSON
from ._encoding import append_query, encode_query, object_path
from ._errors import bucket_not_found, object_not_found
from ._lost_responses import retry_if_replaced
from ._resources import (
    FIELDS,
    condition_query,
    encode_resource,
    info_from_resource,
    require_generation,
)

if TYPE_CHECKING:
    from ._client import Client, Document
    from ._defaults import Defaults
    from ._lost_responses import LostResponses

Head = Callable[[str, str, str | None], Awaitable[ObjectInfo]]

_MAX_TOKENS: Final = 1024
"""The maximum number of rewrite tokens that are kept, one for each unfinished copy. A retry sends the
token to resume its copy."""


class Copier:
    """Copies objects.

    Args:
        client: Sends requests.
        bucket_cache: Checks whether buckets exist.
        head: Returns an object's metadata.
        lost_responses: Finds out whether an earlier attempt succeeded.
        backend: For `ObjectInfo.backend`.
        defaults: The storage class and the encryption key of new objects.
    """

    def __init__(
        self,
        client: Client,
        bucket_cache: BucketExistenceCache,
        head: Head,
        lost_responses: LostResponses,
        backend: str,
        *,
        defaults: Defaults,
    ) -> None:
        self._defaults = defaults
        self._client = client
        self._bucket_cache = bucket_cache
        self._head = head
        self._lost_responses = lost_responses
        self._backend = backend
        self._tokens: dict[tuple[str, str | None], str] = {}

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy one version of an object. See `Copying.copy`."""
        # 1. Build the request. It pins the source to its generation.
        query = {
            "ifSourceGenerationMatch": require_generation(options.source.etag),
            **condition_query(options.put),
            **self._defaults.copy_query,
        }
        if options.version_id is not None:
            query["sourceGeneration"] = options.version_id
        path = (
            f"{object_path(src_bucket, src_key)}/rewriteTo"
            + object_path(dst_bucket, dst_key).removeprefix("/storage/v1")
            + encode_query({"fields": f"done,rewriteToken,resource({FIELDS})", **query})
        )
        condition = ""
        try:
            # 2. Collect the metadata of the copy. The service computes the checksums.
            custom_time = await self._custom_time(src_bucket, src_key, options.source)
            put_options = self._defaults.apply(replace(options.put, checksums={}))
            resource = encode_resource(put_options, custom_time=custom_time)
            # 3. On a retry, an earlier attempt may have succeeded. If it did not, make the retry
            # conditional on the current object.
            if options.put.in_doubt_since is not None and not options.put.conditional:
                outcome = await self._lost_responses.before_put(dst_bucket, dst_key, options.put)
                if isinstance(outcome, ObjectInfo):
                    return outcome
                condition = append_query(outcome)
            # 4. Copy.
            with retry_if_replaced() if condition else map_condition_errors(options.put):
                try:
                    document = await self._rewrite(path, condition, resource, options.put.write_id)
                except PreconditionFailedError as error:
                    await self._check_source(src_bucket, src_key, options, error)
                    raise
        except NotFoundError as error:
            raise await self._explain_not_found(error, src_bucket, src_key, dst_bucket) from error
        return info_from_resource(document, bucket=dst_bucket, backend=self._backend)

    async def _custom_time(self, bucket: str, key: str, source: ObjectInfo) -> str | None:
        """Return the custom time of the source. `ObjectInfo` has no field for it.

        A rewrite that sets any metadata of the copy must set all of it (JSON API, "Objects: rewrite":
        request body).
        """
        query = {"fields": "customTime", "generation": require_generation(source.etag)}
        try:
            document = await self._client.request(
                "GET", object_path(bucket, key) + encode_query(query)
            )
        except NotFoundError:
            return None  # the rewrite fails as well, and its error is more precise
        custom_time = document.get("customTime")
        return custom_time if isinstance(custom_time, str) and custom_time else None

    async def _rewrite(
        self, path: str, condition: str, body: bytes, write_id: str | None
    ) -> Document:
        """Send rewrite requests until the copy is complete; return the resource of the copy.

        JSON API, "Objects: rewrite".
        """
        job = path, write_id  # the same for all attempts of one copy
        while True:
            token = self._tokens.get(job)
            target = path + condition
            if token is not None:
                target += append_query({"rewriteToken": token})
            document = await self._client.request("POST", target, JSON, [memoryview(body)])
            if document.get("done"):
                self._tokens.pop(job, None)
                resource: Document = document.get("resource") or {}
                return resource
            token = document.get("rewriteToken")
            if not token:
                raise UnavailableError(
                    "the service's response is malformed: an incomplete rewrite without a rewriteToken"
                )
            if len(self._tokens) >= _MAX_TOKENS:
                self._tokens.clear()
            self._tokens[job] = token

    async def _check_source(
        self, bucket: str, key: str, options: CopyOptions, error: PreconditionFailedError
    ) -> None:
        """Raise ObjectChangedError if the source has changed.

        The response does not show whether the condition on the source or on the destination failed.
        """
        try:
            current = await self._head(bucket, key, options.version_id)
        except ObjectNotFoundError:
            pass
        else:
            if current.etag == options.source.etag:
                return
        raise ObjectChangedError(
            "the source was replaced or deleted before it was copied", bucket=bucket, key=key
        ) from error

    async def _explain_not_found(
        self, error: NotFoundError, src_bucket: str, src_key: str, dst_bucket: str
    ) -> NotFoundError:
        """Return the error that names the missing bucket or object."""
        for bucket in (dst_bucket, src_bucket):
            if not await self._bucket_cache.exists(bucket):
                return bucket_not_found(error, bucket)
        return object_not_found(error, src_bucket, src_key)
