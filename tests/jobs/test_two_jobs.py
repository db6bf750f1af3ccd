"""Two runs of jobs in two processes, which process the same objects at once, lose none of them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import IMMEDIATE_RETRIES, small_pool
from tests.jobs.schedules import BUCKET, KEYS, VARIANTS, Jittery
from trove_async import Route, Scope, Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs import TierRule, migrate, rebalance, tier
from trove_async.middlewares import Encryption, Keyring
from trove_async.testing import Call, Faulty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trove_async import ObjectInfo
    from trove_async.jobs import Report

TO_COLD = [Route.prefix("", "cold")]

SEEDS = 20  # for each of 30 cases


class Shared(Faulty):
    """Memory of two stores, with a hook before its next deletion."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver())
        self.before_delete: Callable[[], Awaitable[object]] | None = None

    async def begin(self, call: Call) -> None:
        if call.operation == "delete" and self.before_delete is not None:
            hook, self.before_delete = self.before_delete, None
            await hook()

    async def aclose(self) -> None:
        """Do nothing: the other store still uses the driver."""


def store_of(default: Any, cold: Any, **arguments: Any) -> Trove:
    return Trove(
        default,
        backends={"cold": cold},
        locate="anywhere",
        pool=small_pool(),
        retry=IMMEDIATE_RETRIES,
        **arguments,
    )


def to_cold(kind: str, store: Trove) -> Awaitable[Report]:
    if kind == "rebalance":
        return rebalance(store, BUCKET)
    if kind == "tier":
        return tier(store, BUCKET, [TierRule(to="cold")])
    return migrate(store, BUCKET, source="default", target="cold", delete=True)


def to_default(store: Trove) -> Awaitable[Report]:
    return migrate(store, BUCKET, source="cold", target="default", delete=True)


@pytest.mark.parametrize("kind", ["rebalance", "tier", "migrate"])
async def test_second_run_between_the_copy_and_the_deletion_of_the_first(kind: str) -> None:
    default, cold = Shared(), Shared()
    routes = [] if kind == "tier" else TO_COLD
    async with (
        store_of(default, cold, routes=routes) as one,
        store_of(default, cold, routes=routes) as other,
    ):
        await one.create_bucket(BUCKET, backends="all")
        await one.backend("default").put(BUCKET, "key", b"only")
        default.before_delete = lambda: to_cold(kind, other)
        await to_cold(kind, one)
        assert default.before_delete is None
        assert await one.read(BUCKET, "key") == b"only"
        assert not await one.backend("default").exists(BUCKET, "key")


async def test_jobs_in_opposite_directions_over_what_a_killed_job_left() -> None:
    default, cold = Shared(), Shared()
    async with (
        store_of(default, cold, routes=TO_COLD) as one,
        store_of(default, cold, routes=TO_COLD) as other,
    ):
        await one.create_bucket(BUCKET, backends="all")
        for name in one.backends:
            await one.backend(name).put(BUCKET, "key", b"only")
        default.before_delete = lambda: to_default(other)
        await rebalance(one, BUCKET)
        assert default.before_delete is None
        assert await one.read(BUCKET, "key") == b"only"


async def test_copy_that_was_encoded_again_is_recognised_as_a_leftover() -> None:
    default, cold = Shared(), Shared()
    keyring = Keyring({"1": os.urandom(32)}, current="1")
    async with store_of(
        default, cold, routes=TO_COLD, middleware=[(Encryption(keyring), Scope.backends("cold"))]
    ) as store:
        await store.create_bucket(BUCKET, backends="all")
        await store.backend("default").put(BUCKET, "key", b"only")
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.changed, report.unchanged) == (1, 0)
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.changed, report.unchanged) == (0, 1)
        report = await rebalance(store, BUCKET)
        assert (report.changed, report.skipped) == (1, 0)
        assert not await store.backend("default").exists(BUCKET, "key")
        assert await store.read(BUCKET, "key") == b"only"
        # A newer source is not taken for the version that was copied.
        await store.backend("default").put(BUCKET, "key", b"newer")
        assert (await rebalance(store, BUCKET)).skipped == 1


class ContentEtags(MemoryDriver):
    """Memory whose etags are hashes of the bytes, as on S3."""

    def _store(self, bucket: str, key: str, *arguments: Any) -> ObjectInfo:
        info = super()._store(bucket, key, *arguments)
        contents = self._bucket(bucket)
        stored = contents.objects[key]
        info = replace(info, etag=f"etag-{info.checksums['crc32c']}")
        contents.objects[key] = type(stored)(info, stored.chunks, stored.checksum)
        return info


class SharedJittery(Jittery):
    async def aclose(self) -> None:
        """Do nothing: the other store still uses the driver."""


class SharedRemote(SharedJittery):
    memory = ContentEtags


async def play_two(seed: int, kind: str, variant: str, *, opposite: bool, lost: float) -> None:
    random = Random(seed)
    default, cold = (
        (SharedRemote if variant == "remote" else SharedJittery)(
            random, name if variant == "remote" else "memory", **VARIANTS[variant]
        )
        for name in ("default", "cold")
    )
    routes = [] if kind == "tier" else TO_COLD
    async with (
        store_of(default, cold, routes=routes) as one,
        store_of(default, cold, routes=routes) as other,
    ):
        # 1. Each key has an object on one backend, or on both, as a killed job leaves it.
        await one.create_bucket(BUCKET, backends="all")
        for key in KEYS:
            for name in random.choice((["default"], ["default"], ["cold"], ["default", "cold"])):
                await one.backend(name).put(BUCKET, key, key.encode())
        # 2. Run both jobs at once, and read.
        default.lost = cold.lost = lost

        async def delayed() -> None:
            for _ in range(random.randrange(60)):
                await asyncio.sleep(0)
            await (to_default(other) if opposite else to_cold(kind, other))

        async with asyncio.TaskGroup() as group:
            group.create_task(delayed())
            await to_cold(kind, one)
        # 3. No object is lost. Another run completes what is left.
        default.lost = cold.lost = 0
        for _ in range(2):
            for key in KEYS:
                assert await one.read(BUCKET, key) == key.encode(), f"{key} has other content"
            await to_cold(kind, one)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("opposite", [False, True], ids=["same", "opposite"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["rebalance", "tier", "migrate"])
async def test_schedules_of_two_jobs_lose_no_object(
    kind: str,
    variant: str,
    opposite: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    for seed in range(SEEDS):
        try:
            await play_two(seed, kind, variant, opposite=opposite, lost=0.1 if seed % 3 == 0 else 0)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
