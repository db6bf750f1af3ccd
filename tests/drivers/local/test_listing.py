"""Listings, compared with sorted keys page by page, and the directory snapshots they keep."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trove_async._names import check_key
from trove_async.drivers.local._snapshots import Snapshots
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


def _expected(some: set[str], options: ListOptions) -> list[str]:
    found: list[str] = []
    for key in sorted(some):
        if not key.startswith(options.prefix):
            continue
        if options.start_after is not None and key <= options.start_after:
            continue
        at = key.find(options.delimiter, len(options.prefix)) if options.delimiter else -1
        entry = key if at < 0 else key[: at + 1]
        if not found or found[-1] != entry:
            found.append(entry)
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some=st.sets(keys, max_size=12),
    prefix=st.one_of(st.just(""), st.text("ab/", max_size=3)),
    delimiter=st.sampled_from([None, "/", "b"]),
    start_after=st.none() | keys,
    limit=st.integers(1, 13),
)
async def test_pages_are_the_sorted_keys(  # noqa: PLR0917 - arguments from hypothesis
    tmp_path: Path,
    open_client: OpenClient,
    some: set[str],
    prefix: str,
    delimiter: str | None,
    start_after: str | None,
    limit: int,
) -> None:
    async with open_client(tmp_path) as client:
        for key in some:
            await client.put(key, key.encode())
        options = ListOptions(
            prefix=prefix, delimiter=delimiter, start_after=start_after, limit=limit
        )
        found: list[str] = []
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
            found.extend(entry.key for entry in page.entries)
            token = page.token
            if token is None:
                break
            assert page.entries
        assert found == _expected(some, options)
        for key in some:
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
    rest = await client.driver.list_page("b", ListOptions(token=page.token))
    assert [entry.key for entry in rest.entries] == ["d10"] + [f"d{n}/k" for n in range(15, 20)]


async def test_changed_directory_is_read_again(client: BucketClient) -> None:
    await client.put("d/a")
    await client.put("d/c")
    directory = client.bucket / "d"
    # A directory that changed recently is not kept: set its times back.
    past = time.time_ns() - 10**10
    os.utime(directory, ns=(past, past))
    snapshots = client.driver._root.snapshots  # type: ignore[union-attr]
    snapshots._tick = -(10**12)
    assert await client.keys() == ["d/a", "d/c"]
    assert await client.keys() == ["d/a", "d/c"]
    assert snapshots._kept
    await client.put("d/b")
    assert await client.keys() == ["d/a", "d/b", "d/c"]


def _status(*, ino: int, mtime_ns: int) -> os.stat_result:
    return os.stat_result(
        (0o40700, ino, 1, 2, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": mtime_ns, "st_ctime_ns": mtime_ns}
    )


def test_snapshots_are_bounded_and_the_oldest_is_dropped() -> None:
    snapshots = Snapshots(tick=0, limit=10)
    old = [_status(ino=number, mtime_ns=1) for number in range(4)]
    for status in old[:3]:
        snapshots.add("plain", status, ["a", "b", "c"])
    assert snapshots.get("plain", old[0]) is None
    assert snapshots.get("plain", old[2]) == ["a", "b", "c"]
    assert snapshots.get("overflow", old[2]) is None
    snapshots.add("plain", old[3], ["n"] * 11)
    assert snapshots.get("plain", old[3]) is None
    snapshots.add("plain", old[2], ["a"])
    assert snapshots.get("plain", old[2]) == ["a"]


def test_recently_changed_directory_is_not_kept() -> None:
    snapshots = Snapshots(tick=10**9)
    young = _status(ino=1, mtime_ns=time.time_ns())
    snapshots.add("plain", young, ["a"])
    assert snapshots.get("plain", young) is None


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
