"""A headless Chromium, and a service in a thread for it to visit."""

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

import trove_async.drivers.local  # noqa: F401 - before the loop is guarded: it looks at the os module once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webdriver import WebDriver
    from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Run an app in a thread; yield its address."""
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
    """Run a browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for switch in (
        "--headless=new",
        "--no-sandbox",  # as root, as in a container, it does not start otherwise
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
    found = os.environ.get(name.upper()) or shutil.which(name)
    assert found, f"{name} is not installed: apt-get install chromium chromium-driver"
    return found
