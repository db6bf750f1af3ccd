"""Bodies and stores for tests of transformed objects."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.fakes import CallLog, content, single_attempt_store
from trove_async import BufferPool
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trove_async import Trove
    from trove_async.drivers.memory import MemoryDriver

PART = MiB
"""The size of the parts that a store of `store_with` sends."""


def compressible(size: int) -> bytes:
    """Return bytes that shrink to about a half, with all frames different."""
    half = content(-(-size // 2))
    return b"".join(half[at : at + 50] * 2 for at in range(0, len(half), 50))[:size]


async def stream(body: bytes, chunk: int = 100_003) -> AsyncIterator[bytes]:
    for at in range(0, len(body), chunk):
        await asyncio.sleep(0)
        yield body[at : at + chunk]


def store_with(
    middleware: Sequence[Any], driver: MemoryDriver | None = None, **arguments: Any
) -> Trove:
    """Return a store with small parts, not yet open."""
    pool = BufferPool(4 * MiB, part_size=PART)
    return single_attempt_store(driver or CallLog(), middleware=middleware, pool=pool, **arguments)


async def stored_form(driver: MemoryDriver, key: str = "key") -> bytes:
    """Return the stored bytes of an object."""
    return b"".join(driver._buckets["data"].objects[key].chunks)
