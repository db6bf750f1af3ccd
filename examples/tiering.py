"""Move old and large objects to a cheaper backend, and read them as before.

python examples/tiering.py
"""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trove_async import Trove
from trove_async.jobs import TierRule, tier

RULES = [
    TierRule(to="default", prefix="pinned/"),  # the first rule that matches decides: these stay
    TierRule(to="archive", after=timedelta(days=365)),
    TierRule(to="cold", after=timedelta(days=30)),
    TierRule(to="cold", larger_than=100_000),
]


async def main(root: Path) -> None:
    """Run the rules today, in two months and in two years."""
    async with Trove(
        f"file://{root}/hot",
        backends={"cold": f"file://{root}/cold", "archive": f"file://{root}/archive"},
        locate="anywhere",  # objects are found wherever they are
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "pinned/logo.svg", b"<svg/>")
        await store.put("data", "notes.txt", b"some notes")
        await store.put("data", "video.bin", bytes(200_000))

        for days in (0, 60, 730):
            # A service runs this once a day, without `now`.
            now = datetime.now(UTC) + timedelta(days=days)
            report = await tier(store, "data", RULES, now=now)
            places = [f"{obj.key} on {obj.backend}" async for obj in store.list("data")]
            print(f"after {days} days, {report.changed} moved:", ", ".join(places))

        # A new version is stored on the hot backend again, and replaces the old one when it is moved.
        await store.put("data", "notes.txt", b"new notes")
        print("put again:", (await store.head("data", "notes.txt")).backend)
        await tier(store, "data", RULES, now=datetime.now(UTC) + timedelta(days=60))
        info = await store.head("data", "notes.txt")
        print("moved again:", info.backend, await store.read("data", "notes.txt"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
