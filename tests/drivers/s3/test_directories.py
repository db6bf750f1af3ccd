"""Listings in the order of directories: by SeaweedFS, and by a model of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.s3.test_conformance import driver_of
from trove_async import BucketNotFoundError, Prefix, Trove
from trove_async.drivers.s3._directories import excludes_all, marker_before, page_from_directories
from trove_async.models import ObjectInfo
from trove_async.options import ListOptions, Page
from trove_async.paging import common_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trove_async.models import Entry
    from trove_async.testing.servers import S3Server

KEYS = [
    "a", "a/1", "a/2", "a/2/3", "a-", "a-/x", "a b", "a%b", "a%b/c", "ab/c",
    "b/1", "b/2", "b/2/3", "b!", "c+d/e", "c+f", "z", "z/1", "z/1/2",
]  # fmt: skip
PREFIXES = ["", "a", "a/", "a/2", "a/2/", "b/", "z", "z/", "c+", "a//", "/a", "//", "b\\"]
DELIMITERS = [None, "/", "%", "+", " ", "-", "/2", "//"]
START_AFTER = [None, "a", "a/", "a/1", "a/2", "a-", "b!", "b/2", "c", "z", "z/", "zz", "/a", "a//1"]


def expected_entries(keys: Iterable[str], options: ListOptions) -> list[str]:
    """Return the keys and prefixes that a listing must contain, in bytewise order."""
    after = options.start_after or ""
    entries = {
        common_prefix(key, options) or key
        for key in keys
        if key.startswith(options.prefix) and key > after
    }
    return sorted(entry for entry in entries if entry > after)


async def create_bucket_with(store: Trove, keys: Iterable[str]) -> str:
    bucket = f"listing-{uuid4().hex[:20]}"
    await store.create_bucket(bucket)
    # One after the other: SeaweedFS 4.48 sometimes loses `z/1` when `z` is put concurrently.
    for key in keys:
        await store.put(bucket, key, b"x")
    return bucket


async def list_entries(store: Trove, bucket: str, options: ListOptions) -> list[str]:
    entries = await store.list(
        bucket,
        prefix=options.prefix,
        delimiter=options.delimiter,
        start_after=options.start_after,
        page_size=options.limit,
    ).all()
    return [entry.prefix if isinstance(entry, Prefix) else entry.key for entry in entries]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_listings_of_seaweedfs_are_exact(seaweed: S3Server, limit: int) -> None:
    async with Trove(driver_of(seaweed)) as store:
        bucket = await create_bucket_with(store, KEYS)
        for prefix, delimiter, after in product(PREFIXES, DELIMITERS, START_AFTER):
            options = ListOptions(
                prefix=prefix, delimiter=delimiter, start_after=after, limit=limit
            )
            entries = await list_entries(store, bucket, options)
            assert sorted(entries) == expected_entries(KEYS, options), options


async def test_key_below_the_last_key_of_a_full_page_is_listed(seaweed: S3Server) -> None:
    keys = [*(f"a{number:03}" for number in range(99)), "z", "z/1", "z/2"]
    async with Trove(driver_of(seaweed)) as store:
        bucket = await create_bucket_with(store, keys)
        assert sorted(await list_entries(store, bucket, ListOptions(limit=100))) == keys


@pytest.mark.parametrize("prefix", ["", "a//"])
@pytest.mark.parametrize("after", [None, "z"])
async def test_listing_of_a_missing_bucket_raises(
    seaweed: S3Server, prefix: str, after: str | None
) -> None:
    async with Trove(driver_of(seaweed)) as store:
        with pytest.raises(BucketNotFoundError):
            await store.list("nothing-here", prefix=prefix, start_after=after).all()


# -- model -----------------------------------------------------------------------------------------

MOMENT = datetime(2026, 11, 28, tzinfo=UTC)


@dataclass
class DirectoryListing:
    """A model of SeaweedFS's recursive listing.

    Keys are in the order of their path segments. If a full page ends with a key and only keys below
    that key remain, the listing loses them.

    Attributes:
        keys: The keys in the bucket.
        request_count: The number of pages requested.
        ordered_keys: The keys in the order of the listing.
    """

    keys: Sequence[str]
    request_count: int = 0
    ordered_keys: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.ordered_keys = sorted(self.keys, key=lambda key: key.split("/"))

    async def __call__(self, bucket: str, options: ListOptions) -> Page:
        self.request_count += 1
        assert options.delimiter is None
        marker = options.token if options.token is not None else options.start_after
        keys = [key for key in self.ordered_keys if key.startswith(options.prefix)]
        if marker is not None:
            assert marker.startswith(options.prefix)
            includes_children = marker.endswith("/")
            path = marker.rstrip("/")
            keys = [
                key
                for key in keys
                if key.split("/") > path.split("/")
                and (includes_children or not key.startswith(f"{path}/"))
            ]
        page, remaining = keys[: options.limit], keys[options.limit :]
        if page and all(key.startswith(f"{page[-1]}/") for key in remaining):
            remaining = []
        entries: list[Entry] = [
            ObjectInfo(bucket=bucket, key=key, size=1, etag="e", last_modified=MOMENT)
            for key in page
        ]
        return Page(entries=entries, token=f"{page[-1]}/" if remaining else None)


paths = st.text("ab/-%!.é", min_size=1, max_size=7).filter(
    lambda key: not excludes_all(key) and not key.endswith("/")
)


@given(
    keys=st.sets(paths, max_size=12),
    prefix=st.one_of(st.just(""), st.text("ab/-", max_size=3)).filter(
        lambda text: not excludes_all(text)
    ),
    after=st.one_of(st.none(), paths, st.text("ab/-\\", max_size=4)),
    delimiter=st.sampled_from([None, "%", "-", "a", "a/", "/b"]),
    limit=st.integers(1, 5),
)
async def test_pages_contain_every_entry_once(
    keys: set[str], prefix: str, after: str | None, delimiter: str | None, limit: int
) -> None:
    listing = DirectoryListing(sorted(keys))
    options = ListOptions(prefix=prefix, delimiter=delimiter, start_after=after, limit=limit)
    keys_listed: list[str] = []
    token: str | None = None
    while True:
        page = await page_from_directories(
            listing,
            "bucket",
            ListOptions(
                prefix=prefix, delimiter=delimiter, start_after=after, limit=limit, token=token
            ),
        )
        # A prefix that is not greater than `after` may be listed as well.
        keys_listed += [entry.key for entry in page.entries if entry.key > (after or "")]
        token = page.token
        if token is None:
            break
    assert sorted(keys_listed) == expected_entries(keys, options)


@pytest.mark.parametrize(("key_count", "request_count"), [(25, 3), (20, 3), (9, 1), (0, 1)])
async def test_listing_takes_one_request_per_page_and_one_more_after_a_full_last_page(
    key_count: int, request_count: int
) -> None:
    listing = DirectoryListing([f"key{number:02}" for number in range(key_count)])
    token: str | None = None
    entry_count = 0
    while True:
        page = await page_from_directories(listing, "bucket", ListOptions(limit=10, token=token))
        entry_count += len(page.entries)
        token = page.token
        if token is None:
            break
    assert entry_count == key_count
    assert listing.request_count == request_count


@given(paths, paths)
def test_marker_precedes_every_greater_key(after: str, key: str) -> None:
    marker = marker_before(ListOptions(start_after=after))
    if marker is not None and key > after:
        assert marker.endswith("/")
        assert key.split("/") > marker.rstrip("/").split("/")


@pytest.mark.parametrize(
    ("after", "delimiter", "marker"),
    [
        ("data/file07", None, "data/file07/"),
        ("data/file07", "/", "data/file0"),
        ("2024-11-05", None, "2024/"),
        ("b/", None, "b/"),
        ("b/-", None, "b/"),
        ("a//b", None, "a/"),
        ("/a", None, None),
        ("-a", None, None),
        ("a", "/", None),
    ],
)
def test_marker_skips_as_many_keys_as_possible(
    after: str, delimiter: str | None, marker: str | None
) -> None:
    assert marker_before(ListOptions(start_after=after, delimiter=delimiter)) == marker
