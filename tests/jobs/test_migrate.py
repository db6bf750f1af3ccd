"""The objects of one backend are copied or moved to another."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Unordered
from tests.jobs.stores import BUCKET, Backends
from trove_async import BackendNotFoundError, ConfigError, Route
from trove_async.drivers import MemoryDriver
from trove_async.jobs import migrate, verify

if TYPE_CHECKING:
    from trove_async import ObjectInfo

TO_COLD = [Route.prefix("", "cold")]


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_phases_of_a_migration_without_downtime(kind: type[Any]) -> None:
    backends = Backends(default=kind(), cold=kind())
    async with backends.store() as store:
        for number in range(20):
            await store.put(BUCKET, f"k{number:02}", f"{number}".encode(), metadata={"n": "1"})
    # 1. Write new, read both.
    async with backends.store(routes=TO_COLD) as store:
        await store.put(BUCKET, "k05", b"written since")
        # 2. Backfill.
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.examined, report.changed, report.unchanged) == (20, 19, 1)
        assert await store.read(BUCKET, "k05") == b"written since"
        # 3. Verify.
        again = await migrate(store, BUCKET, source="default", target="cold", dry_run=True)
        assert (again.changed, again.unchanged, again.skipped) == (0, 20, 0)
        report = await verify(store, BUCKET, backend="default", against="cold")
        assert report.errors["IntegrityError"].keys == ("k05",)
        assert report.unchanged == 19
        # 4. Done: the new backend has everything.
        cold = store.backend("cold")
        assert len(await cold.list(BUCKET).all()) == 20
        assert (await cold.head(BUCKET, "k00")).metadata == {"n": "1"}


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_copy_before_the_switch_follows_the_source(kind: type[Any]) -> None:
    backends = Backends(default=kind(), cold=kind())
    async with backends.store() as store:  # the rules still send all keys to the source
        await store.put(BUCKET, "a", b"1")
        await store.put(BUCKET, "b", b"1")
        assert (await migrate(store, BUCKET, source="default", target="cold")).changed == 2
        await store.put(BUCKET, "a", b"2")
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.changed, report.unchanged) == (1, 1)
        assert await store.backend("cold").read(BUCKET, "a") == b"2"
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.changed, report.unchanged) == (0, 2)


async def test_delete_leaves_only_conflicts_at_the_source() -> None:
    backends = Backends()
    async with backends.store() as store:
        for key in ("a", "b", "c"):
            await store.put(BUCKET, key, key.encode())
    async with backends.store(routes=TO_COLD) as store:
        await store.put(BUCKET, "b", b"newer")
        report = await migrate(store, BUCKET, source="default", target="cold", delete=True)
        assert (report.changed, report.skipped) == (2, 1)
        assert report.skips["conflict"].keys == ("b",)
        assert await backends.contents(store) == {
            "default": {"b": b"b"},
            "cold": {"a": b"a", "b": b"newer", "c": b"c"},
        }


async def test_prefix_limits_the_keys_and_dry_run_writes_nothing() -> None:
    backends = Backends()
    async with backends.store() as store:
        for key in ("a/1", "b/1"):
            await store.put(BUCKET, key, b"1")
        writes = backends.count_writes()
        report = await migrate(
            store, BUCKET, source="default", target="cold", prefix="a/", dry_run=True
        )
        assert (report.examined, report.changed, report.bytes) == (1, 1, 1)
        assert backends.count_writes() == writes


async def test_failing_third_backend_does_not_matter() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "a", b"1")
        backends.drivers["third"].fail("list_page", times=None)
        assert (await migrate(store, BUCKET, source="default", target="cold")).changed == 1


async def test_bad_arguments_raise_before_any_request() -> None:
    backends = Backends()
    async with backends.store() as store:
        with pytest.raises(BackendNotFoundError):
            await migrate(store, BUCKET, source="default", target="nowhere")
        with pytest.raises(ConfigError, match="different backends"):
            await migrate(store, BUCKET, source="cold", target="cold")
        with pytest.raises(TypeError):
            await migrate(store, BUCKET, source=1, target="cold")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await migrate(store, BUCKET, source="default", target="cold", delete=1)  # type: ignore[arg-type]
        assert sum(len(driver.requests) for driver in backends.drivers.values()) == 0


async def test_delete_is_refused_if_the_store_would_not_find_the_objects() -> None:
    async with Backends().store(locate="routed") as store:
        with pytest.raises(ConfigError, match="change the rules first"):
            await migrate(store, BUCKET, source="default", target="cold", delete=True)


async def test_change_of_metadata_before_the_switch_is_copied() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "key", b"body", metadata={"revision": "1"})
        await migrate(store, BUCKET, source="default", target="cold")
        await store.copy(BUCKET, "key", BUCKET, "key", metadata={"revision": "2"})
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.changed, report.unchanged) == (1, 0)
        info = await store.backend("cold").head(BUCKET, "key")
        assert info.metadata == {"revision": "2"}


async def test_source_that_is_written_after_the_switch_is_reported() -> None:
    backends = Backends()
    async with backends.store(routes=TO_COLD) as store:
        await store.backend("default").put(BUCKET, "key", b"1")
        await migrate(store, BUCKET, source="default", target="cold")
        await store.backend("default").put(BUCKET, "key", b"2")
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert (report.unchanged, report.skipped) == (0, 1)
        assert await store.read(BUCKET, "key") == b"1"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_move_that_would_reveal_an_older_object_is_skipped(
    kind: type[Any], *, dry_run: bool
) -> None:
    backends = Backends(default=kind(), between=kind(), cold=kind())
    async with backends.store() as store:
        await store.backend("default").put(BUCKET, "key", b"new")
        await store.backend("between").put(BUCKET, "key", b"stale")
        report = await migrate(
            store, BUCKET, source="default", target="cold", delete=True, dry_run=dry_run
        )
        assert report.errors == {}
        assert (report.changed, report.skipped) == (0, 1)
        assert await store.read(BUCKET, "key") == b"new"
        # A copy reveals nothing.
        await migrate(store, BUCKET, source="default", target="cold")
        assert await store.backend("cold").read(BUCKET, "key") == b"new"


@pytest.mark.parametrize("target", ["default", "first"])
async def test_hidden_object_is_not_put_before_the_one_that_users_read(target: str) -> None:
    drivers = {name: MemoryDriver() for name in ("default", "first", "second", "third")}
    backends = Backends(**drivers)
    async with backends.store() as store:
        await store.backend("second").put(BUCKET, "key", b"new")
        await store.backend("third").put(BUCKET, "key", b"stale")
        report = await migrate(store, BUCKET, source="third", target=target)
        assert (report.changed, report.skipped) == (0, 1)
        assert await store.read(BUCKET, "key") == b"new"


class WithoutChecksums(MemoryDriver):
    """A service that reports no checksums, and whose clock is ahead."""

    ahead = timedelta(0)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        info = await super().head(bucket, key, version_id)
        return replace(info, checksums={}, last_modified=info.last_modified + self.ahead)


@pytest.mark.parametrize("minutes", [5, 60])
async def test_clock_that_is_ahead_hides_no_change_of_the_source(minutes: int) -> None:
    cold = WithoutChecksums()
    cold.ahead = timedelta(minutes=minutes)
    backends = Backends(default=MemoryDriver(), cold=cold)
    async with backends.store() as store:
        await store.put(BUCKET, "key", b"version 1")
        for expected in (1, 0):
            report = await migrate(store, BUCKET, source="default", target="cold")
            assert report.changed == expected
        await store.put(BUCKET, "key", b"version 2")
        assert (await migrate(store, BUCKET, source="default", target="cold")).changed == 1
        assert await store.backend("cold").read(BUCKET, "key") == b"version 2"


@pytest.mark.parametrize(("minutes", "changed"), [(5, 1), (60, 0)])
async def test_copy_by_other_means_counts_if_it_is_surely_later(minutes: int, changed: int) -> None:
    cold = WithoutChecksums()
    cold.ahead = timedelta(minutes=minutes)
    backends = Backends(default=MemoryDriver(), cold=cold)
    async with backends.store() as store:
        await store.put(BUCKET, "key", b"body")
        await store.backend("cold").put(BUCKET, "key", b"body")
        report = await migrate(store, BUCKET, source="default", target="cold")
        assert report.changed == changed
