"""Random operations on a store over Cloud Storage, compared with a dict."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.test_state_machine import STORES, OpenStore, routed, run_machine
from trove_async.drivers import GCSDriver, MemoryDriver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ThreadedGCS:
    """A service in a thread, because the loop of the state machine runs only during its steps."""

    def __init__(self) -> None:
        self.service = InMemoryGCS()
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        async with gcs_server(self.service) as self.url:
            self._ready.set()
            await self._stopped.wait()

    def stores(self, _: str) -> OpenStore:
        self.service.buckets.clear()
        self.service.create_bucket("box")
        memory = MemoryDriver()
        return lambda middleware: routed(
            GCSDriver(endpoint_url=self.url),
            memory,
            Mapped(GCSDriver(endpoint_url=self.url), into="box", prefix="in/it"),
            middleware=middleware,
        )

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


@pytest.fixture
def gcs() -> Iterator[ThreadedGCS]:
    gcs = ThreadedGCS()
    yield gcs
    gcs.close()


def test_store_over_gcs_behaves_like_a_dict(
    gcs: ThreadedGCS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs.service.max_rewritten = 1 << 20
    gcs.service.max_persisted = 1 << 19
    monkeypatch.setitem(STORES, "gcs", gcs.stores)
    run_machine("gcs", tmp_path, max_examples=8, stateful_step_count=25)
