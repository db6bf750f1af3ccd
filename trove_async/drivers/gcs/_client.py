"""Sends one request with a valid access token and returns the successful response."""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from collections.abc import Awaitable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from trove_async._concurrency import in_thread, within
from trove_async._http import Origin, Response, Transport
from trove_async._secrets import Headers, Redactor
from trove_async.errors import IntegrityError, UnauthenticatedError, UnavailableError
from trove_async.models import KiB, MiB

from ._errors import parse_error

if TYPE_CHECKING:
    from ._credentials import AccessToken, Credentials
    from ._errors import ErrorResponse

T = TypeVar("T")

_GOOGLE: Final = "https://storage.googleapis.com"

Document: TypeAlias = dict[str, Any]
"""A JSON object that the service sent."""

_MAX_PAGE: Final = 16 * MiB
"""Enough for a page of 1,000 objects, each with a key of 1 KiB and 8 KiB of metadata."""

_MAX_DOCUMENT: Final = MiB
"""More than any other document needs: an object, a bucket, or the result of a rewrite."""

_MAX_ERROR_BODY: Final = 64 * KiB
_MAX_DISCARDED: Final = 64 * KiB
"""The maximum size of a body that `Client.execute` reads and discards. Most are empty."""

_MAX_INLINE_PARSE: Final = MiB
"""The largest document that is parsed on the event loop, which takes about 10 ms."""

_MAX_CONTAINERS: Final = 1_000_000
"""The maximum number of arrays and objects in a document. Each takes about a hundred bytes of
memory, and a page of 1,000 entries has 2,000. Brackets in strings are counted as well."""

JSON: Final = {"content-type": "application/json; charset=UTF-8"}
"""The headers of a request whose body is a JSON document."""

RESUME_INCOMPLETE: Final = 308
"""JSON API, "Perform a resumable upload": the session continues. In HTTP, 308 is a redirect."""

_TOKEN_FIELDS: Final = ("nextPageToken", "rewriteToken")
"""Fields of a response that are sent in the next request."""

_ESCAPED_SURROGATE: Final = b"\\ud"
"""The start of an escaped surrogate, in lower case."""


class Client:
    """Sends authenticated requests to the service.

    Args:
        transport: Sends each request once.
        origin: The origin of the service.
        credentials: Provides access tokens. None: requests are anonymous.
        redactor: Removes secrets that error responses quote.
        timeout: Maximum seconds to wait for an access token.
    """

    def __init__(
        self,
        transport: Transport,
        origin: Origin,
        credentials: Credentials | None,
        redactor: Redactor,
        timeout: float,
    ) -> None:
        self._timeout = timeout
        self._transport = transport
        self._credentials = credentials
        self._redactor = redactor
        self.origin = origin

    async def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
        *,
        accepted_statuses: Collection[int] = (),
    ) -> Response:
        """Send a request and return the successful response. The caller closes it.

        Args:
            method: The method in upper case.
            target: The encoded path and query.
            headers: Headers in addition to those of every request.
            views: The body.
            accepted_statuses: Statuses of 300 and above that count as success.

        Raises:
            TroveError: The response is an error; see `_errors`.
        """
        may_renew = True
        while True:
            token = None
            if self._credentials is not None:
                token = self._credentials.fresh_token() or await self._within(
                    self._credentials.token()
                )
            response = await self._transport.send(
                method, self.origin, target, _request_headers(headers, token), views
            )
            if (
                response.status < HTTPStatus.MULTIPLE_CHOICES
                or response.status in accepted_statuses
            ):
                return response
            error = (await self._read_error_response(response)).error()
            self._redactor.redact(error)
            # A token may become invalid early, for example when it is revoked.
            if not may_renew or token is None or not isinstance(error, UnauthenticatedError):
                raise error
            assert self._credentials is not None  # noqa: S101 - there is a token
            if not await self._within(self._credentials.renew(token)):
                raise error
            may_renew = False

    async def _within(self, work: Awaitable[T]) -> T:
        return await within(self._timeout, "no access token arrived", work)

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        views: Sequence[memoryview] = (),
    ) -> Document:
        """Send a request and return the JSON object in the response."""
        return await self.read_document(await self.send(method, target, headers or {}, views))

    async def get_page(self, target: str) -> Document:
        """Return a page of a listing."""
        return await self.read_document(await self.send("GET", target, {}), _MAX_PAGE)

    async def execute(
        self, method: str, target: str, *, accepted_statuses: Collection[int] = ()
    ) -> None:
        """Send a request and discard the body of the response."""
        response = await self.send(method, target, {}, accepted_statuses=accepted_statuses)
        try:
            await response.read_all(_MAX_DISCARDED)  # so that the connection can be reused
        finally:
            response.close()

    async def read_document(self, response: Response, limit: int = _MAX_DOCUMENT) -> Document:
        """Return the JSON object in a response of at most `limit` bytes, and close the response."""
        try:
            body = await response.read_all(limit)
        finally:
            response.close()
        document = (
            await in_thread(_parse_json, body)
            if len(body) > _MAX_INLINE_PARSE
            else _parse_json(body)
        )
        if not isinstance(document, dict) or not all(
            isinstance(document.get(name, ""), str) for name in _TOKEN_FIELDS
        ):
            raise UnavailableError(
                f"the service's response is malformed: {len(body)} bytes that are not a valid JSON object"
            )
        return document

    async def _read_error_response(self, response: Response) -> ErrorResponse:
        try:
            body = await response.read_all(_MAX_ERROR_BODY)
        except (UnavailableError, IntegrityError):
            body = b""  # the status is enough
        finally:
            response.close()
        return parse_error(response.status, response.headers, body)


def _request_headers(headers: Mapping[str, str], token: AccessToken | None) -> Headers:
    """Return all headers of a request.

    They contain the token, so the caller must not keep them in a variable: error reporters record the
    local variables of a traceback.
    """
    request_headers = Headers(headers)
    request_headers.setdefault("user-agent", "trove-async")
    request_headers.setdefault("accept-encoding", "identity")
    if token is not None:
        request_headers["authorization"] = f"Bearer {token.value}"
    return request_headers


def _parse_json(body: bytes) -> object:
    """Parse a JSON document. Return None if it is invalid or has too many arrays and objects."""
    if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS:
        return None
    try:
        document: object = json.loads(body.removeprefix(BOM_UTF8).decode())
        if _ESCAPED_SURROGATE in body.lower():
            json.dumps(document, ensure_ascii=False).encode()  # raises for a lone surrogate
    except (ValueError, RecursionError):
        return None
    return document


def default_endpoint() -> str:
    """Return the URL of the emulator in ``STORAGE_EMULATOR_HOST``, else of Google's service."""
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return _GOOGLE
    return (host if "://" in host else f"http://{host}").rstrip("/")
