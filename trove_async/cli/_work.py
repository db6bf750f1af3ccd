"""Runs an action for many objects, some at a time, and reports each failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from trove_async._concurrency import task_group
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    TroveError,
    UnavailableError,
)

from ._command import describe
from ._output import Output

T = TypeVar("T")

_MAX_OUTAGES: Final = 100
"""Failures in a row because a backend is unavailable, after which the work ends."""


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
    outages = 0

    async def work() -> None:
        nonlocal outages
        while True:
            async with taking:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            try:
                await action(item)
            except (ClosedError, BucketNotFoundError, BrokenPipeError):
                raise  # so will all others
            except (TroveError, OSError) as error:
                output.error(f"{name(item)}: {describe(error)}", error)
                outages = outages + 1 if isinstance(error, UnavailableError) else 0
                if outages >= _MAX_OUTAGES:
                    raise
            else:
                outages = 0

    async with task_group() as group:
        for _ in range(jobs):
            group.start_soon(work)


async def for_arguments(
    arguments: Sequence[T], action: Callable[[T], Awaitable[None]], output: Output
) -> None:
    """Run an action for every argument, in order. One that fails is reported, and the others go on.

    Raises:
        TroveError: The only argument failed. Its error determines the exit code.
        OSError: As above.
    """
    if len(arguments) == 1:
        await action(arguments[0])
        return
    for argument in arguments:
        try:
            await action(argument)
        except (ClosedError, BrokenPipeError):
            raise
        except (TroveError, OSError) as error:
            output.error(describe(error), error)
