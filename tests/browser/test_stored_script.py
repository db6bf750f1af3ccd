"""Uploaded scripts in a headless Chromium: none may run in the origin of the service."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

import httpx
import pytest
from selenium.webdriver.support.ui import WebDriverWait
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.browser.chromium import chromium, serving
from trove_async import Trove, TroveError
from trove_async.drivers import MemoryDriver
from trove_async.integrations.starlette import (
    error_handler,
    get_store,
    lifespan,
    object_response,
    store_upload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.remote.webdriver import WebDriver
    from starlette.requests import Request

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

# Only a script in the origin of the service can set a cookie of the service. These scripts set it
# before the page has loaded.
HTML = b"<!DOCTYPE html><p>page</p><script>document.cookie = 'ran=1; path=/'</script>"
SVG = (
    b"<svg xmlns='http://www.w3.org/2000/svg'><script>document.cookie = 'ran=1; path=/'</script>"
    b"<text y='20'>page</text></svg>"
)
XHTML = HTML.replace(b"<!DOCTYPE html><p>", b"<p xmlns='http://www.w3.org/1999/xhtml'>").replace(
    b"<p ", b"<div xmlns='http://www.w3.org/1999/xhtml'><p ", 1
) + b"</div>"  # fmt: skip
MULTIPART = b"--x\r\nContent-Type: text/html\r\n\r\n" + HTML + b"\r\n--x--\r\n"
BODIES = [HTML, SVG, XHTML, MULTIPART]

RUNNING_IF_TRUSTED = [  # Chromium runs these scripts if the protective headers are missing
    ("text/html", HTML),
    ("text/plain,text/html", HTML),
    ("text/plain;,text/html", HTML),
    ("text/plain ;,text/html", HTML),
    ("text/plain; charset=utf-8, text/html", HTML),
    ("image/png;a=b,image/svg+xml", SVG),
    ("image/svg+xml", SVG),
    ("application/xhtml+xml", XHTML),
    ("text/xml", XHTML),
]
TYPES = [kind for kind, _ in RUNNING_IF_TRUSTED] + [
    "text/html;charset=utf-7",
    "TEXT/HTML ; x",
    "text/plain, text/html;",
    "image/png;image/svg+xml",
    "image/png,image/svg+xml",
    "image/svg",
    "video/mp4,text/html",
    "video/x+xml",
    "audio/x+xml",
    "application/xml; charset=utf-8",
    "application/rss+xml",
    "application/pdf, text/html",
    "application/json;,text/html",
    "application/octet-stream;,text/html",
    "multipart/x-mixed-replace; boundary=x",
    "multipart/related; boundary=x",
    "message/rfc822",
    'text/plain;a="b,text/html',
    'text/plain;a="b\\",text/html;c="',
    "text/plain;a='b,text/html;'",
    "*/*",
    "text",
    "unknown/unknown",
    "text/plain",  # this and the next types are harmless unless Chromium sniffs the body
    "image/png",
    "video/mp4",
    "application/json",
    "application/pdf",
]


def wav() -> bytes:
    """Return a WAV file with ten seconds of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 80_000)
    return file.getvalue()


GIF = bytes.fromhex(
    "47494638396101000100800100000000ffffff21f90401000001002c00000000010001000002024c01003b"
)
PASSIVE = {
    "a.gif": ("image/gif", GIF),
    "a.wav": ("audio/wav", wav()),
    "a.txt": ("text/plain", HTML),
}


async def download(request: Request) -> Response:
    trusted = request.path_params["mode"] == "trusted"
    key = request.path_params["key"]
    return await object_response(get_store(request), "files", key, request, trusted=trusted)


async def upload(request: Request) -> Response:
    key = request.path_params["key"]
    return await store_upload(get_store(request), "files", key, request, max_size=None)


async def page(request: Request) -> Response:
    """Return a page with the requested HTML as its body."""
    return HTMLResponse(f"<!DOCTYPE html><body>{request.query_params.get('body', '')}")


async def store_unchecked(request: Request) -> Response:
    """Store an object without a check of the client's Content-Type, as another program may."""
    await get_store(request).put(
        "files",
        request.path_params["key"],
        await request.body(),
        content_type=request.headers["content-type"],
        content_disposition="inline; filename=x.html",
    )
    return Response(status_code=201)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = Starlette(
        routes=[
            Route("/{mode}/{key}", download),
            Route("/{mode}/{key}", upload, methods=["PUT", "POST"]),
            Route("/{key}", store_unchecked, methods=["PUT"]),
            Route("/", page),
        ],
        exception_handlers={TroveError: error_handler},
        lifespan=lifespan(lambda: Trove(MemoryDriver()), buckets=["files"]),
    )
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def script_ran(browser: WebDriver, address: str, target: str) -> bool:
    """Open a URL; return whether a script ran in the origin of the service."""
    browser.get(address)
    browser.delete_all_cookies()
    browser.get(target)
    browser.get(address)  # after a download, the previous page is still open
    return bool(browser.get_cookies())


def post(url: str, kind: str, body: bytes) -> None:
    """Upload a file in a form; `kind` is the Content-Type of the form part."""
    head = f'Content-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: {kind}\r\n\r\n'
    form = b"--edge\r\n" + head.encode() + body + b"\r\n--edge--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    assert httpx.post(url, content=form, headers=headers).status_code == 201


@pytest.mark.parametrize(("kind", "body"), RUNNING_IF_TRUSTED)
def test_script_of_trusted_object_runs(
    address: str, browser: WebDriver, kind: str, body: bytes
) -> None:
    """Without the protective headers, the scripts run, so the tests below can detect them."""
    assert httpx.put(f"{address}o", content=body, headers={"Content-Type": kind}).is_success
    assert script_ran(browser, address, f"{address}trusted/o")


@pytest.mark.parametrize("kind", TYPES)
def test_stored_script_does_not_run(address: str, browser: WebDriver, kind: str) -> None:
    headers = {"Content-Type": kind}
    bodies = BODIES if kind.startswith(("multipart", "message")) else BODIES[:-1]
    for body in bodies:
        assert httpx.put(f"{address}o", content=body, headers=headers).is_success
        assert not script_ran(browser, address, f"{address}x/o"), body
    assert httpx.put(f"{address}o", content=HTML, headers=headers).is_success
    frame = f"{address}?body=<iframe src=/x/o></iframe><object data=/x/o></object>"
    assert not script_ran(browser, address, f"{frame}<embed src=/x/o>")


@pytest.mark.parametrize(("kind", "body"), RUNNING_IF_TRUSTED)
def test_uploaded_script_does_not_run(
    address: str, browser: WebDriver, kind: str, body: bytes
) -> None:
    headers = {"Content-Type": kind}
    assert httpx.put(f"{address}x/raw", content=body, headers=headers).status_code == 201
    assert not script_ran(browser, address, f"{address}x/raw")
    post(f"{address}x/form", kind, body)
    assert not script_ran(browser, address, f"{address}x/form")


def test_passive_content_is_displayed(address: str, browser: WebDriver) -> None:
    for name, (kind, body) in PASSIVE.items():
        headers = {"Content-Type": kind}
        assert httpx.put(f"{address}x/{name}", content=body, headers=headers).status_code == 201
    wait = WebDriverWait(browser, 60, poll_frequency=0.05)

    browser.get(f"{address}x/a.gif")
    assert browser.execute_script("return document.images[0].naturalWidth") == 1
    browser.get(f"{address}x/a.txt")
    assert browser.execute_script("return document.body.innerText") == HTML.decode()
    browser.get(f"{address}x/a.wav")
    browser.execute_script("document.querySelector('video').play()")  # as a user would
    wait.until(
        lambda driver: driver.execute_script(
            "return document.querySelector('video').currentTime > 0"
        )
    )
    browser.get(f"{address}?body=<img src=/x/a.gif><audio autoplay src=/x/a.wav></audio>")
    assert browser.execute_script("return document.images[0].naturalWidth") == 1
    wait.until(
        lambda driver: driver.execute_script(
            "return document.querySelector('audio').currentTime > 0"
        )
    )
