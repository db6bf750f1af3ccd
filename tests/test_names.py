"""Checks of bucket names, keys, prefixes, header values and metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async import InvalidNameError
from trove_async import _names as names


@pytest.mark.parametrize(
    "bucket", ["a", "data", "My.Bucket_1", "..a", "a..", "...", "é", "x" * 222, "é" * 111, " "]
)
def test_bucket_name_is_allowed(bucket: str) -> None:
    names.check_bucket(bucket)


@pytest.mark.parametrize(
    ("bucket", "message"),
    [
        ("", "empty"),
        (".", "'.'"),
        ("..", "'..'"),
        ("a/b", "'/'"),
        ("/", "'/'"),
        ("a\0b", "NUL"),
        ("x" * 223, "at most 222 bytes of UTF-8, got 223"),
        ("é" * 112, "got 224"),
        ("\ud800", "UTF-8"),
    ],
)
def test_bucket_name_is_rejected(bucket: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message) as caught:
        names.check_bucket(bucket)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "a", "a/b", "/", "/a", "a/", "a//b", "...", "a/...", ".hidden", "a/.hidden", "a.", "a/b.",
        "..a", "a..", "a/..b/c", "\n", "\r\n", ".\n", "a/..\n", " ", "\\", "é", "\U0001f4be", "\uffff",
        "x" * 1024, "é" * 512, "\x01",
    ],
)  # fmt: skip
def test_key_is_allowed(key: str) -> None:
    names.check_key("data", key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "must not be empty"),
        (".", "segment"),
        ("..", "segment"),
        ("./a", "segment"),
        ("../a", "segment"),
        ("a/.", "segment"),
        ("a/..", "segment"),
        ("a/./b", "segment"),
        ("a/../b", "segment"),
        ("/..", "segment"),
        ("../", "segment"),
        ("a\0", "NUL"),
        ("x" * 1025, "at most 1024 bytes of UTF-8, got 1025"),
        ("é" * 513, "got 1026"),
        ("a\udfff", r"must have a UTF-8 form, got 'a\\udfff': remove its lone surrogates"),
    ],
)
def test_key_is_rejected(key: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message) as caught:
        names.check_key("data", key)
    assert "\n" not in str(caught.value)
    assert "data" in str(caught.value) or "UTF-8 form" in message


@given(st.text(st.sampled_from("./a"), min_size=1))
def test_dot_segment_is_rejected_anywhere_in_a_key(key: str) -> None:
    if {".", ".."} & set(key.split("/")):
        with pytest.raises(InvalidNameError):
            names.check_key("data", key)
    else:
        names.check_key("data", key)


@pytest.mark.parametrize("value", [None, b"a", 5])
def test_name_that_is_not_a_str_raises_type_error(value: str) -> None:
    for check in (
        names.check_bucket,
        lambda name: names.check_key("data", name),
        names.check_prefix,
        lambda name: names.check_metadata({"a": name}),
        lambda name: names.check_metadata({name: "a"}),
    ):
        with pytest.raises(TypeError, match=f"must be a str, got {type(value).__name__}"):
            check(value)


def test_check_returns_both_names() -> None:
    assert names.check("data", "key") == ("data", "key")


@pytest.mark.parametrize("value", ["", "a  b\tc", "é€\u2028", "\xa0", None, "x" * 5000])
def test_header_value_is_allowed(value: str | None) -> None:
    names.check_header("content_type", value)


@pytest.mark.parametrize("value", ["\x01", "a\x0bb", "\x1b[31m", "a\x7f"])
def test_header_value_with_a_control_character_is_rejected(value: str) -> None:
    with pytest.raises(InvalidNameError, match="content_type must not contain control") as caught:
        names.check_header("content_type", value)
    assert str(caught.value).isprintable()
    names.check_metadata({"name": value})  # drivers encode metadata


@pytest.mark.parametrize("value", [" ", "\t", " text/plain", "text/plain ", "text/plain\t"])
def test_header_value_with_space_at_an_end_is_rejected(value: str) -> None:
    with pytest.raises(InvalidNameError, match="content_type must not start or end with"):
        names.check_header("content_type", value)
    names.check_metadata({"name": value})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "\0", "\ud800", "x\r\nInjected: 1"])
def test_header_value_is_rejected(value: str) -> None:
    with pytest.raises(InvalidNameError, match="content_type") as caught:
        names.check_header("content_type", value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidNameError):
        names.check_metadata({"name": value})


@pytest.mark.parametrize("name", ["", "a b", "é", "a:b", "a\n", "trove-id", "Trove-Anything"])
def test_metadata_name_is_rejected(name: str) -> None:
    with pytest.raises(InvalidNameError, match="metadata name"):
        names.check_metadata({name: "value"})


def test_metadata_names_are_allowed() -> None:
    names.check_metadata({"a": "", "X-Y_z.1": "é", "trove": "only `trove-` is reserved"})


@pytest.mark.parametrize("prefix", ["", "a", "../", ".", "x" * 2000, "\n"])
def test_prefix_is_allowed(prefix: str) -> None:
    names.check_prefix(prefix)
