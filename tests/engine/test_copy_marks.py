"""The write_id of a job's copy names the version that was copied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trove_async import ObjectInfo
from trove_async._engine.copy_marks import is_copy_in_progress, is_copy_of, is_marked, marked
from trove_async.options import is_earlier, without_mark

SOURCE = ObjectInfo(
    bucket="bucket",
    key="key",
    size=3,
    etag="etag",
    last_modified=datetime(2026, 1, 1, tzinfo=UTC),
    write_id="0123456789abcdef-1",
)


def copy_of(source: ObjectInfo, write_id: str = "aa-2", **changes: Any) -> ObjectInfo:
    copied = replace(source, etag="other", size=40, write_id=marked(write_id, source))
    return replace(copied, **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"etag": "newer"},
        {"write_id": "0123456789abcdef-2"},
        {"size": 4, "stored_size": 4},
        {"key": "other"},
        {"bucket": "other"},
        {"records": "[]"},
    ],
)
def test_copy_is_recognised_for_its_own_version_alone(change: dict[str, Any]) -> None:
    assert is_copy_of(copy_of(SOURCE), SOURCE)
    assert not is_copy_of(copy_of(SOURCE), replace(SOURCE, **change))
    assert not is_copy_of(SOURCE, SOURCE)


def test_version_without_write_id_is_named_by_its_date_as_well() -> None:
    foreign = replace(SOURCE, write_id=None)
    later = replace(foreign, last_modified=foreign.last_modified + timedelta(seconds=1))
    assert is_copy_of(copy_of(foreign), foreign)
    assert not is_copy_of(copy_of(foreign), later)


@pytest.mark.parametrize("write_id", ["0123456789abcdef-1", "x-1", "my.id-1", "m", ""])
def test_other_ids_have_no_mark(write_id: str) -> None:
    assert without_mark(write_id) == write_id
    assert not is_marked(replace(SOURCE, write_id=write_id))
    assert without_mark(marked(write_id, SOURCE)) == write_id


def test_marks_do_not_change_the_order_of_writes() -> None:
    one, other = marked("aa-9", SOURCE), marked("aa-10", replace(SOURCE, etag="x"))
    assert is_earlier(one, other)
    assert not is_earlier(other, one)
    assert is_earlier("aa-8", one)
    assert not is_earlier(marked("bb-1", SOURCE), one)


def test_only_a_recent_copy_of_another_store_may_be_in_progress() -> None:
    now = datetime.now(UTC)
    assert is_copy_in_progress(copy_of(SOURCE, last_modified=now), "bb-1")
    assert not is_copy_in_progress(copy_of(SOURCE, last_modified=now), "aa-7")
    assert not is_copy_in_progress(copy_of(SOURCE), "bb-1")
    assert not is_copy_in_progress(replace(SOURCE, last_modified=now), "bb-1")
