"""The mapping of keys to paths: reversible, in key order, and without conflicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.local._layout import (
    MAX_NAME,
    OVERFLOW,
    PIECE,
    SUFFIX,
    Layout,
    escape,
    unescape,
)
from trove_async.errors import InvalidNameError

keys = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=300)
buckets = st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1, max_size=20)


def _decoded(path: str) -> str:
    pieces = path.removesuffix(SUFFIX).split("/")[3:]
    return b"".join(unescape(piece) or b"?" for piece in pieces).decode()


@given(st.binary(max_size=200))
def test_unescape_reverses_escape(data: bytes) -> None:
    assert unescape(escape(data)) == data


@given(st.text(max_size=20))
def test_unescape_accepts_only_escaped_names(name: str) -> None:
    data = unescape(name)
    assert data is None or escape(data) == name


@given(keys)
def test_overflow_path_decodes_to_the_key(key: str) -> None:
    path = Layout().locate("b", key).overflow
    assert path.startswith(f"{OVERFLOW}/b/")
    assert _decoded(path) == key
    assert all(0 < len(name) <= MAX_NAME for name in path.split("/"))


@given(keys)
def test_overflow_path_is_safe_from_folding(key: str) -> None:
    path = Layout().locate("b", key).overflow
    assert path.isascii()
    assert path == path.lower()


@given(st.lists(keys, max_size=10))
def test_overflow_pieces_sort_like_keys(unsorted: list[str]) -> None:
    def pieces(key: str) -> list[bytes]:
        data = key.encode()
        return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]

    assert sorted(unsorted) == sorted(unsorted, key=pieces)


@given(keys)
def test_no_overflow_path_is_a_directory_of_another(key: str) -> None:
    path = Layout().locate("b", key).overflow
    longer = Layout().locate("b", key + "x" * PIECE).overflow
    assert not longer.startswith(path + "/")


@pytest.mark.parametrize("folding", [False, True])
@given(bucket=buckets)
def test_bucket_directory_decodes_to_the_bucket(bucket: str, *, folding: bool) -> None:
    layout = Layout(folding=folding)
    directory = layout.directory(bucket)
    assert layout.bucket(directory) == bucket
    assert not directory.startswith(".trove")
    if folding:
        assert directory == directory.lower()
        assert directory.isascii()


@pytest.mark.parametrize("name", ["%", "%a", "%=%2", "%=%ff", "%=a", "\udcff", "%=A"])
def test_other_directory_names_are_not_buckets(name: str) -> None:
    assert Layout().bucket(name) is None


def test_bucket_name_that_is_too_long_when_escaped_is_rejected() -> None:
    with pytest.raises(InvalidNameError, match="too long"):
        Layout(folding=True).directory("Ä" * 100)


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("a", True),
        ("a/b", True),
        ("..a/.b", True),
        ("ä" * 127, True),
        ("ä" * 128, False),
        ("x/" + "y" * 255, True),
        ("x/" + "y" * 256 + "/z", False),
        ("a/", False),
        ("/a", False),
        ("a//b", False),
        ("/", False),
    ],
)
def test_key_is_plain_if_it_is_a_valid_path(key: str, *, plain: bool) -> None:
    assert Layout().is_plain(key) is plain


@pytest.mark.parametrize(
    ("key", "plain"),
    [("a/b.txt", True), ("A", False), ("ä", False), ("a.", False), ("a./b", False), ("a b", False)],
)
def test_folding_leaves_only_unambiguous_keys_plain(key: str, *, plain: bool) -> None:
    assert Layout(folding=True).is_plain(key) is plain


@pytest.mark.parametrize("key", [".", "..", "../b/key", "a/../../b/key", "a/.", "./a"])
def test_no_path_leads_out_of_its_bucket(key: str) -> None:
    assert Layout().locate("bucket", key).plain is None
    assert Layout().locate("bucket", "..a/.b/c.").plain == "bucket/..a/.b/c."
