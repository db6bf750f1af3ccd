"""Objects are moved by age, size and prefix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes import Unordered
from tests.jobs.stores import BUCKET, Backends
from trove_async import BackendNotFoundError, ConfigError, Route
from trove_async.drivers import MemoryDriver
from trove_async.jobs import TierRule, tier

LATER = datetime.now(UTC) + timedelta(days=31)
OLD = TierRule(after=timedelta(days=30), to="cold")


async def test_only_objects_of_the_age_are_moved() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "k", b"1")
        assert (await tier(store, BUCKET, [OLD])).changed == 0
        assert (await tier(store, BUCKET, [OLD], now=LATER)).changed == 1
        assert await store.read(BUCKET, "k") == b"1"
        assert (await store.head(BUCKET, "k")).backend == "cold"
        assert (await tier(store, BUCKET, [OLD], now=LATER)).changed == 0


async def test_first_rule_that_matches_decides() -> None:
    backends = Backends()
    async with backends.store() as store:
        for key, size in {"logs/a": 10, "logs/b": 2000, "c": 2000, "d": 10}.items():
            await store.put(BUCKET, key, bytes(size))
        rules = [
            TierRule(to="default", prefix="logs/", larger_than=1000),
            TierRule(to="third", prefix="logs/"),
            TierRule(to="cold", larger_than=1999),
        ]
        report = await tier(store, BUCKET, rules)
        assert (report.changed, report.unchanged, report.bytes) == (2, 2, 2010)
        places = {info.key: info.backend async for info in store.list(BUCKET)}
        assert places == {"logs/a": "third", "logs/b": "default", "c": "cold", "d": "default"}


async def test_hidden_older_object_at_the_destination_is_replaced() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "k", b"old")
        await tier(store, BUCKET, [OLD], now=LATER)
        await store.put(BUCKET, "k", b"new")
        assert await store.backend("cold").read(BUCKET, "k") == b"old"
        report = await tier(store, BUCKET, [OLD], now=LATER)
        assert (report.changed, report.skipped) == (1, 0)
        assert await backends.contents(store) == {"cold": {"k": b"new"}}


@pytest.mark.parametrize("kind", [MemoryDriver, Unordered])
async def test_object_that_hides_a_third_one_stays(kind: type[Any]) -> None:
    backends = Backends(default=MemoryDriver(), cold=kind(), third=MemoryDriver())
    async with backends.store() as store:
        await store.put(BUCKET, "k", b"new")
        await store.backend("cold").put(BUCKET, "k", b"old")
        report = await tier(store, BUCKET, [TierRule(to="third")])
        assert report.changed == 0
        assert report.skips["conflict"].keys[0] == "k"
        assert await store.read(BUCKET, "k") == b"new"


async def test_newer_object_of_the_routed_backend_is_not_replaced() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.backend("cold").put(BUCKET, "k", b"old")
        await store.put(BUCKET, "k", b"new")
        await tier(store, BUCKET, [TierRule(to="default")])
        assert await store.read(BUCKET, "k") == b"new"


async def test_dry_run_writes_nothing() -> None:
    backends = Backends()
    async with backends.store() as store:
        await store.put(BUCKET, "k", b"1")
        writes = backends.count_writes()
        report = await tier(store, BUCKET, [OLD], now=LATER, dry_run=True)
        assert (report.changed, report.bytes) == (1, 1)
        assert backends.count_writes() == writes


async def test_store_that_would_not_find_the_objects_is_refused() -> None:
    backends = Backends()
    async with backends.store(locate="routed") as store:
        with pytest.raises(ConfigError, match="would not find objects"):
            await tier(store, BUCKET, [OLD])
    async with backends.store(locate="routed", routes=[Route.prefix("logs/", "cold")]) as store:
        await store.backend("default").put(BUCKET, "logs/1", b"1")
        rule = TierRule(to="cold", prefix="logs/")
        assert (await tier(store, BUCKET, [rule])).changed == 1
        assert await store.read(BUCKET, "logs/1") == b"1"
        with pytest.raises(ConfigError):
            await tier(store, BUCKET, [rule, TierRule(to="cold")])
        await tier(store, BUCKET, [rule, TierRule(to="third", prefix="x/")], prefix="logs/")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"to": None}, TypeError),
        ({"to": "cold", "after": 30}, TypeError),
        ({"to": "cold", "after": timedelta(days=-1)}, ValueError),
        ({"to": "cold", "prefix": 1}, TypeError),
        ({"to": "cold", "larger_than": -1}, ValueError),
        ({"to": "cold", "larger_than": "1 MiB"}, TypeError),
    ],
)
def test_malformed_rule_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        TierRule(**arguments)


async def test_bad_arguments_raise_before_any_request() -> None:
    backends = Backends()
    async with backends.store() as store:
        for rules, error in (
            ([], ConfigError),
            ([TierRule(to="nowhere")], BackendNotFoundError),
            (["cold"], TypeError),
            (OLD, TypeError),
        ):
            with pytest.raises(error):
                await tier(store, BUCKET, rules)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="aware"):
            await tier(store, BUCKET, [OLD], now=datetime.now())  # noqa: DTZ005
        with pytest.raises(TypeError):
            await tier(store, BUCKET, [OLD], now=5)  # type: ignore[arg-type]
        assert sum(len(driver.requests) for driver in backends.drivers.values()) == 0


async def test_same_bytes_with_newer_attributes_replace_the_hidden_object() -> None:
    backends = Backends()
    async with backends.store() as store:
        rules = [TierRule(to="cold")]
        await store.put(BUCKET, "key", b"body", metadata={"revision": "1"}, content_type="text/a")
        assert (await tier(store, BUCKET, rules)).changed == 1
        await store.put(BUCKET, "key", b"body", metadata={"revision": "2"}, content_type="text/b")
        assert (await tier(store, BUCKET, rules)).changed == 1
        info = await store.head(BUCKET, "key")
        assert (info.metadata, info.content_type) == ({"revision": "2"}, "text/b")
        assert info.backend == "cold"
