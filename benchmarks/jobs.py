"""What do jobs cost: their memory over a million keys, a rebalance beside cp, and a sync beside s5cmd?

The rebalance moves files between two local backends without fsync, under a new rule: it copies, verifies and
deletes each one. `cp` copies the same files, one after another, and deletes and verifies nothing. Each round
runs both in turn. `_sync_vs_s5cmd.py` describes the sync.

    python benchmarks/jobs.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from _harness import (
    Measurement,
    Memory,
    MiB,
    compare,
    in_fresh_process,
    machine,
    measured,
    median_ratio,
    memory_folder,
    once,
    print_comparisons,
    table,
)
from _sync_vs_s5cmd import sync_beside_s5cmd

from trove_async import ObjectInfo, Route, Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.jobs import rebalance
from trove_async.options import ListOptions, Page
from trove_async.paging import paginate

KEYS = 1_000_000
MAX_GROWTH = 64
"""The memory that a job over a million keys may take, in MiB."""

MIN_RATIO = 0.8
"""The least rate of a rebalance, relative to cp."""

CONCURRENCY = 8
"""Objects in flight: between local disks, more are slower."""

FILES: Sequence[tuple[str, int, int]] = [
    ("4 KiB", 4096, 2000),
    ("64 KiB", 64 * 1024, 2000),
    ("1 MiB", MiB, 300),
    ("16 MiB", 16 * MiB, 24),
]


class Generated(MemoryDriver):
    """A backend that lists a million objects and stores none of them."""

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        await asyncio.sleep(0)
        return paginate(bucket, options, self._seek, lambda _, info: info)

    def _seek(self, start: str) -> Iterator[tuple[str, ObjectInfo]]:
        modified = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(bisect_left(range(KEYS), start, key=_key), KEYS):
            key = _key(number)
            info = ObjectInfo(bucket="bench", key=key, size=1, etag=key, last_modified=modified)
            yield key, info


def _key(number: int) -> str:
    return f"data/k{number:07}.bin"


async def measure_memory() -> dict[str, float]:
    """Run a dry rebalance in which one object in ten must move."""
    async with Trove(
        Generated(), backends={"cold": MemoryDriver()}, routes=[Route.suffix("7.bin", "cold")]
    ) as store:
        await store.create_bucket("bench", backends="all")
        await rebalance(store, "bench", prefix="data/k00", dry_run=True)  # warm up
        memory = Memory()
        measurement = await once(KEYS, rebalance(store, "bench", dry_run=True))
        report = await rebalance(store, "bench", prefix="data/k01", dry_run=True)
        assert report.changed == report.examined / 10  # noqa: S101 - the job has seen all keys
    return {"growth": memory.peak, "rate": measurement.rate}


async def measure_rebalance(root: Path, size: int, count: int) -> Measurement:
    """Move all files from one local backend to another."""
    hot, cold = (LocalDriver(root / name, fsync=False) for name in ("hot", "cold"))
    async with Trove(
        hot, backends={"cold": cold}, routes=[Route.prefix("", "cold")], locate="anywhere"
    ) as store:
        await store.create_bucket("bench", backends="all")
        hot_only = store.backend("default")
        body = os.urandom(size)
        for number in range(count):
            await hot_only.put("bench", f"k{number:05}", body)
        job = rebalance(store, "bench", concurrency=CONCURRENCY)
        measurement = await once(size * count / MiB, job)
        assert len(await store.backend("cold").list("bench").all()) == count  # noqa: S101
        return measurement


def measure_cp(root: Path, size: int, count: int) -> Measurement:
    """Copy as many files of the same size with cp."""
    source = root / "source"
    source.mkdir()
    body = os.urandom(size)
    for number in range(count):
        (source / f"k{number:05}").write_bytes(body)
    command = ["cp", "--recursive", "--reflink=never", str(source), str(root / "target")]
    return measured(size * count / MiB, lambda: subprocess.run(command, check=True))  # noqa: S603


def measure_both(size: int, count: int, rounds: int) -> tuple[list[Measurement], list[Measurement]]:
    """Measure both in turn, in memory if possible."""
    ours, cp = [], []
    for _ in range(rounds):
        with memory_folder() as folder:
            ours.append(asyncio.run(measure_rebalance(Path(folder), size, count)))
            for name in ("hot", "cold"):
                shutil.rmtree(Path(folder) / name)
            cp.append(measure_cp(Path(folder), size, count))
    return ours, cp


def main() -> int:
    """Measure, print the figures, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps({"figures": asyncio.run(measure_memory())}))
        return 0
    missed = []
    print(f"{machine()}.\n")
    # 1. Memory.
    figures = in_fresh_process(__file__, "--child")["figures"]
    print(
        f"A dry rebalance over {KEYS:,} keys: {figures['rate']:,.0f} keys/s, and memory grows by"
        f" {figures['growth']:.0f} MiB (the limit is {MAX_GROWTH}).\n"
    )
    if figures["growth"] > MAX_GROWTH:
        missed.append("memory")
    # 2. Rebalance and cp.
    rows, comparisons = [], []
    for name, size, count in FILES:
        ours, cp = measure_both(size, count, arguments.rounds)
        comparisons.append(compare(f"rebalance, {count} files of {name}", "cp", ours, cp))
        ratio = median_ratio([one.rate for one in ours], [one.rate for one in cp])
        cpu = median_ratio([one.cpu for one in ours], [one.cpu for one in cp])
        rows.append(
            [
                f"{count} files of {name}",
                f"{statistics.median(one.rate for one in ours):,.0f}",
                f"{statistics.median(one.rate for one in cp):,.0f}",
                f"{ratio:.2f}",
                f"{cpu:.2f}",
            ]
        )
        if ratio < MIN_RATIO:
            missed.append(f"files of {name}")
    print(f"Medians of {arguments.rounds} interleaved rounds. Ratios are those of ours to cp.\n")
    print(table(["files", "rebalance, MiB/s", "cp, MiB/s", "ratio", "CPU ratio"], rows))
    # 3. Sync and s5cmd.
    text, missed_phases, sync_comparisons = sync_beside_s5cmd(arguments.rounds)
    print(f"\n{text}")
    print_comparisons([*comparisons, *sync_comparisons])
    missed += missed_phases
    if missed:
        print(f"\nMissed: {', '.join(missed)}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
