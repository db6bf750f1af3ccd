"""Listings merged over backends: order, routes, laziness, failures and faulty services."""

from __future__ import annotations

import asyncio
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, Sparse, Unordered, fill, single_attempt_store
from trove_async import (
    BackendError,
    BackendNotFoundError,
    BucketNotFoundError,
    ClosedError,
    InvalidNameError,
    ObjectInfo,
    Prefix,
    Route,
    UnavailableError,
    route_function,
)
from trove_async.layers import Mapped
from trove_async.options import DeleteOptions, ListOptions, Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trove_async import Event

    KeyAndBackend = tuple[str, str]


def names(entries: Iterable[ObjectInfo | Prefix]) -> list[str]:
    return [entry.key for entry in entries]


def located_keys(entries: Iterable[ObjectInfo | Prefix]) -> list[KeyAndBackend]:
    return [(entry.key, entry.backend) for entry in entries]


ROUTES: list[Route | tuple[str, str]] = [("*.log", "cold"), Route.prefix("archive/", "archive")]


async def filled_drivers() -> tuple[CallLog, CallLog, CallLog]:
    """Return three drivers with objects, some of which the routes hide."""
    default, cold, archive = CallLog(), CallLog(), CallLog()
    await fill(default, "data", "a.txt", "b.log", "c.txt", "dir/x.log", "dir/y", "é")
    await fill(cold, "data", "a.txt", "b.log", "d.log", "dir/y", "zz.log")
    await fill(archive, "data", "archive/1", "archive/2", "c.txt", "\U0001f4be")
    return default, cold, archive


VISIBLE = [
    ("a.txt", "default"),
    ("archive/1", "archive"),
    ("archive/2", "archive"),
    ("b.log", "cold"),
    ("c.txt", "default"),
    ("d.log", "cold"),
    ("dir/x.log", "default"),
    ("dir/y", "default"),
    ("zz.log", "cold"),
    ("é", "default"),
]


@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 100])
async def test_keys_are_listed_in_order_on_the_backend_they_are_routed_to(page_size: int) -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listing = store.list("data", page_size=page_size)
        assert listing.ordered is None
        assert located_keys([entry async for entry in listing]) == VISIBLE
        assert listing.ordered is True
        for key, backend in VISIBLE:
            assert (await store.head("data", key)).backend == backend


async def test_include_shadowed_lists_every_object_of_every_backend() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listed = located_keys(await store.list("data", include_shadowed=True, page_size=2).all())
    assert len(listed) == 15
    assert [key for key, _ in listed] == sorted(key for key, _ in listed)
    assert {("b.log", "default"), ("b.log", "cold"), ("c.txt", "archive")} < set(listed)


async def test_pinned_handle_lists_every_object_on_its_backend() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listed = await store.backend("default").list("data").all()
        assert names(listed) == ["a.txt", "b.log", "c.txt", "dir/x.log", "dir/y", "é"]
        everything = await store.backend("cold").list("data", include_shadowed=True).all()
        assert located_keys(everything) == [
            (key, "cold") for key in ("a.txt", "b.log", "d.log", "dir/y", "zz.log")
        ]


@pytest.mark.parametrize("page_size", [1, 2, 100])
async def test_prefixes_of_several_backends_are_listed_once_and_in_order(page_size: int) -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listed = await store.list("data", delimiter="/", page_size=page_size).all()
        assert names(listed) == [
            "a.txt", "archive/", "b.log", "c.txt", "d.log", "dir/", "zz.log", "é",
        ]  # fmt: skip
        assert [isinstance(entry, Prefix) for entry in listed].count(True) == 2
        below = await store.list("data", prefix="dir/", delimiter="/", page_size=page_size).all()
        assert names(below) == ["dir/x.log", "dir/y"]


async def test_prefix_of_only_hidden_objects_is_listed() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "a")
    await fill(cold, "data", "dir/hidden.txt")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        assert names(await store.list("data", delimiter="/").all()) == ["a", "dir/"]


async def test_delimiter_may_have_several_characters() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "a--b--c", "a--d", "a-e", "b")
    await fill(cold, "data", "a--z", "c--")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("x", "cold")]
    ) as store:
        assert names(await store.list("data", delimiter="--").all()) == ["a--", "a-e", "b", "c--"]
        below = await store.list("data", prefix="a--", delimiter="--").all()
        assert names(below) == ["a--b--", "a--d"]


@pytest.mark.parametrize("page_size", [1, 3, 100])
async def test_start_after_lists_only_greater_keys_and_prefixes(page_size: int) -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        everything = await store.list("data", delimiter="/").all()
        for start in [*names(everything), "", "archive/zzz", "dir/x.log", "dir0", "~", "b.log\0x"]:
            listed = store.list("data", delimiter="/", start_after=start, page_size=page_size)
            assert names(await listed.all()) == [key for key in names(everything) if key > start]


async def test_start_after_applies_to_unordered_backends() -> None:
    default, cold = Unordered(), Unordered()
    await fill(default, "data", "a/1", "b", "c/1", "d")
    await fill(cold, "data", "a/2", "b.log", "c/2")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        listing = store.list("data", delimiter="/", start_after="b", page_size=1)
        assert sorted(names(await listing.all())) == ["b.log", "c/", "d"]
        interrupted = store.list("data", start_after="b", page_size=1)
        first = await anext(interrupted)
        remaining = await store.list("data", cursor=interrupted.cursor, page_size=1).all()
        assert sorted([first.key, *names(remaining)]) == ["b.log", "c/1", "d"]


async def test_cursor_is_exact_and_none_once_the_listing_has_ended() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        expected = names(await store.list("data").all())
        listing = store.list("data", page_size=2)
        for count in range(1, len(expected) + 1):
            await anext(listing)
            assert listing.cursor is not None
            remaining = store.list("data", cursor=listing.cursor)
            assert names(await remaining.all()) == expected[count:]
            assert remaining.cursor is None
        with pytest.raises(StopAsyncIteration):
            await anext(listing)
        assert listing.cursor is None
        # The cursor is before the entries that have arrived but were not returned.
        buffered = store.list("data", page_size=1000)
        assert names([await anext(buffered)]) == expected[:1]
        assert buffered.cursor is not None
        remaining = store.list("data", cursor=buffered.cursor)
        assert names(await remaining.all()) == expected[1:]
        pages = [page async for page in buffered.pages()]
        assert sum(map(len, pages)) == len(expected) - 1
        assert buffered.cursor is None


async def test_all_pages_but_the_last_are_full() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        pages = [page async for page in store.list("data", page_size=4).pages()]
    assert [len(page) for page in pages] == [4, 4, 2]
    assert located_keys(entry for page in pages for entry in page) == VISIBLE


async def test_iteration_pages_and_all_share_one_listing() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        listing = store.list("data", page_size=3)
        listed = [await anext(listing), *await anext(listing.pages()), await anext(listing)]
        listed += await listing.all()
        assert located_keys(listed) == VISIBLE
        assert await listing.all() == []
        with pytest.raises(StopAsyncIteration):
            await anext(listing)
        assert [page async for page in listing.pages()] == []


# -- selection of backends -------------------------------------------------------------------------


async def test_backend_that_lacks_the_bucket_counts_as_empty() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "a", "b")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        assert names(await store.list("data").all()) == ["a", "b"]


async def test_bucket_that_all_backends_lack_is_not_found() -> None:
    async with single_attempt_store(
        backends={"cold": CallLog()}, routes=[("*.log", "cold")]
    ) as store:
        listing = store.list("data")
        with pytest.raises(BucketNotFoundError):
            await listing.all()
        with pytest.raises(BucketNotFoundError, match="no backend has this bucket") as caught:
            await anext(listing)
        assert (caught.value.operation, caught.value.bucket) == ("list", "data")


async def test_bucket_that_only_an_unlisted_backend_has_is_empty() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[Route.prefix("logs/", "cold")]
    ) as store:
        assert await store.list("data", prefix="logs/").all() == []
        assert default.pages == []
        with pytest.raises(BucketNotFoundError):
            await store.backend("cold").list("data").all()


async def test_backend_that_no_route_reaches_is_not_listed() -> None:
    default, cold, archive = await filled_drivers()
    async with single_attempt_store(
        default, backends={"cold": cold, "archive": archive}, routes=ROUTES
    ) as store:
        await store.list("data", prefix="archive/").all()
        assert (len(default.pages), len(cold.pages)) == (0, 0)
        await store.list("data", prefix="dir/").all()
        assert len(default.pages) == 1
        assert len(cold.pages) == 0
        assert len(archive.pages) == 1


async def test_bucket_deleted_midway_raises_instead_of_ending() -> None:
    default = CallLog()
    await fill(default, "data", "a", "b", "c")
    async with single_attempt_store(default) as store:
        listing = store.list("data", page_size=1)
        await anext(listing)
        for key in "abc":
            await default.delete("data", key, DeleteOptions())
        await default.delete_bucket("data")
        with pytest.raises(BucketNotFoundError):
            await anext(listing)


async def test_driver_with_two_names_lists_each_key_once_under_its_routed_name() -> None:
    driver = CallLog()
    await fill(driver, "data", "a", "b.log", "c")
    async with single_attempt_store(
        driver, backends={"second": driver}, routes=[("*.log", "second")]
    ) as store:
        assert located_keys(await store.list("data").all()) == [
            ("a", "default"), ("b.log", "second"), ("c", "default"),
        ]  # fmt: skip


# -- laziness --------------------------------------------------------------------------------------


async def test_pages_are_requested_on_demand_and_later_one_ahead() -> None:
    default = CallLog()
    await fill(default, "data", *"abcdef")
    async with single_attempt_store(default) as store:
        listing = store.list("data", page_size=2)
        assert default.pages == []
        await anext(listing)
        await anext(listing)
        await asyncio.sleep(0)
        assert len(default.pages) == 1
        await anext(listing)
        await asyncio.sleep(0)
        assert len(default.pages) == 3  # the first was consumed, so the third is prefetched
        assert names(await listing.all()) == ["d", "e", "f"]
        assert len(default.pages) == 3


async def test_listing_dropped_midway_leaves_no_task_and_no_warning() -> None:
    default = CallLog()
    await fill(default, "data", *"abcdef")
    before = asyncio.all_tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with single_attempt_store(default) as store:
            reached, forever = asyncio.Event(), asyncio.Event()
            listing = store.list("data", page_size=1)
            await anext(listing)

            async def hang() -> None:
                if len(default.pages) == 3:
                    reached.set()
                    await forever.wait()

            default.before["list_page"] = hang
            await anext(listing)
            await reached.wait()
            assert len(asyncio.all_tasks() - before) == 1
        assert asyncio.all_tasks() == before
        with pytest.raises(ClosedError):
            await anext(listing)
        assert listing.cursor is not None


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("good_pages", [0, 1, 2, 3])
@pytest.mark.parametrize("page_size", [1, 2])
async def test_failing_backend_makes_the_listing_raise_and_a_second_call_loses_nothing(
    good_pages: int, page_size: int
) -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", *"abcdefgh")
    await fill(cold, "data", *(f"{letter}.log" for letter in "abcdefgh"))
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        everything = located_keys(await store.list("data").all())
        cold.fail("list_page", UnavailableError("broken"), after=good_pages)
        listing = store.list("data", page_size=page_size)
        listed = []
        with pytest.raises(UnavailableError, match="broken") as caught:
            async for entry in listing:
                listed.append(entry)  # noqa: PERF401 - the entries before the error are checked below
        assert caught.value.operation == "list"
        assert (caught.value.backend, caught.value.bucket) == ("cold", "data")
        with pytest.raises(UnavailableError):
            await listing.all()
        cold.before.clear()
        resumed = await store.list("data", cursor=listing.cursor).all()
        assert located_keys([*listed, *resumed]) == everything
        assert located_keys([*listed, *await listing.all()]) == everything


async def test_cancelled_call_loses_nothing() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", *"acegi")
    await fill(cold, "data", *"bdfhj")

    def by_letter(_bucket: str, key: str) -> str:
        return "cold" if key in "bdfhj" else ""

    async def async_by_letter(bucket: str, key: str) -> str:
        await asyncio.sleep(0)
        return by_letter(bucket, key)

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[async_by_letter]
    ) as store:
        steps = 0
        while True:
            listing = store.list("data", page_size=2, details=True)
            listed = []
            interrupted = 0
            for _ in range(100):
                task = asyncio.get_running_loop().create_task(listing.__anext__())
                for _ in range(steps):
                    await asyncio.sleep(0)
                if not task.done() and interrupted < 5:
                    interrupted += 1
                    task.cancel()
                try:
                    listed.append(await task)
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
            assert names(listed) == list("abcdefghij")
            if not interrupted:
                return
            steps += 1


async def test_unknown_backend_from_a_route_function_is_raised() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "a", "b")

    def route(_bucket: str, key: str) -> str:
        return "nowhere" if key == "b" else ""

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[route]
    ) as store:
        with pytest.raises(BackendNotFoundError, match="nowhere"):
            await store.list("data").all()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_error_of_a_route_function_is_raised(*, asynchronous: bool) -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", *"abcdef")

    def route(_bucket: str, key: str) -> str:
        if key == "c":
            raise LookupError(key)
        return ""

    async def async_route(bucket: str, key: str) -> str:
        return route(bucket, key)

    functions = [async_route if asynchronous else route]
    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=functions
    ) as store:
        with pytest.raises(LookupError):
            await store.list("data").all()


# -- route functions -------------------------------------------------------------------------------


async def test_async_route_functions_are_awaited_concurrently() -> None:
    default, cold = CallLog(), CallLog()
    keys = [f"{number:03}" for number in range(100)]
    await fill(default, "data", *keys)
    await fill(cold, "data", *keys)
    running = peak = 0

    async def odd_is_cold(_bucket: str, key: str) -> str | None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return "cold" if int(key) % 2 else None

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[odd_is_cold]
    ) as store:
        listed = located_keys(await store.list("data").all())
    assert listed == [(key, "cold" if int(key) % 2 else "default") for key in keys]
    assert 4 < peak <= 16


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_route_function_is_called_once_for_each_key(*, asynchronous: bool) -> None:
    default, cold, archive = await filled_drivers()
    calls: list[KeyAndBackend] = []

    def route(bucket: str, key: str) -> str | None:
        calls.append((bucket, key))
        return "cold" if key.endswith(".log") else None

    async def async_route(bucket: str, key: str) -> str | None:
        await asyncio.sleep(0)
        return route(bucket, key)

    async with single_attempt_store(
        default,
        backends={"cold": cold, "archive": archive},
        routes=[Route.prefix("archive/", "archive")],
        route_functions=[async_route if asynchronous else route],
    ) as store:
        listed = await store.list("data").all()
    everything = {"a.txt", "archive/1", "archive/2", "b.log", "c.txt", "d.log", "dir/x.log"}
    everything |= {"dir/y", "zz.log", "é", "\U0001f4be"}
    assert sorted(calls) == sorted(("data", key) for key in everything)
    assert [entry.key for entry in listed if entry.backend == "cold"] == [
        "b.log",
        "d.log",
        "zz.log",
    ]


async def test_route_function_by_bucket_lists_only_its_backend() -> None:
    default, cold = CallLog(), CallLog()
    await fill(cold, "large", "a")
    await fill(default, "large", "b")

    @route_function(by="bucket")
    def large(bucket: str, _key: str) -> str:
        return "cold" if bucket == "large" else ""

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[large]
    ) as store:
        assert located_keys(await store.list("large").all()) == [("a", "cold")]
    assert default.pages == []


# -- details ---------------------------------------------------------------------------------------


async def test_details_complete_objects_that_pages_leave_incomplete() -> None:
    default, cold = Sparse(), CallLog()
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "a", b"1", content_type="text/plain")
        await store.put("data", "b.log", b"2", content_type="text/x-log")
        (plain, log) = await store.list("data").all()
        assert (plain.complete, plain.content_type, log.complete) == (False, None, True)
        detailed = await store.list("data", details=True).all()
        assert [(info.content_type, info.complete) for info in detailed] == [
            ("text/plain", True), ("text/x-log", True),
        ]  # fmt: skip
        assert [info.backend for info in detailed] == ["default", "cold"]
        assert default.calls.count("head") == 1
        assert cold.calls.count("head") == 0


async def test_details_are_fetched_lazily_with_limited_concurrency() -> None:
    default = Sparse()
    await fill(default, "data", *(f"{number:03}" for number in range(500)))
    running = peak = 0

    async def head() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    default.before["head"] = head
    async with single_attempt_store(default) as store:
        listing = store.list("data", details=True)
        await anext(listing)
        assert default.calls.count("head") <= 64
        assert len(await listing.all()) == 499
    assert 4 < peak <= 16
    assert default.calls.count("head") == 500


async def test_objects_deleted_before_their_details_arrive_are_omitted() -> None:
    default = Sparse()
    await fill(default, "data", *"abc")

    async def delete_object() -> None:
        await CallLog.delete(default, "data", "b", DeleteOptions())

    default.before["head"] = delete_object
    async with single_attempt_store(default) as store:
        assert names(await store.list("data", details=True).all()) == ["a", "c"]


async def test_failing_details_make_the_listing_raise() -> None:
    default = Sparse()
    await fill(default, "data", *"abc")
    default.fail("head", UnavailableError("broken"), after=1)
    async with single_attempt_store(default) as store:
        listing = store.list("data", details=True)
        with pytest.raises(UnavailableError):
            await anext(listing)
        default.before.clear()
        assert names(await listing.all()) == ["a", "b", "c"]


# -- unordered backends ----------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_unordered_backends_are_listed_one_after_another(page_size: int) -> None:
    default, cold, archive = CallLog(), Unordered(), Unordered()
    await fill(default, "data", "a", "d/1", "e", "hidden.log")
    await fill(cold, "data", "b.log", "c.log", "hidden", "d/1", "x/1")
    await fill(archive, "data", "o.zip", "p.zip", "d/2", "x/2")
    async with single_attempt_store(
        default,
        backends={"cold": cold, "archive": archive},
        routes=[Route.suffix(".log", "cold"), Route.suffix(".zip", "archive")],
    ) as store:
        listing = store.list("data", page_size=page_size)
        listed = await listing.all()
        assert listing.ordered is False
        assert names(listed[:3]) == ["a", "d/1", "e"]
        assert {entry.key for entry in listed[3:5]} == {"b.log", "c.log"}
        assert {entry.key for entry in listed[5:]} == {"o.zip", "p.zip"}
        assert [entry.backend for entry in listed] == ["default"] * 3 + ["cold"] * 2 + [
            "archive"
        ] * 2
        by_prefix = names(await store.list("data", delimiter="/", page_size=page_size).all())
        assert sorted(by_prefix) == ["a", "b.log", "c.log", "d/", "e", "o.zip", "p.zip", "x/"]


async def test_unordered_backend_is_requested_only_when_it_is_reached() -> None:
    default, cold = CallLog(), Unordered()
    await fill(default, "data", "a", "b")
    await fill(cold, "data", "c.log")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        listing = store.list("data", page_size=1)
        await anext(listing)
        await anext(listing)
        assert cold.pages == []
        assert (await anext(listing)).key == "c.log"


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"page_size": 0}, ValueError, "at least 1"),
        ({"page_size": 1.5}, TypeError, "an int"),
        ({"delimiter": ""}, ValueError, "None for no delimiter"),
        ({"delimiter": 5}, TypeError, "a delimiter must be a str"),
        ({"delimiter": "\ud800"}, InvalidNameError, "UTF-8"),
        ({"prefix": b"a"}, TypeError, "a prefix must be a str"),
        ({"prefix": "a\0"}, InvalidNameError, "NUL"),
        ({"prefix": "\ud800"}, InvalidNameError, "UTF-8"),
        ({"start_after": 7}, TypeError, "start_after must be a str"),
        ({"start_after": "\ud800"}, InvalidNameError, "UTF-8"),
        ({"cursor": 7}, TypeError, "a cursor must be a str"),
        ({"cursor": "x", "start_after": "y"}, ValueError, "exclude each other"),
    ],
)
def test_invalid_arguments_are_rejected_immediately(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        single_attempt_store().list("data", **arguments)  # type: ignore[call-overload]  # tested at run time


async def test_listing_emits_operation_events() -> None:
    default = CallLog()
    await fill(default, "data", "a", "b")
    events: list[Event] = []
    async with single_attempt_store(default) as store:
        store.events.subscribe(events.append)
        await store.list("data", page_size=1).all()
    operations = [event for event in events if event.kind == "operation"]
    assert {(event.operation, event.bucket) for event in operations} == {("list", "data")}


async def test_layers_that_rename_buckets_are_listed_under_the_outer_name() -> None:
    driver = CallLog()
    await fill(driver, "inside", "a")
    async with single_attempt_store(Mapped(driver, buckets={"data": "inside"})) as store:
        (listed,) = await store.list("data").all()
        assert (listed.bucket, listed.key, listed.backend) == ("data", "a", "default")


# -- services with faulty listings -----------------------------------------------------------------


LAST_MODIFIED = datetime(2026, 11, 28, tzinfo=UTC)


class ScriptedPages(CallLog):
    """A memory driver that lists scripted pages: by token, the keys and the next token."""

    def __init__(
        self, pages: Mapping[str | None, tuple[list[str], str | None]], **capabilities: Any
    ) -> None:
        super().__init__(**capabilities)
        self.script = pages

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        self.pages.append(options)
        keys, token = self.script[options.token]
        entries: list[ObjectInfo | Prefix] = [
            Prefix(bucket=bucket, prefix=key)
            if options.delimiter and key.endswith(options.delimiter)
            else ObjectInfo(bucket=bucket, key=key, size=0, etag="e", last_modified=LAST_MODIFIED)
            for key in keys
        ]
        return Page(entries=entries, token=token)


@pytest.mark.parametrize("ordered", [True, False])
async def test_keys_outside_the_prefix_are_never_listed(*, ordered: bool) -> None:
    driver = ScriptedPages(
        {None: (["a", "a/1"], "t"), "t": (["a//0", "b"], "u"), "u": (["c"], None)}, ordered=ordered
    )
    async with single_attempt_store(driver) as store:
        assert names(await store.list("data", prefix="a//").all()) == ["a//0"]


@pytest.mark.parametrize("ordered", [True, False])
async def test_cycle_of_tokens_raises(*, ordered: bool) -> None:
    pages: dict[str | None, tuple[list[str], str | None]] = {
        None: (["a"], "t"),
        "t": (["b"], "u"),
        "u": (["c"], "v"),
        "v": (["d"], "t"),
    }
    async with single_attempt_store(ScriptedPages(pages, ordered=ordered)) as store:
        listing = store.list("data")
        with pytest.raises(BackendError):
            await listing.all()
        with pytest.raises(BackendError):  # a second call must not seem to have reached the end
            await listing.all()


async def test_cycle_of_empty_pages_raises() -> None:
    driver = ScriptedPages({None: (["a"], "t"), "t": ([], "u"), "u": ([], "t")})
    async with single_attempt_store(driver) as store:
        with pytest.raises(BackendError, match="same page"):
            await store.list("data").all()
        assert len(driver.pages) < 10


async def test_repeated_key_is_listed_once() -> None:
    driver = ScriptedPages({None: (["a", "b/", "b/"], "t"), "t": (["b/", "c", "c"], None)})
    async with single_attempt_store(driver) as store:
        assert names(await store.list("data", delimiter="/").all()) == ["a", "b/", "c"]


@pytest.mark.parametrize(
    "pages",
    [{None: (["b", "a"], None)}, {None: (["a", "c"], "t"), "t": (["b", "d"], None)}],
    ids=["within a page", "between pages"],
)
async def test_backend_that_violates_its_declared_order_makes_the_listing_raise(
    pages: dict[str | None, tuple[list[str], str | None]],
) -> None:
    async with single_attempt_store(ScriptedPages(pages)) as store:
        with pytest.raises(BackendError, match="bytewise order"):
            await store.list("data").all()
