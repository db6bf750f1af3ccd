"""Blocking calls on the event loop raise, because of the guard that conftest.py installs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockingError

from trove_async import Trove
from trove_async.drivers.memory import MemoryDriver

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.models import ObjectInfo


class BlockingDriver(MemoryDriver):
    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        time.sleep(0.001)  # noqa: ASYNC251 - blocks on purpose
        return await super().head(bucket, key, version_id)


async def test_blocking_sleep_in_a_driver_raises() -> None:
    async with Trove(BlockingDriver()) as store:
        with pytest.raises(BlockingError):
            await store.head("bucket", "key")


async def test_file_read_in_a_listener_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"body")

    def listener(_: object) -> None:
        with (tmp_path / "file").open("rb") as file:
            file.read()

    async with Trove(MemoryDriver()) as store:
        store.events.subscribe(listener)
        await store.create_bucket("bucket")
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {BlockingError}


async def test_sync_body_may_block_in_its_thread() -> None:
    def slow() -> list[bytes]:
        time.sleep(0.001)
        return [b"body"]

    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", (chunk for _ in range(2) for chunk in slow()))
        assert await store.read("bucket", "key") == b"bodybody"
