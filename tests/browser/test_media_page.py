"""The media page of examples/ in a headless Chromium."""

from __future__ import annotations

import importlib.util
import os
import sys
import wave
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import trove_async
from tests.browser.driving import chromium, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.remote.webdriver import WebDriver
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

EXAMPLES = Path(trove_async.__file__).parent.parent / "examples"
SECONDS = 600
RATE = 22_050
NAME = "Töne #1.wav"


class Log:
    """ASGI middleware that records requests and response statuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen: list[tuple[str, str, str, int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = dict(scope["headers"]).get(b"range", b"").decode()
                self.seen.append((scope["method"], scope["path"], given, message["status"]))
            await send(message)

        await self._app(scope, receive, noting if scope["type"] == "http" else send)

    def ranges(self) -> list[str]:
        """Return the Range headers of requests for the object with a 206 response."""
        return [given for _, path, given, status in self.seen if status == 206 and NAME in path]


@contextmanager
def running() -> Iterator[tuple[str, Log]]:
    """Run the example in a thread; yield its URL and its log."""
    spec = importlib.util.spec_from_file_location(
        "fastapi_service", EXAMPLES / "fastapi_service.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    log = Log(module.app)
    with serving(log) as address:
        yield address, log


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Log]]:
    monkeypatch.setenv("TROVE_URL", f"file://{tmp_path / 'store'}")
    with running() as it:
        yield it


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Return a file with ten minutes of a tone, more than a browser buffers ahead."""
    path = tmp_path / NAME
    tone = bytes(abs(at % 100 - 50) * 5 for at in range(RATE))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        for _ in range(SECONDS):
            file.writeframesraw(tone)
    return path


def test_uploaded_file_can_be_played(
    service: tuple[str, Log], browser: WebDriver, sound: Path
) -> None:
    address, log = service
    wait = WebDriverWait(browser, 30, poll_frequency=0.05)

    def until(script: str) -> Any:
        return wait.until(lambda driver: driver.execute_script(f"return {script}"))

    browser.get(address)
    browser.execute_cdp_cmd("Network.enable", {})
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 8_000_000}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    browser.execute_script(
        "window.shown = []; const bar = document.querySelector('progress');"
        "new MutationObserver(() => shown.push(bar.value)).observe(bar, {attributes: true});"
    )
    browser.find_element(By.NAME, "file").send_keys(str(sound))
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()

    until("document.querySelectorAll('#files li').length")
    shown = browser.execute_script("return shown")
    assert shown == sorted(shown)
    assert any(0 < value < 1 for value in shown)  # progress, before the end
    assert shown[-1] == 1
    assert browser.find_element(By.CSS_SELECTOR, "#files a").text == NAME
    assert ("PUT", f"/files/{NAME}", "", 201) in log.seen

    browser.find_element(By.CSS_SELECTOR, "#files button").click()
    until("player.currentTime > 0.2")  # playback has started
    assert browser.execute_script("return player.duration") == pytest.approx(SECONDS, abs=1)

    before = len(log.ranges())
    browser.execute_script("player.currentTime = 500")
    until("!player.seeking && player.currentTime > 500.2")  # playback continues from there
    asked = log.ranges()[before:]
    assert any(int(given.removeprefix("bytes=").split("-")[0]) > 400 * RATE for given in asked), (
        asked
    )
    assert browser.execute_script("return player.error") is None


def test_upload_error_is_shown(
    service: tuple[str, Log], browser: WebDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fastapi_service"], "MAX_SIZE", 3)
    small = tmp_path / "x.txt"
    small.write_text("too much")
    browser.get(service[0])
    browser.find_element(By.NAME, "file").send_keys(str(small))
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()
    said = WebDriverWait(browser, 30).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "output").text
    )
    assert said == "An object may have 3 bytes."
    browser.save_screenshot(os.environ.get("SCREENSHOT", str(tmp_path / "page.png")))
