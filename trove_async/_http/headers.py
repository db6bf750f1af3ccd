"""The header fields that every HTTP driver reads or writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from trove_async._http_dates import parse_service_date
from trove_async.models import ByteRange

_WAIT_DIGITS: Final = 9
"""Digits of a Retry-After: thirty years."""

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def expires_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the moment of an Expires header, or None if there is none.

    An invalid date, such as ``0``, means a moment in the past (RFC 9111, 5.3): 1970-01-01.
    """
    value = headers.get("expires")
    if value is None:
        return None
    try:
        return parse_service_date(value)
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
        wait = parse_service_date(value) - parse_service_date(headers.get("date", ""))
    except ValueError:
        return None
    return max(wait.total_seconds(), 0.0)


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def parse_content_range(
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
