"""A backend per tenant, chosen by the name of the bucket.

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
    """Return a function that routes the bucket ``tenant-{name}`` to the backend ``name``."""

    def route(bucket: str, _key: str) -> str:
        tenant = bucket.removeprefix(PREFIX)
        return tenant if bucket.startswith(PREFIX) and tenant in tenants else ""

    return route_function(route, by="bucket")


async def main(root: Path) -> None:
    """Store the objects of each tenant in a directory, and all other objects in memory."""
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

        # The files of a tenant are plain files in its directory.
        print((root / "acme" / "tenant-acme" / "invoice.txt").read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
