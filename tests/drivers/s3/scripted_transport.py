"""A service that answers by a script, and what it may say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trove_async._http import Origin, Response


SECRET = "wJalrXUtnFEMI/K7MDENG"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE"
EMPTY_PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
FACTS = {
    "etag": '"e"',
    "last-modified": "Wed, 01 Jan 2025 00:00:00 GMT",
    "content-length": "0",
    "date": "Wed, 01 Jan 2025 00:00:00 GMT",
}


class FakeResponse:
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


def answer(
    status: int = 200,
    body: bytes | str = b"",
    said: Mapping[str, str] | None = None,
    **headers: str,
) -> FakeResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    return FakeResponse(status, {**(said or {}), **named}, content)


def refusal(
    status: int, code: str, more: str = "", said: Mapping[str, str] | None = None, **headers: str
) -> FakeResponse:
    document = f"<Error><Code>{code}</Code><Message>m</Message>{more}</Error>"
    return answer(status, document, said, **headers)


class Script:
    """A transport that answers by a script, and notes what it was asked."""

    def __init__(self, *answers: FakeResponse) -> None:
        self.answers = list(answers)
        self.given: list[FakeResponse] = []
        self.patient: list[bool] = []
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

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
        self.sent.append((method, origin.url + target, dict(headers), b"".join(views)))
        self.given.append(self.answers.pop(0))
        return self.given[-1]

    async def aclose(self) -> None:
        assert not self.answers, "the script has more"
        assert all(one.closed for one in self.given), "an answer was left open"

    @property
    def asked(self) -> list[str]:
        return [f"{method} {url}" for method, url, _, _ in self.sent]


def now() -> datetime:
    return datetime.now(UTC)
