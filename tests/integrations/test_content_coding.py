"""Parsing of Accept-Encoding, and the choice of objects that have a zstd form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async import ObjectInfo
from trove_async.integrations._content_coding import AcceptedCodings, has_zstd_form

INFO = ObjectInfo(bucket="b", key="k", size=10, etag="abc", last_modified=datetime.now(UTC))


@pytest.mark.parametrize(
    ("header", "zstd", "decoded"),
    [
        (None, False, True),
        ("", False, True),
        (" , ,", False, True),
        ("gzip, deflate, br", False, True),
        ("zstd", True, True),
        ("gzip, deflate, br, zstd", True, True),
        ("gzip,\tZstd ; Q=0.001", True, True),
        ("zstd;q=1.000", True, True),
        ("zstd;q=0", False, True),
        ("zstd;q=0.000", False, True),
        ("zstd;q=0, *", False, True),
        ("zstd, *;q=0", True, False),
        ("*", True, True),
        ("*;q=0", False, False),
        ("gzip;q=1, *;q=0", False, False),
        ("identity;q=1, *;q=0", False, True),  # Chromium requests media like this
        ("identity;q=0", False, False),
        ("identity;q=0, zstd", True, False),
        ("identity;q=0, zstd;q=0.1", True, False),
        ("identity, zstd;q=0.9", False, True),
        ("identity;q=0.5, zstd;q=0.9", True, True),
        ("identity;q=0.5, *;q=0.9", True, True),
        ("identity, zstd", True, True),
        ("zstd, zstd;q=0", False, True),
        # Malformed members are ignored.
        ("zstd;q=2", False, True),
        ("zstd;q=-1", False, True),
        ("zstd;q=0.0001", False, True),
        ("zstd;level=3", False, True),
        ("zstd gzip", False, True),
        ("x-zstd, zstdx", False, True),
        ("gzip;q=x, zstd", True, True),
    ],
)
def test_accepted_codings(header: str | None, zstd: bool, decoded: bool) -> None:  # noqa: FBT001 - columns
    assert AcceptedCodings.parse(header) == (zstd, decoded)


@given(st.text("zstd*identyq=01.;, \t\"'", max_size=60))
def test_any_header_is_parsed(header: str) -> None:
    AcceptedCodings.parse(header)


@pytest.mark.parametrize(
    ("records", "content_encoding", "expected"),
    [
        (None, None, False),
        ('[["zstd",null]]', None, False),
        ('[["zstd",{"frame_size":1024}]]', None, True),
        ('[["zstd",{"frame_size":1024}]]', "", True),
        ('[["zstd",{"frame_size":1024}]]', "gzip", False),
        ('[["zstd",{"frame_size":1024}]]', "zstd", False),
        ('[["zstd",{"frame_size":1024}],["xor",null]]', None, True),
        ('[["zstd",{"frame_size":1024}],["xor",{}]]', None, False),
        ('[["zstd",{"frame_size":1024}],["zstd",{"frame_size":1024}]]', None, False),
        ('[["xor",{}]]', None, False),
        ("[[", None, False),
        (None, "zstd", False),
    ],
)
def test_has_zstd_form(
    records: str | None,
    content_encoding: str | None,
    expected: bool,  # noqa: FBT001 - a column
) -> None:
    info = replace(INFO, records=records, content_encoding=content_encoding)
    assert has_zstd_form(info) is expected
