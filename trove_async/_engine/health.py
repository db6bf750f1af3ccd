"""Whether the backends respond."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from trove_async._concurrency import Deadlines, task_group
from trove_async.models import Health

from .backends import Backend


async def health(
    backends: Sequence[Backend], deadlines: Deadlines, seconds: float
) -> Mapping[str, Health]:
    """Ping every backend, all at once; return how each responded, in their order.

    Args:
        backends: The backends, open.
        deadlines: The store's.
        seconds: How long each may take.
    """
    found: dict[str, Health] = {}

    async def ask(backend: Backend) -> None:
        clock = asyncio.get_running_loop().time
        started, error = clock(), None
        try:
            await deadlines.within(seconds, "no answer", backend.driver.ping())
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the answer
            error = failure
        found[backend.name] = Health(ok=error is None, latency=clock() - started, error=error)

    async with task_group() as group:
        for backend in backends:
            group.start_soon(ask, backend)
    return {backend.name: found[backend.name] for backend in backends}
