"""Migrate a bucket from one provider to another, while users read and write.

    python examples/migrate.py

The providers are two directories here; in production they are URLs such as ``s3://old-bucket`` and
``gcs://new-bucket``.
"""

import asyncio
import tempfile
from pathlib import Path

from trove_async import Route, Trove
from trove_async.jobs import migrate, verify


async def main(root: Path) -> None:
    """Show the four phases: write new and read both, backfill, verify, done."""
    old, new = f"file://{root}/old", f"file://{root}/new"

    # 0. Everything is on the old provider.
    async with Trove(old) as store:
        await store.create_bucket("data")
        for number in range(200):
            await store.put("data", f"reports/{number:03}.txt", f"report {number}\n".encode())

    # 1. Write new, read both: the rules send all keys to the new provider, and what is not there yet is
    # found on the old one. Deploy this configuration before the backfill starts.
    async with Trove(
        old, backends={"new": new}, routes=[Route.prefix("", "new")], locate="anywhere"
    ) as store:
        await store.create_bucket("data", backends=["new"])
        await store.put("data", "reports/007.txt", b"rewritten during the migration\n")
        print("before:", (await store.head("data", "reports/000.txt")).backend)

        # 2. Backfill. The job can be stopped at any time: run it again with the same checkpoint.
        report = await migrate(
            store, "data", source="default", target="new", checkpoint=root / "migration.json"
        )
        print(report)
        print("after:", (await store.head("data", "reports/000.txt")).backend)

        # 3. Verify: nothing is left to copy, and all contents are equal, except what users have rewritten.
        left = await migrate(store, "data", source="default", target="new", dry_run=True)
        print("left to copy:", left.changed)
        compared = await verify(store, "data", backend="default", against="new")
        print("equal:", compared.unchanged, "- different:", *compared.errors["IntegrityError"].keys)

    # 4. Done: the old provider is no longer needed.
    async with Trove(new) as store:
        print("objects:", len(await store.list("data").all()))
        print((await store.read("data", "reports/007.txt")).decode(), end="")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
