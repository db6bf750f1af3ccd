"""Presigned URLs against a server that verifies signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest_asyncio

from tests.drivers.s3.test_conformance import driver_of
from trove_async import Trove

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from trove_async.testing.servers import S3Server

DISPOSITION = "attachment; filename=\"a b+c.txt\"; filename*=UTF-8''gr%C3%BC%C3%9F.txt"


@pytest_asyncio.fixture(params=["lean", "sdk"])
async def store(seaweed: S3Server, request: pytest.FixtureRequest) -> AsyncIterator[Trove]:
    plane: Literal["lean", "sdk"] = request.param
    async with Trove(driver_of(seaweed, data_plane=plane)) as store:
        await store.create_bucket("presigned", exist_ok=True)
        yield store
        async for info in store.list("presigned"):
            await store.delete("presigned", info.key)
        await store.delete_bucket("presigned")


async def test_put_url_accepts_only_its_content_type(store: Trove) -> None:
    url = await store.presign_put("presigned", "dir/a b", content_type="text/plain; charset=utf-8")
    async with httpx.AsyncClient() as client:
        for wrong_headers in ({"content-type": "text/html"}, {}):
            response = await client.put(url, content=b"<script>", headers=wrong_headers)
            assert response.status_code == 403
        assert not await store.exists("presigned", "dir/a b")
        headers = {"content-type": "text/plain; charset=utf-8"}
        assert (await client.put(url, content=b"body", headers=headers)).status_code == 200
    assert (await store.head("presigned", "dir/a b")).content_type == headers["content-type"]


async def test_put_url_without_content_type_accepts_any(store: Trove) -> None:
    url = await store.presign_put("presigned", "key")
    async with httpx.AsyncClient() as client:
        response = await client.put(url, content=b"body", headers={"content-type": "a/b"})
    assert response.status_code == 200
    assert await store.read("presigned", "key") == b"body"


async def test_get_url_fixes_the_response_headers(store: Trove) -> None:
    await store.put("presigned", "key", b"body", content_type="text/html")
    url = await store.presign_get(
        "presigned",
        "key",
        response_content_type="text/plain; charset=utf-8",
        response_content_disposition=DISPOSITION,
    )
    async with httpx.AsyncClient() as client:
        response = await client.get(url)
        assert (response.status_code, response.content) == (200, b"body")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["content-disposition"] == DISPOSITION
        altered_url = url.replace("text%2Fplain", "text%2Fhtml")
        assert altered_url != url
        assert (await client.get(altered_url)).status_code == 403


async def test_get_url_contains_the_version_id(store: Trove) -> None:
    url = await store.presign_get("presigned", "key", version_id="a+b/c")
    assert parse_qs(urlsplit(url).query)["versionId"] == ["a+b/c"]
