"""A transport that returns scripted responses and records the requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trove_async._http import Origin, Response


SECRET = "wJalrXUtnFEMI/K7MDENG"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE"
EMPTY_PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
OBJECT_HEADERS = {
    "etag": '"e"',
    "last-modified": "Wed, 01 Jan 2025 00:00:00 GMT",
    "content-length": "0",
    "date": "Wed, 01 Jan 2025 00:00:00 GMT",
}


class FakeResponse:
    """A response whose body is in memory."""

    body: bytes | None = None

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self.closed = False

    async def read(self, size: int) -> bytes:
        data, self._body = self._body[:size], self._body[size:]
        return data

    async def readinto(self, buffer: memoryview) -> int:
        data = await self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def read_all(self, limit: int) -> bytes:
        assert len(self._body) <= limit
        return await self.read(limit)

    def close(self) -> None:
        self.closed = True


def response(
    status: int = 200,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    **header_fields: str,
) -> FakeResponse:
    """Return a response; ``retry_after="7"`` adds the header ``retry-after: 7``."""
    extra_headers = {name.replace("_", "-"): value for name, value in header_fields.items()}
    content = body.encode() if isinstance(body, str) else body
    return FakeResponse(status, {**(headers or {}), **extra_headers}, content)


def error_response(
    status: int,
    code: str,
    elements: str = "",
    headers: Mapping[str, str] | None = None,
    **header_fields: str,
) -> FakeResponse:
    """Return a response with an S3 error document, which contains the XML `elements` as well."""
    document = f"<Error><Code>{code}</Code><Message>m</Message>{elements}</Error>"
    return response(status, document, headers, **header_fields)


class SentRequest(NamedTuple):
    """A request that was sent over a `ScriptedTransport`."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class ScriptedTransport:
    """A transport that returns the given responses in order.

    Attributes:
        responses: The responses that have not been returned yet.
        returned_responses: The responses that have been returned.
        requests: The requests so far.
        patient: The `patient` argument of each request.
    """

    def __init__(self, *responses: FakeResponse) -> None:
        self.responses = list(responses)
        self.returned_responses: list[FakeResponse] = []
        self.patient: list[bool] = []
        self.requests: list[SentRequest] = []

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
        *,
        patient: bool = False,
    ) -> Response:
        self.patient.append(patient)
        url = origin.url + target
        self.requests.append(SentRequest(method, url, dict(headers), b"".join(views)))
        self.returned_responses.append(self.responses.pop(0))
        return self.returned_responses[-1]

    async def aclose(self) -> None:
        assert not self.responses, "the driver sent fewer requests than were scripted"
        assert all(response.closed for response in self.returned_responses), (
            "a response was left open"
        )

    @property
    def request_lines(self) -> list[str]:
        """The method and the URL of each request."""
        return [f"{request.method} {request.url}" for request in self.requests]


def now() -> datetime:
    return datetime.now(UTC)
