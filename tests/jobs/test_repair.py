"""Replicas that missed writes are brought up to date."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.counting import Counting
from tests.fakes import NO_RETRIES, fill, small_pool
from tests.jobs.stores import BUCKET, WRITES
from trove_async import BackendNotFoundError, NotSupportedError, Trove, UnavailableError
from trove_async.drivers import MemoryDriver
from trove_async.jobs import repair, verify
from trove_async.layers import Mirrored, ReadOnly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def mirrored() -> AsyncIterator[tuple[Trove, Counting, Counting]]:
    """Open a store over a mirror, whose replica has missed a put, an overwrite and a deletion."""
    primary, replica = Counting(MemoryDriver()), Counting(MemoryDriver())
    async with Trove(Mirrored(primary, replica), pool=small_pool()) as store:
        await store.create_bucket(BUCKET)
        for key in ("deleted", "overwritten", "same"):
            await store.put(BUCKET, key, b"old")
    async with Trove(primary, pool=small_pool()) as store:
        await store.put(BUCKET, "missing", b"new", metadata={"m": "1"})
        await store.put(BUCKET, "overwritten", b"newer")
        await store.delete(BUCKET, "deleted")
    async with Trove(Mirrored(primary, replica), pool=small_pool(), retry=NO_RETRIES) as store:
        primary.reset()
        replica.reset()
        yield store, primary, replica


async def test_missed_writes_are_repaired_once() -> None:
    async with mirrored() as (store, _, replica):
        dry = await repair(store, BUCKET, dry_run=True)
        assert (dry.changed, dry.bytes) == (3, len("new" + "newer"))
        assert not WRITES & set(replica.requests)
        report = await repair(store, BUCKET)
        assert (report.examined, report.changed, report.failed) == (3, 3, 0)
        assert report.bytes == len("new" + "newer")
        assert (await repair(store, BUCKET, deep=True)).examined == 0
        assert (await verify(store, BUCKET)).unchanged == 3


async def test_prefix_limits_the_keys() -> None:
    async with mirrored() as (store, _, _):
        assert (await repair(store, BUCKET, prefix="mis")).changed == 1
        assert (await repair(store, BUCKET)).changed == 2


async def test_failing_replica_ends_the_comparison() -> None:
    async with mirrored() as (store, _, replica):
        replica.fail("list_page", UnavailableError("down"), times=None)
        with pytest.raises(UnavailableError):
            await repair(store, BUCKET)


async def test_backend_without_replicas_is_refused() -> None:
    async with Trove(MemoryDriver(), pool=small_pool()) as store:
        await store.create_bucket(BUCKET)
        with pytest.raises(NotSupportedError, match="Mirrored"):
            await repair(store, BUCKET)
        with pytest.raises(BackendNotFoundError):
            await repair(store, BUCKET, backend="nowhere")
        with pytest.raises(TypeError):
            await repair(store, BUCKET, deep=1)  # type: ignore[arg-type]


async def test_read_only_backend_is_compared_and_not_repaired() -> None:
    primary, replica = Counting(MemoryDriver()), Counting(MemoryDriver())
    await fill(primary, BUCKET, "key")
    await fill(replica, BUCKET)
    async with Trove(ReadOnly(Mirrored(primary, replica)), pool=small_pool()) as store:
        replica.reset()
        with pytest.raises(NotSupportedError, match="read-only"):
            await repair(store, BUCKET)
        assert (await repair(store, BUCKET, dry_run=True)).changed == 1
        assert not WRITES & set(replica.requests)
