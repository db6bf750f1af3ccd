"""Range requests, decided: RFC 9110, section 14. Values in, spans out; no I/O.

A request for several ranges is answered with disjoint spans, however they overlap, so no request can
make more bytes than the object has; one for very many is answered with the whole, as section 14.2
allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from trove_async import ByteRange

MAX_RANGES = 32
"""Ranges of one request that are looked at: PDF viewers ask for a dozen, attacks for hundreds."""

PART_OVERHEAD = 80
"""Bytes between two parts of a multipart answer; spans nearer than that are sent as one (14.2)."""

Span: TypeAlias = tuple[int, int]
"""``[start, end)``, absolute."""

_INT_RANGE = re.compile(r"([0-9]+)-([0-9]*)")
_SUFFIX_RANGE = re.compile(r"-([0-9]+)")
_HUGE = 10**18
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class RangeSet:
    """The ranges that a request asks for, in its order: at least one, each ``(first, last)``.

    ``(first, None)`` is open, ``(None, n)`` are the last n bytes.
    """

    ranges: tuple[tuple[int | None, int | None], ...]

    @classmethod
    def parse(cls, header: str | None) -> RangeSet | None:
        """Return what a Range header asks for; None: it is to be ignored, or there is none.

        Ignored are other units than bytes, what is malformed, and more than `MAX_RANGES`.
        """
        unit, equals, listed = (header or "").partition("=")
        if unit.strip(" \t").lower() != "bytes" or not equals:
            return None
        specs = [spec for spec in (part.strip(" \t") for part in listed.split(",")) if spec]
        if not 0 < len(specs) <= MAX_RANGES:
            return None
        ranges: list[tuple[int | None, int | None]] = []
        for spec in specs:
            if suffix := _SUFFIX_RANGE.fullmatch(spec):
                ranges.append((None, _number(suffix[1])))
            elif found := _INT_RANGE.fullmatch(spec):
                first, last = _number(found[1]), _number(found[2]) if found[2] else None
                if last is not None and last < first:
                    return None  # section 14.1.1: the whole set is invalid
                ranges.append((first, last))
            else:
                return None
        return cls(tuple(ranges))

    @property
    def only(self) -> ByteRange | None:
        """The one range, if there is one and it may select something: what to ask a backend for."""
        if len(self.ranges) > 1:
            return None
        first, last = self.ranges[0]
        if first is None:
            return ByteRange.last(last) if last else None
        return ByteRange(first, None if last is None else last + 1)

    def spans(self, size: int) -> list[Span] | None:
        """Return the spans to send of an object of `size` bytes.

        Overlapping ones, and near ones, are sent as one; the order is the request's.

        Returns:
            At least one span; none: unsatisfiable (416); None: the whole, as of an empty object
            that has no span to name.
        """
        if not size and any(first is None and last for first, last in self.ranges):
            return None
        wanted = []
        for place, (first, last) in enumerate(self.ranges):
            start = max(size - (last or 0), 0) if first is None else first
            end = size if first is None or last is None else min(last + 1, size)
            if start < end:
                wanted.append((start, end, place))
        merged: list[tuple[int, int, int]] = []
        for start, end, place in sorted(wanted):
            if merged and start <= merged[-1][1] + PART_OVERHEAD:
                before = merged[-1]
                merged[-1] = (before[0], max(before[1], end), min(before[2], place))
            else:
                merged.append((start, end, place))
        return [(start, end) for start, end, _ in sorted(merged, key=lambda span: span[2])]


def _number(digits: str) -> int:
    """Return a number, or one as good that no object is as long as: digits may be endless."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS else _HUGE


def format_content_range(span: Span, size: int) -> str:
    """Return the Content-Range of a span."""
    return f"bytes {span[0]}-{span[1] - 1}/{size}"


@dataclass(frozen=True, slots=True)
class ByterangesFrame:
    """What stands around the spans of a multipart/byteranges body (section 14.6).

    Args:
        boundary: A token that does not occur in the object: random.
        content_type: The object's.
        spans: What is sent, in order.
        size: The object's bytes.
    """

    boundary: str
    content_type: str
    spans: tuple[Span, ...]
    size: int

    @property
    def media_type(self) -> str:
        """The answer's Content-Type."""
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The answer's Content-Length."""
        heads = sum(len(self.head(span)) for span in self.spans)
        return heads + sum(end - start for start, end in self.spans) + len(self.tail)

    def head(self, span: Span) -> bytes:
        """Return what comes before a span."""
        return (
            f"\r\n--{self.boundary}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Range: {format_content_range(span, self.size)}\r\n\r\n"
        ).encode("latin-1")

    @property
    def tail(self) -> bytes:
        """What comes after the last."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
