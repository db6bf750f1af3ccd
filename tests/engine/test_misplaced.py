"""Objects that are not on the backend of their keys are found by listings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, Unordered, fill, single_attempt_store
from trove_async import (
    BackendNotFoundError,
    BucketNotFoundError,
    InvalidNameError,
    NotSupportedError,
    Timeout,
    Trove,
    UnavailableError,
)
from trove_async.drivers import MemoryDriver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trove_async import Event, Misplaced

    Found = tuple[str, str, str, bool | None]

ROUTES = [("*.log", "cold"), ("archive/**", "archive")]


def found(items: Iterable[Misplaced]) -> list[Found]:
    return [(item.info.key, item.info.backend, item.belongs_to, item.shadowed) for item in items]


async def filled_drivers() -> tuple[CallLog, CallLog, CallLog]:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    await fill(default, "data", "a.txt", "b.log", "c.txt", "x/archive", "é")
    await fill(cold, "data", "a.txt", "b.log", "d.log", "z.txt")
    await fill(archive, "data", "archive/1", "b.log", "c.log", "z.txt")
    for driver in (default, cold, archive):
        driver.calls.clear()
    return default, cold, archive


MISPLACED: list[Found] = [
    ("a.txt", "cold", "default", True),
    ("b.log", "default", "cold", True),
    ("b.log", "archive", "cold", True),
    ("c.log", "archive", "cold", False),
    ("z.txt", "cold", "default", False),
    ("z.txt", "archive", "default", False),
]


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_misplaced_objects_are_found_in_order_without_a_head(page_size: int) -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listing = store.misplaced("data", page_size=page_size)
        assert listing.ordered is None
        assert found([item async for item in listing]) == MISPLACED
        assert listing.ordered is True
        again = store.misplaced("data", page_size=page_size)
        pages = [len(page) async for page in again.pages()]
        assert sum(pages) == len(MISPLACED)
        assert all(size == page_size for size in pages[:-1])
        assert found(await store.bucket("data").misplaced().all()) == MISPLACED
    for driver in (default, cold, archive):
        assert set(driver.calls) == {"open", "list_page", "aclose"}


async def test_prefix_and_start_select_keys() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        assert found(await store.misplaced("data", prefix="c").all()) == MISPLACED[3:4]
        assert found(await store.misplaced("data", start_after="b.log").all()) == MISPLACED[3:]


async def test_object_of_an_unordered_backend_has_unknown_shadows() -> None:
    default, cold, loose = CallLog(), CallLog(), Unordered()
    await fill(default, "data", "a.log", "b", "c")
    await fill(cold, "data", "b", "x.log")
    await fill(loose, "data", "b", "c", "y.log", "z1")
    async with single_attempt_store(
        default,
        backends={"cold": cold, "loose": loose},
        routes=[("*.log", "cold"), ("z*", "loose")],
    ) as store:
        listing = store.misplaced("data", page_size=1)
        listed = found(await listing.all())
        assert listing.ordered is False
    assert listed[:2] == [("a.log", "default", "cold", False), ("b", "cold", "default", True)]
    assert sorted(listed[2:]) == [
        ("b", "loose", "default", None),
        ("c", "loose", "default", None),
        ("y.log", "loose", "cold", None),
    ]


async def test_object_whose_home_is_unordered_has_unknown_shadows() -> None:
    default, loose = CallLog(), Unordered()
    await fill(default, "data", "a.log", "b")
    await fill(loose, "data", "a.log")
    async with single_attempt_store(
        default, backends={"loose": loose}, routes=[("*.log", "loose")]
    ) as store:
        listed = found(await store.misplaced("data").all())
    assert listed == [("a.log", "default", "loose", None)]


async def test_two_names_of_one_place_count_as_one() -> None:
    shared = MemoryDriver()
    await fill(shared, "data", "a.log", "b")
    backends: dict[str, Any] = {"same": shared, "other": MemoryDriver()}
    async with Trove(shared, backends=backends, routes=[("*.log", "same")]) as store:
        await store.create_bucket("data", backends=["other"])
        assert await store.misplaced("data").all() == []
        await store.backend("other").put("data", "a.log", b"")
        await store.backend("other").put("data", "b", b"")
        assert found(await store.misplaced("data").all()) == [
            ("a.log", "other", "same", True),
            ("b", "other", "default", True),
        ]


async def test_object_is_found_once_under_two_names_of_its_place() -> None:
    inner = MemoryDriver()
    backends: dict[str, Any] = {
        "one": Mapped(inner, buckets={"data": "shared"}),
        "two": Mapped(inner, buckets={"data": "shared"}),
    }
    async with Trove("mem://", backends=backends) as store:
        await store.create_bucket("data", backends=["default", "one"])
        await store.backend("two").put("data", "key", b"")
        assert found(await store.misplaced("data").all()) == [("key", "one", "default", False)]


async def test_backend_without_the_bucket_has_no_objects() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "a.log")
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES[:1]) as store:
        assert found(await store.misplaced("data").all()) == [("a.log", "default", "cold", False)]
        with pytest.raises(BucketNotFoundError) as caught:
            await store.misplaced("none").all()
    assert (caught.value.operation, caught.value.bucket) == ("misplaced", "none")


async def test_failure_loses_no_object() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listing = store.misplaced("data", page_size=1)
        items = [await anext(listing)]
        cold.fail("list_page", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            while True:
                items.append(await anext(listing))
        del cold.before["list_page"]
        items += [item async for item in listing]
    assert found(items) == MISPLACED


async def test_failure_of_a_route_function_loses_no_object() -> None:
    default, cold, archive = await filled_drivers()
    failures = 3

    async def by_database(_bucket: str, key: str) -> str:
        nonlocal failures
        if key == "c.log" and failures:
            failures -= 1
            raise ConnectionError("no database")
        return ""

    async with single_attempt_store(
        default,
        backends={"cold": cold, "archive": archive},
        routes=ROUTES,
        route_functions=[by_database],
    ) as store:
        listing = store.misplaced("data", page_size=2)
        items: list[Misplaced] = []
        for _ in range(3):
            with pytest.raises(ConnectionError):
                while True:
                    items.append(await anext(listing))
        items += [item async for item in listing]
    assert found(items) == MISPLACED


async def test_route_functions_are_called_once_for_each_key_of_a_page() -> None:
    default, cold, archive = await filled_drivers()
    called: list[str] = []

    def by_name(_bucket: str, key: str) -> str:
        called.append(key)
        return "archive" if key == "c.txt" else ""

    async with single_attempt_store(
        default,
        backends={"cold": cold, "archive": archive},
        routes=ROUTES,
        route_functions=[by_name],
    ) as store:
        listed = found(await store.misplaced("data").all())
    assert listed == sorted(
        [*MISPLACED, ("c.txt", "default", "archive", False)],
        key=lambda item: (item[0], ["default", "cold", "archive"].index(item[1])),
    )
    assert len(called) == len(set(called))


async def test_unknown_backend_of_a_route_function_is_an_error() -> None:
    default = CallLog()
    await fill(default, "data", "a")
    async with single_attempt_store(
        default, backends={"cold": CallLog()}, route_functions=[lambda _bucket, _key: "none"]
    ) as store:
        with pytest.raises(BackendNotFoundError):
            await store.misplaced("data").all()


async def test_pages_without_misplaced_objects_are_separate_operations() -> None:
    default = CallLog()
    await fill(default, "data", *(f"{number:03}" for number in range(50)))
    events: list[Event] = []
    async with single_attempt_store(
        default, backends={"cold": CallLog()}, timeout=Timeout(total=60)
    ) as store:
        store.events.subscribe(events.append)
        assert await store.misplaced("data", page_size=10).all() == []
    operations = [event for event in events if event.kind == "operation"]
    assert {event.operation for event in operations} == {"misplaced"}
    assert len(operations) == 6  # five pages and the end


async def test_pinned_handle_has_no_misplaced_objects() -> None:
    async with single_attempt_store(backends={"cold": CallLog()}) as store:
        with pytest.raises(NotSupportedError, match="pinned to 'cold'"):
            store.backend("cold").misplaced("data")
        with pytest.raises(NotSupportedError, match="pinned to 'cold'"):
            store.backend("cold").bucket("data").misplaced()


async def test_arguments_are_checked_before_any_request() -> None:
    async with single_attempt_store() as store:
        with pytest.raises(InvalidNameError):
            store.misplaced("a/b")
        with pytest.raises(ValueError, match="page_size must be at least 1"):
            store.misplaced("data", page_size=0)


async def test_store_with_one_backend_has_no_misplaced_objects() -> None:
    default = CallLog()
    await fill(default, "data", "a")
    async with single_attempt_store(default) as store:
        assert await store.misplaced("data").all() == []
