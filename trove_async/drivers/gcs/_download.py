"""Bodies, opened as they are stored, together with what the service knows of their objects."""

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
from ._lost_responses import found
from ._resources import info_from, is_generation, part_in

if TYPE_CHECKING:
    from ._client import Client
Head = Callable[[str, str, str | None], Awaitable[ObjectInfo]]


class Bodies:
    """Opens bodies.

    Args:
        client: Sends requests.
        known: Tells which bucket is missing.
        head: Returns an object's facts.
        xml: Whether the service has the XML API; None: that is found out.
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
            # Not by a header: XML knows none for generations.
            _check_version(options, await self._head(bucket, key, options.version_id))
        answer, exact = await found(self._known, bucket, key, self._ask(bucket, key, options))
        try:
            if options.range is not None and answer.headers.get("content-length") == "0":
                raise RangeError("the object has no bytes")  # noqa: TRY301 - the answer is closed
            info, plain = info_from(
                answer.headers,
                bucket=bucket,
                key=key,
                backend=self._backend,
                partial=_is_partial(answer),
            )
            _check_version(options, info)
            part = _part(answer)
            if not (exact and plain):
                info = await self._same(info)
        except BaseException:
            answer.close()
            raise
        return GetResult(info, (0, info.size) if part is None else part[:2], answer)

    async def _ask(self, bucket: str, key: str, options: GetOptions) -> tuple[Response, bool]:
        """Ask for a body; return its answer, and whether the headers tell the object's metadata.

        XML's do. Emulators have that API only under the name that they take for their own, which
        may not be the one that they were found under; they have JSON's.
        """
        # Whoever accepts gzip gets objects as they are stored. Cloud Storage documentation,
        # "Transcoding of gzip-compressed files".
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
                answer = await self._client.send("GET", target, {**headers, **more})
            except NotFoundError as error:
                # One that says what is missing speaks XML.
                if self._xml or isinstance(error, (ObjectNotFoundError, BucketNotFoundError)):
                    raise
            else:
                self._xml = True
                return answer, True
        if match is not None:
            query["ifGenerationMatch"] = match
        target = object_path(bucket, key) + encode_query({"alt": "media", **query})
        answer = await self._client.send("GET", target, headers)
        self._xml = False
        return answer, False

    async def _same(self, info: ObjectInfo) -> ObjectInfo:
        """Return the facts of a version as JSON tells them: headers do not carry them all."""
        try:
            return await self._head(info.bucket, info.key, info.version_id)
        except ObjectNotFoundError as error:
            raise UnavailableError("the object was replaced while it was being opened") from error


def _is_partial(answer: Response) -> bool:
    return answer.status == HTTPStatus.PARTIAL_CONTENT


def _part(answer: Response) -> tuple[int, int, int] | None:
    try:
        return part_in(answer.headers, partial=_is_partial(answer))
    except ValueError as error:
        raise UnavailableError(f"the service's answer makes no sense: {error}") from error


def _check_version(options: GetOptions, info: ObjectInfo) -> None:
    """Raise PreconditionFailedError for a version that the conditions exclude."""
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: another version is there")
    if options.if_none_match is not None and options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: this version is there")
