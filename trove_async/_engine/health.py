"""Pings all backends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from trove_async._concurrency import Deadlines, task_group
from trove_async.models import BreakerState, Health

from .backends import Backend

_SEVERITY: Final[Sequence[BreakerState]] = ("closed", "half-open", "open")


async def health(
    backends: Sequence[Backend], deadlines: Deadlines, seconds: float
) -> Mapping[str, Health]:
    """Ping all backends concurrently and return the results by name, in the order of `backends`.

    Args:
        backends: The open backends.
        deadlines: Enforces the time limits.
        seconds: The time limit of each ping.
    """
    results: dict[str, Health] = {}

    async def ping(backend: Backend) -> None:
        clock = asyncio.get_running_loop().time
        started, error = clock(), None
        try:
            await deadlines.within(seconds, "no response", backend.driver.ping())
        except Exception as failure:  # noqa: BLE001 - any error is the result of the ping
            error = failure
        states = [breaker.state for breaker in backend.breakers]
        results[backend.name] = Health(
            ok=error is None,
            latency=clock() - started,
            error=error,
            breaker=max(states, key=_SEVERITY.index, default="closed"),
        )

    async with task_group() as group:
        for backend in backends:
            group.start_soon(ping, backend)
    return {backend.name: results[backend.name] for backend in backends}
