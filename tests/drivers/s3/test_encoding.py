"""Encoding of keys, query values and ETags."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from botocore.utils import percent_encode
from hypothesis import example, given
from hypothesis import strategies as st

from trove_async.drivers.s3._encoding import (
    bare_etag,
    decode_value,
    encode_path,
    encode_query,
    encode_value,
    quoted_etag,
    sent_target,
    strong_etag,
    strong_etags,
)

texts = st.text(st.characters(codec="utf-8"))


@given(texts)
def test_encodes_as_botocore_does(text: str) -> None:
    assert encode_path(text) == percent_encode(text, safe="/~")
    assert encode_value(text) == percent_encode(text, safe="~")


@pytest.mark.parametrize("key", ["a/b-c._~", "ab09AZ", "", "data/2024/11/part-0.parquet"])
def test_plain_keys_are_unchanged(key: str) -> None:
    assert encode_path(key) == key


def test_encodes_every_byte_of_special_characters() -> None:
    assert encode_path("/a b+c/é\n") == "/a%20b%2Bc/%C3%A9%0A"
    assert encode_value("a/b") == "a%2Fb"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/b/a/../c", "/b/a/%2E%2E/c"),
        ("/b/.", "/b/%2E"),
        ("/b/..?versionId=/./x", "/b/%2E%2E?versionId=/./x"),
        ("/b/./../a", "/b/%2E/%2E%2E/a"),
        ("/b/.hidden/..a/a../...", "/b/.hidden/..a/a../..."),
        ("/b/a.b/c?x=/..", "/b/a.b/c?x=/.."),
    ],
)
def test_dot_segments_of_a_path_are_encoded(target: str, sent: str) -> None:
    assert sent_target(target) == sent


def test_query_is_sorted_and_subresources_have_no_equals_sign() -> None:
    assert encode_query({"uploads": "", "prefix": "a/b c"}) == "prefix=a%2Fb%20c&uploads"
    assert encode_query({}) == ""


@given(texts)
def test_decodes_every_style_of_encoding(key: str) -> None:
    aws, moto, fully_encoded = quote_plus(key, safe="/"), quote(key, safe="/"), quote(key, safe="")
    assert decode_value(aws) == decode_value(moto) == decode_value(fully_encoded) == key


def test_decoding_invalid_utf8_raises() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_value("a%FF")


@pytest.mark.parametrize(
    ("received", "etag", "sent"),
    [
        ('"abc-2"', "abc-2", '"abc-2"'),
        ("abc", "abc", '"abc"'),
        ('W/"abc"', 'W/"abc"', 'W/"abc"'),
        ('"', '"', '"""'),
        ('""', "", '""'),
    ],
)
def test_etag_quotes_are_removed_and_restored(received: str, etag: str, sent: str) -> None:
    assert bare_etag(received) == etag
    assert quoted_etag(etag) == sent


etags = st.lists(st.text(st.sampled_from('aZ0-!~"Ww/ <&é\x00\x7f\xa0'), max_size=4), max_size=4)


@given(etags)
@example(["a", "b-2"])
@example(["a", "W/a"])
@example(["a", ""])
def test_etags_of_a_page_are_those_of_its_objects(texts: list[str]) -> None:
    assert list(strong_etags(texts)) == [strong_etag(text) for text in texts]
