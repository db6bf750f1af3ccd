"""Closing a driver waits for its calls in flight and releases what they hold."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.errors import ClosedError
from trove_async.options import Part, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient


@pytest.mark.parametrize("fsync", [True, False])
async def test_close_waits_for_calls_in_flight(
    tmp_path: Path,
    open_client: Callable[..., AbstractAsyncContextManager[BucketClient]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    fsync: bool,
) -> None:
    reached, let_go = threading.Event(), threading.Event()
    real = os.utime

    def gated(*args: Any, **named: Any) -> None:
        reached.set()
        let_go.wait(10)
        real(*args, **named)

    monkeypatch.setattr(os, "utime", gated)
    async with open_client(tmp_path, fsync=fsync) as client, asyncio.TaskGroup() as group:
        putting = group.create_task(client.put("k", b"body"))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 10)
        closing = group.create_task(client.driver.aclose())
        for _ in range(100):
            await asyncio.sleep(0)
        let_go.set()
        await closing
        assert (await putting).size == 4
    assert (tmp_path / "b" / "k").read_bytes() == b"body"


async def test_upload_that_outlives_its_driver_keeps_no_file_open(
    tmp_path: Path,
    open_client: Callable[..., AbstractAsyncContextManager[BucketClient]],
    open_files: Callable[[], int],
) -> None:
    before = open_files()
    async with open_client(tmp_path) as client:
        part = Part(number=1, offset=0, size=4, last=False)
        with pytest.raises(ClosedError):
            async with client.driver.upload("b", "k", PutOptions()) as upload:
                await upload.send(part, [memoryview(b"body")])
                await client.driver.aclose()
                await upload.commit({})
    assert open_files() == before
    assert not client.own_files()
