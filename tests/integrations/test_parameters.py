"""Parsing of Content-Type and Content-Disposition."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.integrations._parameters import parse_file_name, parse_media_type

TOKEN = st.text("abcXYZ0189!#$%&'*+.^_`|~-", min_size=1, max_size=8)
QUOTED = st.text("ab ,;=/<>[](){}\t?@:", max_size=8).map('"{}"'.format)
WHITESPACE = st.text(" \t", max_size=2)


@given(TOKEN, TOKEN, st.dictionaries(TOKEN.map(str.lower), TOKEN | QUOTED), WHITESPACE)
def test_only_well_formed_media_types_are_parsed(
    main_type: str, subtype: str, parameters: dict[str, str], gap: str
) -> None:
    suffix = "".join(f"{gap};{gap}{name}={value}" for name, value in parameters.items())
    field = f"{main_type}/{subtype}{suffix}"
    assert parse_media_type(field) == f"{main_type}/{subtype}".lower()
    assert parse_media_type(f"{gap}{field};{gap}") == f"{main_type}/{subtype}".lower()
    # Not well formed: a list, and an unterminated quoted string.
    assert parse_media_type(f"{field},text/html") is None
    assert parse_media_type(f'{field};x="') is None


@given(st.text(',;="\\/ ab', max_size=12))
def test_list_of_media_types_is_malformed(parameters: str) -> None:
    """A list is malformed, even if the parameters of its first type open a quoted string."""
    assert parse_media_type(f"text/plain{parameters},text/html") is None


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
    assert parse_file_name(field) == name


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
    ids=[
        "empty parameters",
        "spaces",
        "unterminated string",
        "unterminated string of escapes",
        "parameters without values",
        "long type",
        "long subtype",
    ],
)
def test_parsing_takes_linear_time(field: str) -> None:
    started = time.thread_time()
    assert parse_media_type(field) is None
    disposition = field.replace("/", "")  # a slash would end the parsing at once
    assert parse_file_name(disposition) is None
    assert time.thread_time() - started < 0.25  # CPU time, not wall time: about 10 ms
