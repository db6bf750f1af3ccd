"""Jobs between files and SeaweedFS, which lists in no order, while objects are written and read."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from trove_async import ObjectNotFoundError, Route, Trove
from trove_async.drivers import LocalDriver, S3Driver
from trove_async.jobs import TierRule, migrate, rebalance, tier, verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trove_async.testing.servers import S3Server


@asynccontextmanager
async def store_of(
    root: Path, server: S3Server, bucket: str, routes: list[Route]
) -> AsyncIterator[Trove]:
    remote = S3Driver(
        region=server.region,
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        addressing_style="path",
    )
    async with Trove(
        LocalDriver(root, fsync=False),
        backends={"remote": remote},
        routes=routes,
        locate="anywhere",
    ) as store:
        await store.create_bucket(bucket, exist_ok=True, backends="all")
        yield store


class Users:
    """Writes and reads keys until `ended`, and checks every read. One task writes each key."""

    def __init__(self, store: Trove, bucket: str, contents: dict[str, bytes | None]) -> None:
        self._store = store
        self._bucket = bucket
        self.contents = contents
        self.ended = False
        self.reads = 0

    async def use(self, keys: list[str], seed: int) -> None:
        random, store = Random(seed), self._store
        while not self.ended:
            key = random.choice(keys)
            action = random.choice(("put", "delete", "read", "read", "read", "read"))
            if action == "put":
                body = random.randbytes(random.choice((10, 3000)))
                await store.put(self._bucket, key, body)
                self.contents[key] = body
            elif action == "delete":
                await store.delete(self._bucket, key)
                self.contents[key] = None
            else:
                await self.check(key)
                self.reads += 1

    async def check(self, key: str) -> None:
        try:
            body: bytes | None = await self._store.read(self._bucket, key)
        except ObjectNotFoundError:
            body = None
        assert body == self.contents[key], key


REBALANCE = partial(rebalance, delete_shadowed=True)

JOBS: dict[str, tuple[list[Route], Callable[[Trove, str], Any]]] = {
    "rebalance to S3": ([Route.prefix("", "remote")], REBALANCE),
    "tier to S3": ([], lambda store, name: tier(store, name, [TierRule(to="remote")])),
    "migrate to S3": (
        [Route.prefix("", "remote")],
        lambda store, name: migrate(store, name, source="default", target="remote", delete=True),
    ),
    "rebalance to files": ([], REBALANCE),
    "tier to files": (
        [Route.prefix("", "remote")],
        lambda store, name: tier(store, name, [TierRule(to="default")]),
    ),
}


@pytest.mark.parametrize("kind", JOBS)
async def test_objects_stay_readable_while_they_move(
    kind: str, tmp_path: Path, seaweed: S3Server
) -> None:
    bucket = f"jobs-{secrets.token_hex(4)}"
    routes, job = JOBS[kind]
    source = "default" if kind.endswith("S3") else "remote"
    contents: dict[str, bytes | None] = {}
    async with store_of(tmp_path, seaweed, bucket, routes) as store:
        for number in range(120):
            key = f"{number % 5}/{number}"
            contents[key] = body = secrets.token_bytes(1 + number * 30)
            await store.backend(source).put(bucket, key, body, metadata={"n": str(number)})
        users = Users(store, bucket, contents)
        keys = list(contents)
        async with asyncio.TaskGroup() as group:
            for seed in range(3):
                group.create_task(users.use(keys[seed:45:3], seed))
            report = await job(store, bucket)
            users.ended = True
        assert report.failed == 0, report
        assert report.changed >= 75, report
        for key in keys:
            await users.check(key)
        # Whatever was in use is moved by the next run. Objects that users have replaced at the target of
        # the migration stay at its source.
        report = await job(store, bucket)
        assert report.failed == 0, report
        assert not report.skipped or set(report.skips) == {"conflict"}, report
        assert not report.skipped or kind.startswith("migrate"), report
        found = await store.list(bucket).all()
        assert {info.key for info in found} == {key for key in keys if contents[key] is not None}
        other = {"default": "remote", "remote": "default"}[source]
        if not kind.startswith("migrate"):
            assert {info.backend for info in found} == {other}
        assert (await store.head(bucket, "4/119")).metadata == {"n": "119"}
        verified = await verify(store, bucket)
        assert (verified.failed, verified.examined) == (0, len(found))
