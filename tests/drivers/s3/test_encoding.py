"""How keys, query values and etags are written, and read back."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from botocore.utils import percent_encode
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.s3._encoding import (
    bare_etag,
    decode_value,
    encode_path,
    encode_query,
    encode_value,
    quoted_etag,
    sent_target,
)

texts = st.text(st.characters(codec="utf-8"))


@given(texts)
def test_encodes_as_botocore_does(text: str) -> None:
    assert encode_path(text) == percent_encode(text, safe="/~")
    assert encode_value(text) == percent_encode(text, safe="~")


@pytest.mark.parametrize("key", ["a/b-c._~", "ab09AZ", "", "data/2024/11/part-0.parquet"])
def test_plain_keys_stay_as_they_are(key: str) -> None:
    assert encode_path(key) == key


def test_encodes_every_byte_of_what_is_not_plain() -> None:
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


def test_a_query_is_sorted_and_names_a_subresource_alone() -> None:
    assert encode_query({"uploads": "", "prefix": "a/b c"}) == "prefix=a%2Fb%20c&uploads"
    assert encode_query({}) == ""


@given(texts)
def test_decodes_what_every_service_sends(key: str) -> None:
    aws, moto, all_of_it = quote_plus(key, safe="/"), quote(key, safe="/"), quote(key, safe="")
    assert decode_value(aws) == decode_value(moto) == decode_value(all_of_it) == key


def test_refuses_to_decode_what_is_not_utf8() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_value("a%FF")


@pytest.mark.parametrize(
    ("answered", "etag", "sent"),
    [
        ('"abc-2"', "abc-2", '"abc-2"'),
        ("abc", "abc", '"abc"'),
        ('W/"abc"', 'W/"abc"', 'W/"abc"'),
        ('"', '"', '"""'),
        ('""', "", '""'),
    ],
)
def test_etags_lose_their_quotes_and_get_them_back(answered: str, etag: str, sent: str) -> None:
    assert bare_etag(answered) == etag
    assert quoted_etag(etag) == sent
