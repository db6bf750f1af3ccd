"""Splits cover every key exactly once, wherever the keys are, with a bounded number of requests."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.jobs._ranges import KeyRange, find_split

if TYPE_CHECKING:
    from collections.abc import Sequence


class Listing:
    """A listing of sorted keys that counts its requests."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = sorted(keys)
        self.requests = 0

    async def first_after(self, key: str) -> str | None:
        self.requests += 1
        index = bisect_right(self.keys, key)
        return self.keys[index] if index < len(self.keys) else None

    def within(self, key_range: KeyRange) -> list[str]:
        return [key for key in self.keys if key in key_range]


def split(listing: Listing, key_range: KeyRange) -> tuple[KeyRange, KeyRange] | None:
    found = asyncio.run(find_split(key_range, listing.first_after))
    if found.point is None:
        return None
    return KeyRange(key_range.start_after, found.point), KeyRange(found.point, found.until)


@pytest.mark.parametrize(
    ("keys", "worst"),
    [
        ([f"{number:07}" for number in range(10_000)], 0.7),
        ([f"logs/2026/11/{number:07}.json" for number in range(10_000)], 0.7),
        ([f"a/{number:04}" for number in range(5000)] + [f"z/{n:04}" for n in range(5000)], 0.7),
        ([f"ü{number:03}" for number in range(1000)], 0.7),
        (["a", "b"], 0.5),
    ],
    ids=["numbers", "prefixed numbers", "two folders", "not ASCII", "two keys"],
)
def test_halves_of_usual_keys_are_not_empty(keys: list[str], worst: float) -> None:
    listing = Listing(keys)
    halves = split(listing, KeyRange())
    assert halves is not None
    sizes = [len(listing.within(half)) for half in halves]
    assert sum(sizes) == len(keys)
    assert 0 < max(sizes) <= worst * len(keys)
    assert listing.requests < 48


def test_remaining_half_of_a_range_that_is_being_walked_is_split() -> None:
    listing = Listing([f"k{number:05}" for number in range(10_000)])
    halves = split(listing, KeyRange("k02000"))
    assert halves is not None
    assert sum(len(listing.within(half)) for half in halves) == 7999
    assert len(listing.within(halves[1])) >= 3000


@pytest.mark.parametrize("keys", [[], ["only"], ["k" * 1000]])
def test_range_of_at_most_one_key_is_not_split(keys: list[str]) -> None:
    listing = Listing(keys)
    assert split(listing, KeyRange()) is None
    assert listing.requests <= 48


def test_common_prefix_longer_than_the_search_ends_it() -> None:
    listing = Listing(["x" * 900 + "a", "x" * 900 + "b"])
    assert split(listing, KeyRange()) is None
    assert listing.requests <= 48


def test_smaller_half_is_followed_by_more_splits_until_all_keys_are_divided() -> None:
    listing = Listing([f"a/b/{n:05}" for n in range(5000)] + ["z"])
    waiting = [KeyRange()]
    while len(waiting) < 16:
        waiting.sort(key=lambda item: len(listing.within(item)))
        halves = split(listing, waiting.pop())
        assert halves is not None
        waiting += halves
    assert sum(len(listing.within(item)) for item in waiting) == 5001
    assert max(len(listing.within(item)) for item in waiting) <= 1000


KEYS = st.lists(
    st.text(st.sampled_from("ab/0\u00fc\ud7ff\ue000\U0010ffff"), min_size=1, max_size=6)
    | st.text(min_size=1, max_size=4).filter(lambda key: key.isprintable()),
    max_size=40,
    unique=True,
)


@given(KEYS, st.none() | st.text(st.sampled_from("ab/0"), max_size=4))
def test_splits_lose_and_repeat_no_key(keys: list[str], start: str | None) -> None:
    listing = Listing(keys)
    whole = KeyRange(start or "")
    ranges: list[KeyRange] = [whole]
    done: list[KeyRange] = []
    while ranges and len(ranges) + len(done) < 10:
        key_range = ranges.pop(0)
        found = asyncio.run(find_split(key_range, listing.first_after))
        if found.point is None:
            done.append(KeyRange(key_range.start_after, found.until))
        else:
            ranges.append(KeyRange(key_range.start_after, found.point))
            ranges.append(KeyRange(found.point, found.until))
    parts = [listing.within(item) for item in [*ranges, *done]]
    assert sorted(key for part in parts for key in part) == listing.within(whole)
