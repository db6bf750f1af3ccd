"""Runs an action for many objects, some at a time, and reports each failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from trove_async._concurrency import task_group
from trove_async.errors import ClosedError, TroveError

from ._command import describe
from ._output import Output

T = TypeVar("T")


async def run_all(
    items: AsyncIterator[T],
    action: Callable[[T], Awaitable[None]],
    *,
    jobs: int,
    output: Output,
    name: Callable[[T], str],
) -> None:
    """Run an action for every item. An item that fails is reported, and the others go on.

    Args:
        items: The items.
        action: The action.
        jobs: The maximum number of concurrent actions.
        output: Reports the failures.
        name: Returns the name of an item for its report.
    """
    taking = asyncio.Lock()

    async def work() -> None:
        while True:
            async with taking:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            try:
                await action(item)
            except ClosedError:
                raise
            except (TroveError, OSError) as error:
                output.error(f"{name(item)}: {describe(error)}", error)

    async with task_group() as group:
        for _ in range(jobs):
            group.start_soon(work)
