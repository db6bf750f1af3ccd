"""Opens the bodies of objects as stored, together with the metadata."""

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
    """Opens the bodies of objects.

    Args:
        client: Sends requests.
        bucket_cache: Checks whether buckets exist.
        head: Returns an object's metadata.
        has_xml_api: Whether the service has the XML API. None: the first download finds out.
        backend: For `ObjectInfo.backend`.
    """

    def __init__(
        self,
        client: Client,
        bucket_cache: BucketExistenceCache,
        head: Head,
        *,
        has_xml_api: bool | None,
        backend: str,
    ) -> None:
        self._client = client
        self._bucket_cache = bucket_cache
        self._head = head
        self._has_xml_api = has_xml_api
        self._backend = backend

    async def open(self, bucket: str, key: str, options: GetOptions) -> GetResult:
        """Open the body of an object. The caller closes the response."""
        # 1. Check if_none_match first: the XML API has no header for this condition on a generation.
        if options.if_none_match is not None:
            _check_version(options, await self._head(bucket, key, options.version_id))
        # 2. Request the body.
        response, is_xml = await resolve_not_found(
            self._bucket_cache, bucket, key, self._request(bucket, key, options)
        )
        try:
            if options.range is not None and response.headers.get("content-length") == "0":
                raise RangeError("the object is empty")  # noqa: TRY301 - closes the response
            # 3. Read the metadata from the headers. If it is not exact, or if the JSON API sent the
            # headers, request the object's resource.
            info, is_exact = info_from_headers(
                response.headers,
                bucket=bucket,
                key=key,
                backend=self._backend,
                partial=_is_partial(response),
            )
            _check_version(options, info)
            part = _parse_part(response)
            if not (is_xml and is_exact):
                info = await self._refetch(info)
        except BaseException:
            response.close()
            raise
        return GetResult(
            info, (0, info.size) if part is None else part[:2], response, response.body
        )

    async def _request(self, bucket: str, key: str, options: GetOptions) -> tuple[Response, bool]:
        """Request a body; return the response and whether it came from the XML API.

        Only the XML API sends the metadata with the body. An emulator may serve the XML API only under
        its configured host name, which may differ from the endpoint's. It serves the JSON API under
        any host name.
        """
        # The service decompresses gzip objects for clients that do not accept gzip. Cloud Storage
        # documentation, "Transcoding of gzip-compressed files".
        headers = {"accept-encoding": "gzip"}
        query = {}
        if options.range is not None:
            headers["range"] = range_header(options.range)
        if options.version_id is not None:
            query["generation"] = options.version_id
        generation = options.if_match if is_generation(options.if_match) else None
        if self._has_xml_api is not False:
            condition = {} if generation is None else {"x-goog-if-generation-match": generation}
            target = media_path(bucket, key) + encode_query(query)
            try:
                response = await self._client.send("GET", target, {**headers, **condition})
            except NotFoundError as error:
                # The XML API reports whether the object or the bucket is missing. After any other 404,
                # try the JSON API, unless the service is known to have the XML API.
                if self._has_xml_api or isinstance(
                    error, (ObjectNotFoundError, BucketNotFoundError)
                ):
                    raise
            else:
                self._has_xml_api = True
                return response, True
        if generation is not None:
            query["ifGenerationMatch"] = generation
        target = object_path(bucket, key) + encode_query({"alt": "media", **query})
        response = await self._client.send("GET", target, headers)
        self._has_xml_api = False
        return response, False

    async def _refetch(self, info: ObjectInfo) -> ObjectInfo:
        """Return the complete metadata of this version, from the JSON API."""
        try:
            return await self._head(info.bucket, info.key, info.version_id)
        except ObjectNotFoundError as error:
            raise UnavailableError(
                "the object was replaced or deleted while it was opened"
            ) from error


def _is_partial(response: Response) -> bool:
    return response.status == HTTPStatus.PARTIAL_CONTENT


def _parse_part(response: Response) -> tuple[int, int, int] | None:
    try:
        return content_part(response.headers, partial=_is_partial(response))
    except ValueError as error:
        raise UnavailableError(f"the service's response is malformed: {error}") from error


def _check_version(options: GetOptions, info: ObjectInfo) -> None:
    """Raise PreconditionFailedError if the version does not satisfy a condition."""
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: the current version has a different etag")
    if options.if_none_match is not None and options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: the current version has this etag")
