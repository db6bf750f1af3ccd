"""Pages of sorted keys, and checks on the pages of services."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trove_async import BackendError
from trove_async.models import ObjectInfo, Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import TokenCycle, after_prefix, filter_by_prefix, paginate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NOW = datetime(2024, 1, 1, tzinfo=UTC)

texts = st.text(st.sampled_from("ab/-\ud7ff\ue000\uffff\U0010ffff"), max_size=6)
keys = texts.filter(bool)


def info(key: str, _handle: None = None) -> ObjectInfo:
    return ObjectInfo(bucket="b", key=key, size=0, etag="e", last_modified=NOW)


class Keys:
    """Sorted keys, and the number of them that were visited."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = sorted(keys)
        self.visited = 0

    def seek(self, start: str) -> Iterator[tuple[str, None]]:
        for index in range(bisect_left(self.keys, start), len(self.keys)):
            self.visited += 1
            yield self.keys[index], None


def pages(
    source: Keys,
    options: ListOptions,
    load: Callable[[str, None], ObjectInfo | None] = info,
) -> list[Page]:
    result = [paginate("b", options, source.seek, load)]
    while (token := result[-1].token) is not None:
        next_options = ListOptions(
            prefix=options.prefix, delimiter=options.delimiter, token=token, limit=options.limit
        )
        result.append(paginate("b", next_options, source.seek, load))
    return result


def brute_force(keys: set[str], options: ListOptions) -> list[tuple[str, bool]]:
    entries = set()
    for key in keys:
        if key.startswith(options.prefix) and key > (options.start_after or ""):
            suffix = key[len(options.prefix) :]
            if options.delimiter and options.delimiter in suffix:
                head = suffix[: suffix.index(options.delimiter)]
                entries.add((options.prefix + head + options.delimiter, True))
            else:
                entries.add((key, False))
    return sorted(entries, key=lambda entry: entry[0].encode())


@given(
    bucket_keys=st.sets(keys, max_size=25),
    prefix=texts,
    delimiter=st.sampled_from([None, "/", "a", "--", "/-", "\U0010ffff"]),
    start_after=st.none() | texts,
    limit=st.integers(1, 27),
)
@example(bucket_keys={"a/", "a/b", "a0"}, prefix="", delimiter="/", start_after="a/", limit=1)
@example(
    bucket_keys={"\U0010ffff/a", "\U0010ffff/b"},
    prefix="",
    delimiter="/",
    start_after=None,
    limit=1,
)
@example(
    bucket_keys={"\U0010ffff\U0010ffff", "\U0010ffff\U0010ffffa"},
    prefix="",
    delimiter="\U0010ffff",
    start_after=None,
    limit=1,
)
def test_pages_equal_a_brute_force_listing(
    bucket_keys: set[str], prefix: str, delimiter: str | None, start_after: str | None, limit: int
) -> None:
    options = ListOptions(prefix=prefix, delimiter=delimiter, start_after=start_after, limit=limit)
    result = pages(Keys(list(bucket_keys)), options)
    entries = [entry for page in result for entry in page.entries]
    assert [(entry.key, isinstance(entry, Prefix)) for entry in entries] == brute_force(
        bucket_keys, options
    )
    assert all(len(page.entries) == limit for page in result[:-1])
    assert len(result[-1].entries) <= limit
    assert all(entry.bucket == "b" for entry in entries)


@pytest.mark.parametrize("limit", range(1, 12))
def test_entries_do_not_depend_on_the_page_size(limit: int) -> None:
    bucket_keys = {"a", "a/b", "a/c", "a0", "b", "b/", "b/b/c", "c/x", "d"}
    for delimiter in (None, "/"):
        options = ListOptions(delimiter=delimiter, limit=limit)
        entries = [
            entry for page in pages(Keys(list(bucket_keys)), options) for entry in page.entries
        ]
        assert [(entry.key, isinstance(entry, Prefix)) for entry in entries] == brute_force(
            bucket_keys, options
        )


def test_keys_below_a_common_prefix_are_skipped() -> None:
    source = Keys([f"dir/{number:05}" for number in range(10_000)] + ["e"])
    (page,) = pages(source, ListOptions(delimiter="/"))
    assert [entry.key for entry in page.entries] == ["dir/", "e"]
    assert source.visited == 2


def test_objects_deleted_while_a_page_is_built_are_omitted() -> None:
    source = Keys(["a", "b", "c", "d"])

    def load(key: str, _handle: None) -> ObjectInfo | None:
        return None if key in {"b", "d"} else info(key)

    result = pages(source, ListOptions(limit=1), load)
    assert [[entry.key for entry in page.entries] for page in result] == [["a"], ["c"], []]


def test_token_of_a_deleted_key_continues_after_it() -> None:
    source = Keys(["a", "b", "c"])
    page = paginate("b", ListOptions(limit=1), source.seek, info)
    source.keys.remove("b")
    next_page = paginate("b", ListOptions(limit=1, token=page.token), source.seek, info)
    assert [entry.key for entry in next_page.entries] == ["c"]


@given(keys, keys)
def test_after_prefix_is_above_every_string_with_the_prefix(prefix: str, other: str) -> None:
    beyond = after_prefix(prefix)
    if beyond is None:
        assert set(prefix) == {"\U0010ffff"}
        assert other.startswith(prefix) or other < prefix
        return
    beyond.encode()
    assert prefix < beyond
    assert not beyond.startswith(prefix)
    # Exactly the strings with the prefix lie between the two.
    assert (prefix <= other < beyond) is other.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "beyond"),
    [
        ("a", "b"),
        ("a/", "a0"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("a\U0010ffff\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("\U0010ffff\U0010ffff", None),
        ("", None),
    ],
)
def test_after_prefix_is_the_smallest_string_above_all_with_the_prefix(
    prefix: str, beyond: str | None
) -> None:
    assert after_prefix(prefix) == beyond


# -- pages of services -----------------------------------------------------------------------------


def page(*keys: str) -> Page:
    return Page(entries=[info(key) for key in keys])


def test_keys_outside_the_prefix_are_omitted() -> None:
    assert [entry.key for entry in filter_by_prefix(page("a", "ab", "b"), "a").entries] == [
        "a",
        "ab",
    ]
    unchanged = page("ab", "ac")
    assert filter_by_prefix(unchanged, "a") is unchanged
    assert filter_by_prefix(unchanged, "") is unchanged


@given(st.integers(0, 50), st.integers(1, 50))
def test_cycle_of_tokens_is_detected_within_three_pages_per_token(lead: int, cycle: int) -> None:
    tokens = TokenCycle()
    for number in range(lead + cycle):
        tokens.check(str(number))
    with pytest.raises(BackendError, match="same page"):
        for number in range(2 * (lead + cycle)):
            tokens.check(str(lead + number % cycle))


def test_token_that_leads_to_its_own_page_is_detected_immediately() -> None:
    with pytest.raises(BackendError, match="same page"):
        TokenCycle("t").check("t")


def test_distinct_tokens_are_not_a_cycle() -> None:
    tokens = TokenCycle()
    for number in range(100_000):
        tokens.check(str(number))
    tokens.check(None)


def test_endless_empty_pages_raise() -> None:
    tokens = TokenCycle()
    with pytest.raises(BackendError, match="empty pages"):
        for number in range(10_001):
            tokens.check(str(number), empty=True)
