"""How much does Dask add to each key range of a job?

Runs a rebalance of a few objects on two worker processes, from checkpoints with 10 and with 500 ranges. The
difference of the wall times is the cost of the further ranges: recording, submitting, listing and reporting them.
Prints the fastest of interleaved rounds (other programs only slow one down), and the same for this process alone.
Exits with 1 if Dask adds more than 5 ms to a range.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import defaultdict
from pathlib import Path

from _harness import memory_folder
from distributed import Client, LocalCluster

from trove_async import Trove
from trove_async.jobs import rebalance
from trove_async.jobs._checkpoint import Checkpoint, State
from trove_async.jobs._options import FileTarget
from trove_async.jobs._ranges import KeyRange
from trove_async.jobs._rebalance import Rebalance
from trove_async.jobs._report import Tally
from trove_async.jobs.dask import DaskExecutor

OBJECTS = 10
RANGES = (10, 500)
WORKERS = 2
ROUNDS = 7
TARGET = 0.005


async def _timed(store: Trove, path: Path, count: int, executor: DaskExecutor | None) -> float:
    """Return the seconds of a run that continues with `count` ranges."""
    edges = ["", *(f"{number:06}" for number in range(1, count)), None]
    ranges = [KeyRange(edges[index] or "", edges[index + 1]) for index in range(count)]
    job = Rebalance(store, "data", "", delete_shadowed=False, dry_run=False)
    checkpoint = Checkpoint(store, FileTarget(path), job.name, job.arguments)
    await checkpoint.save(State(ranges=ranges, tally=Tally()))
    started = time.perf_counter()
    report = await rebalance(store, "data", checkpoint=path, on=executor)
    seconds = time.perf_counter() - started
    if (report.examined, report.changed, report.ranges) != (OBJECTS, 0, count):
        raise RuntimeError(f"wrong report: {report}")
    return seconds


async def _run(client: Client, folder: Path) -> int:
    url = f"file://{folder}/objects"
    (folder / "objects").mkdir()
    executor = DaskExecutor(client, store={"default": url})
    walls = defaultdict[tuple[str, int], list[float]](list)
    async with Trove(url) as store:
        await store.create_bucket("data")
        for number in range(OBJECTS):
            await store.put("data", f"{number:06}", b"")
        await _timed(store, folder / "state", RANGES[0], executor)  # the workers import the library
        for _ in range(ROUNDS):
            for place, on in (("here", None), ("Dask", executor)):
                for count in RANGES:
                    seconds = await _timed(store, folder / "state", count, on)
                    walls[place, count].append(seconds)
    few, many = RANGES
    print(f"| place | {few} ranges s | {many} ranges s | a further range ms |")
    print("| --- | ---: | ---: | ---: |")
    further = {}
    for place in ("here", "Dask"):
        first, last = (min(walls[place, count]) for count in RANGES)
        further[place] = (last - first) / (many - few)
        print(f"| {place} | {first:.3f} | {last:.3f} | {further[place] * 1e3:.2f} |")
    added = further["Dask"] - further["here"]
    print(f"\nDask adds {added * 1e3:.2f} ms to a range (target: {TARGET * 1e3:g}).")
    return 0 if added <= TARGET else 1


def main() -> int:
    """Run the benchmark. Return 1 if it misses its target."""
    with (
        memory_folder() as folder,
        LocalCluster(
            processes=True,
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        return asyncio.run(_run(client, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
