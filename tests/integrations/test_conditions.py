"""Conditional requests, evaluated by RFC 9110, section 13."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async import ObjectInfo
from trove_async._http_dates import format_http_date
from trove_async.integrations._conditions import (
    ConditionResult,
    Conditions,
    entity_tag,
)

WRITTEN = datetime(2024, 2, 29, 12, 30, 45, 678_901, tzinfo=UTC)
SAME, BEFORE, AFTER = (format_http_date(WRITTEN + timedelta(seconds=shift)) for shift in (0, -1, 1))
INFO = ObjectInfo(bucket="b", key="k", size=10, etag="abc", last_modified=WRITTEN)
TWO_FORMS = replace(INFO, records='[["zstd",{"frame_size":1024}]]')

PROCEED, NOT_MODIFIED, FAILED = (
    ConditionResult.PROCEED,
    ConditionResult.NOT_MODIFIED,
    ConditionResult.FAILED,
)


def conditions(**headers: str) -> Conditions:
    return Conditions.of(lambda name: headers.get(name.replace("-", "_")))


# Each row: request headers, result for a GET, result for a PUT.
RESULTS: list[tuple[dict[str, str], ConditionResult, ConditionResult]] = [
    ({}, PROCEED, PROCEED),
    ({"if_match": '"abc"'}, PROCEED, PROCEED),
    ({"if_match": "*"}, PROCEED, PROCEED),
    ({"if_match": '"x", "abc"'}, PROCEED, PROCEED),
    ({"if_match": ',, "x",,"abc" , '}, PROCEED, PROCEED),
    ({"if_match": '"x"'}, FAILED, FAILED),
    ({"if_match": 'W/"abc"'}, FAILED, FAILED),  # a weak tag never matches strongly
    ({"if_match": "abc"}, FAILED, FAILED),  # a malformed tag matches nothing
    ({"if_match": '"x" "abc"'}, FAILED, FAILED),
    ({"if_match": ""}, FAILED, FAILED),
    ({"if_none_match": '"abc"'}, NOT_MODIFIED, FAILED),
    ({"if_none_match": 'W/"abc"'}, NOT_MODIFIED, FAILED),
    ({"if_none_match": '"x", W/"abc"'}, NOT_MODIFIED, FAILED),
    ({"if_none_match": "*"}, NOT_MODIFIED, FAILED),
    ({"if_none_match": '"x"'}, PROCEED, PROCEED),
    ({"if_none_match": '"ab,c", "y"'}, PROCEED, PROCEED),
    ({"if_modified_since": SAME}, NOT_MODIFIED, PROCEED),
    ({"if_modified_since": AFTER}, NOT_MODIFIED, PROCEED),
    ({"if_modified_since": BEFORE}, PROCEED, PROCEED),
    ({"if_modified_since": "yesterday"}, PROCEED, PROCEED),
    ({"if_modified_since": f"{SAME}, {SAME}"}, PROCEED, PROCEED),  # more than one member
    ({"if_unmodified_since": SAME}, PROCEED, PROCEED),
    ({"if_unmodified_since": AFTER}, PROCEED, PROCEED),
    ({"if_unmodified_since": BEFORE}, FAILED, FAILED),
    ({"if_unmodified_since": "1708"}, PROCEED, PROCEED),
    # RFC 9110, section 13.2.2: precedence
    ({"if_match": '"abc"', "if_unmodified_since": BEFORE}, PROCEED, PROCEED),
    ({"if_match": '"x"', "if_unmodified_since": AFTER}, FAILED, FAILED),
    ({"if_none_match": '"x"', "if_modified_since": AFTER}, PROCEED, PROCEED),
    ({"if_none_match": '"abc"', "if_modified_since": BEFORE}, NOT_MODIFIED, FAILED),
    ({"if_match": '"x"', "if_none_match": '"abc"'}, FAILED, FAILED),
    ({"if_match": '"abc"', "if_none_match": '"abc"'}, NOT_MODIFIED, FAILED),
    ({"if_unmodified_since": BEFORE, "if_none_match": '"abc"'}, FAILED, FAILED),
    ({"if_unmodified_since": SAME, "if_modified_since": SAME}, NOT_MODIFIED, PROCEED),
]


@pytest.mark.parametrize(("headers", "read_result", "write_result"), RESULTS, ids=str)
def test_conditions_on_existing_object(
    headers: dict[str, str], read_result: ConditionResult, write_result: ConditionResult
) -> None:
    parsed = conditions(**headers)
    assert parsed.evaluate("GET", INFO) is read_result
    assert parsed.evaluate("HEAD", INFO) is read_result
    assert parsed.evaluate("PUT", INFO) is write_result


@pytest.mark.parametrize(
    ("headers", "result"),
    [
        ({"if_match": "*"}, FAILED),
        ({"if_match": '"abc"'}, FAILED),
        ({"if_none_match": "*"}, PROCEED),
        ({"if_none_match": '"abc"'}, PROCEED),
        ({"if_unmodified_since": BEFORE}, PROCEED),
        ({}, PROCEED),
    ],
    ids=str,
)
def test_conditions_on_missing_object(headers: dict[str, str], result: ConditionResult) -> None:
    assert conditions(**headers).evaluate("PUT", None) is result


@pytest.mark.parametrize(
    ("value", "applies"),
    [
        ('"abc"', True),
        (' "abc" ', True),
        ('"x"', False),
        ('W/"abc"', False),
        ('"abc", "x"', False),
        ("*", False),
        (SAME, True),
        (BEFORE, False),
        (AFTER, False),  # dates are compared for equality, not for order
        ("", False),
    ],
)
def test_if_range_requires_exact_match(value: str, applies: bool) -> None:  # noqa: FBT001 - a column
    assert conditions(if_range=value).range_applies(INFO) is applies
    assert conditions().range_applies(INFO)


@given(st.text(min_size=1), st.text(min_size=1))
def test_entity_tags_are_well_formed_and_unique(first: str, second: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in first + second):
        return
    tags = [entity_tag(etag) for etag in (first, second)]
    for tag, etag in zip(tags, (first, second), strict=True):
        info = ObjectInfo(bucket="b", key="k", size=1, etag=etag, last_modified=WRITTEN)
        assert conditions(if_match=tag).evaluate("GET", info) is PROCEED
        assert tag.isascii()
        assert not tag.startswith("W/")
    zstd_tags = [entity_tag(etag, zstd=True) for etag in (first, second)]
    assert not {*tags} & {*zstd_tags}
    if {first, second} & set(tags):
        return  # either all etags of a driver are entity tags, or none are
    assert (tags[0] == tags[1]) is (first == second)
    assert (zstd_tags[0] == zstd_tags[1]) is (first == second)


@pytest.mark.parametrize(
    ("etag", "tag", "zstd_tag"),
    [
        ("abc", '"abc"', '"abc%zstd"'),
        ('"abc"', '"abc"', '"abc%zstd"'),
        ("abc%zstd", '"abc%25zstd"', '"abc%25zstd%zstd"'),
        ('"abc%zstd"', '"%22abc%25zstd%22"', '"%22abc%25zstd%22%zstd"'),
        ("", '""', '"%zstd"'),
    ],
)
def test_tags_of_both_forms(etag: str, tag: str, zstd_tag: str) -> None:
    assert entity_tag(etag) == tag
    assert entity_tag(etag, zstd=True) == zstd_tag


# Each row: headers, result for the decoded form, for the zstd form, and for a PUT.
ZSTD_RESULTS: list[tuple[dict[str, str], ConditionResult, ConditionResult, ConditionResult]] = [
    ({}, PROCEED, PROCEED, PROCEED),
    ({"if_match": '"abc"'}, PROCEED, FAILED, PROCEED),
    ({"if_match": '"abc%zstd"'}, FAILED, PROCEED, PROCEED),
    ({"if_match": '"x", "abc%zstd"'}, FAILED, PROCEED, PROCEED),
    ({"if_match": 'W/"abc%zstd"'}, FAILED, FAILED, FAILED),
    ({"if_match": '"x%zstd"'}, FAILED, FAILED, FAILED),
    ({"if_match": "*"}, PROCEED, PROCEED, PROCEED),
    ({"if_none_match": '"abc"'}, NOT_MODIFIED, PROCEED, FAILED),
    ({"if_none_match": '"abc%zstd"'}, PROCEED, NOT_MODIFIED, FAILED),
    ({"if_none_match": 'W/"abc%zstd"'}, PROCEED, NOT_MODIFIED, FAILED),
    ({"if_none_match": '"abc%zstd", "abc"'}, NOT_MODIFIED, NOT_MODIFIED, FAILED),
    ({"if_none_match": '"x%zstd"'}, PROCEED, PROCEED, PROCEED),
]


@pytest.mark.parametrize(("headers", "decoded", "zstd", "write"), ZSTD_RESULTS, ids=str)
def test_conditions_on_object_with_two_forms(
    headers: dict[str, str],
    decoded: ConditionResult,
    zstd: ConditionResult,
    write: ConditionResult,
) -> None:
    parsed = conditions(**headers)
    assert parsed.evaluate("GET", TWO_FORMS) is decoded
    assert parsed.evaluate("GET", TWO_FORMS, zstd=True) is zstd
    assert parsed.evaluate("PUT", TWO_FORMS) is write


def test_zstd_tag_does_not_match_object_with_one_form() -> None:
    assert conditions(if_match='"abc%zstd"').evaluate("PUT", INFO) is FAILED
    assert conditions(if_none_match='"abc%zstd"').evaluate("GET", INFO) is PROCEED


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"if_match": '"abc"'}, True),
        ({"if_none_match": 'W/"abc"'}, True),
        ({"if_none_match": '"x", "abc"'}, True),
        ({"if_match": "*", "if_none_match": '"abc"'}, True),
        ({"if_match": '"abc%zstd"'}, False),
        ({"if_none_match": '"abc", "abc%zstd"'}, False),
        ({"if_match": '"abc%zstd"', "if_none_match": '"abc"'}, False),
        ({"if_none_match": '"x"'}, False),
        ({"if_none_match": "*"}, False),
    ],
    ids=str,
)
def test_conditions_name_the_decoded_form(headers: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a column
    assert conditions(**headers).names_decoded_form(TWO_FORMS) is expected
    assert not conditions(**headers).names_decoded_form(replace(TWO_FORMS, etag=None))


@pytest.mark.parametrize(
    ("value", "applies"),
    [('"abc"', True), ('"abc%zstd"', False), (SAME, False), (BEFORE, False)],
)
def test_if_range_identifies_the_decoded_form_only_by_its_tag(value: str, applies: bool) -> None:  # noqa: FBT001 - a column
    assert conditions(if_range=value).range_applies(TWO_FORMS) is applies


@pytest.mark.parametrize("etag", [None, ""])
@pytest.mark.parametrize(
    ("headers", "read_result", "write_result"),
    [
        ({"if_match": '"abc"'}, FAILED, FAILED),
        ({"if_match": '""'}, FAILED, FAILED),
        ({"if_match": "*"}, PROCEED, PROCEED),
        ({"if_none_match": '"abc"'}, PROCEED, PROCEED),
        ({"if_none_match": '""'}, PROCEED, PROCEED),
        ({"if_none_match": 'W/""'}, PROCEED, PROCEED),
        ({"if_none_match": "*"}, NOT_MODIFIED, FAILED),
        ({"if_none_match": '""', "if_modified_since": SAME}, PROCEED, PROCEED),
        ({"if_modified_since": SAME}, NOT_MODIFIED, PROCEED),
    ],
    ids=str,
)
def test_object_without_etag_matches_no_tag(
    etag: Any, headers: dict[str, str], read_result: ConditionResult, write_result: ConditionResult
) -> None:
    bare = replace(INFO, etag=etag)
    parsed = conditions(**headers)
    assert parsed.evaluate("GET", bare) is read_result
    assert parsed.evaluate("PUT", bare) is write_result


@pytest.mark.parametrize("etag", [None, ""])
def test_if_range_of_object_without_etag_uses_date_only(etag: Any) -> None:
    bare = replace(INFO, etag=etag)
    assert conditions(if_range=SAME).range_applies(bare)
    for value in ('""', '"abc"', 'W/""', BEFORE, AFTER):
        assert not conditions(if_range=value).range_applies(bare)
