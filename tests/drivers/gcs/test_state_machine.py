"""Random operations on a store over Cloud Storage, compared with a dict."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tests.drivers.gcs.in_memory_gcs import Cloud
from tests.drivers.gcs.in_memory_gcs_server import serving
from tests.test_state_machine import STORES, routed, run_machine
from trove_async.drivers import GCSDriver, MemoryDriver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trove_async import Trove


class Hosted:
    """A cloud in a thread, because the loop of the state machine runs only during its steps."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self.cloud) as self.url:
            self._ready.set()
            await self._over.wait()

    def store(self, _: str) -> Trove:
        self.cloud.buckets.clear()
        self.cloud.create_bucket("box")
        boxed = Mapped(GCSDriver(endpoint_url=self.url), into="box", prefix="in/it")
        return routed(GCSDriver(endpoint_url=self.url), MemoryDriver(), boxed)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    hosted = Hosted()
    yield hosted
    hosted.close()


def test_store_over_gcs_behaves_like_a_dict(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.cloud.rewrites_at_most = 1 << 20
    hosted.cloud.keeps_at_most = 1 << 19
    monkeypatch.setitem(STORES, "gcs", hosted.store)
    run_machine("gcs", tmp_path, max_examples=8, stateful_step_count=25)
