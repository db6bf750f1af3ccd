"""A backend per tenant: a dict of them, and a closure over the buckets' names.

python examples/per_tenant.py
"""

import asyncio
import tempfile
from collections.abc import Collection
from pathlib import Path

from trove_async import RouteFunction, Trove, route_function
from trove_async.driver import AsyncDriver
from trove_async.drivers import LocalDriver, MemoryDriver

PREFIX = "tenant-"


def by_tenant(tenants: Collection[str]) -> RouteFunction:
    """Send bucket ``tenant-{name}`` to the backend of that name."""

    def route(bucket: str, _key: str) -> str:
        tenant = bucket.removeprefix(PREFIX)
        return tenant if bucket.startswith(PREFIX) and tenant in tenants else ""

    return route_function(route, by="bucket")


async def main(root: Path) -> None:
    """Give each tenant a directory, and keep what belongs to none in memory."""
    tenants: dict[str, AsyncDriver] = {
        name: LocalDriver(root / name) for name in ("acme", "globex")
    }
    async with Trove(
        MemoryDriver(), backends=tenants, route_functions=[by_tenant(tenants)]
    ) as store:
        for bucket in ("tenant-acme", "tenant-globex", "shared"):
            await store.create_bucket(bucket)
            info = await store.put(bucket, "invoice.txt", f"for {bucket}".encode())
            print(f"{bucket}/{info.key} is on {info.backend}")

        # A tenant's files lie in its own directory, plain.
        print((root / "acme" / "tenant-acme" / "invoice.txt").read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
