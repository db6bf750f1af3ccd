"""The header fields that every HTTP driver reads or writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Final

from trove_async.models import ByteRange

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_IMF_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


_LONGEST_DATE: Final = 64
"""Characters. A date in words, with a comment behind it, has 40."""


_WAIT_DIGITS: Final = 9
"""Digits of a Retry-After: thirty years."""


@lru_cache(maxsize=64)  # thousands of answers have one Date
def http_date(text: str) -> datetime:
    """Return the moment that an HTTP date names, in UTC.

    Raises:
        ValueError: It names none.
    """
    found = _IMF_DATE.fullmatch(text)  # RFC 9110, 5.6.7: what servers write
    try:
        if len(text) > _LONGEST_DATE:
            raise ValueError("no date is so long")  # noqa: TRY301 - told below
        if found is None:  # what else they may
            date = parsedate_to_datetime(text)
            # "-0000" is UTC, too (RFC 5322, 3.3), and would be taken for this machine's zone.
            return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
        day, month, year, hour, minute, second = found.groups()
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"date {text[:40]!r}") from None


def imf_date(moment: datetime) -> str:
    """Return an aware UTC datetime in the form that HTTP headers use (RFC 9110, 5.6.7)."""
    return format_datetime(moment, usegmt=True)


_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def expires_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the moment of an Expires header, or None if there is none.

    An invalid date, such as ``0``, means a moment in the past (RFC 9111, 5.3): 1970-01-01.
    """
    value = headers.get("expires")
    if value is None:
        return None
    try:
        return http_date(value)
    except ValueError:
        return _LONG_AGO


def field_text(value: str) -> str:
    """Return the text of a response's field, which transports decode as UTF-8 with surrogate escapes.

    What is not UTF-8 is taken for ISO-8859-1, in which fields were once written (RFC 9110, 5.5).
    """
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After, which may be a moment (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) <= _WAIT_DIGITS else float("9" * _WAIT_DIGITS)
    try:
        wait = http_date(value) - http_date(headers.get("date", ""))
    except ValueError:
        return None
    return max(wait.total_seconds(), 0.0)


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def content_range(
    headers: Mapping[str, str], *, partial: bool = False
) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and the whole size as a partial answer tells them.

    Args:
        headers: The answer's.
        partial: Whether its status says that it is a part: a 206 (RFC 9110, 15.3.7) has to say which.

    Raises:
        ValueError: There is a Content-Range that tells no such thing, or none in a partial answer.
    """
    value = headers.get("content-range")
    if value is None:
        if partial:
            raise ValueError("a part of the body, and no Content-Range")
        return None
    found = _CONTENT_RANGE.fullmatch(value)
    if found is not None:
        start, last, size = map(int, found.groups())
        if start <= last < size:
            return start, last + 1, size
    raise ValueError(f"Content-Range {value[:80]!r}")


def range_header(asked: ByteRange) -> str:
    """Return a range as HTTP writes it: with its last byte (RFC 9110, 14.1.2)."""
    if asked.suffix is not None:
        return f"bytes=-{asked.suffix}"
    return f"bytes={asked.start}-{'' if asked.end is None else asked.end - 1}"
