"""Route a whole bucket to its own backend.

python examples/route_by_bucket.py
"""

import asyncio
import tempfile

from trove_async import Trove, route_function
from trove_async.drivers import LocalDriver, MemoryDriver


@route_function(by="bucket")
def large_files_elsewhere(bucket: str, _key: str) -> str:
    """Route by the bucket alone, so that a listing reads from one backend instead of all."""
    return "large" if bucket == "large-files" else ""


async def main(root: str) -> None:
    """Put an object into each of two buckets, and list both."""
    async with Trove(
        MemoryDriver(),
        backends={"large": LocalDriver(root)},
        route_functions=[large_files_elsewhere],
    ) as store:
        for bucket in ("small-files", "large-files"):
            # This creates the bucket on the default backend. The first put creates it on `large`.
            await store.create_bucket(bucket)
            await store.put(bucket, "body.bin", bytes(1_000_000 if "large" in bucket else 10))
            async for obj in store.list(bucket):
                print(f"{bucket}/{obj.key}: {obj.size} bytes on {obj.backend}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(directory))
