"""Reading the service's responses: documents of bounded size, and their errors as ours."""

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
from ._documents import AnsweredError
from ._encoding import strong_etag
from ._errors import failure
from ._headers import response_time
from ._xml import MalformedResponse, is_large

if TYPE_CHECKING:
    from ._documents import Stored

T = TypeVar("T")

PAGE_BYTES: Final = 16 * MiB
"""The limit of a listing's page. A page of 1,000 of the longest keys, all encoded, takes a quarter."""

_DOCUMENT_BYTES: Final = 256 * KiB
"""The limit of any other document: the result of an upload or a copy, or an object's tags."""


async def read_document(
    response: Response, parse: Callable[[bytes], T], limit: int = _DOCUMENT_BYTES
) -> T:
    """Read a response's document, close the response and return the parsed document.

    Args:
        response: The response, a success.
        parse: Parses the body; large bodies are parsed in a worker thread.
        limit: The largest body that is accepted, in bytes.

    Raises:
        TroveError: The document is an error.
        UnavailableError: The document is malformed.
    """
    try:
        body = await response.read_all(limit)
    finally:
        response.close()
    try:
        return await in_thread(parse, body) if is_large(body) else parse(body)
    except AnsweredError as error:
        document = error.answer
        raise failure(HTTPStatus.OK, document.code, document.message, response.headers) from error
    except MalformedResponse as error:
        raise malformed(error) from error


async def read_stored(
    response: Response, parse: Callable[[bytes], Stored], info: ObjectInfo
) -> ObjectInfo:
    """Return the facts of an object that the service has copied or put together from parts.

    Args:
        response: The response, a success.
        parse: Parses the document.
        info: The facts that the request and the response's headers give.

    Raises:
        UnconfirmedWriteError: The document is neither an error nor a result.
    """

    def parse_or_none(body: bytes) -> Stored | None:
        try:
            return parse(body)
        except MalformedResponse:
            return None

    stored = await read_document(response, parse_or_none)
    if stored is None:
        raise UnconfirmedWriteError(info)
    return replace(
        info,
        etag=strong_etag(stored.etag),
        last_modified=stored.last_modified or info.last_modified,
        checksums=stored.checksums,
    )


def read_time(response: Response) -> datetime:
    """Return the response's time by the service's clock, or by this machine's if it has no date.

    Raises:
        UnavailableError: The date is malformed.
    """
    try:
        return response_time(response.headers)
    except MalformedResponse as error:
        raise malformed(error) from error


def malformed(error: MalformedResponse) -> UnavailableError:
    """Return the error for a response that cannot be understood."""
    return UnavailableError(f"the service's response is malformed: {error}")
