"""Parsing and formatting of HTTP header fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from trove_async._http_dates import parse_service_date
from trove_async.models import ByteRange

_MAX_RETRY_AFTER_DIGITS: Final = 9
"""Maximum number of digits of a Retry-After. A longer number counts as 999,999,999 seconds (31 years)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def expires_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the date of the Expires header, or None if it is absent.

    An invalid date, such as ``0``, means a time in the past (RFC 9111, 5.3). Return 1970-01-01 for it.
    """
    value = headers.get("expires")
    if value is None:
        return None
    try:
        return parse_service_date(value)
    except ValueError:
        return _EPOCH


def date_field(name: str, text: str) -> datetime:
    """Return the date in a header field.

    Raises:
        ValueError: The text is not a date. The message names the field.
    """
    try:
        return parse_service_date(text)
    except ValueError:
        raise ValueError(f"{name} must be a date, got {text[:40]!r}") from None


def field_text(value: str) -> str:
    """Return the text of a field value that a transport decoded as UTF-8 with surrogate escapes.

    If the bytes were not UTF-8, decode them as ISO-8859-1, the historical encoding (RFC 9110, 5.5).
    """
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in a Retry-After header, or None if it is absent or invalid.

    The header is a number of seconds or a date (RFC 9110, 10.2.3). For a date, return the seconds
    between the response's Date header and that date.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        # float() of 400 digits would be infinite.
        return float(
            value if len(value) <= _MAX_RETRY_AFTER_DIGITS else "9" * _MAX_RETRY_AFTER_DIGITS
        )
    try:
        wait = parse_service_date(value) - parse_service_date(headers.get("date", ""))
    except ValueError:
        return None
    return max(wait.total_seconds(), 0.0)


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def parse_content_range(
    headers: Mapping[str, str], *, partial: bool = False
) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and object size from a Content-Range, or None if it is absent.

    Args:
        headers: The headers of the response.
        partial: Whether the status is 206, which requires a Content-Range (RFC 9110, 15.3.7).

    Raises:
        ValueError: The Content-Range is malformed, or a partial response has none.
    """
    value = headers.get("content-range")
    if value is None:
        if partial:
            raise ValueError("a partial response must have a Content-Range")
        return None
    match = _CONTENT_RANGE.fullmatch(value)
    if match is not None:
        start, last, size = map(int, match.groups())
        if start <= last < size:
            return start, last + 1, size
    raise ValueError(f"malformed Content-Range {value[:80]!r}")


def range_header(byte_range: ByteRange) -> str:
    """Return the value of a Range header, whose end is inclusive (RFC 9110, 14.1.2)."""
    if byte_range.suffix is not None:
        return f"bytes=-{byte_range.suffix}"
    return f"bytes={byte_range.start}-{'' if byte_range.end is None else byte_range.end - 1}"
