"""Proof that two responses describe the same version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trove_async import ObjectInfo
from trove_async._version_identity import can_pin, can_prove, is_same

LAST_MODIFIED = datetime(2025, 1, 1, tzinfo=UTC)


def info(**properties: Any) -> ObjectInfo:
    values = {"size": 5, "etag": None, "last_modified": LAST_MODIFIED, **properties}
    return ObjectInfo(bucket="data", key="key", **values)


LATER = {"as_of": LAST_MODIFIED + timedelta(seconds=1)}
"""The date of a response so long after the last change that `LAST_MODIFIED` identifies one version."""


@pytest.mark.parametrize(
    ("first", "later", "same"),
    [
        ({"etag": "a"}, {"etag": "a", "last_modified": LAST_MODIFIED + timedelta(1)}, True),
        ({"etag": "a"}, {"etag": "b"}, False),
        ({"etag": "a", "version_id": "1"}, {"version_id": "1"}, False),
        ({}, {"etag": "a"}, False),
        ({"version_id": "1"}, {"version_id": "1"}, True),
        ({"version_id": "1"}, {"version_id": "2"}, False),
        ({"version_id": "1", **LATER}, {}, False),
        ({"version_id": "null"}, {"version_id": "null"}, False),
        ({"version_id": "null", **LATER}, {"version_id": "null"}, True),
        ({**LATER}, {}, True),
        ({**LATER}, {"size": 6}, False),
        ({**LATER}, {"last_modified": LAST_MODIFIED + timedelta(seconds=1)}, False),
        ({"as_of": LAST_MODIFIED + timedelta(milliseconds=999)}, {**LATER}, False),
        ({}, {**LATER}, False),
        ({"write_id": "w1"}, {"write_id": "w1"}, True),
        ({"write_id": "w1"}, {"write_id": "w2"}, False),
        ({**LATER}, {"write_id": "w2"}, False),
        ({"write_id": "w1"}, {"write_id": "w1", "size": 6}, False),
    ],
)
def test_versions_are_the_same_only_with_proof(
    first: dict[str, Any], later: dict[str, Any], *, same: bool
) -> None:
    assert is_same(info(**first), info(**later)) is same
    if same:
        assert can_prove(info(**first))


def test_recent_date_alone_proves_nothing() -> None:
    assert not can_prove(info())
    assert not can_prove(info(version_id="null", as_of=LAST_MODIFIED))


@pytest.mark.parametrize(
    ("properties", "capabilities", "pinned"),
    [
        ({"etag": "a"}, {"get_conditions": True}, True),
        ({"etag": "a"}, {"versions": True}, False),
        ({"version_id": "1"}, {"get_conditions": True, "versions": True}, True),
        ({"version_id": "1"}, {"get_conditions": True}, False),
        ({"version_id": "null"}, {"versions": True}, False),
        ({**LATER}, {"get_conditions": True, "versions": True}, False),
    ],
)
def test_version_is_pinned_by_an_etag_or_id_that_the_backend_honours(
    properties: dict[str, Any], capabilities: dict[str, bool], *, pinned: bool
) -> None:
    capabilities = {"get_conditions": False, "versions": False, **capabilities}
    assert can_pin(info(**properties), **capabilities) is pinned
