"""The cache of sorted directories."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from trove_async.drivers.local._snapshots import Snapshots

if TYPE_CHECKING:
    from tests.drivers.local.conftest import BucketClient


def _status(*, ino: int, mtime_ns: int) -> os.stat_result:
    return os.stat_result(
        (0o40700, ino, 1, 2, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": mtime_ns, "st_ctime_ns": mtime_ns}
    )


async def test_changed_directory_is_read_again(client: BucketClient) -> None:
    await client.put("d/a")
    await client.put("d/c")
    snapshots = client.driver._root.snapshots  # type: ignore[union-attr]
    snapshots._tick_ns = -(10**12)  # also cache directories that have just changed
    assert await client.keys() == ["d/a", "d/c"]
    assert await client.keys() == ["d/a", "d/c"]
    assert snapshots._entries
    await client.put("d/b")
    assert await client.keys() == ["d/a", "d/b", "d/c"]


def test_snapshots_are_bounded_and_the_oldest_is_dropped() -> None:
    snapshots = Snapshots(tick_ns=0, limit=10)
    statuses = [_status(ino=number, mtime_ns=1) for number in range(4)]
    for status in statuses[:3]:
        snapshots.add("plain", status, ["a", "b", "c"])
    assert snapshots.get("plain", statuses[0]) is None
    assert snapshots.get("plain", statuses[2]) == ["a", "b", "c"]
    assert snapshots.get("overflow", statuses[2]) is None
    snapshots.add("plain", statuses[3], ["n"] * 11)
    assert snapshots.get("plain", statuses[3]) is None
    snapshots.add("plain", statuses[2], ["a"])
    assert snapshots.get("plain", statuses[2]) == ["a"]


def test_recently_changed_directory_is_not_cached() -> None:
    snapshots = Snapshots(tick_ns=10**9)
    recent = _status(ino=1, mtime_ns=time.time_ns())
    snapshots.add("plain", recent, ["a"])
    assert snapshots.get("plain", recent) is None
