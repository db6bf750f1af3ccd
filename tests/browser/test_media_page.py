"""The media page of `examples/fastapi_service.py` in a headless Chromium."""

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
from tests.browser.chromium import chromium, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver.remote.webdriver import WebDriver
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

EXAMPLES = Path(trove_async.__file__).parent.parent / "examples"
SECONDS = 600
RATE = 22_050
NAME = "Töne #1.wav"


class RequestLog:
    """ASGI middleware that records requests and response statuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: list[tuple[str, str, str, int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                range_header = dict(scope["headers"]).get(b"range", b"").decode()
                self.requests.append(
                    (scope["method"], scope["path"], range_header, message["status"])
                )
            await send(message)

        await self._app(scope, receive, send_and_record if scope["type"] == "http" else send)

    def ranges(self) -> list[str]:
        """Return the Range headers of the requests for `NAME` that were answered with 206."""
        return [
            range_header
            for _, path, range_header, status in self.requests
            if status == 206 and NAME in path
        ]


@contextmanager
def running_example() -> Iterator[tuple[str, RequestLog]]:
    """Run the example in a thread; yield its URL and its log."""
    spec = importlib.util.spec_from_file_location(
        "fastapi_service", EXAMPLES / "fastapi_service.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    log = RequestLog(module.app)
    with serving(log) as address:
        yield address, log


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, RequestLog]]:
    monkeypatch.setenv("TROVE_URL", f"file://{tmp_path / 'store'}")
    with running_example() as url_and_log:
        yield url_and_log


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


@pytest.fixture
def audio_file(tmp_path: Path) -> Path:
    """Return a WAV file with a tone of ten minutes, which is more than a browser buffers ahead."""
    path = tmp_path / NAME
    tone = bytes(abs(index % 100 - 50) * 5 for index in range(RATE))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        for _ in range(SECONDS):
            file.writeframesraw(tone)
    return path


def test_uploaded_file_can_be_played(
    service: tuple[str, RequestLog], browser: WebDriver, audio_file: Path
) -> None:
    address, log = service
    wait = WebDriverWait(browser, 30, poll_frequency=0.05)

    def wait_for(script: str) -> Any:
        return wait.until(lambda driver: driver.execute_script(f"return {script}"))

    browser.get(address)
    browser.execute_cdp_cmd("Network.enable", {})
    network = {
        "offline": False,
        "latency": 0,
        "downloadThroughput": -1,
        "uploadThroughput": 8_000_000,
    }
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", network)
    browser.execute_script(
        "window.shown = []; const bar = document.querySelector('progress');"
        "new MutationObserver(() => shown.push(bar.value)).observe(bar, {attributes: true});"
    )
    browser.find_element(By.NAME, "file").send_keys(str(audio_file))
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()

    wait_for("document.querySelectorAll('#files li').length")
    progress = browser.execute_script("return shown")
    assert progress == sorted(progress)
    assert any(0 < value < 1 for value in progress)  # the bar moved before the end
    assert progress[-1] == 1
    assert browser.find_element(By.CSS_SELECTOR, "#files a").text == NAME
    assert ("PUT", f"/files/{NAME}", "", 201) in log.requests

    browser.find_element(By.CSS_SELECTOR, "#files button").click()
    wait_for("player.currentTime > 0.2")  # playback has started
    assert browser.execute_script("return player.duration") == pytest.approx(SECONDS, abs=1)

    range_count = len(log.ranges())
    browser.execute_script("player.currentTime = 500")
    wait_for("!player.seeking && player.currentTime > 500.2")  # playback continues from there
    new_ranges = log.ranges()[range_count:]
    assert any(
        int(range_header.removeprefix("bytes=").split("-")[0]) > 400 * RATE
        for range_header in new_ranges
    ), new_ranges
    assert browser.execute_script("return player.error") is None


def test_upload_error_is_shown(
    service: tuple[str, RequestLog],
    browser: WebDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["fastapi_service"], "MAX_SIZE", 3)
    path = tmp_path / "x.txt"
    path.write_text("too much")
    browser.get(service[0])
    browser.find_element(By.NAME, "file").send_keys(str(path))
    browser.find_element(By.CSS_SELECTOR, "#upload button").click()
    message = WebDriverWait(browser, 30).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "output").text
    )
    assert message == "An object may have at most 3 bytes."
    browser.save_screenshot(os.environ.get("SCREENSHOT", str(tmp_path / "page.png")))
