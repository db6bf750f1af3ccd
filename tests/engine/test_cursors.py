"""Cursors of listings, and listings compared with a model."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import CallLog, Unordered, fill, single_attempt_store
from trove_async import CursorError, Prefix, Route
from trove_async.options import DeleteOptions
from trove_async.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trove_async import ObjectInfo, Trove

ROUTES: Sequence[Route | tuple[str, str]] = [
    ("*.log", "cold"),
    Route.prefix("b/", "cold"),
    Route.suffix("z", "archive"),
]


async def filled_drivers(*kinds: type[CallLog]) -> list[CallLog]:
    drivers = [kind() for kind in kinds]
    for number, driver in enumerate(drivers):
        keys = ["a", "a.log", "b/1", "b/2", "b0", "c/x", "c/z", "d", "k.log", "z", f"own{number}"]
        await fill(driver, "data", *keys)
    return drivers


def store_over(drivers: Sequence[CallLog], routes: Sequence[Any] = ROUTES) -> Trove:
    default, cold, archive = drivers
    return single_attempt_store(default, backends={"cold": cold, "archive": archive}, routes=routes)


def located_keys(entries: Sequence[ObjectInfo | Prefix]) -> list[tuple[str, str, bool]]:
    return [(entry.key, entry.backend, isinstance(entry, Prefix)) for entry in entries]


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"delimiter": "/"},
    {"prefix": "b"},
    {"prefix": "c/", "delimiter": "/"},
    {"include_shadowed": True},
    {"include_shadowed": True, "delimiter": "/"},
    {"details": True},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize(
    "kinds",
    [(CallLog, CallLog, CallLog), (CallLog, Unordered, Unordered), (Unordered, CallLog, CallLog)],
    ids=["ordered", "two unordered", "one unordered"],
)
@pytest.mark.parametrize("page_size", [1, 2, 1000])
async def test_listing_resumes_exactly_from_every_position(
    arguments: dict[str, Any], kinds: tuple[type[CallLog], ...], page_size: int
) -> None:
    drivers = await filled_drivers(*kinds)
    async with store_over(drivers) as store:
        expected = located_keys(await store.list("data", page_size=page_size, **arguments).all())
        listing = store.list("data", page_size=page_size, **arguments)
        assert listing.cursor is None
        cursors: list[str] = []
        async for _ in listing:
            assert listing.cursor is not None
            cursors.append(listing.cursor)
        assert listing.cursor is None
    async with store_over(drivers) as fresh:
        for new_page_size in (1, 3, 1000):
            for position, cursor in enumerate(cursors, 1):
                resumed = fresh.list("data", cursor=cursor, page_size=new_page_size, **arguments)
                assert resumed.cursor == cursor
                assert located_keys(await resumed.all()) == expected[position:]
                assert resumed.cursor is None


async def test_cursor_of_a_resumed_listing_resumes_it_again() -> None:
    drivers = await filled_drivers(CallLog, CallLog, CallLog)
    async with store_over(drivers) as store:
        expected = located_keys(await store.list("data", include_shadowed=True).all())
        listed, cursor = [], None
        while True:
            listing = store.list("data", cursor=cursor, include_shadowed=True)
            page = [entry async for entry in listing][:1]
            if not page:
                break
            listing = store.list("data", cursor=cursor, include_shadowed=True)
            listed.append(await anext(listing))
            cursor = listing.cursor
        assert located_keys(listed) == expected


async def test_cursor_survives_changes_around_it() -> None:
    drivers = await filled_drivers(CallLog, CallLog, CallLog)
    async with store_over(drivers) as store:
        listing = store.list("data", page_size=3)
        listed = [await anext(listing) for _ in range(4)]
        assert listed[-1].key == "b/2"
        await drivers[1].delete("data", "b/2", DeleteOptions())
        await store.put("data", "a-new", b"")
        await store.put("data", "b-new", b"")
        await store.put("data", "c-new", b"")
        remaining = [entry.key for entry in await store.list("data", cursor=listing.cursor).all()]
        assert remaining[:4] == ["b0", "c-new", "c/x", "c/z"]


async def test_cursor_of_the_last_entry_lists_keys_added_after_it() -> None:
    drivers = await filled_drivers(CallLog, CallLog, CallLog)
    async with store_over(drivers) as store:
        listing, cursor = store.list("data"), None
        async for _ in listing:
            cursor = listing.cursor  # after the last entry; None once the listing has ended
        assert cursor is not None
        assert await store.list("data", cursor=cursor).all() == []
        await store.put("data", "zzz.txt", b"")
        (added,) = await store.list("data", cursor=cursor).all()
        assert added.key == "zzz.txt"


@pytest.mark.parametrize(
    "list_other",
    [
        lambda store: store.list("data", prefix="a"),
        lambda store: store.list("data", delimiter="/"),
        lambda store: store.list("other"),
        lambda store: store.list("data", include_shadowed=True),
        lambda store: store.backend("cold").list("data"),
    ],
)
async def test_cursor_of_a_different_listing_is_rejected(
    list_other: Callable[[Trove], Any],
) -> None:
    drivers = await filled_drivers(CallLog, CallLog, CallLog)
    async with store_over(drivers) as store:
        await store.create_bucket("other")
        await store.put("other", "a", b"")
        listing = list_other(store)
        await anext(listing)
        with pytest.raises(CursorError, match="belongs to a different listing"):
            await anext(store.list("data", cursor=listing.cursor))


async def test_cursor_of_a_store_with_different_routes_is_rejected() -> None:
    drivers = await filled_drivers(CallLog, CallLog, CallLog)
    async with store_over(drivers) as store:
        listing = store.list("data")
        await anext(listing)
    async with store_over(drivers, routes=[("*.log", "cold"), ("*.z", "archive")]) as other:
        with pytest.raises(CursorError, match="backends and routes"):
            await other.list("data", cursor=listing.cursor).all()


def assert_rejected(cursor: str) -> None:
    async def main() -> None:
        driver = CallLog()
        await fill(driver, "data", "a")
        async with single_attempt_store(driver) as store:
            with pytest.raises(CursorError) as caught:
                await store.list("data", cursor=cursor).all()
            assert "\n" not in str(caught.value)
            assert driver.pages == []

    asyncio.run(main())


def cursor_of(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@given(st.text())
@settings(deadline=None)
def test_arbitrary_text_is_rejected_as_a_cursor(text: str) -> None:
    assert_rejected(text)


@pytest.mark.parametrize("text", ["", "=", "A", "é", "\ud800", "bnVsbA", "W10", "a b", "[" * 9000])
def test_almost_decodable_text_is_rejected_as_a_cursor(text: str) -> None:
    assert_rejected(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
@settings(deadline=None)
def test_json_of_a_wrong_shape_is_rejected_as_a_cursor(value: object) -> None:
    assert_rejected(cursor_of(value))


def test_deeply_nested_json_is_rejected_as_a_cursor() -> None:
    assert_rejected(base64.urlsafe_b64encode(b"[" * 30_000 + b"]" * 30_000).decode())


@given(index=st.integers(1, 7), value=json_values)
@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_modified_cursor_is_rejected_or_harmless(index: int, value: object) -> None:
    async def main() -> None:
        driver = CallLog()
        await fill(driver, "data", "a", "b")
        async with single_attempt_store(driver) as store:
            listing = store.list("data", include_shadowed=True)
            await anext(listing)
            assert listing.cursor is not None
            padded = listing.cursor + "=" * (-len(listing.cursor) % 4)
            content = json.loads(base64.urlsafe_b64decode(padded))
            content[index] = value
            try:
                await store.list("data", include_shadowed=True, cursor=cursor_of(content)).all()
            except CursorError as error:
                assert "was modified" in str(error)  # noqa: PT017 - the listing may also succeed

    asyncio.run(main())


@pytest.mark.parametrize(
    ("index", "value"),
    [(1, 5), (2, -1), (2, True), (3, None), (3, "\ud800"), (4, "0"), (5, 1), (6, 3), (7, 0)],
)
async def test_cursor_with_an_invalid_field_is_rejected(index: int, value: object) -> None:
    driver = CallLog()
    await fill(driver, "data", "a", "b")
    async with single_attempt_store(driver) as store:
        listing = store.list("data")
        await anext(listing)
        assert listing.cursor is not None
        padded = listing.cursor + "=" * (-len(listing.cursor) % 4)
        content = json.loads(base64.urlsafe_b64decode(padded))
        content[index] = value
        with pytest.raises(CursorError, match="was modified"):
            await store.list("data", cursor=cursor_of(content)).all()


# -- against a model -------------------------------------------------------------------------------

keys = st.text(st.sampled_from("ab/-é\uffff\U0001f4be"), min_size=1, max_size=5)
globs = st.sampled_from(["a*", "*b", "?", "a/*", "**/b", "[^a]*", "é*"])
targets = st.sampled_from(["default", "one", "two"])
routes = st.lists(
    st.builds(Route, globs, targets)
    | st.builds(Route.prefix, keys, targets)
    | st.builds(Route.suffix, keys, targets),
    max_size=4,
)
contents = st.dictionaries(targets, st.sets(keys, max_size=12))


@given(
    routes=routes,
    keys_by_backend=contents,
    prefix=st.just("") | keys,
    delimiter=st.sampled_from([None, "/", "a", "//"]),
    start_after=st.none() | keys,
    page_size=st.integers(1, 6),
    shadowed=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_listing_equals_a_model(
    *,
    routes: list[Route],
    keys_by_backend: dict[str, set[str]],
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    page_size: int,
    shadowed: bool,
) -> None:
    async def main() -> None:
        drivers = {name: CallLog() for name in ("default", "one", "two")}
        for name, driver in drivers.items():
            await fill(driver, "data", *keys_by_backend.get(name, ()))
        default = drivers.pop("default")
        async with single_attempt_store(default, backends=drivers, routes=routes) as store:
            visible = {
                (name, key)
                for name, keys in keys_by_backend.items()
                for key in keys
                if shadowed or (await store.explain("data", key)).backend == name
            }
            reachable = await Router(routes, backends=("one", "two")).reaches("data", prefix)
            entries = await store.list(
                "data",
                prefix=prefix,
                delimiter=delimiter,
                start_after=start_after,
                page_size=page_size,
                include_shadowed=shadowed,
            ).all()
        expected: set[tuple[str, str | None]] = set()
        for name, keys in keys_by_backend.items():
            for key in keys:
                if not key.startswith(prefix):
                    continue
                end = -1 if delimiter is None else key.find(delimiter, len(prefix))
                if end >= 0 and delimiter is not None:
                    if shadowed or name in reachable:
                        expected.add((key[: end + len(delimiter)], None))
                elif (name, key) in visible:
                    expected.add((key, name))
        expected = {(key, name) for key, name in expected if key > (start_after or "")}
        listed = [
            (entry.key, None if isinstance(entry, Prefix) else entry.backend) for entry in entries
        ]
        assert len(listed) == len(set(listed))
        assert set(listed) == expected
        assert [key for key, _ in listed] == sorted(
            (key for key, _ in listed), key=lambda key: key.encode()
        )

    asyncio.run(main())


async def test_prefixes_before_the_cursor_are_looked_up_only_where_the_bucket_exists() -> None:
    default, cold, archive = CallLog(), Unordered(), Unordered()
    await fill(cold, "data", "a/1", "b/1")
    await fill(archive, "data", "a/2", "c/1")
    async with store_over(
        [default, cold, archive], routes=[("x", "cold"), ("y", "archive")]
    ) as store:
        listing = store.list("data", delimiter="/", page_size=1)
        first = await anext(listing)
        remaining = await store.list("data", delimiter="/", cursor=listing.cursor).all()
        assert sorted([first.key, *(entry.key for entry in remaining)]) == ["a/", "b/", "c/"]
