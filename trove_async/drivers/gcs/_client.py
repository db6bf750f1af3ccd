"""One request to the service, with a token that is good, and its answer, which is a success."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trove_async._concurrency import in_thread
from trove_async._http import Origin, Response, Transport
from trove_async._secrets import Headers, Redactor
from trove_async.errors import IntegrityError, UnauthenticatedError, UnavailableError
from trove_async.models import KiB, MiB

from ._errors import refused

if TYPE_CHECKING:
    from ._credentials import AccessToken, Credentials
    from ._errors import Refused

Document: TypeAlias = dict[str, Any]
"""What the service says, as its JSON has it."""

_PAGE: Final = 16 * MiB
"""More than any page has: 1,000 objects, each with a key of 1 KiB and 8 KiB of metadata."""

_SMALL: Final = MiB
"""More than any other document has: what an object or a bucket is, or what became of a request."""

_ERROR_BYTES: Final = 64 * KiB

_INLINE: Final = MiB
"""Bytes of a document up to which it is parsed on the loop: in some 10 ms."""

_MOST_OBJECTS: Final = 1_000_000
"""Arrays and objects that a document may hold, brackets in its strings included: 1,000 entries have
2,000. Each takes a hundred bytes of memory and more."""

JSON: Final = {"content-type": "application/json; charset=UTF-8"}

RESUME_INCOMPLETE: Final = 308
"""JSON API, "Perform a resumable upload": the session goes on. To HTTP it is a redirect."""


_TOKENS: Final = ("nextPageToken", "rewriteToken")
"""What of a document becomes a part of the next request."""

_ESCAPED_SURROGATE: Final = b"\\ud"


class Client:
    """Sends requests.

    Args:
        transport: How.
        origin: Where to.
        credentials: Who asks; None: nobody.
        redactor: Removes secrets from what the service's errors quote.
    """

    def __init__(
        self,
        transport: Transport,
        origin: Origin,
        credentials: Credentials | None,
        redactor: Redactor,
    ) -> None:
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
        also: Collection[int] = (),
    ) -> Response:
        """Send a request; return its answer, which is a success. The caller closes it.

        Args:
            method: In upper case.
            target: Path and query, encoded.
            headers: All but what every request has.
            views: The body.
            also: What statuses beside those below 300 are a success.

        Raises:
            TroveError: As the service's refusal says.
        """
        renewed = self._credentials is None
        while True:
            token = None if self._credentials is None else await self._credentials.token()
            answer = await self._transport.send(
                method, self.origin, target, _authorized(headers, token), views
            )
            if answer.status < HTTPStatus.MULTIPLE_CHOICES or answer.status in also:
                return answer
            error = (await self._refused(answer)).error()
            self._redactor.redact(error)
            # A token may end early: that its user has been taken a role away, for one.
            if renewed or token is None or not isinstance(error, UnauthenticatedError):
                raise error
            assert self._credentials is not None  # noqa: S101 - whose token it is
            if not await self._credentials.renewed(token):
                raise error
            renewed = True

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        views: Sequence[memoryview] = (),
    ) -> Document:
        """Send a request; return the document that it is answered with."""
        return await self.document(await self.send(method, target, headers or {}, views))

    async def page(self, target: str) -> Document:
        """Return a page of a listing."""
        return await self.document(await self.send("GET", target, {}), _PAGE)

    async def done(self, method: str, target: str, *, also: Collection[int] = ()) -> None:
        """Send a request whose answer says no more than that it was done."""
        answer = await self.send(method, target, {}, also=also)
        try:
            await answer.read_all(_ERROR_BYTES)  # so that the connection can be used again
        finally:
            answer.close()

    async def document(self, answer: Response, limit: int = _SMALL) -> Document:
        """Return an answer's document of no more than `limit` bytes, and let go of it."""
        try:
            body = await answer.read_all(limit)
        finally:
            answer.close()
        said = await in_thread(_parsed, body) if len(body) > _INLINE else _parsed(body)
        if not isinstance(said, dict) or not all(
            isinstance(said.get(name, ""), str) for name in _TOKENS
        ):
            raise UnavailableError(
                f"the service's answer makes no sense: {len(body)} bytes that are no JSON object"
            )
        return said

    async def _refused(self, answer: Response) -> Refused:
        try:
            body = await answer.read_all(_ERROR_BYTES)
        except (UnavailableError, IntegrityError):
            body = b""  # what its head says is enough
        finally:
            answer.close()
        return refused(answer.status, answer.headers, body)


def _authorized(headers: Mapping[str, str], token: AccessToken | None) -> Headers:
    """Return all headers of a request: not kept in a variable, as they hold the token."""
    sent = Headers(headers)
    sent.setdefault("user-agent", "trove-async")
    sent.setdefault("accept-encoding", "identity")
    if token is not None:
        sent["authorization"] = f"Bearer {token.value}"
    return sent


def _parsed(body: bytes) -> object:
    """Return what a JSON document says; None: it is none, or not one of the service's."""
    if body.count(b"{") + body.count(b"[") > _MOST_OBJECTS:
        return None
    try:
        said: object = json.loads(body)
        if _ESCAPED_SURROGATE in body.lower():
            json.dumps(said, ensure_ascii=False).encode()  # halves of pairs are no characters
    except (ValueError, RecursionError):
        return None
    return said
