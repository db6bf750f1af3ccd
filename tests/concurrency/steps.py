"""Coroutines shared by the tests of concurrency."""

from __future__ import annotations

import asyncio


async def raising(error: BaseException) -> None:
    raise error


async def let_tasks_run(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
