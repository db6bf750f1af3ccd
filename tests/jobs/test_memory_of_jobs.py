"""The memory of a job does not grow with the number of keys."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import trove_async
from tests.jobs.fake_job import FakeJob
from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs._options import RunOptions
from trove_async.jobs._run import MAX_LISTINGS, JobRun
from trove_async.models import KiB

ROOT = Path(trove_async.__file__).parent.parent

SCRIPT = """
import asyncio, resource, sys
from bisect import bisect_left
from datetime import UTC, datetime
from trove_async import ObjectInfo, Route, Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs import rebalance
from trove_async.options import Page
from trove_async.paging import paginate

KEYS = int(sys.argv[1])
MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


def key_of(number):
    return f"data/k{number:07}.bin"


class Generated(MemoryDriver):
    async def list_page(self, bucket, options):
        await asyncio.sleep(0)
        return paginate(bucket, options, self.seek, lambda _, info: info)

    def seek(self, start):
        for number in range(bisect_left(range(KEYS), start, key=key_of), KEYS):
            key = key_of(number)
            yield key, ObjectInfo(bucket="b", key=key, size=1, etag=key, last_modified=MODIFIED)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def main():
    routes = [Route.suffix("7.bin", "cold")]
    async with Trove(Generated(), backends={"cold": MemoryDriver()}, routes=routes) as store:
        await store.create_bucket("b", backends="all")
        await rebalance(store, "b", prefix="data/k00000", dry_run=True)
        base = peak()
        report = await rebalance(store, "b", checkpoint=sys.argv[2], dry_run=True)
        print(report.examined, report.changed, (peak() - base) // 2**20)


asyncio.run(main())
"""


def run(keys: int, path: Path) -> list[int]:
    process = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", SCRIPT, str(keys), f"file://{path}/state"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    return [int(number) for number in process.stdout.split()]


@pytest.mark.parametrize("ordered", [True, False])
async def test_state_is_bounded_however_slow_single_objects_are(*, ordered: bool) -> None:
    concurrency = 50
    job = FakeJob([f"{number:05}{'x' * 1000}" for number in range(5_000)], ordered=ordered)
    largest, peak = 0, 0

    async def work(key: str) -> None:
        nonlocal largest, peak
        # Every hundredth object takes as long as hundreds of others, so that the keys in flight are far apart.
        if int(key[:5]) % 100:
            await asyncio.sleep(0)
            return
        for _ in range(300):
            await asyncio.sleep(0)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        largest = max(largest, len(job_run.state().ranges))
        peak = max(peak, tracemalloc.get_traced_memory()[1] - before)

    job.work = work
    async with Trove(MemoryDriver()) as store:
        job_run = JobRun(store, job, RunOptions(concurrency=concurrency))
        tracemalloc.start()
        try:
            await job_run.run()
        finally:
            tracemalloc.stop()
    assert job_run.tally.examined == 5_000
    assert largest <= concurrency + 2 * MAX_LISTINGS
    assert largest > 10 if ordered else largest == 1
    assert peak < 64 * KiB  # the ranges refer to keys that are in memory anyway


@pytest.mark.timeout(300)
def test_memory_stays_small_over_many_keys(tmp_path: Path) -> None:
    examined, changed, grown = run(100_000, tmp_path)
    assert (examined, changed) == (100_000, 10_000)
    assert grown <= 32


@pytest.mark.soak
def test_memory_stays_small_over_a_million_keys(tmp_path: Path) -> None:
    examined, changed, grown = run(1_000_000, tmp_path)
    assert (examined, changed) == (1_000_000, 100_000)
    assert grown <= 64
