"""Conformance tests of listings: every key once, in order, for every page size and option.

A store merges the listings of several backends and resumes them by token. A wrong order, or a wrong
page boundary, would therefore lose or repeat objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from trove_async.driver import AsyncDriver
from trove_async.models import ObjectInfo, Prefix
from trove_async.options import ListOptions
from trove_async.testing._harness import delete, keys, list_all, write
from trove_async.testing.driver._base import DriverTopic

TREE = [
    "a",
    "a-b",
    "a.txt",
    "a/1",
    "a/2",
    "a/b/1",
    "a/b/2",
    "a0",
    "ab/c/d",
    "b--1--x",
    "b--1--y",
    "b--2",
    "b/1",
    "z",
    "é/1",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\U0010ffff/1",
    "\U0010ffff/2",
]
"""Keys whose order by UTF-8 bytes differs from their order by segments, by UTF-16 and by locale."""

NARROWINGS: list[dict[str, Any]] = [
    {},
    {"prefix": "a"},
    {"prefix": "a/"},
    {"prefix": "a/b"},
    {"prefix": "a/b/"},
    {"prefix": "a/b/1"},
    {"prefix": "a/b/1/"},
    {"prefix": "b-"},
    {"prefix": "nothing"},
    {"prefix": "zz"},
    {"prefix": "é"},
    {"prefix": "\uffff"},
    {"prefix": "\U00010000"},
    {"prefix": "\U0010ffff"},
    {"delimiter": "/"},
    {"delimiter": "/", "prefix": "a"},
    {"delimiter": "/", "prefix": "a/"},
    {"delimiter": "/", "prefix": "a/b"},
    {"delimiter": "/", "prefix": "a/b/"},
    {"delimiter": "/", "prefix": "\U0010ffff"},
    {"delimiter": "-"},
    {"delimiter": "--"},
    {"delimiter": "--", "prefix": "b-"},
    {"delimiter": "--", "prefix": "b--"},
    {"delimiter": "\U0010ffff"},
    {"delimiter": "none of them"},
    {"start_after": "\x01"},
    {"start_after": "a"},
    {"start_after": "a/"},
    {"start_after": "a/b/1"},
    {"start_after": "a/b/15"},
    {"start_after": "\uffff"},
    {"start_after": "\U0010ffff/2"},
    {"start_after": "\U0010ffff/3"},
    {"start_after": "a/1", "prefix": "a/"},
    {"start_after": "a", "prefix": "b"},
    {"start_after": "b", "prefix": "a"},
    {"start_after": "a/2", "delimiter": "/", "prefix": "a/"},
    {"start_after": "a0", "delimiter": "/"},
    {"start_after": "b--1--x", "delimiter": "--"},
]
"""Options for listings of `TREE`. `expected` returns the entries that a listing must have."""


def expected(
    names: Iterable[str], *, prefix: str = "", delimiter: str = "", start_after: str = ""
) -> list[str]:
    """Return the keys and common prefixes that a listing of `names` must have, in order."""
    listed = set()
    for name in names:
        if name.startswith(prefix) and name.encode() > start_after.encode():
            position = name.find(delimiter, len(prefix)) if delimiter else -1
            listed.add(name if position < 0 else name[: position + len(delimiter)])
    return sorted(listed, key=str.encode)


class DriverListing(DriverTopic):
    """`list_page` with every option."""

    async def test_listing_of_an_empty_bucket_is_one_empty_page(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        for options in (ListOptions(), ListOptions(prefix="a", delimiter="/", limit=1)):
            page = await backend.list_page(bucket, options)
            assert (list(page.entries), page.token) == ([], None)

    async def test_listing_applies_prefix_delimiter_and_start_after(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await self._fill(backend, bucket)
        for options in NARROWINGS:
            # Small limits put a page boundary after every entry, also after every common prefix.
            for limit in (1000, 1, 2, 3):
                entries = await list_all(backend, bucket, limit=limit, **options)
                self._assert_listed(backend, entries, expected(TREE, **options))
                for entry in entries:
                    suffix = entry.key.removeprefix(options.get("prefix", ""))
                    is_prefix = options.get("delimiter", "\0") in suffix  # no key contains a NUL
                    assert isinstance(entry, Prefix) == is_prefix, f"{entry} of {options}"

    async def test_listing_is_the_same_for_every_page_size(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await self._fill(backend, bucket)
        for limit in range(1, len(TREE) + 2):
            self._assert_listed(
                backend, await list_all(backend, bucket, limit=limit), expected(TREE)
            )
            self._assert_listed(
                backend,
                await list_all(backend, bucket, limit=limit, delimiter="/"),
                expected(TREE, delimiter="/"),
            )

    async def test_page_with_all_entries_has_no_token(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "a")
        await write(backend, bucket, "b/1")
        await write(backend, bucket, "b/2")
        for options in (ListOptions(limit=3), ListOptions(limit=4), ListOptions()):
            page = await backend.list_page(bucket, options)
            if len(page.entries) == 3:  # a page may have fewer entries than its limit
                assert page.token is None

    async def test_listing_and_head_agree(self, backend: AsyncDriver, bucket: str) -> None:
        for key in ("a", "dir/b", "dir/empty"):
            await write(backend, bucket, key, b"" if "empty" in key else key.encode())
        for entry in await list_all(backend, bucket):
            assert isinstance(entry, ObjectInfo)
            head = await backend.head(bucket, entry.key)
            assert (entry.bucket, entry.size, entry.stored_size, entry.etag) == (
                head.bucket,
                head.size,
                head.stored_size,
                head.etag,
            )
            # Some services report whole seconds in headers, but milliseconds in listings.
            assert entry.last_modified.replace(microsecond=0) == head.last_modified.replace(
                microsecond=0
            )
            if entry.complete:
                assert entry == head

    async def test_common_prefix_has_the_bucket_name(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "dir/a")
        await write(backend, bucket, "dir/b")
        (prefix,) = await list_all(backend, bucket, delimiter="/")
        assert isinstance(prefix, Prefix)
        assert (prefix.bucket, prefix.prefix) == (bucket, "dir/")

    async def test_listing_omits_objects_of_other_buckets(
        self, backend: AsyncDriver, bucket: str, other_bucket: str
    ) -> None:
        await write(backend, bucket, "first")
        await write(backend, other_bucket, "second")
        assert await keys(backend, bucket) == ["first"]
        assert await keys(backend, other_bucket) == ["second"]

    async def test_token_takes_precedence_over_start_after(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        for key in "abcdef":
            await write(backend, bucket, key)
        # `keys` passes start_after together with every token.
        listed = await keys(backend, bucket, start_after="b", limit=1)
        assert sorted(listed) == ["c", "d", "e", "f"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_listing_continues_after_deletions(
        self, backend: AsyncDriver, bucket: str, limit: int
    ) -> None:
        names = [f"{number:02}" for number in range(24)]
        for key in names:
            await write(backend, bucket, key)
        survivors = [key for number, key in enumerate(names) if number % 3 != 1]
        doomed = iter([key for key in names if key not in survivors])

        async def remove_one() -> None:
            key = next(doomed, None)
            if key is not None:
                await delete(backend, bucket, key)

        listed = await keys(backend, bucket, limit=limit, between=remove_one)
        assert len(listed) == len(set(listed)), "a key is listed twice"
        assert set(survivors) <= set(listed), "a key that was never deleted is missing"

    async def test_listing_continues_after_deletion_of_the_next_key(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        for key in ("a", "b", "c", "d"):
            await write(backend, bucket, key)
        first = await backend.list_page(bucket, ListOptions(limit=2))
        listed = {entry.key for entry in first.entries}
        remaining = sorted({"a", "b", "c", "d"} - listed)
        # A token may contain the key to continue with, and that key may be deleted.
        await delete(backend, bucket, remaining[0])
        assert first.token is not None
        page = await backend.list_page(bucket, ListOptions(token=first.token))
        assert sorted(entry.key for entry in page.entries) == remaining[1:]

    async def test_listing_continues_while_objects_are_put(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        names = [f"{number:02}" for number in range(12)]
        for key in names:
            await write(backend, bucket, key)
        new_keys = iter([f"{number:02}-new" for number in range(12)])

        async def add_one() -> None:
            await write(backend, bucket, next(new_keys))

        listed = await keys(backend, bucket, limit=5, between=add_one)
        # A new key may or may not be listed, but no old key may be repeated or skipped.
        assert len(listed) == len(set(listed))
        assert set(names) <= set(listed)

    async def test_listing_reflects_puts_and_deletes(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        existing: set[str] = set()
        # Each of twenty keys is put, deleted and put again.
        for number in range(60):
            key = f"{number * 7 % 20:02}"
            if key in existing:
                await delete(backend, bucket, key)
                existing.remove(key)
            else:
                await write(backend, bucket, key)
                existing.add(key)
            if number % 4 == 0:
                assert sorted(await keys(backend, bucket)) == sorted(existing)
        assert sorted(await keys(backend, bucket)) == sorted(existing)

    async def _fill(self, backend: AsyncDriver, bucket: str) -> None:
        # In reverse order: a listing in the order of the puts must fail.
        for key in reversed(TREE):
            await write(backend, bucket, key, b"")

    def _assert_listed(
        self, backend: AsyncDriver, entries: list[ObjectInfo | Prefix], names: list[str]
    ) -> None:
        listed = [entry.key for entry in entries]
        # Some services list directory by directory, which differs from the order of the keys.
        if not backend.capabilities.ordered:
            listed.sort(key=str.encode)
        assert listed == names
