"""A headless Chromium, and a server that runs in a thread."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import trove_async.drivers.local  # noqa: F401 - imported here: on the event loop it would block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webdriver import WebDriver
    from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Run an app in a thread; yield its URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """Run Chromium; yield its driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for switch in (
        "--headless=new",
        "--no-sandbox",  # required to start as root, as in a container
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--mute-audio",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(switch)
    driver = webdriver.Chrome(options, Service(program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def program(name: str) -> str:
    path = os.environ.get(name.upper()) or shutil.which(name)
    assert path, f"{name} is not installed: apt-get install chromium chromium-driver"
    return path
