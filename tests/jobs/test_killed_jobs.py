"""A job whose process is killed at any moment loses no object, and a later run completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

import trove_async
from tests.fakes import small_pool
from trove_async import Trove
from trove_async.drivers import LocalDriver

ROOT = Path(trove_async.__file__).parent.parent

SCRIPT = """
import asyncio, sys
from trove_async import Route, Trove
from trove_async.drivers import LocalDriver
from trove_async.jobs import TierRule, _run, migrate, rebalance, tier

_run.CHECKPOINT_SECONDS = 0.005

async def main(kind, root):
    routes = [] if kind == "tier" else [Route.prefix("", "cold")]
    hot, cold = (LocalDriver(f"{root}/{name}", fsync=False) for name in ("hot", "cold"))
    async with Trove(hot, backends={"cold": cold}, routes=routes, locate="anywhere") as store:
        common = {"concurrency": 4, "checkpoint": f"file://{root}/state"}
        print("ready", flush=True)
        if kind == "rebalance":
            report = await rebalance(store, "bucket", **common)
        elif kind == "tier":
            report = await tier(store, "bucket", [TierRule(to="cold")], **common)
        else:
            report = await migrate(
                store, "bucket", source="default", target="cold", delete=True, **common
            )
        assert report.ok and not report.skipped, report
        print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""

COUNT = 400


async def run_killed(kind: str, root: Path, kills: int, seed: int) -> None:
    """Kill the job several times at random moments, check all objects each time, then let it end."""
    random = Random(seed)
    objects = {
        f"{number % 7}/{number}": random.randbytes(random.choice((0, 10, 5000, 300_000)))
        for number in range(COUNT)
    }
    hot, cold = LocalDriver(root / "hot", fsync=False), LocalDriver(root / "cold", fsync=False)
    async with Trove(hot, backends={"cold": cold}, pool=small_pool()) as store:
        await store.create_bucket("bucket", backends="all")
        for key, body in objects.items():
            await store.put("bucket", key, body)
    for kill in range(kills + 1):
        # 1. Run the job, and kill it. The last time it ends by itself.
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own script
            [sys.executable, "-c", SCRIPT, kind, str(root)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kill < kills:
            time.sleep(random.uniform(0, 0.25))  # noqa: ASYNC251 - nothing else runs
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=50)
        # 2. Every object is readable with its content.
        hot, cold = LocalDriver(root / "hot", fsync=False), LocalDriver(root / "cold", fsync=False)
        async with Trove(
            hot, backends={"cold": cold}, locate="anywhere", pool=small_pool()
        ) as store:
            for key, body in objects.items():
                assert await store.read("bucket", key) == body, key
            if kill == kills:
                assert output == "done\n"
                assert await store.backend("default").list("bucket").all() == []
                assert len(await store.backend("cold").list("bucket").all()) == COUNT


@pytest.mark.parametrize("kind", ["rebalance", "tier", "migrate"])
async def test_killed_job_loses_nothing(kind: str, tmp_path: Path) -> None:
    await run_killed(kind, tmp_path, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["rebalance", "tier", "migrate"])
async def test_job_that_is_killed_often_loses_nothing(kind: str, seed: int, tmp_path: Path) -> None:
    await run_killed(kind, tmp_path, kills=12, seed=seed)
