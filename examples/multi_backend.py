"""Two backends in one store: where objects are stored, and what each listing contains.

python examples/multi_backend.py
"""

import asyncio
import tempfile

from trove_async import Trove
from trove_async.drivers import LocalDriver, MemoryDriver


def large_files_are_archived(bucket: str, key: str) -> str:
    """Return the name of a backend, or "" to pass. Called before the patterns are tried."""
    return "archive" if bucket == "data" and key.endswith(".iso") else ""


async def main(root: str) -> None:
    """Route three objects, then list each backend and the store."""
    async with Trove(
        LocalDriver(root),
        backends={"archive": MemoryDriver()},
        routes=[("archive/*", "archive")],
        route_functions=[large_files_are_archived],
    ) as store:
        await store.create_bucket("data", backends=["default", "archive"])

        await store.put("data", "config.json", b'{"key": "value"}', content_type="application/json")
        await store.put("data", "archive/2023.csv", b"year,total\n2023,42\n")
        await store.put("data", "disk.iso", b"\0" * 4096)

        for name in ("default", "archive"):
            print(f"On {name}:")
            async for obj in store.backend(name).list("data"):
                print(f"  {obj.key}  {obj.size} bytes")

        print("In the store:")
        async for obj in store.list("data"):
            decision = await store.explain("data", obj.key)
            print(f"  {obj.key}  {obj.size} bytes on {obj.backend}. {decision.reason}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(directory))
