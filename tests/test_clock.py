"""The clock of `IdleTimeLoop` advances only while every task waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from trove_async._concurrency import in_thread

pytestmark = pytest.mark.idle_time


async def test_timer_fires_once_all_tasks_wait() -> None:
    clock = asyncio.get_running_loop().time
    started = clock()
    await asyncio.sleep(3600)
    assert clock() - started == pytest.approx(3600)


async def test_no_time_passes_while_the_loop_is_busy() -> None:
    async with asyncio.timeout(0.001):
        for _ in range(100):
            await asyncio.sleep(0)


async def test_no_time_passes_while_a_thread_is_busy() -> None:
    async with asyncio.timeout(0.001):
        await in_thread(time.sleep, 0.02)


async def test_no_time_passes_while_received_bytes_are_read() -> None:
    async with asyncio.timeout(0.001):
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
