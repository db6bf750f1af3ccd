"""Rebalance and tier over layers and middlewares: every object has its content before, during and after a job."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from tests.fakes import NO_RETRIES, small_pool
from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs import TierRule, rebalance, repair, tier, verify
from trove_async.layers import Fallback, Hedged, Mirrored, ReadThrough
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from trove_async import Middleware
    from trove_async.driver import AsyncDriver
    from trove_async.jobs import Report

BUCKET = "bucket"

LAYERS: Mapping[str, Callable[[AsyncDriver], AsyncDriver]] = {
    "plain": lambda driver: driver,
    "read-through": lambda driver: ReadThrough(
        driver, MemoryDriver(), max_bytes=8 * MiB, block_size=MiB
    ),
    "written through": lambda driver: ReadThrough(
        driver, MemoryDriver(), max_bytes=8 * MiB, block_size=MiB, write="through"
    ),
    "fallback": lambda driver: Fallback(driver, MemoryDriver()),
    "fallback on missing": lambda driver: Fallback(driver, MemoryDriver(), on_missing=True),
    "mirrored": lambda driver: Mirrored(driver, MemoryDriver()),
    "hedged": Hedged,
}

KEYRING = Keyring({"1": os.urandom(32)}, current="1")

MIDDLEWARES: Mapping[str, Sequence[Middleware]] = {
    "as it is": [],
    "compressed": [Compression()],
    "encrypted": [Encryption(KEYRING, bind=True, require=True)],
    "both": [Compression(), Encryption(KEYRING)],
}

CONTENTS: Mapping[str, bytes] = {
    f"{folder}/{number}": f"{folder} {number} ".encode() * (number * 200)
    for folder in ("logs", "stay")
    for number in range(12)
}
MOVED = [key for key in CONTENTS if key.startswith("logs/")]


async def run_rebalance(store: Trove, *, dry_run: bool) -> Report:
    return await rebalance(store, BUCKET, dry_run=dry_run, concurrency=4)


async def run_tier(store: Trove, *, dry_run: bool) -> Report:
    rules = [TierRule(to="cold", prefix="logs/")]
    return await tier(store, BUCKET, rules, dry_run=dry_run, concurrency=4)


async def assert_contents(store: Trove) -> None:
    for key, content in CONTENTS.items():
        assert await store.read(BUCKET, key) == content, key


async def read_until(store: Trove, done: asyncio.Event) -> int:
    """Read all objects again and again, and return how often."""
    rounds = 0
    while not done.is_set():
        await assert_contents(store)
        rounds += 1
        await asyncio.sleep(0)
    return rounds


@pytest.mark.parametrize("middleware", MIDDLEWARES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("job", [run_rebalance, run_tier])
async def test_contents_and_reports_are_right(
    job: Callable[..., Awaitable[Report]], layer: str, middleware: str
) -> None:
    async with Trove(
        LAYERS[layer](MemoryDriver()),
        backends={"cold": LAYERS[layer](MemoryDriver())},
        routes=[("logs/**", "cold")] if job is run_rebalance else (),
        middleware=MIDDLEWARES[middleware],
        locate="anywhere",
        pool=small_pool(),
        retry=NO_RETRIES,
    ) as store:
        await store.create_bucket(BUCKET, backends="all")
        for key, content in CONTENTS.items():
            await store.backend("default").put(BUCKET, key, content, metadata={"key": key})
        await assert_contents(store)
        # 1. A dry run predicts the run.
        dry = await job(store, dry_run=True)
        assert (dry.examined, dry.changed, dry.unchanged) == (24, 12, 12)
        await assert_contents(store)
        # 2. The run, with readers.
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read_until(store, done)) for _ in range(2)]
            try:
                report = await job(store, dry_run=False)
            finally:
                done.set()
        assert all(reader.result() for reader in readers)
        assert (report.examined, report.changed, report.unchanged) == (24, 12, 12)
        assert report.ok
        assert report.bytes == dry.bytes
        # 3. Every object is where it belongs, once, with its content and metadata.
        await assert_contents(store)
        listed = {
            info.key: info.backend async for info in store.list(BUCKET, include_shadowed=True)
        }
        assert listed == {key: "cold" if key in MOVED else "default" for key in CONTENTS}
        for name in store.backends:
            on_backend = [info.key async for info in store.backend(name).list(BUCKET)]
            assert on_backend == sorted(key for key in CONTENTS if listed[key] == name)
        for key in CONTENTS:
            info = await store.head(BUCKET, key)
            assert info.metadata == {"key": key}
        # 4. Nothing is left to do or to repair.
        assert (await verify(store, BUCKET)).ok
        again = await job(store, dry_run=False)
        assert (again.changed, again.unchanged) == (0, 24)
        if layer == "mirrored":
            for name in store.backends:
                assert (await repair(store, BUCKET, backend=name, dry_run=True)).changed == 0
        await assert_contents(store)
