"""Stores of a mirror or a fallback over fakes, and checks that its members are equal."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from tests.fakes import NO_RETRIES, small_pool
from trove_async import Trove
from trove_async.layers import Mirrored
from trove_async.options import GetOptions, ListOptions, PutOptions
from trove_async.testing._harness import keys, read, views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes import Fake
    from trove_async import BufferPool, Event, ObjectInfo
    from trove_async.driver import AsyncDriver, Replicated
    from trove_async.options import Difference


@asynccontextmanager
async def store_with(
    layer: AsyncDriver, *, pool: BufferPool | None = None
) -> AsyncIterator[tuple[Trove, list[Event]]]:
    """Open a store of a layer, without retries, with the bucket ``bucket``. Yield it and its events."""
    async with Trove(layer, pool=pool or small_pool(), retry=NO_RETRIES) as store:
        await store.create_bucket("bucket")
        for _ in range(20):  # also on replicas that need not be waited for
            await asyncio.sleep(0)
        events: list[Event] = []
        store.events.subscribe(events.append)
        yield store, events


def driver_of(store: Trove) -> Any:
    """Return the layer of a store, as the engine calls it."""
    return store._core.backends["default"].driver


def replicated(store: Trove) -> Replicated:
    """Return the layer of a store as `Replicated`, after checking that it claims it."""
    driver = driver_of(store)
    assert driver.capabilities.replicated
    return cast("Replicated", driver)


def of_kind(events: list[Event], kind: str) -> list[tuple[str, str | None, str]]:
    """Return the operation, the key and the member of the events of one kind."""
    return [(event.operation, event.key, event.member) for event in events if event.kind == kind]


async def differences(
    store: Trove, *, deep: bool = True, limit: int = 1000, bucket: str = "bucket"
) -> dict[str, dict[str, str]]:
    """Return how the replicas differ, by key."""
    found: list[Difference] = []
    token = None
    while True:
        options = ListOptions(limit=limit, token=token)
        page = await replicated(store).compare(bucket, options, deep=deep)
        found += page.differences
        if page.token is None:
            return {one.key: dict(one.replicas) for one in found}
        token = page.token


async def repair_all(store: Trove, bucket: str = "bucket") -> int:
    """Repair what differs. Return the number of keys that differed."""
    found = await differences(store, bucket=bucket)
    for key in found:
        await replicated(store).repair(bucket, key)
    assert await differences(store, bucket=bucket) == {}
    return len(found)


async def contents(driver: AsyncDriver, bucket: str = "bucket") -> dict[str, bytes]:
    """Return the bodies of one member, by key."""
    if bucket not in [info.name for info in await driver.list_buckets()]:
        return {}
    return {key: await read(driver, bucket, key) for key in await keys(driver, bucket)}


async def write_to(driver: AsyncDriver, key: str, body: bytes, **options: Any) -> ObjectInfo:
    """Put an object directly into one member."""
    return await driver.put("bucket", key, views(body), PutOptions(**options))


async def read_with(store: Trove, key: str, **options: Any) -> bytes:
    """Read through the layer with options of the driver."""
    async with driver_of(store).get("bucket", key, GetOptions(**options)) as reader:
        body = b""
        while chunk := await reader.read(1 << 20):
            body += chunk
        return body


def assert_nothing_held(store: Trove, *fakes: Fake) -> None:
    """Assert that no memory, reader, upload, permit, lock or task of a replica is left."""
    statistics = store.pool.statistics()
    assert (statistics.leased, statistics.waiting, statistics.spilled) == (0, 0, 0), statistics
    for fake in fakes:
        assert (fake.open_readers, fake.open_uploads, fake.calls_under_way) == (0, 0, 0)
    layer = driver_of(store)
    if isinstance(layer, Mirrored):
        assert len(layer._locks) == 0
        assert layer._replicas._pending == {}
        assert not any(layer._replicas._behind.values())


async def finish_replicas(store: Trove) -> None:
    """Wait until the replicas have caught up."""
    await driver_of(store)._replicas.settle("bucket")
