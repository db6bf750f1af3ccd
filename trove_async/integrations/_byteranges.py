"""Evaluation of range requests (RFC 9110, section 14).

Overlapping ranges are merged into disjoint spans, so that a response never repeats bytes of the
object. A request with too many ranges gets the whole object, as section 14.2 allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from trove_async import ByteRange

MAX_RANGES = 32
"""Maximum number of ranges in one request. PDF viewers request a dozen; attackers request hundreds."""

PART_OVERHEAD = 80
"""Approximate bytes of the framing between two parts of a multipart response. Two spans are merged if the
gap between them is not larger than this (section 14.2)."""

Span: TypeAlias = tuple[int, int]
"""The first position, and the position after the last one."""

_INT_RANGE = re.compile(r"([0-9]+)-([0-9]*)")
_SUFFIX_RANGE = re.compile(r"-([0-9]+)")
_MAX_DIGITS = 18
_HUGE = 10**_MAX_DIGITS
"""A position beyond the end of any object."""


@dataclass(frozen=True, slots=True)
class RangeSet:
    """The ranges of a request.

    Attributes:
        ranges: At least one pair ``(first, last)``, in the order of the request. ``(first, None)``
            extends to the end of the object, and ``(None, n)`` is the last n bytes.
    """

    ranges: tuple[tuple[int | None, int | None], ...]

    @classmethod
    def parse(cls, header: str | None) -> RangeSet | None:
        """Return the ranges of a Range header, or None if it is absent or ignored.

        A header is ignored if it is malformed, if its unit is not bytes, or if it has more than
        `MAX_RANGES` ranges.
        """
        unit, equals, ranges_text = (header or "").partition("=")
        if unit.strip(" \t").lower() != "bytes" or not equals:
            return None
        specs = [spec for spec in (part.strip(" \t") for part in ranges_text.split(",")) if spec]
        if not 0 < len(specs) <= MAX_RANGES:
            return None
        ranges: list[tuple[int | None, int | None]] = []
        for spec in specs:
            if suffix := _SUFFIX_RANGE.fullmatch(spec):
                ranges.append((None, _number(suffix[1])))
            elif match := _INT_RANGE.fullmatch(spec):
                first, last = _number(match[1]), _number(match[2]) if match[2] else None
                if last is not None and last < first:
                    return None  # section 14.1.1: the whole set is invalid
                ranges.append((first, last))
            else:
                return None
        return cls(tuple(ranges))

    @property
    def single(self) -> ByteRange | None:
        """The range, if there is exactly one; None if there are several, or for the empty suffix ``-0``."""
        if len(self.ranges) > 1:
            return None
        first, last = self.ranges[0]
        if first is None:
            return ByteRange.last(last) if last else None
        return ByteRange(first, None if last is None else last + 1)

    def spans(self, size: int) -> list[Span] | None:
        """Return the spans to send of an object of `size` bytes.

        Spans that overlap or are close to each other are merged. The order is that of the request.

        Returns:
            The spans; an empty list if the ranges are unsatisfiable (416); None if the last bytes of
            an empty object are requested. No Content-Range can express that, so the whole object
            must be sent.
        """
        if not size and any(first is None and last for first, last in self.ranges):
            return None
        requested = []
        for index, (first, last) in enumerate(self.ranges):
            start = max(size - (last or 0), 0) if first is None else first
            end = size if first is None or last is None else min(last + 1, size)
            if start < end:
                requested.append((start, end, index))
        # Merge in the order of the object. A merged span is sent in place of its first range.
        merged: list[tuple[int, int, int]] = []
        for start, end, index in sorted(requested):
            if merged and start <= merged[-1][1] + PART_OVERHEAD:
                previous = merged[-1]
                merged[-1] = (previous[0], max(previous[1], end), min(previous[2], index))
            else:
                merged.append((start, end, index))
        return [(start, end) for start, end, _ in sorted(merged, key=lambda span: span[2])]


def _number(digits: str) -> int:
    """Return the value of digits, capped at `_HUGE`: int() raises on thousands of digits."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else _HUGE


def format_content_range(span: Span, size: int) -> str:
    """Return the Content-Range of a span."""
    return f"bytes {span[0]}-{span[1] - 1}/{size}"


@dataclass(frozen=True, slots=True)
class ByterangesFrame:
    """The framing of a multipart/byteranges body (RFC 9110, section 14.6).

    Args:
        boundary: A token that does not occur in the object, so a random one.
        content_type: The Content-Type of the object.
        spans: The spans to send, in order.
        size: The size of the object in bytes.
    """

    boundary: str
    content_type: str
    spans: tuple[Span, ...]
    size: int

    @property
    def media_type(self) -> str:
        """The Content-Type of the response."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The Content-Length of the response."""
        heads = sum(len(self.head(span)) for span in self.spans)
        return heads + sum(end - start for start, end in self.spans) + len(self.tail)

    def head(self, span: Span) -> bytes:
        """Return the delimiter and the part headers before a span."""
        return (
            f"\r\n--{self.boundary}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Range: {format_content_range(span, self.size)}\r\n\r\n"
        ).encode("latin-1")

    @property
    def tail(self) -> bytes:
        """The closing delimiter after the last span."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
