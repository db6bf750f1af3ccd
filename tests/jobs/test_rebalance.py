"""Objects are moved to the backends that the rules name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, Unordered, small_pool
from tests.jobs.stores import BUCKET, WRITES, Backends
from trove_async import (
    BackendNotFoundError,
    BucketNotFoundError,
    ConfigError,
    Route,
    Trove,
    UnavailableError,
)
from trove_async._checksums import running_crc32c
from trove_async.drivers import MemoryDriver
from trove_async.jobs import rebalance
from trove_async.layers import Mirrored, ReadOnly
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

RULES = [("logs/*", "cold"), ("old/*", "third")]
KEYS = ["a", "logs/1", "logs/2", "old/1", "z"]


async def fill(backends: Backends) -> None:
    """Put objects under rules that send all of them to the default backend."""
    async with backends.store() as store:
        for key in KEYS:
            await store.put(BUCKET, key, key.encode(), metadata={"for": key}, tags={"tag": "1"})


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_objects_move_to_their_backends_with_all_attributes(kind: type[Any]) -> None:
    backends = Backends(default=kind(), cold=MemoryDriver(), third=MemoryDriver())
    await fill(backends)
    async with backends.store(routes=RULES) as store:
        report = await rebalance(store, BUCKET)
        assert (report.examined, report.changed, report.unchanged) == (5, 3, 2)
        assert report.bytes == len("logs/1logs/2old/1")
        assert report.ok
        assert await backends.contents(store) == {
            "default": {"a": b"a", "z": b"z"},
            "cold": {"logs/1": b"logs/1", "logs/2": b"logs/2"},
            "third": {"old/1": b"old/1"},
        }
        info = await store.head(BUCKET, "logs/1")
        assert (info.metadata, info.tags) == ({"for": "logs/1"}, {"tag": "1"})
        # A second run writes nothing.
        for driver in backends.drivers.values():
            driver.reset()
        assert (await rebalance(store, BUCKET)).changed == 0
        assert backends.count_writes() == 0


async def test_dry_run_counts_what_a_run_does_and_writes_nothing() -> None:
    backends = Backends()
    await fill(backends)
    async with backends.store(routes=RULES) as store:
        await store.backend("cold").put(BUCKET, "logs/2", b"different")
        for driver in backends.drivers.values():
            driver.reset()
        dry = await rebalance(store, BUCKET, dry_run=True)
        assert backends.count_writes() == 0
        real = await rebalance(store, BUCKET)
    assert dry.dry_run
    for name in ("examined", "changed", "unchanged", "skipped", "bytes", "skips"):
        assert getattr(dry, name) == getattr(real, name), name
    assert "would change 2" in str(dry)


async def test_prefix_limits_the_keys() -> None:
    backends = Backends()
    await fill(backends)
    async with backends.store(routes=RULES) as store:
        report = await rebalance(store, BUCKET, prefix="old/")
        assert (report.examined, report.changed) == (1, 1)


async def test_hidden_object_is_a_conflict_unless_it_may_be_deleted() -> None:
    backends = Backends()
    await fill(backends)
    async with backends.store(routes=RULES) as store:
        await store.backend("cold").put(BUCKET, "logs/1", b"newer")
        report = await rebalance(store, BUCKET)
        assert report.skips["conflict"].keys == ("logs/1",)
        assert await store.read(BUCKET, "logs/1") == b"newer"
        assert await store.backend("default").exists(BUCKET, "logs/1")
        report = await rebalance(store, BUCKET, delete_shadowed=True)
        assert (report.changed, report.skipped, report.bytes) == (1, 0, 0)
        assert await store.read(BUCKET, "logs/1") == b"newer"
        assert not await store.backend("default").exists(BUCKET, "logs/1")


async def test_leftover_of_a_crash_is_deleted_without_a_copy() -> None:
    backends = Backends()
    await fill(backends)
    async with backends.store(routes=RULES) as store:
        await store.copy(BUCKET, "logs/1", BUCKET, "logs/1", source_backend="default")
        assert await store.backend("cold").exists(BUCKET, "logs/1")
        report = await rebalance(store, BUCKET)
        assert (report.changed, report.skipped) == (3, 0)
        assert report.bytes == len("logs/2old/1")
        assert not await store.backend("default").exists(BUCKET, "logs/1")


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_of_several_misplaced_objects_the_visible_one_is_moved(kind: type[Any]) -> None:
    backends = Backends(default=MemoryDriver(), cold=kind(), third=kind())
    async with backends.store(routes=[("k", "third")]) as store:
        await store.backend("cold").put(BUCKET, "k", b"hidden")
        await store.backend("default").put(BUCKET, "k", b"visible")
        report = await rebalance(store, BUCKET)
        assert report.skips["conflict"].keys[0] == "k"
        assert await store.backend("third").read(BUCKET, "k") == b"visible"
        assert not await store.backend("default").exists(BUCKET, "k")


async def test_two_names_of_one_place_are_left_alone() -> None:
    shared = MemoryDriver()
    async with Trove(shared, backends={"alias": shared}, routes=[("*", "alias")]) as store:
        await store.create_bucket(BUCKET)
        await store.put(BUCKET, "k", b"1")
        report = await rebalance(store, BUCKET, delete_shadowed=True)
        assert (report.changed, report.failed) == (0, 0)
        assert await store.read(BUCKET, "k") == b"1"


async def test_without_locate_hidden_objects_become_readable() -> None:
    backends = Backends()
    await fill(backends)
    async with backends.store(routes=RULES, locate="routed") as store:
        assert not await store.exists(BUCKET, "logs/1")
        await rebalance(store, BUCKET)
        assert await store.read(BUCKET, "logs/1") == b"logs/1"


async def test_async_route_function_is_awaited() -> None:
    backends = Backends()
    await fill(backends)

    async def route(bucket: str, key: str) -> str:
        assert bucket == BUCKET
        return "cold" if key == "z" else ""

    async with backends.store(route_functions=[route]) as store:
        report = await rebalance(store, BUCKET)
        assert (report.changed, report.unchanged) == (1, 4)
        assert (await store.head(BUCKET, "z")).backend == "cold"


async def test_route_function_that_fails_is_an_error_of_its_object() -> None:
    backends = Backends()
    await fill(backends)

    def route(_: str, key: str) -> str:
        return "nowhere" if key == "a" else ""

    async with backends.store(route_functions=[route]) as store:
        report = await rebalance(store, BUCKET)
        assert report.errors["BackendNotFoundError"].keys == ("a",)
        assert report.unchanged == 4


async def test_missing_bucket_ends_the_job() -> None:
    async with Backends().store() as store:
        with pytest.raises(BucketNotFoundError):
            await rebalance(store, "missing")


BAD: Sequence[tuple[dict[str, Any], type[Exception]]] = [
    ({"bucket": 5}, TypeError),
    ({"bucket": ""}, ValueError),
    ({"prefix": None}, TypeError),
    ({"dry_run": "no"}, TypeError),
    ({"delete_shadowed": 1}, TypeError),
    ({"concurrency": 0}, ConfigError),
    ({"concurrency": 1.5}, TypeError),
    ({"concurrency": True}, TypeError),
    ({"progress": "x"}, TypeError),
    ({"checkpoint": 5}, TypeError),
    ({"checkpoint": b"bucket/key"}, TypeError),
    ({"checkpoint": "bucket"}, ConfigError),
    ({"checkpoint": "/tmp/file"}, ConfigError),  # noqa: S108 - no file is written
    ({"checkpoint": "file://host/path"}, ConfigError),
    ({"checkpoint": "file:///"}, ConfigError),
    ({"checkpoint": "s3://bucket/key"}, ConfigError),
    ({"checkpoint": "bucket/../key"}, ValueError),
    ({"max_objects_per_second": 0}, ConfigError),
    ({"max_objects_per_second": float("nan")}, ConfigError),
    ({"max_bytes_per_second": -1}, ConfigError),
    ({"max_bytes_per_second": float("inf")}, ConfigError),
    ({"max_bytes_per_second": "1"}, TypeError),
    ({"on": "dask"}, TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD, ids=lambda value: str(value)[:60])
async def test_bad_argument_raises_before_any_request(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    backends = Backends()
    async with backends.store() as store:
        with pytest.raises(error):
            await rebalance(store, **{"bucket": BUCKET, **arguments})
        assert sum(len(driver.requests) for driver in backends.drivers.values()) == 0


async def test_coroutine_function_is_no_progress_callback() -> None:
    async def progress(_: object) -> None: ...

    async with Backends().store() as store:
        with pytest.raises(TypeError, match="plain function"):
            await rebalance(store, BUCKET, progress=progress)  # type: ignore[arg-type]


async def test_pinned_handle_and_other_objects_are_refused() -> None:
    async with Backends().store() as store:
        with pytest.raises(ConfigError, match="pinned"):
            await rebalance(store.backend("cold"), BUCKET)
        call: Awaitable[object] = rebalance("store", BUCKET)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="store must be a Trove"):
            await call
        with pytest.raises(BackendNotFoundError):
            store.backend("nowhere")


async def test_object_of_a_replica_is_not_moved_while_the_primary_is_down() -> None:
    primary, replica = Fake(), Fake()
    backends = Backends(default=Mirrored(primary, replica), cold=MemoryDriver())
    async with backends.store(routes=[Route.prefix("", "cold")]) as store:
        for driver, body in ((primary, b"version 2"), (replica, b"version 1")):
            options = PutOptions(write_id=f"x-{body[-1]:x}")
            driver._store(BUCKET, "key", (body,), running_crc32c([body]), options)
        primary.fail("head", *[UnavailableError("down")] * 20)
        primary.fail("get", *[UnavailableError("down")] * 20)
        report = await rebalance(store, BUCKET)
        assert (report.changed, report.failed) == (0, 1)
        assert report.errors["UnavailableError"].keys == ("key",)
        primary._faults.clear()
        assert await store.read(BUCKET, "key") == b"version 2"
        assert (await rebalance(store, BUCKET)).changed == 1
        assert await store.backend("cold").read(BUCKET, "key") == b"version 2"


@pytest.mark.parametrize("dry_run", [False, True])
async def test_read_only_source_fails_before_any_copy(*, dry_run: bool) -> None:
    origin = MemoryDriver()
    read_only = Backends(default=ReadOnly(origin), cold=MemoryDriver())
    async with Trove(
        read_only.drivers["default"],
        backends={"cold": read_only.drivers["cold"]},
        routes=[Route.prefix("", "cold")],
        locate="anywhere",
        pool=small_pool(),
    ) as store:
        await store.backend("cold").create_bucket(BUCKET)
        await origin.create_bucket(BUCKET)
        await origin.put(BUCKET, "key", [memoryview(b"body")], PutOptions())
        read_only.drivers["cold"].reset()
        report = await rebalance(store, BUCKET, dry_run=dry_run)
        assert (report.changed, report.failed) == (0, 1)
        assert report.errors["NotSupportedError"].keys == ("key",)
        assert not WRITES & set(read_only.drivers["cold"].requests)


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
@pytest.mark.parametrize("hidden", [b"hidden", b"visible"])
@pytest.mark.parametrize("delete_shadowed", [False, True])
async def test_dry_run_counts_several_objects_of_a_key_as_a_run_does(
    kind: type[Any], hidden: bytes, *, delete_shadowed: bool
) -> None:
    backends = Backends(default=kind(), cold=kind(), third=kind())
    async with backends.store(routes=[Route.prefix("", "third")]) as store:
        await store.backend("default").put(BUCKET, "key", b"visible")
        await store.backend("cold").put(BUCKET, "key", hidden)
        dry, real = [
            await rebalance(store, BUCKET, delete_shadowed=delete_shadowed, dry_run=dry_run)
            for dry_run in (True, False)
        ]
        assert (dry.examined, dry.changed, dry.unchanged, dry.skipped, dry.bytes) == (
            real.examined,
            real.changed,
            real.unchanged,
            real.skipped,
            real.bytes,
        )
        assert await store.read(BUCKET, "key") == b"visible"
