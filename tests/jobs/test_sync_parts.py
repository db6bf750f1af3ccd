"""The parts of a sync: rules, walks, sorting, pairing, batches in threads."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.jobs.trees import make
from trove_async._concurrency import task_group
from trove_async.jobs._sync import rules, sorting
from trove_async.jobs._sync.entries import (
    FileEntry,
    ObjectEntry,
    VersionRecord,
    mtime_of,
    mtime_text,
)
from trove_async.jobs._sync.filters import Filters
from trove_async.jobs._sync.rules import Verdict
from trove_async.jobs._sync.sides import Feed, next_pairs
from trove_async.jobs._sync.sorting import SortedSpool, Spool
from trove_async.jobs._sync.thread_batches import ThreadBatches
from trove_async.jobs._sync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
TICK = 10_000_000  # the longest tick of Linux: 100 Hz


def an_object(modified_ns: int = NOW, **fields: Any) -> ObjectEntry:
    values: dict[str, Any] = {
        "key": "a",
        "size": 1,
        "modified_ns": modified_ns,
        "etag": "e",
        "mtime_ns": None,
        "checksums": {},
        "backend": "default",
        "full_key": "a",
    }
    return ObjectEntry(**(values | fields))


def a_file(mtime_ns: int = NOW, ctime_ns: int = NOW, **fields: Any) -> FileEntry:
    values: dict[str, Any] = {"key": "a", "size": 1, "mtime_ns": mtime_ns, "ctime_ns": ctime_ns}
    return FileEntry(**(values | fields))


# -- rules -----------------------------------------------------------------------------------------------

FRACTION = NOW + SECOND // 2


@pytest.mark.parametrize(
    ("file", "entry", "expected"),
    [
        (a_file(NOW, size=2), an_object(NOW + SECOND), Verdict.CHANGED),
        (a_file(NOW - TICK), an_object(NOW), Verdict.SAME),
        (a_file(NOW - TICK + 1), an_object(NOW), Verdict.COMPARE),
        (a_file(NOW + SECOND - 1), an_object(NOW), Verdict.COMPARE),
        (a_file(NOW + SECOND), an_object(NOW), Verdict.CHANGED),
        (a_file(FRACTION - TICK), an_object(FRACTION), Verdict.SAME),
        (a_file(FRACTION - TICK + 1), an_object(FRACTION), Verdict.CHANGED),
        (a_file(NOW + 90 * SECOND), an_object(NOW), Verdict.CHANGED),
        (a_file(NOW + 101 * SECOND), an_object(NOW), Verdict.COMPARE),  # from the future
        (a_file(NOW), an_object(NOW - SECOND, mtime_ns=NOW), Verdict.SAME),
        (a_file(NOW), an_object(NOW + SECOND, mtime_ns=NOW + 1), Verdict.CHANGED),
    ],
)
def test_upload_rule(file: FileEntry, entry: ObjectEntry, expected: Verdict) -> None:
    assert rules.upload_verdict(file, entry, "size_and_time", NOW + 100 * SECOND) is expected


RECORD = VersionRecord(mtime_ns=5, size=1, listed_size=1, modified_ns=NOW, etag="e")


@pytest.mark.parametrize(
    ("entry", "file", "expected"),
    [
        (an_object(size=2), a_file(5, record=RECORD), Verdict.CHANGED),
        (an_object(), a_file(5, record=RECORD), Verdict.SAME),
        (an_object(NOW + SECOND), a_file(5, record=RECORD), Verdict.SAME),  # rounded differently
        (an_object(NOW + 5 * SECOND), a_file(5, record=RECORD), Verdict.CHANGED),
        (an_object(etag="f"), a_file(5, record=RECORD), Verdict.CHANGED),
        (an_object(), a_file(6, record=RECORD), Verdict.CHANGED),  # changed since
        (an_object(etag=None), a_file(5, record=RECORD), Verdict.SAME),
        (an_object(FRACTION, etag=None), a_file(5, record=RECORD), Verdict.SAME),
        (an_object(NOW + SECOND, etag=None), a_file(5, record=RECORD), Verdict.CHANGED),
        (an_object(), a_file(kind="link"), Verdict.CHANGED),
        (an_object(size=7), a_file(5, record=RECORD._replace(listed_size=7)), Verdict.SAME),
        (an_object(), a_file(5, record=RECORD._replace(listed_size=7)), Verdict.CHANGED),
        (an_object(NOW + 1, mtime_ns=7), a_file(7, NOW), Verdict.SAME),
        (an_object(NOW + 1, mtime_ns=8), a_file(7, NOW), Verdict.CHANGED),
        (an_object(NOW), a_file(7, NOW + SECOND), Verdict.SAME),
        (an_object(NOW), a_file(7, NOW + SECOND - 1), Verdict.COMPARE),
        (an_object(FRACTION), a_file(7, FRACTION), Verdict.SAME),
        (an_object(FRACTION), a_file(7, FRACTION - 1), Verdict.CHANGED),
    ],
)
def test_download_rule(entry: ObjectEntry, file: FileEntry, expected: Verdict) -> None:
    assert rules.download_verdict(entry, file, "size_and_time") is expected


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (an_object(size=2), an_object(NOW + 1), Verdict.CHANGED),
        (an_object(NOW + 1), an_object(NOW), Verdict.CHANGED),
        (an_object(NOW), an_object(NOW + 1), Verdict.SAME),
        (an_object(FRACTION), an_object(FRACTION, etag="f"), Verdict.SAME),
        (an_object(NOW), an_object(NOW), Verdict.SAME),
        (an_object(NOW), an_object(NOW, etag="f"), Verdict.COMPARE),
        (an_object(NOW, etag=None), an_object(NOW, etag=None), Verdict.COMPARE),
    ],
)
def test_copy_rule(source: ObjectEntry, target: ObjectEntry, expected: Verdict) -> None:
    assert rules.copy_verdict(source, target, "size_and_time") is expected


@pytest.mark.parametrize(
    "etag", [None, "", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + "-2", "A" * 32]
)
def test_only_an_etag_of_32_digits_is_an_md5(etag: str | None) -> None:
    assert rules.md5_of(an_object(etag=etag)) is None
    assert rules.md5_of(an_object(etag="0af" + "1" * 29)) is not None


@given(st.integers(-(10**20) + 1, 10**20 - 1))
def test_times_survive_the_metadata(time_ns: int) -> None:
    assert mtime_of({"mtime": mtime_text(time_ns)}) == time_ns


@given(st.integers(), st.integers(), st.integers(), st.none() | st.text('abc -"', min_size=1))
def test_records_survive_the_attribute(
    mtime: int, size: int, modified: int, etag: str | None
) -> None:
    record = VersionRecord(mtime, size, size + 1, modified, etag)
    assert VersionRecord.decode(record.encode()) == record


@given(st.binary())
def test_any_attribute_can_be_decoded(value: bytes) -> None:
    VersionRecord.decode(value)


def test_malformed_records_are_ignored() -> None:
    for value in [b"", b"2 1 1 1 1 e", b"1 1 1", b"1 x 1 1 1 e", b"1 1 1 1 1", b"\xff"]:
        assert VersionRecord.decode(value) is None


# -- sorting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_held", [0, 500, 10**9])
@pytest.mark.parametrize("kind", [Spool, SortedSpool])
def test_spools_return_what_was_added(kind: type[Spool], max_held: int) -> None:
    numbers = random.Random(1)
    records = [numbers.randbytes(numbers.choice([0, 1, 10, 100_000])) for _ in range(60)]
    spool = kind(max_held)
    for record in records:
        spool.add([record])
        if spool.is_full:
            spool.flush()
    assert spool.has_files == (max_held < 10**9)
    assert list(spool.records()) == (sorted(records) if kind is SortedSpool else records)
    spool.close()
    spool.close()


# -- walks -----------------------------------------------------------------------------------------------


def walked(folder: Path, **options: Any) -> list[str]:
    walk = Walk(str(folder), Filters([], []), follow=True, **options)
    keys: list[str] = []
    while (batch := walk.next()) is not None:
        assert not batch.problems
        keys += [entry.key for entry in batch.entries]
    walk.close()
    return keys


NAMES = st.sampled_from(
    [
        "a",
        "a-",
        "a.",
        "a0",
        "A",
        "b",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "!",
        "\U0001f600",
        "\uffff",
    ]
)
KEYS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(st.sets(KEYS))
def test_walk_is_in_bytewise_order_of_the_keys(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    made = set()
    for key in sorted(keys):
        with suppress(FileExistsError, IsADirectoryError, NotADirectoryError):
            make(folder, {key: b""})
            made.add(key)
    assert walked(folder) == sorted(made, key=str.encode)


def test_walk_of_a_large_directory_sorts_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3000):
        (tmp_path / f"{number * 7919 % 3000:04}").touch()
    monkeypatch.setattr(sorting.SortedSpool.__init__, "__defaults__", (10_000,))
    flushed: list[SortedSpool] = []
    flush = SortedSpool.flush

    def record(spool: SortedSpool) -> None:
        flushed.append(spool)
        flush(spool)

    monkeypatch.setattr(SortedSpool, "flush", record)

    assert walked(tmp_path) == [f"{number:04}" for number in range(3000)]

    assert len(flushed) > 2


def test_walk_closes_its_files_when_it_is_closed_early(tmp_path: Path) -> None:
    make(tmp_path, {f"{number:04}/x": b"" for number in range(600)})
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers
    walk = Walk(str(tmp_path), Filters([], []), follow=True)
    assert walk.next() is not None
    walk.close()
    walk.close()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - numbers
    assert walk.next() is None


# -- pairing ---------------------------------------------------------------------------------------------


class _Listed:
    def __init__(self, keys: Sequence[str], size: int) -> None:
        self._keys = keys
        self._size = size

    async def batches(self) -> AsyncGenerator[Sequence[FileEntry], None]:
        for start in range(0, len(self._keys), self._size):
            yield [a_file(key=key) for key in self._keys[start : start + self._size]]


@given(st.sets(KEYS), st.sets(KEYS), st.integers(1, 5), st.integers(1, 5))
async def test_pairs_are_those_of_a_full_join(
    source: set[str], target: set[str], size: int, other_size: int
) -> None:
    left: Feed[FileEntry] = Feed(_Listed(sorted(source), size))
    right: Feed[FileEntry] = Feed(_Listed(sorted(target), other_size))
    found: list[tuple[str | None, str | None]] = []
    async with task_group() as group:
        group.start_soon(left.run)
        group.start_soon(right.run)
        while (pairs := await next_pairs(left, right)) is not None:
            found += [(mine and mine.key, theirs and theirs.key) for mine, theirs in pairs]
    assert found == [
        (key if key in source else None, key if key in target else None)
        for key in sorted(source | target)
    ]


# -- batches in threads ------------------------------------------------------------------------------------


async def test_items_that_wait_share_a_call() -> None:
    calls: list[int] = []

    def double(items: Sequence[int]) -> Sequence[int | Exception]:
        calls.append(len(items))
        return [item * 2 if item % 10 else LookupError(item) for item in items]

    batches: ThreadBatches[int, int] = ThreadBatches(double)
    results: dict[int, object] = {}

    async def submit(item: int) -> None:
        try:
            results[item] = await batches.submit(item)
        except LookupError:
            results[item] = None

    async with task_group() as helpers:
        helpers.start_soon(batches.run)
        helpers.start_soon(batches.run)
        async with task_group() as group:
            for item in range(200):
                group.start_soon(submit, item)
        batches.close()

    assert results == {item: item * 2 if item % 10 else None for item in range(200)}
    assert len(calls) < 50


async def test_cancelled_item_does_not_disturb_the_others() -> None:
    batches: ThreadBatches[int, int] = ThreadBatches(lambda items: list(items))  # noqa: PLW0108 - a Sequence
    async with task_group() as helpers:
        cancelled = asyncio.ensure_future(batches.submit(1))  # noqa: TID251 - cancelled at once
        await asyncio.sleep(0)
        cancelled.cancel()
        helpers.start_soon(batches.run)
        assert await batches.submit(2) == 2
        batches.close()
    assert cancelled.cancelled()
