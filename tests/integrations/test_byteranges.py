"""Range headers and multipart/byteranges bodies, compared with RFC 9110."""

from __future__ import annotations

import re
from email import message_from_bytes
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.integrations._byteranges import (
    MAX_RANGES,
    PART_OVERHEAD,
    ByterangesFrame,
    RangeSet,
    format_content_range,
)

WHOLE_OBJECT, UNSATISFIABLE = "whole", "416"


def spans_to_send(header: str | None, size: int) -> list[tuple[int, int]] | str:
    """Return the spans of a response, `WHOLE_OBJECT` or `UNSATISFIABLE`."""
    ranges = RangeSet.parse(header)
    spans = None if ranges is None else ranges.spans(size)
    if spans is None:
        return WHOLE_OBJECT
    return spans or UNSATISFIABLE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE_OBJECT),
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-", [(500, 1000)]),
        ("bytes=999-", [(999, 1000)]),
        ("bytes=-1", [(999, 1000)]),
        ("bytes=-5000", [(0, 1000)]),
        ("bytes=0-99999", [(0, 1000)]),
        (f"bytes=0-{'9' * 6000}", [(0, 1000)]),
        (f"bytes={'0' * 6000}1-2", [(1, 3)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes=1-2,", [(1, 3)]),
        ("bytes=\t1-2 ,\t5-6 , ,", [(1, 7)]),
        ("bytes=1000-", UNSATISFIABLE),
        (f"bytes={'9' * 6000}-", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=2000-3000,4000-", UNSATISFIABLE),
        ("bytes=2000-3000,1-2", [(1, 3)]),
        ("bytes=-0,1-2", [(1, 3)]),
        ("bytes=0-9,200-209", [(0, 10), (200, 210)]),
        ("bytes=200-209,0-9", [(200, 210), (0, 10)]),
        ("bytes=0-9,5-20", [(0, 21)]),
        ("bytes=0-9,10-20", [(0, 21)]),
        ("bytes=0-9,80-99", [(0, 100)]),
        ("bytes=500-599,0-9,550-700,300-310", [(500, 701), (0, 10), (300, 311)]),
        ("bytes=" + ",".join(["0-"] * MAX_RANGES), [(0, 1000)]),
        ("bytes=" + ",".join(["0-"] * (MAX_RANGES + 1)), WHOLE_OBJECT),
        ("bytes=5-2", WHOLE_OBJECT),
        ("bytes=0-1,5-2", WHOLE_OBJECT),
        ("bytes=", WHOLE_OBJECT),
        ("bytes=,", WHOLE_OBJECT),
        ("bytes", WHOLE_OBJECT),
        ("bytes 0-1", WHOLE_OBJECT),
        ("bytes= 0 - 1", WHOLE_OBJECT),
        ("bytes=--1", WHOLE_OBJECT),
        ("bytes=-", WHOLE_OBJECT),
        ("bytes=a-b", WHOLE_OBJECT),
        ("bytes=+1-2", WHOLE_OBJECT),
        ("bytes=\u0661-\u0662", WHOLE_OBJECT),
        ("bytes=1_0-2_0", WHOLE_OBJECT),
        ("bytes=0-1, bytes=2-3", WHOLE_OBJECT),
        ("items=0-1", WHOLE_OBJECT),
        ("", WHOLE_OBJECT),
    ],
)
def test_ranges_of_object_of_1000_bytes(
    header: str | None, expected: list[tuple[int, int]] | str
) -> None:
    assert spans_to_send(header, 1000) == expected


def test_ranges_of_empty_object() -> None:
    assert spans_to_send("bytes=0-", 0) == UNSATISFIABLE
    assert spans_to_send("bytes=-0", 0) == UNSATISFIABLE
    # Satisfiable, but no Content-Range can express it.
    assert spans_to_send("bytes=-5", 0) == WHOLE_OBJECT


specs = st.one_of(
    st.tuples(st.integers(0, 400), st.integers(0, 400)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(0, 400).map(lambda first: f"{first}-"),
    st.integers(0, 400).map(lambda count: f"-{count}"),
    st.text("0123456789-, \t", max_size=6),
)


def requested_offsets(header: str, size: int) -> set[int] | None:
    """Return the offset of each requested byte by RFC 9110, section 14.1; None if the header is invalid."""
    specs_text = re.fullmatch(r"bytes=([0-9\-, \t]*)", header)
    if specs_text is None:
        return None
    parts = [part for part in re.split(r"[ \t]*,[ \t]*", specs_text[1].strip(" \t")) if part]
    requested: set[int] = set()
    if not parts:
        return None
    for part in parts:
        if re.fullmatch(r"[0-9]+-[0-9]+", part):
            first, last = map(int, part.split("-"))
            if last < first:
                return None
            requested |= {offset for offset in range(size) if first <= offset <= last}
        elif re.fullmatch(r"[0-9]+-", part):
            requested |= {offset for offset in range(size) if offset >= int(part[:-1])}
        elif re.fullmatch(r"-[0-9]+", part):
            requested |= {offset for offset in range(size) if offset >= size - int(part[1:])}
        else:
            return None
    return requested


@given(st.lists(specs, min_size=0, max_size=6), st.integers(1, 350))
def test_ranges_agree_with_model(specs_text: list[str], size: int) -> None:
    header = f"bytes={','.join(specs_text)}"
    requested, spans = requested_offsets(header, size), spans_to_send(header, size)
    if requested is None:
        assert spans == WHOLE_OBJECT
    elif not requested:
        assert spans == UNSATISFIABLE
    else:
        assert isinstance(spans, list)
        sent = [offset for start, end in spans for offset in range(start, end)]
        assert len(sent) == len(set(sent))  # no byte twice
        assert requested <= set(sent)
        for offset in set(sent) - requested:  # only small gaps are sent without a request
            assert any(offset - distance in requested for distance in range(1, PART_OVERHEAD + 1))
            assert any(offset + distance in requested for distance in range(1, PART_OVERHEAD + 1))
        ordered = sorted(spans)
        for (_, end), (start, _) in pairwise(ordered):
            assert start > end + PART_OVERHEAD


@given(st.text(max_size=200), st.integers(0, 300))
def test_spans_of_any_header_are_inside_the_object(header: str, size: int) -> None:
    spans = spans_to_send(header, size)
    if isinstance(spans, list):
        assert all(0 <= start < end <= size for start, end in spans)
        assert sum(end - start for start, end in spans) <= size


@given(st.integers(0, 500), st.one_of(st.none(), st.integers(0, 500)), st.integers(1, 400))
def test_single_range_selects_the_span_that_is_sent(
    first: int, length: int | None, size: int
) -> None:
    ranges = RangeSet.parse(f"bytes={first}-{'' if length is None else first + length}")
    assert ranges is not None
    assert ranges.single is not None
    if spans := ranges.spans(size):
        assert [ranges.single.resolve(size)] == spans


def test_multipart_frame_is_readable_by_mail_parser() -> None:
    body = bytes(range(256)) * 4
    frame = ByterangesFrame("xyzzy", "image/png", ((200, 210), (0, 10)), len(body))
    sent = b"".join(frame.head(span) + body[slice(*span)] for span in frame.spans) + frame.tail
    assert len(sent) == frame.length
    message = message_from_bytes(b"Content-Type: " + frame.media_type.encode() + b"\r\n" + sent)
    parts = [part for part in message.walk() if part is not message]
    assert [part["Content-Range"] for part in parts] == [
        format_content_range(span, len(body)) for span in frame.spans
    ]
    assert [part.get_payload(decode=True) for part in parts] == [
        body[slice(*span)] for span in frame.spans
    ]
    assert {part.get_content_type() for part in parts} == {"image/png"}
