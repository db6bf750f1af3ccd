"""Parsing of media types and file names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.integrations._parameters import file_name, parse_media_type

TOKEN = st.text("abcXYZ0189!#$%&'*+.^_`|~-", min_size=1, max_size=8)
QUOTED = st.text("ab ,;=/<>[](){}\t?@:", max_size=8).map('"{}"'.format)
GAP = st.text(" \t", max_size=2)


@given(TOKEN, TOKEN, st.dictionaries(TOKEN.map(str.lower), TOKEN | QUOTED), GAP)
def test_well_formed_media_types_are_parsed(
    kind: str, subtype: str, parameters: dict[str, str], gap: str
) -> None:
    end = "".join(f"{gap};{gap}{name}={value}" for name, value in parameters.items())
    assert parse_media_type(f"{kind}/{subtype}{end}") == f"{kind}/{subtype}".lower()
    assert parse_media_type(f"{gap}{kind}/{subtype}{end};{gap}") == f"{kind}/{subtype}".lower()
    assert parse_media_type(f"{kind}/{subtype}{end},text/html") is None
    assert parse_media_type(f'{kind}/{subtype}{end};x="') is None


@given(st.text(',;="\\/ ab', max_size=12))
def test_list_of_media_types_is_malformed(suffix: str) -> None:
    """A value with a second type outside quotes is malformed, whatever its beginning."""
    assert parse_media_type(f"text/plain{suffix},text/html") is None


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("attachment", None),
        ("attachment; filename=a.txt", "a.txt"),
        ('form-data; name="f"; filename="a b.txt"', "a b.txt"),
        (r'attachment; filename="a\"b.txt"', 'a"b.txt'),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt; filename=x", "€.txt"),
        ("attachment; filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("attachment; filename*=utf-8''%ff; filename=x", "x"),
        ("attachment; filename*=koi8-r''a; filename=x", "x"),
        ("attachment; filename*=\"utf-8''\udcff\"; filename=x", "x"),
        ("attachment; filename*=nonsense", None),
        ("attachment; filename=", None),
        ("attachment, inline; filename=x", None),
        ("", None),
    ],
)
def test_file_name_is_read_from_content_disposition(field: str, name: str | None) -> None:
    assert file_name(field) == name


@pytest.mark.parametrize(
    "field",
    [
        "a/b" + "; " * 32_768 + ",",
        "a/b" + " " * 65_536 + ",",
        'a/b;x="' + "y" * 65_536,
        'a/b;x="' + "\\" * 65_536,
        "a/b" + ";x" * 32_768,
        "a" * 65_536,
        "a/" + "b" * 65_536 + ",",
    ],
    ids=range(7),
)
def test_parsing_takes_linear_time(field: str) -> None:
    started = time.thread_time()
    assert parse_media_type(field) is None
    assert file_name(field.replace("/", "")) is None
    assert time.thread_time() - started < 0.25  # CPU time, not wall time: about 10 ms
