"""A store that reaches an in-memory Cloud Storage through a fault-injecting proxy."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.fakes import assert_idle
from tests.fault_proxy import FaultProxy
from trove_async import BufferPool, RetryPolicy, Timeout, Trove
from trove_async.drivers import GCSDriver
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IMMEDIATE_RETRY = RetryPolicy(base_delay=0)
NO_RETRY = RetryPolicy(attempts=1)
BUCKET = "proxied"


@dataclass(kw_only=True)
class ProxiedStore:
    """A store behind a fault proxy.

    Attributes:
        store: The store.
        proxy: The proxy.
        service: The service behind the proxy.
        bucket: An empty bucket.
    """

    store: Trove
    proxy: FaultProxy
    service: InMemoryGCS
    bucket: str = BUCKET

    def stored_body(self, key: str) -> bytes | None:
        """Return the body that the service stores under a key, or None."""
        stored = self.service.buckets[self.bucket].get(key)
        return None if stored is None else stored.body

    def put_directly(self, key: str, body: bytes, *, backdated: bool = True) -> int:
        """Store an object, bypassing the proxy, and return its generation.

        Args:
            key: The key.
            body: The body.
            backdated: Whether to make the object an hour old, and so older than any request.
        """
        fields = {"name": key, "contentType": "text/plain"}
        created = self.service.insert(self.bucket, fields, body, {})
        if backdated:
            updated = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
            self.service.buckets[self.bucket][key] = replace(created, updated=updated)
        return created.generation

    @property
    def requests(self) -> list[str]:
        """The requests that the proxy received, each as its method and its upload type. A request
        without an upload type has the first segment of its path instead."""
        return [
            f"{request.method} {request.query.get('uploadType') or request.path.split('/')[1]}"
            for request in self.proxy.requests
        ]

    @property
    def content_ranges(self) -> list[str]:
        """The Content-Range of each request that has one."""
        return [
            request.headers["content-range"]
            for request in self.proxy.requests
            if "content-range" in request.headers
        ]


@asynccontextmanager
async def proxied_store(
    *, retry: RetryPolicy = IMMEDIATE_RETRY, timeout: Timeout | None = None
) -> AsyncIterator[ProxiedStore]:
    """Open a store behind a fault proxy, with an empty bucket and parts of 1 MiB.

    On exit, assert that no buffer, permit, connection or task is left.
    """
    service = InMemoryGCS()
    service.create_bucket(BUCKET)
    async with gcs_server(service) as url, FaultProxy(url) as proxy:
        driver = GCSDriver(endpoint_url=proxy.endpoint_url, max_connections=8)
        pool = BufferPool(max_bytes=8 * MiB, part_size=MiB)
        async with Trove(driver, pool=pool, retry=retry, timeout=timeout) as store:
            yield ProxiedStore(store=store, proxy=proxy, service=service)
            await proxy.wait_until_idle()
            assert_idle(store)
        await proxy.wait_until_disconnected()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    # The server's tasks may still be running.
    remaining = [task for task in tasks if "RequestHandler" not in repr(task)]
    assert not remaining, remaining
