"""A table of download requests and their responses, in both frameworks and with three clients."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.fakes import content
from tests.integrations.file_service import (
    CLIENTS,
    FRAMEWORKS,
    parse_response,
    request_bytes,
    send_raw,
    serving,
)
from trove_async import Trove
from trove_async._http_dates import format_http_date
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.integrations._conditions import entity_tag

if TYPE_CHECKING:
    from pathlib import Path
    from types import EllipsisType

    from tests.integrations.file_service import ClientResponse
    from trove_async import ObjectInfo
    from trove_async.driver import AsyncDriver

BODY = content(1000)
LARGE = content(700_001)  # more than one chunk
ABSENT = None

Body: TypeAlias = "bytes | list[tuple[int, int]] | EllipsisType"
"""A body, the spans of a multipart body, or `...` for a problem document."""

Row: TypeAlias = tuple[str, str, dict[str, str], int, dict[str, str | None], Body]


def rows(info: ObjectInfo) -> list[Row]:
    """Return rows of method, key, request headers, status, response headers and body."""
    tag = entity_tag(str(info.etag))
    modified = format_http_date(info.last_modified)
    before, after = (
        format_http_date(info.last_modified + timedelta(seconds=shift)) for shift in (-1, 1)
    )
    complete = {
        "etag": tag,
        "last-modified": modified,
        "content-length": "1000",
        "content-type": "video/mp4",
        "cache-control": "max-age=60",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-range": ABSENT,
        "content-disposition": ABSENT,
    }
    not_modified = {
        "etag": tag,
        "cache-control": "max-age=60",
        "content-type": ABSENT,
        "last-modified": ABSENT,
    }
    problem = {"content-type": "application/problem+json", "content-range": ABSENT, "etag": ABSENT}
    unsatisfied = problem | {"content-range": "bytes */1000"}

    def part(start: int, end: int) -> dict[str, str | None]:
        expected_headers = {"content-range": f"bytes {start}-{end - 1}/1000"}
        return complete | expected_headers | {"content-length": str(end - start)}

    def get(
        headers: dict[str, str], status: int, expected_headers: Any, body: Any, key: str = "o"
    ) -> Row:
        return ("GET", key, headers, status, expected_headers, body)

    def head(headers: dict[str, str], status: int, expected_headers: Any, key: str = "o") -> Row:
        return ("HEAD", key, headers, status, expected_headers, b"")

    multipart = complete | {"content-type": "multipart/byteranges; boundary="}
    del multipart["content-length"]  # `check_parts` compares it with the body
    return [
        get({}, 200, complete, BODY),
        head({}, 200, complete),
        # Conditions
        get({"If-None-Match": tag}, 304, not_modified, b""),
        head({"If-None-Match": tag}, 304, not_modified),
        get({"If-None-Match": f'"x", W/{tag}'}, 304, not_modified, b""),
        get({"If-None-Match": "*"}, 304, not_modified, b""),
        get({"If-None-Match": '"x"'}, 200, complete, BODY),
        get({"If-None-Match": '"x"', "If-Modified-Since": modified}, 200, complete, BODY),
        get({"If-Modified-Since": modified}, 304, not_modified, b""),
        head({"If-Modified-Since": after}, 304, not_modified),
        get({"If-Modified-Since": before}, 200, complete, BODY),
        get({"If-Match": tag}, 200, complete, BODY),
        get({"If-Match": '"x"'}, 412, problem, ...),
        head({"If-Match": '"x"'}, 412, problem),
        get({"If-Match": f"W/{tag}"}, 412, problem, ...),
        get({"If-Unmodified-Since": modified}, 200, complete, BODY),
        get({"If-Unmodified-Since": before}, 412, problem, ...),
        get({"If-Match": tag, "If-Unmodified-Since": before}, 200, complete, BODY),
        get({"If-Match": tag, "If-None-Match": tag}, 304, not_modified, b""),
        get({"If-Match": '"x"', "If-None-Match": tag}, 412, problem, ...),
        # Ranges
        get({"Range": "bytes=0-0"}, 206, part(0, 1), BODY[:1]),
        get({"Range": "bytes=100-199"}, 206, part(100, 200), BODY[100:200]),
        get({"Range": "bytes=990-"}, 206, part(990, 1000), BODY[990:]),
        get({"Range": "bytes=-10"}, 206, part(990, 1000), BODY[990:]),
        get({"Range": "bytes=-5000"}, 206, part(0, 1000), BODY),
        get({"Range": "bytes=0-"}, 206, part(0, 1000), BODY),
        get({"Range": "bytes=999-5000"}, 206, part(999, 1000), BODY[999:]),
        get({"Range": "bytes=1000-"}, 416, unsatisfied, ...),
        get({"Range": "bytes=-0"}, 416, unsatisfied, ...),
        get({"Range": "bytes=5000-,6000-7000"}, 416, unsatisfied, ...),
        get({"Range": "bytes=5-2"}, 200, complete, BODY),
        get({"Range": "lines=1-2"}, 200, complete, BODY),
        get({"Range": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 990, 3))}, 200, complete, BODY),
        head({"Range": "bytes=0-0"}, 200, complete),
        get({"Range": "bytes=0-9,500-509"}, 206, multipart, [(0, 10), (500, 510)]),
        get({"Range": "bytes=-10,0-9"}, 206, multipart, [(990, 1000), (0, 10)]),
        get({"Range": "bytes=0-9,5-19"}, 206, part(0, 20), BODY[:20]),
        get({"Range": "bytes=0-9,2000-"}, 206, part(0, 10), BODY[:10]),
        # Ranges under conditions
        get({"Range": "bytes=0-9", "If-Range": tag}, 206, part(0, 10), BODY[:10]),
        get({"Range": "bytes=0-9", "If-Range": modified}, 206, part(0, 10), BODY[:10]),
        get({"Range": "bytes=0-9", "If-Range": '"x"'}, 200, complete, BODY),
        get({"Range": "bytes=0-9", "If-Range": f"W/{tag}"}, 200, complete, BODY),
        get({"Range": "bytes=0-9", "If-Range": before}, 200, complete, BODY),
        get({"Range": "bytes=5000-", "If-Range": '"x"'}, 200, complete, BODY),
        get({"Range": "bytes=5000-", "If-Range": tag}, 416, unsatisfied, ...),
        get({"Range": "bytes=0-9", "If-Match": tag}, 206, part(0, 10), BODY[:10]),
        get({"Range": "bytes=5000-", "If-Match": '"x"'}, 412, problem, ...),
        get({"Range": "bytes=0-9", "If-None-Match": tag}, 304, not_modified, b""),
        get({"Range": "bytes=5000-", "If-None-Match": tag}, 304, not_modified, b""),
        get({"Range": "bytes=0-9", "If-None-Match": '"x"'}, 206, part(0, 10), BODY[:10]),
        get({"Range": "bytes=0-9,500-509", "If-Range": '"x"'}, 200, complete, BODY),
        # Other objects
        get({}, 200, {"content-length": "0"}, b"", "empty"),
        head({}, 200, {"content-length": "0"}, "empty"),
        get({"Range": "bytes=0-"}, 416, problem | {"content-range": "bytes */0"}, ..., "empty"),
        get({"Range": "bytes=-5"}, 200, {"content-length": "0"}, b"", "empty"),
        get({}, 200, {"content-length": "700001", "content-type": "image/png"}, LARGE, "l.png"),
        head({}, 200, {"content-length": "700001", "content-type": "image/png"}, "l.png"),
        get({"Range": "bytes=1-600000"}, 206, {"content-length": "600000"}, LARGE[1:600001], "l.png"),
        get(
            {},
            200,
            {
                "content-type": "text/html",
                "content-disposition": 'attachment; filename="p.html"',
                "content-security-policy": "default-src 'none'; sandbox",
                "cache-control": "private",
                "x-content-type-options": "nosniff",
            },
            b"<script>alert(1)</script>",
            "p.html",
        ),
        get({}, 200, {"content-length": "4"}, b"name", "d%C3%A9j%C3%A0%20vu/%23%3F%25.txt"),
        get({}, 404, problem, ..., "none"),
        head({}, 404, problem, "none"),
        get({"If-None-Match": "*"}, 404, problem, ..., "none"),
        get({}, 404, problem, ..., "o/"),
        get({}, 400, problem, ..., ""),
        get({}, 400, problem, ..., "x%2F..%2F..%2Fother%2Fsecret"),
        ("DELETE", "o", {}, 405, problem | {"allow": "GET, HEAD"}, ...),
    ]  # fmt: skip


OUTSIDE = [
    "/files/../other/secret",
    "/files/%2e%2e/other/secret",
    "/files/..%2Fother%2Fsecret",
    "/files/x/../../other/secret",
    "/files/x%2F..%2F..%2Fother%2Fsecret",
    "/files//other/secret",
    "/files/%2Fother%2Fsecret",
    "/files/..%5Cother%5Csecret",
    "/files/%252e%252e/other/secret",
    "/files/.%00./other/secret",
    "/files/%c0%ae%c0%ae/other/secret",
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_request_cannot_read_outside_its_bucket(framework: str, tmp_path: Path) -> None:
    async with Trove(LocalDriver(tmp_path)) as store:
        await fill(store)
        async with serving(framework, store) as service:
            for target in OUTSIDE:
                response = parse_response(
                    await send_raw(service.port, request_bytes("GET", target))
                )
                assert response.status in {400, 404}, target
                assert b"secret" not in response.body
            assert (
                parse_response(await send_raw(service.port, request_bytes("GET", "/files/o"))).body
                == BODY
            )


async def fill(store: Trove) -> ObjectInfo:
    for bucket in ("files", "other"):
        await store.create_bucket(bucket)
    await store.put("other", "secret", b"secret")
    await store.put("files", "empty", b"")
    await store.put("files", "l.png", LARGE)
    await store.put("files", "p.html", b"<script>alert(1)</script>")
    await store.put("files", "déjà vu/#?%.txt", b"name")
    await store.put("files", "o", BODY, content_type="video/mp4", cache_control="max-age=60")
    return await store.head("files", "o")


def check(row: Row, response: ClientResponse) -> None:
    method, _, _, status, headers, body = row
    assert response.status == status
    for name, value in headers.items():
        if name == "content-type" and isinstance(body, list):
            assert response.headers[name].startswith(value or "")
        else:
            assert response.headers.get(name) == value, name
    if isinstance(body, list):
        check_parts(response, body)
    elif body is not ...:
        assert response.body == body
    else:
        assert response.body.startswith(b'{"type": "about:blank", "title": ')
        assert not any(
            name in response.body for name in (b"files", b"memory", b"local", b"default")
        )
    if method == "HEAD":
        assert response.body == b""


def check_parts(response: ClientResponse, spans: list[tuple[int, int]]) -> None:
    mail = message_from_bytes(
        b"Content-Type: " + response.headers["content-type"].encode() + b"\r\n" + response.body
    )
    parts = [
        (part["Content-Range"], part.get_payload(decode=True), part["Content-Type"])
        for part in mail.walk()
        if part is not mail
    ]
    assert parts == [
        (f"bytes {start}-{end - 1}/1000", BODY[start:end], "video/mp4") for start, end in spans
    ]
    assert response.headers["content-length"] == str(len(response.body))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_every_response_matches_the_table(framework: str, client: str) -> None:
    await check_all_rows(MemoryDriver(), framework, client)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_responses_with_the_local_driver_are_the_same(framework: str, tmp_path: Path) -> None:
    await check_all_rows(LocalDriver(tmp_path), framework, "httpx")


async def check_all_rows(driver: AsyncDriver, framework: str, client: str) -> None:
    failures = []
    async with Trove(driver) as store:
        info = await fill(store)
        async with serving(framework, store) as service:
            for row in rows(info):
                method, key, headers, *_ = row
                response = await CLIENTS[client](
                    service.url(key), method, list(headers.items()), None
                )
                try:
                    check(row, response)
                except AssertionError as error:
                    failures.append(f"{method} {key} {headers}: {error}\n  {response}"[:2000])
    assert not failures, "\n".join(failures)
