"""A layer of several drivers whose members are backends of the same store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import pytest

from trove_async import (
    BackendError,
    ConfigError,
    InvalidNameError,
    NotSupportedError,
    Trove,
    UnavailableError,
)
from trove_async.driver import AsyncDriver, places_of
from trove_async.drivers import MemoryDriver
from trove_async.jobs import TierRule, migrate, rebalance, tier
from trove_async.layers import Fallback, Hedged, Mapped, Mirrored, ReadOnly
from trove_async.options import PutOptions
from trove_async.testing import Faulty

BODY = b"the only copy"


@asynccontextmanager
async def opened(
    layer: AsyncDriver,
    first: AsyncDriver,
    second: AsyncDriver,
    *,
    home: str = "other",
    locate: str = "routed",
) -> AsyncIterator[Trove]:
    """Open a store of a layer and its members, which routes the keys to the backend `home`."""
    async with Trove(
        MemoryDriver(),
        backends={"layer": layer, "first": first, "second": second, "other": MemoryDriver()},
        routes=[("*", home)],
        locate=locate,  # type: ignore[arg-type]
    ) as store:
        for name in store.backends:
            await store.backend(name).create_bucket("bucket", exist_ok=True)
        yield store


async def found(store: Trove, *names: str) -> dict[str, bytes | None]:
    """Return the object on each backend."""
    result: dict[str, bytes | None] = {}
    for name in names:
        handle = store.backend(name)
        there = await handle.exists("bucket", "key")
        result[name] = await handle.read("bucket", "key") if there else None
    return result


def fallback(first: AsyncDriver, second: AsyncDriver) -> AsyncDriver:
    return Fallback(first, second, on_missing=True)


def mirrored(first: AsyncDriver, second: AsyncDriver) -> AsyncDriver:
    return Mirrored(first, second)


def wrapped(first: AsyncDriver, second: AsyncDriver) -> AsyncDriver:
    return Hedged(Mapped(Faulty(Mirrored(first, second)), buckets={"bucket": "bucket"}))


# -- places --------------------------------------------------------------------------------------------


def test_places_are_those_of_all_members() -> None:
    one, two, three = MemoryDriver(), MemoryDriver(), MemoryDriver()
    places = [driver.place("b", "k") for driver in (one, two, three)]
    nested = Fallback(Mirrored(one, two), ReadOnly(three))
    assert list(nested.places("b", "k")) == places
    assert list(nested.places("b", "k", written=True)) == places[:2]
    assert places_of(three, "b", "k") == (places[2],)
    mapped = Hedged(Mapped(nested, buckets={"logical": "b"}))
    assert list(mapped.places("logical", "k")) == places
    assert list(mapped.places("logical", "k", written=True)) == places[:2]
    assert list(mapped.places("unknown", "k")) == [mapped.place("unknown", "k")]


class _Narrow(MemoryDriver):
    """A driver that cannot have any key."""

    def place(self, bucket: str, key: str) -> tuple[object, str, str]:
        raise InvalidNameError("no such name", bucket=bucket, key=key)


def test_member_that_cannot_have_a_key_adds_no_place() -> None:
    one = MemoryDriver()
    assert list(Fallback(one, _Narrow()).places("b", "k")) == [one.place("b", "k")]
    with pytest.raises(InvalidNameError):
        Fallback(_Narrow(), one).places("b", "k")


# -- moves ---------------------------------------------------------------------------------------------


class _Custom(MemoryDriver):
    """A driver that is not a layer, with an object at the places of two others."""

    def __init__(self, *others: AsyncDriver) -> None:
        super().__init__()
        self.others = others

    def places(self, bucket: str, key: str, *, written: bool = False) -> list[Hashable]:
        del written
        return [self.place(bucket, key), *(one.place(bucket, key) for one in self.others)]


def custom(first: AsyncDriver, second: AsyncDriver) -> AsyncDriver:
    return Faulty(_Custom(first, second))


@pytest.mark.parametrize("kind", [fallback, mirrored, wrapped, custom])
@pytest.mark.parametrize("target", ["first", "second"])
@pytest.mark.parametrize("holders", [("first",), ("second",), ("first", "second")])
async def test_move_from_a_layer_to_its_member_is_refused(
    kind: object, target: str, holders: tuple[str, ...]
) -> None:
    first, second = Faulty(MemoryDriver()), Faulty(MemoryDriver())
    async with opened(kind(first, second), first, second) as store:  # type: ignore[operator]
        for name in holders:
            await store.backend(name).put("bucket", "key", f"on {name}".encode())
        before = await found(store, "layer", "first", "second")
        counts = len(first.calls), len(second.calls)
        with pytest.raises(NotSupportedError, match="member of the source's layer"):
            await store.backend(target).move(
                "bucket", "key", "bucket", "key", source_backend="layer"
            )
        assert (len(first.calls), len(second.calls)) == counts
        assert await found(store, "layer", "first", "second") == before


@pytest.mark.parametrize("source", ["first", "second"])
async def test_move_from_a_member_into_its_mirror_is_refused(source: str) -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with opened(Mirrored(first, second), first, second) as store:
        await store.backend("layer").put("bucket", "key", BODY)
        with pytest.raises(NotSupportedError, match="member of the destination's layer"):
            await store.backend("layer").move(
                "bucket", "key", "bucket", "key", source_backend=source
            )
        assert set((await found(store, "layer", "first", "second")).values()) == {BODY}


async def test_move_from_an_old_member_into_its_fallback_drains_it() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with opened(fallback(first, second), first, second) as store:
        await store.backend("second").put("bucket", "key", BODY)
        await store.backend("layer").move("bucket", "key", "bucket", "key", source_backend="second")
        assert await found(store, "layer", "first", "second") == {
            "layer": BODY,
            "first": BODY,
            "second": None,
        }


async def test_move_between_two_layers_with_a_common_member_is_refused() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with Trove(Mirrored(first, second), backends={"other": Mirrored(second, first)}) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", BODY)
        with pytest.raises(NotSupportedError):
            await store.backend("other").move(
                "bucket", "key", "bucket", "key", source_backend="default"
            )
        # Another key is another place.
        await store.backend("other").move(
            "bucket", "key", "bucket", "new", source_backend="default"
        )
        assert await store.read("bucket", "new") == BODY


async def test_move_of_a_found_object_to_a_member_is_refused() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    layer = fallback(first, second)
    async with Trove(
        layer, backends={"second": second}, routes=[("*", "second")], locate="anywhere"
    ) as store:
        await store.create_bucket("bucket", backends="all", exist_ok=True)
        await store.backend("default").put("bucket", "key", BODY)
        with pytest.raises(NotSupportedError, match="member of the source's layer"):
            await store.move("bucket", "key", "bucket", "key")
        assert await store.read("bucket", "key") == BODY


# -- copies --------------------------------------------------------------------------------------------


async def test_copy_to_the_primary_gets_what_another_member_has() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with opened(fallback(first, second), first, second) as store:
        await store.backend("second").put("bucket", "key", BODY, metadata={"a": "b"})
        handle = store.backend("first")
        await handle.copy("bucket", "key", "bucket", "key", source_backend="layer")
        assert (await found(store, "first", "second")) == {"first": BODY, "second": BODY}
        info = await handle.head("bucket", "key")
        assert info.metadata == {"a": "b"}
        # Now it is the primary's own object, so nothing is copied.
        await handle.copy("bucket", "key", "bucket", "key", source_backend="layer")
        assert (await handle.head("bucket", "key")).etag == info.etag


async def test_copy_to_a_replica_gets_what_it_missed() -> None:
    first, second = MemoryDriver(), Faulty(MemoryDriver())
    second.fail("put", times=1, error=BackendError("refused"))
    async with opened(Mirrored(first, second), first, second) as store:
        with pytest.raises(UnavailableError):
            await store.backend("layer").put("bucket", "key", BODY)
        assert (await found(store, "second")) == {"second": None}
        handle = store.backend("second")
        await handle.copy("bucket", "key", "bucket", "key", source_backend="layer")
        assert (await found(store, "first", "second")) == {"first": BODY, "second": BODY}


async def test_metadata_of_a_members_object_is_changed_through_the_layers_name() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with opened(fallback(first, second), first, second) as store:
        await store.backend("layer").put("bucket", "key", BODY)
        await store.backend("first").copy(
            "bucket", "key", "bucket", "key", source_backend="layer", metadata={"new": "1"}
        )
        assert (await store.backend("layer").head("bucket", "key")).metadata == {"new": "1"}
        assert await found(store, "first", "second") == {"first": BODY, "second": None}


# -- searches, listings and jobs -------------------------------------------------------------------------


async def test_search_and_listing_reach_what_only_the_layer_of_a_backend_has() -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with Trove(
        first, backends={"layer": fallback(first, second)}, locate="anywhere"
    ) as store:
        await second.create_bucket("bucket")
        await store.create_bucket("bucket")
        await store.backend("layer").put("bucket", "new", BODY)
        await _put_on(second, "key")
        assert await store.read("bucket", "key") == BODY
        assert [info.key async for info in store.list("bucket")] == ["key", "new"]


async def _put_on(driver: MemoryDriver, key: str) -> None:
    await driver.put("bucket", key, [memoryview(BODY)], PutOptions())


@pytest.mark.parametrize("kind", [fallback, mirrored])
@pytest.mark.parametrize("holder", ["layer", "first", "second"])
@pytest.mark.parametrize("locate", ["routed", "anywhere"])
async def test_objects_of_members_are_not_misplaced(kind: object, holder: str, locate: str) -> None:
    first, second = MemoryDriver(), MemoryDriver()
    layer = kind(first, second)  # type: ignore[operator]
    async with opened(layer, first, second, home="layer", locate=locate) as store:
        await store.backend(holder).put("bucket", "key", BODY)
        before = await found(store, "layer", "first", "second")
        assert await store.misplaced("bucket").all() == []
        for delete_shadowed in (False, True):
            report = await rebalance(store, "bucket", delete_shadowed=delete_shadowed)
            assert (report.changed, report.failed) == (0, 0)
        assert await found(store, "layer", "first", "second") == before


@pytest.mark.parametrize("kind", [fallback, mirrored])
@pytest.mark.parametrize("home", ["first", "second"])
@pytest.mark.parametrize("holder", ["layer", "first", "second"])
async def test_no_job_deletes_the_only_copy(kind: object, home: str, holder: str) -> None:
    first, second = MemoryDriver(), MemoryDriver()
    layer = kind(first, second)  # type: ignore[operator]
    async with opened(layer, first, second, home=home, locate="anywhere") as store:
        await store.backend(holder).put("bucket", "key", BODY)
        for delete_shadowed in (False, True):
            await rebalance(store, "bucket", delete_shadowed=delete_shadowed)
            await tier(store, "bucket", [TierRule(to=home)])
            assert await store.read("bucket", "key") == BODY
            assert BODY in (await found(store, "first", "second")).values()


async def test_object_that_a_replica_missed_is_not_moved_to_it() -> None:
    first, second = MemoryDriver(), Faulty(MemoryDriver())
    second.fail("put", times=1, error=BackendError("refused"))
    async with opened(
        Mirrored(first, second), first, second, home="second", locate="anywhere"
    ) as store:
        with pytest.raises(UnavailableError):
            await store.backend("layer").put("bucket", "key", BODY)
        report = await rebalance(store, "bucket")
        assert (report.changed, list(report.errors)) == (0, ["NotSupportedError"])
        assert await found(store, "layer", "first", "second") == {
            "layer": BODY,
            "first": BODY,
            "second": None,
        }


@pytest.mark.parametrize(("source", "target"), [("layer", "second"), ("second", "layer")])
@pytest.mark.parametrize("delete", [False, True])
async def test_migration_between_a_layer_and_its_member_is_refused(
    source: str,
    target: str,
    delete: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    first, second = MemoryDriver(), MemoryDriver()
    async with opened(fallback(first, second), first, second, locate="anywhere") as store:
        with pytest.raises(ConfigError, match="member"):
            await migrate(store, "bucket", source=source, target=target, delete=delete)
        report = await migrate(store, "bucket", source="second", target="first", delete=delete)
        assert report.failed == 0
