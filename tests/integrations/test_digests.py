"""Uploads with a Content-MD5 or a Content-Digest, through both frameworks."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode
from typing import Any

import pytest

from tests.fakes import content
from tests.integrations.file_service import (
    FILE,
    FORM,
    FRAMEWORKS,
    NOTE,
    ClientResponse,
    form,
    keys,
    parse_response,
    request_bytes,
    send_raw,
    send_with_httpx,
    serving,
)
from trove_async import Trove
from trove_async.models import MiB

BODY = content(3 * MiB + 5)

both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


def md5(body: bytes) -> str:
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def sha(body: bytes, name: str = "sha-256") -> str:
    digest = hashlib.new(name.replace("-", ""), body).digest()
    return f"{name}=:{b64encode(digest).decode()}:"


@both_frameworks
@pytest.mark.parametrize("body", [b"", b"small", BODY], ids=len)
async def test_body_is_verified_against_its_digests(
    framework: str, body: bytes, store: Trove
) -> None:
    other = body + b"x"
    valid = [
        ("Content-MD5", md5(body)),
        ("Content-Digest", sha(body)),
        ("Content-Digest", f"unknown=:AA==:, {sha(body, 'sha-512')};a=1,{sha(body)}"),
        ("Content-Digest", "crc99=:AA==:"),
        ("Content-Digest", f"md5=:{md5(body)}:"),
    ]
    invalid = [
        ("Content-MD5", md5(other)),
        ("Content-MD5", "AAAA"),
        ("Content-MD5", "no base64"),
        ("Content-MD5", ""),
        ("Content-MD5", "\xff"),
        ("Content-Digest", sha(other)),
        ("Content-Digest", f"{sha(body)}, {sha(other, 'sha-512')}"),
        ("Content-Digest", "sha-256=AAAA"),
        ("Content-Digest", "sha-256"),
        ("Content-Digest", "sha-256=:AAAA:"),
    ]
    async with serving(framework, store) as service:
        for field in invalid:
            response = await put_raw(service, body, field)
            assert (response.status, field) == (400, field)
            assert field[0].encode() in response.body
            assert await keys(store) == [], field
        for field in valid:
            assert (await put_raw(service, body, field)).status == 201, field
            await store.delete("files", "o")


async def put_raw(service: Any, body: bytes, *fields: tuple[str, str]) -> ClientResponse:
    lines = [f"{name}: {value}" for name, value in fields]
    message = request_bytes("PUT", "/files/o", [*lines, f"Content-Length: {len(body)}"], body)
    return parse_response(await send_raw(service.port, message))


@both_frameworks
async def test_digest_of_form_covers_the_whole_body(framework: str, store: Trove) -> None:
    body = form((FILE, BODY), (NOTE, b"n"))
    async with serving(framework, store) as service:
        fields = [FORM, ("Content-Digest", sha(BODY))]
        assert (await send_with_httpx(service.url("o"), "POST", fields, body)).status == 400
        assert await keys(store) == []
        fields = [FORM, ("Content-Digest", sha(body))]
        assert (await send_with_httpx(service.url("o"), "POST", fields, body)).status == 201


async def test_digest_of_decoded_body_is_rejected(store: Trove) -> None:
    compressed = gzip.compress(b"text")
    fields = [("Content-Encoding", "gzip"), ("Content-MD5", md5(compressed))]
    async with serving("aiohttp", store) as service:
        response = await send_with_httpx(service.url("o"), "PUT", fields, compressed)
        assert (response.status, b"cannot be checked" in response.body) == (400, True)
    assert await keys(store) == []
