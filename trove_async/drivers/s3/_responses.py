"""Reads response documents of limited size and translates their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

from trove_async._concurrency import in_thread
from trove_async._http import Response
from trove_async.errors import UnavailableError
from trove_async.models import KiB, MiB, ObjectInfo

from ._data_plane import UnconfirmedWriteError
from ._documents import ErrorDocumentError
from ._encoding import strong_etag
from ._errors import failure
from ._headers import response_time
from ._xml import MalformedResponse, is_large

if TYPE_CHECKING:
    from ._documents import WriteResult

T = TypeVar("T")

PAGE_BYTES: Final = 16 * MiB
"""Maximum size of a page of a listing, and of the result of DeleteObjects. 1,000 of the longest keys,
percent-encoded, take a quarter of it."""

_DOCUMENT_BYTES: Final = 256 * KiB
"""Maximum size of any other document: the result of an upload or a copy, or an object's tags."""


async def read_document(
    response: Response, parse: Callable[[bytes], T], limit: int = _DOCUMENT_BYTES
) -> T:
    """Read and parse the document of a response, and close the response.

    Args:
        response: The response. Its status is a success.
        parse: Parses the body. It runs in a worker thread if the body is large.
        limit: Maximum size of the body in bytes.

    Raises:
        TroveError: The document is an error.
        UnavailableError: The document is malformed.
        IntegrityError: The body is larger than `limit`.
    """
    try:
        body = await response.read_all(limit)
    finally:
        response.close()
    try:
        return await in_thread(parse, body) if is_large(body) else parse(body)
    except ErrorDocumentError as error:
        document = error.document
        raise failure(HTTPStatus.OK, document.code, document.message, response.headers) from error
    except MalformedResponse as error:
        raise malformed(error) from error


async def read_write_result(
    response: Response, parse: Callable[[bytes], WriteResult], info: ObjectInfo
) -> ObjectInfo:
    """Return information about an object that the service copied or assembled from parts.

    Args:
        response: The response. Its status is a success.
        parse: Parses the document.
        info: The object as the request and the response's headers describe it.

    Raises:
        TroveError: The document is an error.
        UnconfirmedWriteError: The document is neither an error nor a result.
    """

    def parse_or_none(body: bytes) -> WriteResult | None:
        try:
            return parse(body)
        except MalformedResponse:
            return None

    result = await read_document(response, parse_or_none)
    if result is None:
        raise UnconfirmedWriteError(info)
    return replace(
        info,
        etag=strong_etag(result.etag),  # a weak ETag does not identify the content
        last_modified=result.last_modified or info.last_modified,
        checksums=result.checksums,
    )


def read_time(response: Response) -> datetime:
    """Return the date of a response, or this machine's time if it has none.

    Raises:
        UnavailableError: The date is malformed.
    """
    try:
        return response_time(response.headers)
    except MalformedResponse as error:
        raise malformed(error) from error


def malformed(error: MalformedResponse) -> UnavailableError:
    """Return the error for a malformed response."""
    return UnavailableError(f"the service's response is malformed: {error}")
