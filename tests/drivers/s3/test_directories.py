"""Listings of a service that walks directories, on a real one and on a model of it."""

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
from trove_async.drivers.s3._directories import holds_none, marker_before, page_of
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
AFTER = [None, "a", "a/", "a/1", "a/2", "a-", "b!", "b/2", "c", "z", "z/", "zz", "/a", "a//1"]


def wanted(keys: Iterable[str], options: ListOptions) -> list[str]:
    """The keys and prefixes of a listing, as the contract has it, in bytewise order."""
    after = options.start_after or ""
    found = {
        common_prefix(key, options) or key
        for key in keys
        if key.startswith(options.prefix) and key > after
    }
    return sorted(one for one in found if one > after)


async def filled(store: Trove, keys: Iterable[str]) -> str:
    bucket = f"walk-{uuid4().hex[:20]}"
    await store.create_bucket(bucket)
    # One after the other: SeaweedFS 4.48 loses `z/1` now and then when `z` is put at the same time.
    for key in keys:
        await store.put(bucket, key, b"x")
    return bucket


async def listed(store: Trove, bucket: str, options: ListOptions) -> list[str]:
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
async def test_every_listing_of_seaweedfs_is_exact(seaweed: S3Server, limit: int) -> None:
    async with Trove(driver_of(seaweed)) as store:
        bucket = await filled(store, KEYS)
        for prefix, delimiter, after in product(PREFIXES, DELIMITERS, AFTER):
            options = ListOptions(
                prefix=prefix, delimiter=delimiter, start_after=after, limit=limit
            )
            found = await listed(store, bucket, options)
            assert sorted(found) == wanted(KEYS, options), options


async def test_object_below_the_last_one_of_a_full_page_is_listed(seaweed: S3Server) -> None:
    keys = [*(f"a{number:03}" for number in range(99)), "z", "z/1", "z/2"]
    async with Trove(driver_of(seaweed)) as store:
        bucket = await filled(store, keys)
        assert sorted(await listed(store, bucket, ListOptions(limit=100))) == keys


@pytest.mark.parametrize("prefix", ["", "a//"])
@pytest.mark.parametrize("after", [None, "z"])
async def test_listing_of_a_missing_bucket_says_so(
    seaweed: S3Server, prefix: str, after: str | None
) -> None:
    async with Trove(driver_of(seaweed)) as store:
        with pytest.raises(BucketNotFoundError):
            await store.list("nothing-here", prefix=prefix, start_after=after).all()


# -- a model ---------------------------------------------------------------------------------------

MOMENT = datetime(2026, 11, 28, tzinfo=UTC)


@dataclass
class Walk:
    """SeaweedFS's recursive listing: of paths, segment by segment, with what it loses."""

    keys: Sequence[str]
    requests: int = 0
    orders: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.orders = sorted(self.keys, key=lambda key: key.split("/"))

    async def __call__(self, bucket: str, options: ListOptions) -> Page:
        self.requests += 1
        assert options.delimiter is None
        marker = options.token if options.token is not None else options.start_after
        keys = [key for key in self.orders if key.startswith(options.prefix)]
        if marker is not None:
            assert marker.startswith(options.prefix)
            below = marker.endswith("/")
            at = marker.rstrip("/")
            keys = [
                key
                for key in keys
                if key.split("/") > at.split("/") and (below or not key.startswith(f"{at}/"))
            ]
        page, rest = keys[: options.limit], keys[options.limit :]
        if page and all(key.startswith(f"{page[-1]}/") for key in rest):
            rest = []  # lost
        entries: list[Entry] = [
            ObjectInfo(bucket=bucket, key=key, size=1, etag="e", last_modified=MOMENT)
            for key in page
        ]
        return Page(entries=entries, token=f"{page[-1]}/" if rest else None)


segments = st.text("ab/-%!.é", min_size=1, max_size=7).filter(
    lambda key: not holds_none(key) and not key.endswith("/")
)


@given(
    keys=st.sets(segments, max_size=12),
    prefix=st.one_of(st.just(""), st.text("ab/-", max_size=3)).filter(
        lambda text: not holds_none(text)
    ),
    after=st.one_of(st.none(), segments, st.text("ab/-\\", max_size=4)),
    delimiter=st.sampled_from([None, "%", "-", "a", "a/", "/b"]),
    limit=st.integers(1, 5),
)
async def test_pages_have_every_key_once(
    keys: set[str], prefix: str, after: str | None, delimiter: str | None, limit: int
) -> None:
    walk = Walk(sorted(keys))
    options = ListOptions(prefix=prefix, delimiter=delimiter, start_after=after, limit=limit)
    found: list[str] = []
    token: str | None = None
    while True:
        page = await page_of(
            walk,
            "bucket",
            ListOptions(
                prefix=prefix, delimiter=delimiter, start_after=after, limit=limit, token=token
            ),
        )
        found += [entry.key for entry in page.entries if entry.key > (after or "")]
        token = page.token
        if token is None:
            break
    assert sorted(found) == wanted(keys, options)


@pytest.mark.parametrize(("keys", "requests"), [(25, 3), (20, 3), (9, 1), (0, 1)])
async def test_listing_costs_a_request_a_page_and_one_if_the_last_is_full(
    keys: int, requests: int
) -> None:
    walk = Walk([f"key{number:02}" for number in range(keys)])
    token: str | None = None
    found = 0
    while True:
        page = await page_of(walk, "bucket", ListOptions(limit=10, token=token))
        found += len(page.entries)
        token = page.token
        if token is None:
            break
    assert found == keys
    assert walk.requests == requests


@given(segments, segments)
def test_marker_lies_before_every_greater_key(after: str, key: str) -> None:
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
def test_marker_skips_what_it_can(after: str, delimiter: str | None, marker: str | None) -> None:
    assert marker_before(ListOptions(start_after=after, delimiter=delimiter)) == marker
