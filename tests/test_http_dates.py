"""Parsing and formatting of the dates in HTTP fields."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async._http_dates import format_http_date, parse_http_date, parse_service_date


def test_all_three_formats_are_parsed() -> None:
    date = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    now = datetime(2024, 1, 1, tzinfo=UTC)
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ):
        assert parse_http_date(text, now) == date
    assert format_http_date(date) == "Sun, 06 Nov 1994 08:49:37 GMT"
    future = parse_http_date("Sunday, 06-Nov-30 08:49:37 GMT", now)
    assert future is not None
    assert future.year == 2030
    assert parse_http_date("Wed, 31 Dec 2016 23:59:60 GMT") is not None


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 GMT;",
        "١٩٩٤",
        "",
    ],
)
def test_other_text_is_not_a_date(text: str) -> None:
    assert parse_http_date(text) is None


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_formatted_date_parses_to_the_same_second(naive: datetime) -> None:
    date = naive.replace(tzinfo=UTC)
    assert parse_http_date(format_http_date(date)) == date.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 6 Nov 1994 09:49:37 +0100",
        "Sun, 06 Nov 1994 08:49:37 GMT (a comment)",
    ],
)
def test_service_dates_are_parsed_leniently(text: str) -> None:
    assert parse_service_date(text) == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "0", "yesterday", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994" + " " * 60]
)
def test_text_that_is_not_a_service_date_raises(text: str) -> None:
    with pytest.raises(ValueError, match="not a date"):
        parse_service_date(text)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_dates_are_formatted_as_the_standard_library_does(naive: datetime) -> None:
    date = naive.replace(tzinfo=UTC)
    assert format_http_date(date) == format_datetime(date, usegmt=True)
