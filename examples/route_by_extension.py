"""Route by the end of the key: logs and tar files to other backends, everything else to disk.

python examples/route_by_extension.py
"""

import asyncio
import tempfile

from trove_async import Route, Trove
from trove_async.drivers import LocalDriver, MemoryDriver

KEYS = ["app.log", "logs/2024/app.log", "site/index.html", "backup.tar.gz"]


async def main(root: str) -> None:
    """Show that ``*.log`` matches only keys without a slash, and a suffix all keys that end with it."""
    async with Trove(
        LocalDriver(root),
        backends={"cold": MemoryDriver(), "archive": MemoryDriver()},
        routes=[
            ("*.log", "cold"),  # "app.log", but not "logs/2024/app.log", as in a shell
            Route.suffix(".log", "archive"),  # any other key that ends with ".log"
            Route.suffix(".tar.gz", "archive"),
        ],
    ) as store:
        await store.create_bucket("data")
        for key in KEYS:
            info = await store.put("data", key, f"the body of {key}".encode())
            print(f"{info.key:20} -> {info.backend}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(directory))
