"""Conformance tests of listings: every reachable object once, in order, resumable at any entry.

A store may merge several backends. Users save a cursor and continue in another process, so a cursor
must work after every single entry, not only at page boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trove_async import (
    BucketNotFoundError,
    CursorError,
    InvalidNameError,
    ObjectInfo,
    Prefix,
    Trove,
)
from trove_async.testing.driver.listing import NARROWINGS, TREE, expected
from trove_async.testing.store._base import StoreTopic

INSIDE_COMMON_PREFIX: list[dict[str, Any]] = [
    {"start_after": "a/1", "delimiter": "/"},
    {"start_after": "a/", "delimiter": "/"},
    {"start_after": "b--", "delimiter": "--"},
    {"start_after": "b--1--x", "delimiter": "--", "prefix": "b--"},
]
"""Options with a `start_after` that equals or begins with a common prefix of the listing.

A store must omit that common prefix.
"""


def expected_of_store(names: Sequence[str], **options: str) -> list[str]:
    """Return the entries of `expected`, without those up to and including `start_after`."""
    start = options.pop("start_after", "").encode()
    return [entry for entry in expected(names, **options) if entry.encode() > start]


class StoreListing(StoreTopic):
    """`list`."""

    @pytest.mark.parametrize("page_size", [1000, 1, 2, 7])
    async def test_listing_applies_its_options(
        self, store: Trove, bucket: str, page_size: int
    ) -> None:
        await self._fill(store, bucket)
        for options in [*NARROWINGS, *INSIDE_COMMON_PREFIX]:
            listing = store.list(bucket, page_size=page_size, **options)
            entries = [entry async for entry in listing]
            names = [entry.key for entry in entries]
            # An unordered backend makes the whole listing unordered.
            in_order = names if listing.ordered else sorted(names, key=str.encode)
            assert in_order == expected_of_store(TREE, **options), options
            for entry in entries:
                suffix = entry.key.removeprefix(options.get("prefix", ""))
                # No key contains a NUL.
                assert isinstance(entry, Prefix) == (options.get("delimiter", "\0") in suffix)

    @pytest.mark.parametrize(
        "options",
        [{}, {"delimiter": "/"}, {"prefix": "a"}, {"start_after": "a/2"}],
        ids=str,
    )
    @pytest.mark.parametrize("page_size", [1, 3, 1000])
    async def test_cursor_resumes_after_every_entry(
        self, store: Trove, bucket: str, options: dict[str, Any], page_size: int
    ) -> None:
        await self._fill(store, bucket)
        # On an unordered backend, the order may depend on the page size.
        entries = await store.list(bucket, page_size=page_size, **options).all()
        names = [entry.key for entry in entries]
        assert sorted(names, key=str.encode) == expected(TREE, **options)
        # A cursor after each entry, at page boundaries and between them.
        for count in range(len(names) + 1):
            listing = store.list(bucket, page_size=page_size, **options)
            before = [(await anext(listing)).key for _ in range(count)]
            assert (listing.cursor is None) == (count == 0)
            if listing.cursor is None:
                resumed = store.list(bucket, page_size=page_size, **options)
            else:  # `start_after` cannot be combined with a cursor
                others = {name: value for name, value in options.items() if name != "start_after"}
                resumed = store.list(bucket, page_size=page_size, cursor=listing.cursor, **others)
            after = [entry.key async for entry in resumed]
            assert before + after == names, f"resumed after {count} entries"
            assert resumed.cursor is None

    async def test_cursor_is_refused_by_other_listings(
        self, store: Trove, bucket: str, other_bucket: str
    ) -> None:
        await self._fill(store, bucket)
        listing = store.list(bucket)
        await anext(listing)
        others: list[tuple[str, dict[str, Any]]] = [
            (bucket, {"prefix": "a"}),
            (bucket, {"delimiter": "/"}),
            (other_bucket, {}),
        ]
        for name, options in others:
            with pytest.raises(CursorError):
                await store.list(name, cursor=listing.cursor, **options).all()
        # "W10" is the base64 of an empty JSON list.
        for nonsense in ("", "x", "\u00e9", "W10"):
            with pytest.raises(CursorError):
                await store.list(bucket, cursor=nonsense).all()

    @pytest.mark.parametrize("page_size", [1, 2, 5, 1000])
    async def test_pages_have_at_most_their_size(
        self, store: Trove, bucket: str, page_size: int
    ) -> None:
        await self._fill(store, bucket)
        pages = [page async for page in store.list(bucket, page_size=page_size).pages()]
        assert all(1 <= len(page) <= page_size for page in pages)
        names = [entry.key for page in pages for entry in page]
        assert sorted(names, key=str.encode) == expected(TREE)

    @pytest.mark.parametrize("page_size", [1, 2, 5, 1000])
    async def test_cursor_is_none_once_the_listing_has_ended(
        self, store: Trove, bucket: str, page_size: int
    ) -> None:
        keys = [f"{number:02}" for number in range(7)]
        for key in keys:
            await store.put(bucket, key, b"")
        listing = store.list(bucket, page_size=page_size)
        count = 0
        async for page in listing.pages():
            count += len(page)
            # Only a page that is not full is known to be the last one.
            assert (listing.cursor is None) == (len(page) < page_size)
        assert count == len(keys)
        assert listing.cursor is None
        listing = store.list(bucket, page_size=page_size)
        first = await anext(listing)
        cursor = listing.cursor
        assert cursor is not None
        assert len(await listing.all()) == len(keys) - 1
        assert listing.cursor is None
        resumed = store.list(bucket, page_size=page_size, cursor=cursor)
        assert resumed.cursor == cursor
        assert first.key not in {entry.key async for entry in resumed}
        assert resumed.cursor is None

    async def test_listing_reports_the_backend_of_each_object(
        self, store: Trove, bucket: str
    ) -> None:
        await self._fill(store, bucket)
        async for entry in store.list(bucket):
            head = await store.head(bucket, entry.key)
            assert (entry.bucket, entry.size, entry.etag) == (bucket, head.size, head.etag)
            assert entry.backend == head.backend
            assert entry.backend == (await store.explain(bucket, entry.key)).backend

    async def test_details_are_complete(self, store: Trove, bucket: str) -> None:
        await self._fill(store, bucket)
        entries = await store.list(bucket, details=True, page_size=4).all()
        assert all(entry.complete for entry in entries)
        assert {entry.key for entry in entries} == set(TREE)
        listing = store.list(bucket, details=True, delimiter="/")
        kinds = {type(entry) for entry in await listing.all()}
        assert kinds == {ObjectInfo, Prefix}

    async def test_listing_of_nothing_is_empty(self, store: Trove, bucket: str) -> None:
        listing = store.list(bucket)
        assert await listing.all() == []
        assert listing.cursor is None
        assert [page async for page in store.list(bucket, prefix="x").pages()] == []

    async def test_listing_of_a_missing_bucket_raises(self, store: Trove) -> None:
        listing = store.list(self.bucket_name())  # sends no request yet
        with pytest.raises(BucketNotFoundError):
            await listing.all()

    async def test_ended_listing_stays_empty(self, store: Trove, bucket: str) -> None:
        await store.put(bucket, "key", b"")
        listing = store.list(bucket)
        assert [entry.key async for entry in listing] == ["key"]
        assert [entry.key async for entry in listing] == []

    async def test_objects_can_be_deleted_while_listing(self, store: Trove, bucket: str) -> None:
        await self._fill(store, bucket)
        listed = []
        async for entry in store.list(bucket, page_size=2):
            # The next page is fetched ahead. It must not depend on the deleted keys.
            await store.delete(bucket, entry.key)
            listed.append(entry.key)
        assert sorted(listed, key=str.encode) == expected(TREE)
        assert await store.list(bucket).all() == []

    async def test_invalid_listing_is_refused_immediately(self, store: Trove, bucket: str) -> None:
        with pytest.raises(ValueError, match="page_size"):
            store.list(bucket, page_size=0)
        with pytest.raises(ValueError, match="delimiter"):
            store.list(bucket, delimiter="")
        with pytest.raises(ValueError, match="cursor"):
            store.list(bucket, cursor="x", start_after="y")
        with pytest.raises(InvalidNameError):
            store.list(bucket, prefix="\ud800")

    async def _fill(self, store: Trove, bucket: str) -> None:
        # In reverse order: a listing in the order of the puts must fail.
        for key in reversed(TREE):
            await store.put(bucket, key, b"")
