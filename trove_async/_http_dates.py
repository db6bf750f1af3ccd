"""Parses and formats HTTP dates (RFC 9110, section 5.6.7). Imports no HTTP library."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_IMF_FIXDATE = re.compile(
    rf"(?:{'|'.join(_DAYS)}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"
)
_HTTP_DATES: Final = (  # in the order of the RFC: IMF-fixdate, rfc850-date, asctime-date
    _IMF_FIXDATE,
    re.compile(
        r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day,"
        rf" (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(
        rf"(?:{'|'.join(_DAYS)}) {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})"
    ),
)
_CENTURY: Final = 100
_FUTURE_YEARS: Final = 50
"""A two-digit year that would be more than this many years in the future is in the past (RFC 9110,
section 5.6.7)."""

_MAX_LENGTH: Final = 64
"""Maximum length of a date. A date with a comment, such as ``(UTC)``, has about 40 characters."""


def format_http_date(when: datetime) -> str:
    """Return an aware datetime as an IMF-fixdate, rounded down to the second."""
    utc = when.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year:04}"
        f" {utc.hour:02}:{utc.minute:02}:{utc.second:02} GMT"
    )


def parse_http_date(text: str, now: datetime | None = None) -> datetime | None:
    """Parse a date in one of the three formats that the RFC defines; return None for other text.

    Args:
        text: The header's value.
        now: The time that two-digit years are relative to; None: the current time.
    """
    text = text.strip(" \t")
    for date_format in _HTTP_DATES:
        match = date_format.fullmatch(text)
        if match is not None:
            try:
                return _from_match(match, now)
            except ValueError:
                return None
    return None


@lru_cache(maxsize=64)  # many responses have the same Date
def parse_service_date(text: str) -> datetime:
    """Parse a date that a storage service sent, in any format that `email.utils` understands.

    Raises:
        ValueError: The text is not a date.
    """
    try:
        if len(text) <= _MAX_LENGTH:
            match = _IMF_FIXDATE.fullmatch(text)  # the format of nearly all services
            if match is not None:
                return _from_match(match)
            date = parsedate_to_datetime(text)
            # "-0000" is UTC as well (RFC 5322, section 3.3), but is parsed as a naive datetime, which
            # `astimezone` would take for local time.
            return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"not a date: {text[:40]!r}")


def _from_match(match: re.Match[str], now: datetime | None = None) -> datetime:
    day, month, year_digits = match["day"], match["month"], match["year"]
    year = int(year_digits)
    if len(year_digits) == 2:  # noqa: PLR2004 - two digits
        this_year = (now or datetime.now(UTC)).year
        # The current century, unless the date would be too far in the future.
        year += this_year - this_year % _CENTURY
        if year > this_year + _FUTURE_YEARS:
            year -= _CENTURY
    return datetime(
        year,
        _MONTHS.index(month) + 1,
        int(day),
        int(match["hour"]),
        int(match["minute"]),
        min(int(match["second"]), 59),  # the grammar allows leap seconds, datetime does not
        tzinfo=UTC,
    )
