"""Opens bodies as stored, together with the metadata of their objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from trove_async._http import GetResult, Response, range_header
from trove_async._http.services import BucketExistenceCache
from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions

from ._encoding import encode_query, media_path, object_path
from ._lost_responses import resolve_not_found
from ._resources import content_part, info_from_headers, is_generation

if TYPE_CHECKING:
    from ._client import Client
Head = Callable[[str, str, str | None], Awaitable[ObjectInfo]]


class Downloader:
    """Opens bodies.

    Args:
        client: Sends requests.
        known: Checks whether a bucket exists.
        head: Returns an object's metadata.
        xml: Whether the service has the XML API. None: the first request finds out.
        backend: For `ObjectInfo.backend`.
    """

    def __init__(
        self,
        client: Client,
        known: BucketExistenceCache,
        head: Head,
        *,
        xml: bool | None,
        backend: str,
    ) -> None:
        self._client = client
        self._known = known
        self._head = head
        self._xml = xml
        self._backend = backend

    async def open(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open a body; the caller closes it."""
        if options.if_none_match is not None:
            # The XML API has no header for this condition on a generation.
            _check_version(options, await self._head(bucket, key, options.version_id))
        response, exact = await resolve_not_found(
            self._known, bucket, key, self._request(bucket, key, options)
        )
        try:
            if options.range is not None and response.headers.get("content-length") == "0":
                raise RangeError("the object is empty")  # noqa: TRY301 - closes the response
            info, plain = info_from_headers(
                response.headers,
                bucket=bucket,
                key=key,
                backend=self._backend,
                partial=_is_partial(response),
            )
            _check_version(options, info)
            part = _part(response)
            if not (exact and plain):
                info = await self._refetch(info)
        except BaseException:
            response.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], response)

    async def _request(self, bucket: str, key: str, options: GetOptions) -> tuple[Response, bool]:
        """Request a body; return the response and whether its headers carry the metadata.

        Those of the XML API do. Emulators may serve that API only under their configured host name,
        which may differ from the endpoint; they serve the JSON API under any.
        """
        # Accepting gzip gets objects as stored. Cloud Storage documentation, "Transcoding of
        # gzip-compressed files".
        headers = {"accept-encoding": "gzip"}
        query = {}
        if options.range is not None:
            headers["range"] = range_header(options.range)
        if options.version_id is not None:
            query["generation"] = options.version_id
        match = options.if_match if is_generation(options.if_match) else None
        if self._xml is not False:
            more = {} if match is None else {"x-goog-if-generation-match": match}
            target = media_path(bucket, key) + encode_query(query)
            try:
                response = await self._client.send("GET", target, {**headers, **more})
            except NotFoundError as error:
                # A 404 that names what is missing comes from the XML API.
                if self._xml or isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
                    raise
            else:
                self._xml = True
                return response, True
        if match is not None:
            query["ifGenerationMatch"] = match
        target = object_path(bucket, key) + encode_query({"alt": "media", **query})
        response = await self._client.send("GET", target, headers)
        self._xml = False
        return response, False

    async def _refetch(self, info: ObjectInfo) -> ObjectInfo:
        """Return the metadata of this version by the JSON API: the headers do not carry all of it."""
        try:
            return await self._head(info.bucket, info.key, info.version_id)
        except ObjectNotFoundError as error:
            raise UnavailableError("the object was replaced while it was being opened") from error


def _is_partial(response: Response) -> bool:
    return response.status == HTTPStatus.PARTIAL_CONTENT


def _part(response: Response) -> tuple[int, int, int] | None:
    try:
        return content_part(response.headers, partial=_is_partial(response))
    except ValueError as error:
        raise UnavailableError(f"the service's response is malformed: {error}") from error


def _check_version(options: GetOptions, info: ObjectInfo) -> None:
    """Raise PreconditionFailedError if a condition excludes the version."""
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: the current version is another")
    if options.if_none_match is not None and options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: this is the current version")
