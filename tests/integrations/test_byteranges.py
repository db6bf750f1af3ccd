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

WHOLE, UNSATISFIABLE = "whole", "416"


def answered(header: str | None, size: int) -> list[tuple[int, int]] | str:
    asked = RangeSet.parse(header)
    spans = None if asked is None else asked.spans(size)
    if spans is None:
        return WHOLE
    return spans or UNSATISFIABLE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE),
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
        ("bytes=" + ",".join(["0-"] * (MAX_RANGES + 1)), WHOLE),
        ("bytes=5-2", WHOLE),
        ("bytes=0-1,5-2", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=,", WHOLE),
        ("bytes", WHOLE),
        ("bytes 0-1", WHOLE),
        ("bytes= 0 - 1", WHOLE),
        ("bytes=--1", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=\u0661-\u0662", WHOLE),
        ("bytes=1_0-2_0", WHOLE),
        ("bytes=0-1, bytes=2-3", WHOLE),
        ("items=0-1", WHOLE),
        ("", WHOLE),
    ],
)
def test_ranges_of_object_of_1000_bytes(
    header: str | None, expected: list[tuple[int, int]] | str
) -> None:
    assert answered(header, 1000) == expected


def test_ranges_of_empty_object() -> None:
    assert answered("bytes=0-", 0) == UNSATISFIABLE
    assert answered("bytes=-0", 0) == UNSATISFIABLE
    assert answered("bytes=-5", 0) == WHOLE  # satisfiable, but no Content-Range can express it


specs = st.one_of(
    st.tuples(st.integers(0, 400), st.integers(0, 400)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(0, 400).map(lambda first: f"{first}-"),
    st.integers(0, 400).map(lambda count: f"-{count}"),
    st.text("0123456789-, \t", max_size=6),
)


def model(header: str, size: int) -> set[int] | None:
    """Return the offset of each requested byte, by the grammar of RFC 9110, section 14.1."""
    listed = re.fullmatch(r"bytes=([0-9\-, \t]*)", header)
    if listed is None:
        return None
    parts = [part for part in re.split(r"[ \t]*,[ \t]*", listed[1].strip(" \t")) if part]
    wanted: set[int] = set()
    if not parts:
        return None
    for part in parts:
        if re.fullmatch(r"[0-9]+-[0-9]+", part):
            first, last = map(int, part.split("-"))
            if last < first:
                return None
            wanted |= {at for at in range(size) if first <= at <= last}
        elif re.fullmatch(r"[0-9]+-", part):
            wanted |= {at for at in range(size) if at >= int(part[:-1])}
        elif re.fullmatch(r"-[0-9]+", part):
            wanted |= {at for at in range(size) if at >= size - int(part[1:])}
        else:
            return None
    return wanted


@given(st.lists(specs, min_size=0, max_size=6), st.integers(1, 350))
def test_ranges_agree_with_model(listed: list[str], size: int) -> None:
    header = f"bytes={','.join(listed)}"
    wanted, found = model(header, size), answered(header, size)
    if wanted is None:
        assert found == WHOLE
    elif not wanted:
        assert found == UNSATISFIABLE
    else:
        assert isinstance(found, list)
        covered = [at for start, end in found for at in range(start, end)]
        assert len(covered) == len(set(covered))  # no byte twice
        assert wanted <= set(covered)
        for at in set(covered) - wanted:  # only small gaps are sent unrequested
            assert any(at - near in wanted for near in range(1, PART_OVERHEAD + 1))
            assert any(at + near in wanted for near in range(1, PART_OVERHEAD + 1))
        starts = sorted(found)
        for (_, end), (start, _) in pairwise(starts):
            assert start > end + PART_OVERHEAD


@given(st.text(max_size=200), st.integers(0, 300))
def test_any_header_gives_spans_within_the_object(header: str, size: int) -> None:
    found = answered(header, size)
    if isinstance(found, list):
        assert all(0 <= start < end <= size for start, end in found)
        assert sum(end - start for start, end in found) <= size


@given(st.integers(0, 500), st.one_of(st.none(), st.integers(0, 500)), st.integers(1, 400))
def test_requested_backend_range_equals_sent_span(
    first: int, length: int | None, size: int
) -> None:
    asked = RangeSet.parse(f"bytes={first}-{'' if length is None else first + length}")
    assert asked is not None
    assert asked.only is not None
    if spans := asked.spans(size):
        assert [asked.only.resolve(size)] == spans


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
