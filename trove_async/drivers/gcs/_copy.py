"""Copies on the service's side: a rewrite, asked for until it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trove_async._http.services import BucketExistenceCache, map_condition_errors
from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions

from ._client import JSON
from ._encoding import encode_query, object_path
from ._lost_responses import replaced_meanwhile
from ._resources import FIELDS, generation_of, info_of, precondition, resource_of

if TYPE_CHECKING:
    from ._client import Client, Document
    from ._defaults import Defaults
    from ._lost_responses import Doubts
Head = Callable[[str, str, str | None], Awaitable[ObjectInfo]]

_REMEMBERED: Final = 1024
"""Copies under way whose tokens are kept, so that another try goes on where the one before broke."""


class Copier:
    """Copies objects.

    Args:
        client: Sends requests.
        known: Tells which bucket is missing.
        head: Returns an object's facts.
        doubts: Settle what became of earlier tries.
        backend: For `ObjectInfo.backend`.
        defaults: What is asked of the service for all objects.
    """

    def __init__(
        self,
        client: Client,
        known: BucketExistenceCache,
        head: Head,
        doubts: Doubts,
        backend: str,
        *,
        defaults: Defaults,
    ) -> None:
        self._defaults = defaults
        self._client = client
        self._known = known
        self._head = head
        self._doubts = doubts
        self._backend = backend
        self._tokens: dict[tuple[str, str | None], str] = {}

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy one version of an object. See `Copying.copy`."""
        query = {
            "ifSourceGenerationMatch": generation_of(options.source.etag),
            **precondition(options.put),
            **self._defaults.copied,
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
            time = await self._custom_time(src_bucket, src_key, options.source)
            # The content is the source's: what is known of its checksums is nothing to be set.
            put = self._defaults.applied(replace(options.put, checksums={}))
            resource = resource_of(put, custom_time=time)
            if options.put.in_doubt_since is not None and not options.put.conditional:
                settled = await self._doubts.of_put(dst_bucket, dst_key, options.put)
                if isinstance(settled, ObjectInfo):
                    return settled
                condition = f"&{encode_query(settled)[1:]}"
            with replaced_meanwhile() if condition else map_condition_errors(options.put):
                try:
                    said = await self._rewritten(path, condition, resource, options.put.write_id)
                except PreconditionFailedError as error:
                    await self._check_source(src_bucket, src_key, options, error)
                    raise
        except NotFoundError as error:
            raise await self._missing(error, src_bucket, src_key, dst_bucket) from error
        return info_of(said, bucket=dst_bucket, backend=self._backend)

    async def _custom_time(self, bucket: str, key: str, source: ObjectInfo) -> str | None:
        """Return the custom time of the source, which `ObjectInfo` does not have.

        A rewrite that says anything of the copy has to say all: JSON API, "Objects: rewrite",
        request body.
        """
        query = {"fields": "customTime", "generation": generation_of(source.etag)}
        try:
            said = await self._client.ask("GET", object_path(bucket, key) + encode_query(query))
        except NotFoundError:
            return None  # nor will there be a copy: the rewrite finds out what is missing
        time = said.get("customTime")
        return time if isinstance(time, str) and time else None

    async def _rewritten(
        self, path: str, condition: str, resource: bytes, write_id: str | None
    ) -> Document:
        """Return the copy's resource, asking as often as it takes. JSON API, "Objects: rewrite"."""
        job = path, write_id
        while True:
            token = self._tokens.get(job)
            target = path + condition
            if token is not None:
                target += f"&{encode_query({'rewriteToken': token})[1:]}"
            said = await self._client.ask("POST", target, JSON, [memoryview(resource)])
            if said.get("done"):
                self._tokens.pop(job, None)
                resource_said: Document = said.get("resource") or {}
                return resource_said
            token = said.get("rewriteToken")
            if not token:
                raise UnavailableError("the service's answer makes no sense: a copy without an end")
            if len(self._tokens) >= _REMEMBERED:
                self._tokens.clear()
            self._tokens[job] = token

    async def _check_source(
        self, bucket: str, key: str, options: CopyOptions, error: PreconditionFailedError
    ) -> None:
        """Raise ObjectChangedError if it is the source that is another: the service does not say."""
        try:
            now = await self._head(bucket, key, options.version_id)
        except ObjectNotFoundError:
            pass
        else:
            if now.etag == options.source.etag:
                return
        raise ObjectChangedError(
            "the source was replaced before it was copied", bucket=bucket, key=key
        ) from error

    async def _missing(
        self, error: NotFoundError, src_bucket: str, src_key: str, dst_bucket: str
    ) -> NotFoundError:
        for bucket in (dst_bucket, src_bucket):
            if not await self._known.exists(bucket):
                return BucketNotFoundError("no such bucket: create_bucket makes it", bucket=bucket)
        return ObjectNotFoundError(error.message, bucket=src_bucket, key=src_key)
