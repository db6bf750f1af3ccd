"""Stores of several backends for the tests of single jobs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.counting import Counting
from tests.fakes import NO_RETRIES, small_pool
from trove_async import Trove
from trove_async.drivers import MemoryDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from trove_async.driver import AsyncDriver

BUCKET = "bucket"

WRITES = {"put", "delete", "copy", "upload", "delete_many", "create_bucket", "delete_bucket"}


class Backends:
    """Counting drivers that several stores share, one after another."""

    def __init__(self, **drivers: AsyncDriver) -> None:
        named = drivers or {name: MemoryDriver() for name in ("default", "cold", "third")}
        self.drivers = {name: Counting(driver) for name, driver in named.items()}

    @asynccontextmanager
    async def store(self, **arguments: Any) -> AsyncIterator[Trove]:
        """Open a store with the bucket, on all backends."""
        default, *others = self.drivers
        async with Trove(
            self.drivers[default],
            backends={name: self.drivers[name] for name in others},
            **{"pool": small_pool(), "retry": NO_RETRIES, "locate": "anywhere", **arguments},
        ) as store:
            await store.create_bucket(BUCKET, exist_ok=True, backends="all")
            for driver in self.drivers.values():
                driver.reset()
            yield store

    def count_writes(self) -> int:
        """Return the number of requests since the store was opened that may change something."""
        return sum(
            request in WRITES for driver in self.drivers.values() for request in driver.requests
        )

    async def contents(self, store: Trove) -> Mapping[str, Mapping[str, bytes]]:
        """Return what each backend has, without empty backends."""
        found = {
            name: {
                info.key: await store.backend(name).read(BUCKET, info.key)
                async for info in store.backend(name).list(BUCKET)
            }
            for name in store.backends
        }
        return {name: objects for name, objects in found.items() if objects}
