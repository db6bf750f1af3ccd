"""Listings of versions: each key on the backend it is routed to, its newest version first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.fakes import CallLog, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import (
    BucketNotFoundError,
    NotSupportedError,
    RetryPolicy,
    Route,
    Trove,
    UnavailableError,
    route_function,
)
from trove_async.options import ListOptions
from trove_async.testing import DriverVersions, Faulty, opened
from trove_async.testing._harness import write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trove_async import Event, VersionInfo
    from trove_async.driver import AsyncDriver


class TestVersionedMemory(DriverVersions):
    """`VersionedMemory` fulfils the driver contract."""

    @pytest.fixture
    def driver(self) -> VersionedMemory:
        return VersionedMemory()

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, VersionedMemory)
        backend.versioned_buckets.add(bucket)


class TestThroughFaulty(DriverVersions):
    @pytest.fixture
    def driver(self) -> Faulty:
        return Faulty(VersionedMemory())

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, Faulty)
        assert isinstance(backend.driver, VersionedMemory)
        backend.driver.versioned_buckets.add(bucket)


def versioned_memory(**capabilities: bool) -> VersionedMemory:
    driver = VersionedMemory(**capabilities)
    driver.versioned_buckets.add("data")
    return driver


async def put_versions(store: Trove, *keys: str) -> None:
    """Put every key twice on every backend. Delete the second key between its puts."""
    for name in await store.health():
        handle = store.backend(name)
        for key in keys:
            await handle.put("data", key, b"1")
        await handle.delete("data", keys[1])
        for key in keys:
            await handle.put("data", key, b"22")


def version_summaries(versions: Iterable[VersionInfo]) -> list[tuple[str, str, bool, bool]]:
    return [(version.key, version.backend, version.latest, version.deleted) for version in versions]


ROUTES: list[Route | tuple[str, str]] = [("*.log", "cold")]
EXPECTED = [
    ("a.log", "cold", True, False),
    ("a.log", "cold", False, False),
    ("b", "default", True, False),
    ("b", "default", False, True),
    ("b", "default", False, False),
    ("c.log", "cold", True, False),
    ("c.log", "cold", False, False),
    ("d", "default", True, False),
    ("d", "default", False, False),
]


@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
async def test_versions_are_listed_in_order_on_the_backend_their_key_is_routed_to(
    page_size: int,
) -> None:
    async with single_attempt_store(
        versioned_memory(), backends={"cold": versioned_memory()}, routes=ROUTES
    ) as store:
        await store.create_bucket("data", backends="all")
        await put_versions(store, "a.log", "b", "c.log", "d")
        listing = store.list_versions("data", page_size=page_size)
        assert listing.ordered is None
        assert version_summaries([version async for version in listing]) == EXPECTED
        assert listing.ordered is True
        for version in await store.list_versions("data").all():
            if not version.deleted:
                body = await store.read("data", version.key, version_id=version.version_id)
                assert body == (b"22" if version.latest else b"1")


async def test_async_route_functions_are_called_for_every_key() -> None:
    async def logs(_bucket: str, key: str) -> str:
        return "cold" if key.endswith(".log") else ""

    async with single_attempt_store(
        versioned_memory(), backends={"cold": versioned_memory()}, route_functions=[logs]
    ) as store:
        await store.create_bucket("data", backends="all")
        await put_versions(store, "a.log", "b", "c.log", "d")
        assert version_summaries(await store.list_versions("data", page_size=2).all()) == EXPECTED


async def test_pinned_handle_lists_every_version_on_its_backend() -> None:
    async with single_attempt_store(
        versioned_memory(), backends={"cold": versioned_memory()}, routes=ROUTES
    ) as store:
        await store.create_bucket("data", backends="all")
        await put_versions(store, "a.log", "b")
        listed = await store.backend("cold").list_versions("data").all()
        assert [version.key for version in listed] == ["a.log"] * 2 + ["b"] * 3
        assert {version.backend for version in listed} == {"cold"}


async def test_prefix_selects_keys_and_only_reachable_backends() -> None:
    default, cold = versioned_memory(), versioned_memory()
    routes = [Route.prefix("logs/", "cold")]
    async with single_attempt_store(default, backends={"cold": cold}, routes=routes) as store:
        await store.create_bucket("data", backends="all")
        await put_versions(store, "logs/a", "logs/b", "other")
        listed = await store.list_versions("data", prefix="logs/").all()
        assert {(version.key, version.backend) for version in listed} == {
            ("logs/a", "cold"),
            ("logs/b", "cold"),
        }
        assert [options.prefix for options in cold.version_pages] == ["logs/"]
        assert default.version_pages == []


async def test_pages_are_fetched_on_demand() -> None:
    driver = versioned_memory()
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        await put_versions(store, "a", "b", "c", "d")
        listing = store.list_versions("data", page_size=2)
        assert driver.version_pages == []
        first = await anext(listing)
        assert (first.key, len(driver.version_pages)) == ("a", 1)
        pages = [len(page) async for page in listing.pages()]
        assert (sum(pages), pages[:-1]) == (8, [2] * (len(pages) - 1))


async def test_backend_without_versions_is_rejected_before_any_io() -> None:
    default, cold = CallLog(), versioned_memory()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        default.calls.clear()
        with pytest.raises(
            NotSupportedError, match=r"store\.backend\('cold'\)\.list_versions"
        ) as caught:
            await anext(store.list_versions("data"))
        assert (caught.value.backend, caught.value.operation) == ("default", "list_versions")
        assert "\n" not in str(caught.value)
        assert (default.calls, cold.version_pages) == ([], [])
        assert await store.backend("cold").list_versions("data").all() == []


async def test_error_of_a_pinned_handle_suggests_no_other_backend() -> None:
    async with single_attempt_store(CallLog(), backends={"cold": versioned_memory()}) as store:
        with pytest.raises(
            NotSupportedError, match="cannot list versions; nothing was done"
        ) as caught:
            await store.backend("default").list_versions("data").all()
        assert "cold" not in str(caught.value)


async def test_backend_without_versions_does_not_matter_if_no_route_reaches_it() -> None:
    @route_function(by="bucket")
    def all_cold(_bucket: str, _key: str) -> str:
        return "cold"

    async with single_attempt_store(
        CallLog(), backends={"cold": versioned_memory()}, route_functions=[all_cold]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"")
        assert [version.key for version in await store.list_versions("data").all()] == ["key"]


async def test_backend_that_lacks_the_bucket_counts_as_empty() -> None:
    async with single_attempt_store(
        versioned_memory(), backends={"cold": versioned_memory()}, routes=ROUTES
    ) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"")
        assert [version.key for version in await store.list_versions("data").all()] == ["key"]
        with pytest.raises(BucketNotFoundError) as caught:
            await store.list_versions("none").all()
        assert (caught.value.bucket, caught.value.operation) == ("none", "list_versions")


async def test_unordered_backends_are_listed_one_after_another() -> None:
    async with single_attempt_store(
        versioned_memory(ordered=False), backends={"cold": versioned_memory()}, routes=ROUTES
    ) as store:
        await store.create_bucket("data", backends="all")
        await put_versions(store, "a.log", "b", "c.log", "d")
        listing = store.list_versions("data", page_size=2)
        listed = version_summaries(await listing.all())
        assert listing.ordered is False
        assert listed == [
            *(version for version in EXPECTED if version[1] == "cold"),
            *(version for version in EXPECTED if version[1] == "default"),
        ]


async def test_failing_backend_makes_the_listing_raise_and_the_next_call_resumes() -> None:
    faulty = Faulty(versioned_memory())
    async with single_attempt_store(faulty) as store:
        await store.create_bucket("data")
        await put_versions(store, "a", "b", "c")
        expected = await store.list_versions("data").all()
        faulty.fail("version_page", skip=1)
        listing = store.list_versions("data", page_size=2)
        listed = [await anext(listing), await anext(listing)]
        with pytest.raises(UnavailableError):
            await anext(listing)
        assert [*listed, *await listing.all()] == expected


async def test_transient_failure_is_retried_within_one_operation() -> None:
    faulty = Faulty(versioned_memory())
    events: list[Event] = []
    async with Trove(faulty, retry=RetryPolicy(base_delay=0)) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"")
        faulty.fail("version_page")
        store.events.subscribe(events.append)
        assert len(await store.list_versions("data").all()) == 1
    attempts = [event for event in events if event.kind == "attempt"]
    assert [(event.operation, event.attempt, event.error is None) for event in attempts] == [
        ("list_versions", 1, False),
        ("list_versions", 2, True),
    ]
    operations = {event.operation for event in events if event.kind == "operation"}
    assert operations == {"list_versions"}


async def test_faulty_rejects_unclaimed_features_and_lists_backwards_if_unordered() -> None:
    inner = versioned_memory()
    async with opened(Faulty(CallLog())) as plain:
        assert isinstance(plain, Faulty)
        with pytest.raises(AssertionError):
            await plain.version_page("data", ListOptions())
    async with opened(
        Faulty(inner, capabilities=replace(inner.capabilities, ordered=False))
    ) as faulty:
        assert isinstance(faulty, Faulty)
        await faulty.create_bucket("data")
        for key in ("a", "b", "a"):
            await write(faulty, "data", key)
        page = await faulty.version_page("data", ListOptions())
        assert [(version.key, version.latest) for version in page.entries] == [
            ("b", True),
            ("a", True),
            ("a", False),
        ]
