"""Listings, compared page by page with sorted keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trove_async._names import check_key
from trove_async.errors import InvalidNameError
from trove_async.models import Prefix
from trove_async.options import DeleteOptions, ListOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.drivers.local.conftest import BucketClient

    OpenClient = Callable[..., AbstractAsyncContextManager[BucketClient]]


def _is_key(key: str) -> bool:
    try:
        check_key("b", key)
    except InvalidNameError:
        return False
    return True


keys = st.one_of(
    st.text("ab/.é-", min_size=1, max_size=8),
    st.text("a/", min_size=60, max_size=140),
).filter(_is_key)


def _expected_entries(stored: set[str], options: ListOptions) -> list[str]:
    entries: list[str] = []
    for key in sorted(stored):
        if not key.startswith(options.prefix):
            continue
        if options.start_after is not None and key <= options.start_after:
            continue
        end = key.find(options.delimiter, len(options.prefix)) if options.delimiter else -1
        entry = key if end < 0 else key[: end + 1]
        if not entries or entries[-1] != entry:
            entries.append(entry)
    return entries


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=st.sets(keys, max_size=12),
    prefix=st.one_of(st.just(""), st.text("ab/", max_size=3)),
    delimiter=st.sampled_from([None, "/", "b"]),
    start_after=st.none() | keys,
    limit=st.integers(1, 13),
)
async def test_pages_are_the_sorted_keys(  # noqa: PLR0917 - arguments from hypothesis
    tmp_path: Path,
    open_client: OpenClient,
    stored: set[str],
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    limit: int,
) -> None:
    async with open_client(tmp_path) as client:
        for key in stored:
            await client.put(key, key.encode())
        options = ListOptions(
            prefix=prefix, delimiter=delimiter, start_after=start_after, limit=limit
        )
        listed: list[str] = []
        token = None
        while True:
            page = await client.driver.list_page(
                "b",
                ListOptions(
                    prefix=prefix,
                    delimiter=delimiter,
                    start_after=start_after,
                    limit=limit,
                    token=token,
                ),
            )
            assert len(page.entries) <= limit
            listed.extend(entry.key for entry in page.entries)
            token = page.token
            if token is None:
                break
            assert page.entries
        assert listed == _expected_entries(stored, options)
        for key in stored:
            await client.driver.delete("b", key, DeleteOptions())
        assert list(client.bucket.iterdir()) == []


async def test_prefixes_and_objects_are_listed_in_order(any_client: BucketClient) -> None:
    for key in ["a.b", "a/b", "a/c", "a0", "a", "b/", "c//d"]:
        await any_client.put(key)
    entries = await any_client.entries(delimiter="/", limit=2)
    assert [(entry.key, isinstance(entry, Prefix)) for entry in entries] == [
        ("a", False),
        ("a.b", False),
        ("a/", True),
        ("a0", False),
        ("b/", True),
        ("c/", True),
    ]


async def test_listing_continues_while_directories_change(client: BucketClient) -> None:
    for number in range(20):
        await client.put(f"d{number:02}/k")
    page = await client.driver.list_page("b", ListOptions(limit=5))
    for number in range(3, 15):
        await client.driver.delete("b", f"d{number:02}/k", DeleteOptions())
    await client.put("d10", b"a file where a directory was")
    next_page = await client.driver.list_page("b", ListOptions(token=page.token))
    assert [entry.key for entry in next_page.entries] == ["d10"] + [
        f"d{n}/k" for n in range(15, 20)
    ]


async def test_overflow_names_that_encode_no_key_are_skipped(client: BucketClient) -> None:
    await client.put("dir/")
    top = client.root / ".trove/overflow/b"
    for name in ["X.o", "a", "%ff.o", ".o", "%zz.o", "a" * 65 + ".o", "%41.tmp"]:
        (top / name).write_bytes(b"")
    (top / "short").mkdir()
    (top / "short/x.o").write_bytes(b"")
    (top / "link.o").symlink_to("a")
    assert await client.keys() == ["dir/"]


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_files_between_directories_are_listed(client: BucketClient, limit: int) -> None:
    names = ["a/x/1", "a/y", "a/z/1", "b", "c/1", "d", "e/f/g/h", "e/i"]
    for name in names:
        await client.put(name)
    assert await client.keys(limit=limit) == names
