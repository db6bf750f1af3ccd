"""Whether two responses are proved to describe the same version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trove_async import ObjectInfo
from trove_async._version_identity import can_pin, can_prove, is_same

MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


def info(**properties: Any) -> ObjectInfo:
    values = {"size": 5, "etag": None, "last_modified": MOMENT, **properties}
    return ObjectInfo(bucket="data", key="key", **values)


LATER = {"as_of": MOMENT + timedelta(seconds=1)}
"""A response sent so long after the last change that its date identifies one version."""


@pytest.mark.parametrize(
    ("first", "later", "same"),
    [
        ({"etag": "a"}, {"etag": "a", "last_modified": MOMENT + timedelta(1)}, True),
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
        ({**LATER}, {"last_modified": MOMENT + timedelta(seconds=1)}, False),
        ({"as_of": MOMENT + timedelta(milliseconds=999)}, {**LATER}, False),
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
    assert not can_prove(info(version_id="null", as_of=MOMENT))


@pytest.mark.parametrize(
    ("properties", "claims", "pinned"),
    [
        ({"etag": "a"}, {"get_conditions": True}, True),
        ({"etag": "a"}, {"versions": True}, False),
        ({"version_id": "1"}, {"get_conditions": True, "versions": True}, True),
        ({"version_id": "1"}, {"get_conditions": True}, False),
        ({"version_id": "null"}, {"versions": True}, False),
        ({**LATER}, {"get_conditions": True, "versions": True}, False),
    ],
)
def test_version_is_pinned_if_the_backend_honours_conditions(
    properties: dict[str, Any], claims: dict[str, bool], *, pinned: bool
) -> None:
    flags = {"get_conditions": False, "versions": False, **claims}
    assert can_pin(info(**properties), **flags) is pinned
