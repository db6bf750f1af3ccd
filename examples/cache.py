"""Keep what is read from a remote store in a local cache.

    python examples/cache.py

Reads a range, the whole object and the range again through a cache in a temporary directory, and shows
how many requests reach the remote store. Then another client replaces the object. The remote store is a directory
here. For S3, pass a driver or a URL such as ``s3://bucket?region=eu-central-1`` instead.
"""

import asyncio
import tempfile
from pathlib import Path

from trove_async import Event, Trove
from trove_async.drivers import LocalDriver
from trove_async.layers import ReadThrough

MiB = 1024 * 1024


async def main(root: Path) -> None:
    """Read an object through a cache, and print what the cache did."""
    remote = LocalDriver(root / "remote")  # or: "s3://bucket?region=eu-central-1"
    layer = ReadThrough(
        remote,
        cache=f"file://{root}/cache",
        max_bytes=64 * MiB,
        block_size=MiB,
        revalidate=1.0,  # seconds for which a version counts as current; 60 by default
    )
    async with Trove(layer) as store:
        await layer.wait_until_ready()  # reads need not wait for it, but would not be cached before
        await store.create_bucket("data")
        await store.put("data", "large.bin", bytes(range(256)) * (8 * MiB // 256))
        requests: list[Event] = []
        store.events.subscribe(
            lambda event: requests.append(event) if event.kind == "attempt" else None
        )

        def report(label: str) -> None:
            gets = sum(event.operation == "get" and event.bucket == "data" for event in requests)
            heads = sum(event.operation == "head" for event in requests)
            requests.clear()
            print(f"{label:28} {gets} get, {heads} head to the remote store")

        # 1. Only the blocks that a range touches are requested, and only once.
        await store.read("data", "large.bin", range=(3 * MiB, 3 * MiB + 1000))
        report("a range:")
        await store.read("data", "large.bin")
        report("the whole object:")
        await store.read("data", "large.bin")
        await store.read("data", "large.bin", range=(3 * MiB, 3 * MiB + 1000))
        report("both again:")

        # 2. Somebody else replaces the object. After `revalidate` seconds a head request finds out.
        async with Trove(LocalDriver(root / "remote")) as other:
            await other.put("data", "large.bin", b"replaced")
        await asyncio.sleep(1.1)
        print("after a replacement:", await store.read("data", "large.bin"))

        # 3. The counters of the cache, which `store.backends["default"].statistics` shows as well.
        statistics = layer.statistics()
        print(
            f"{statistics.hits} hits, {statistics.misses} misses,"
            f" {statistics.stored_bytes / MiB:.1f} of {statistics.max_bytes / MiB:.0f} MiB used"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
