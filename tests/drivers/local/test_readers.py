"""Readers read ahead into free memory, give it up for waiting leases, and then read again."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from trove_async import BufferPool
from trove_async.drivers import LocalDriver
from trove_async.drivers.local._threads import FileExecutor
from trove_async.errors import BackendError
from trove_async.models import MiB
from trove_async.options import GetOptions, PutOptions
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trove_async.driver import DriverReader

BODY = os.urandom(5 * MiB)


@asynccontextmanager
async def streaming(root: Path, pool: BufferPool) -> AsyncIterator[DriverReader]:
    """Open a reader, and read 2 MiB of it in two reads."""
    async with opened(LocalDriver(root), pool=pool) as driver:
        await driver.create_bucket("b")
        await driver.put("b", "k", [memoryview(BODY)], PutOptions())
        async with driver.get("b", "k", GetOptions()) as reader:
            assert await reader.read(MiB) + await reader.read(MiB) == BODY[: 2 * MiB]
            yield reader
        assert pool.statistics().leased == 0


async def rest_of(reader: DriverReader, size: int) -> bytes:
    got = b""
    while chunk := await reader.read(size):
        got += chunk
    return got


@pytest.mark.parametrize("size", [MiB, 1000, 3 * MiB])
async def test_read_ahead_serves_reads_of_any_size(tmp_path: Path, size: int) -> None:
    pool = BufferPool(4 * MiB)
    async with streaming(tmp_path, pool) as reader:
        assert pool.statistics().leased == MiB
        assert await rest_of(reader, size) == BODY[2 * MiB :]


async def test_waiting_lease_gets_the_memory_and_the_reader_reads_again(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, 1 * MiB)
    async with streaming(tmp_path, pool) as reader:
        async with asyncio.timeout(10):
            with await pool.lease(MiB), await pool.lease(MiB):
                assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]
        assert await rest_of(reader, MiB) == BODY[3 * MiB :]


async def test_without_free_memory_nothing_is_read_ahead(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, 1 * MiB)
    async with opened(LocalDriver(tmp_path), pool=pool) as driver:
        await driver.create_bucket("b")
        await driver.put("b", "k", [memoryview(BODY)], PutOptions())
        with await pool.lease(MiB), await pool.lease(MiB):
            async with driver.get("b", "k", GetOptions()) as reader:
                assert await rest_of(reader, MiB) == BODY


async def test_failed_read_ahead_raises_in_the_read_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileExecutor.submit

    def failing() -> bytes:
        raise OSError(5, "the disk says no")

    def submit(lane: FileExecutor, work: Callable[..., object], *arguments: object) -> object:
        return real(lane, failing) if arguments else real(lane, work)

    async with streaming(tmp_path, BufferPool(4 * MiB)) as reader:
        assert await reader.read(MiB) == BODY[2 * MiB : 3 * MiB]
        with monkeypatch.context() as patch:
            patch.setattr(FileExecutor, "submit", submit)
            assert await reader.read(MiB) == BODY[3 * MiB : 4 * MiB]
        with pytest.raises(BackendError, match="the disk failed"):
            await reader.read(MiB)
