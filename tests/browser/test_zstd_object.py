"""Objects that are stored as zstd, in a headless Chromium."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.browser.chromium import chromium, serving
from trove_async import Trove
from trove_async.integrations.starlette import get_store, lifespan, object_response
from trove_async.middlewares.compression import Compression

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

TEXT = b"".join(b"%d bottles of beer\n" % number for number in range(300_000))  # several frames

FETCH = """
const [url, headers, cache, done] = arguments;
(async () => {
    const response = await fetch(url, {headers, cache});
    const body = new Uint8Array(await response.arrayBuffer());
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
    return {
        status: response.status,
        coding: response.headers.get("content-encoding"),
        digest: Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join(""),
        size: body.length,
    };
})().then(done, error => done({error: String(error)}));
"""


def test_object_is_decoded_and_revalidated(tmp_path: Path) -> None:
    async def page(request: Request) -> Response:
        store = get_store(request)
        await store.put("files", "text.txt", TEXT, if_none_match="*")
        return HTMLResponse("<title>page</title>")

    requests: list[tuple[str | None, str | None, int]] = []

    async def download(request: Request) -> Response:
        response = await object_response(get_store(request), "files", "text.txt", request)
        if request.method == "GET":
            headers = request.headers
            requests.append(
                (headers.get("accept-encoding"), headers.get("if-none-match"), response.status_code)
            )
        return response

    app = Starlette(
        routes=[Route("/", page), Route("/text.txt", download)],
        lifespan=lifespan(lambda: Trove("mem://", middleware=[Compression()]), buckets=["files"]),
    )
    with serving(app) as address, chromium(tmp_path / "profile") as browser:
        browser.get(address)

        def fetch(headers: dict[str, str], cache: str = "default") -> Any:
            return browser.execute_async_script(FETCH, "text.txt", headers, cache)

        expected = {"size": len(TEXT), "digest": hashlib.sha256(TEXT).hexdigest()}
        first = fetch({})
        assert first == {**expected, "status": 200, "coding": "zstd"}, first
        again = fetch({}, "no-cache")
        assert again == first
        part = TEXT[1_500_000:1_500_100]
        ranged = fetch({"Range": "bytes=1500000-1500099"}, "no-store")
        digest = hashlib.sha256(part).hexdigest()
        assert ranged == {"status": 206, "coding": None, "size": 100, "digest": digest}
    assert "zstd" in str(requests[0][0])
    assert str(requests[1][1]).endswith('%zstd"')
    assert [status for _, _, status in requests] == [200, 304, 206]
