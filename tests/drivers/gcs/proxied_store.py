"""A store that reaches an in-memory Cloud Storage through a fault-injecting proxy."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.drivers.gcs.in_memory_gcs import Cloud
from tests.drivers.gcs.in_memory_gcs_server import serving
from tests.fakes import assert_idle
from tests.fault_proxy import FaultProxy
from trove_async import BufferPool, RetryPolicy, Timeout, Trove
from trove_async.drivers import GCSDriver
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE = RetryPolicy(base_delay=0)
NEVER = RetryPolicy(attempts=1)
BUCKET = "links"


@dataclass(kw_only=True)
class Link:
    """A store, the fault proxy in front of its service, and the service."""

    store: Trove
    proxy: FaultProxy
    cloud: Cloud
    bucket: str = BUCKET

    def stored(self, key: str) -> bytes | None:
        """Return the body that the cloud stores under a key."""
        held = self.cloud.buckets[self.bucket].get(key)
        return None if held is None else held.body

    def place(self, key: str, body: bytes, *, old: bool = True) -> int:
        """Store an object directly in the cloud, dated an hour ago; return its generation."""
        said = {"name": key, "contentType": "text/plain"}
        made = self.cloud.insert(self.bucket, said, body, {})
        if old:
            updated = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
            self.cloud.buckets[self.bucket][key] = replace(made, updated=updated)
        return made.generation

    @property
    def done(self) -> list[str]:
        """The requests that the proxy received, each as its method and its upload type or API."""
        return [
            f"{one.method} {one.query.get('uploadType') or one.path.split('/')[1]}"
            for one in self.proxy.requests
        ]

    @property
    def ranges(self) -> list[str]:
        """The Content-Range of each request that has one."""
        heads = [one.headers for one in self.proxy.requests]
        return [head["content-range"] for head in heads if "content-range" in head]


@asynccontextmanager
async def linked(
    *, retry: RetryPolicy = AT_ONCE, timeout: Timeout | None = None
) -> AsyncIterator[Link]:
    """Open a store behind a fault proxy, with parts of 1 MiB; on exit, check for leaks."""
    cloud = Cloud()
    cloud.create_bucket(BUCKET)
    async with serving(cloud) as url, FaultProxy(url) as proxy:
        driver = GCSDriver(endpoint_url=proxy.endpoint_url, max_connections=8)
        pool = BufferPool(max_bytes=8 * MiB, part_size=MiB)
        async with Trove(driver, pool=pool, retry=retry, timeout=timeout) as store:
            yield Link(store=store, proxy=proxy, cloud=cloud)
            await proxy.quiet()
            assert_idle(store)
        await proxy.deserted()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    left = [task for task in others if "RequestHandler" not in repr(task)]  # tasks of the server
    assert not left, left
