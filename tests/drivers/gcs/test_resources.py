"""Conversion of object metadata to and from JSON resources and headers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from trove_async.drivers.gcs._resources import (
    DEFAULT_TYPE,
    condition_query,
    encode_resource,
    info_from_headers,
    info_from_resource,
    require_generation,
)
from trove_async.errors import PreconditionFailedError, UnavailableError
from trove_async.options import PutOptions

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
names = st.from_regex(r"[a-z0-9_.-]+", fullmatch=True).filter(lambda n: not n.startswith("trove-"))

RESOURCE: dict[str, Any] = {
    "name": "key",
    "size": "5",
    "generation": "17",
    "updated": "2026-01-02T03:04:05.678Z",
}

HEADERS = {
    "X-Goog-Generation": "17",
    "X-Goog-Stored-Content-Length": "5",
    "X-Goog-Stored-Content-Encoding": "identity",
    "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
    "Content-Type": "text/plain",
}


@given(
    metadata=st.dictionaries(names, texts, max_size=5),
    headers=st.fixed_dictionaries(
        {},
        optional={
            name: texts.filter(bool)
            for name in (
                "content_type", "cache_control", "content_disposition",
                "content_encoding", "content_language", "storage_class",
            )
        },
    ),
    write_id=st.none() | names,
)  # fmt: skip
def test_resource_round_trips_options(
    metadata: dict[str, str], headers: dict[str, str], write_id: str | None
) -> None:
    options = PutOptions(metadata=metadata, write_id=write_id, **headers)  # type: ignore[arg-type]  # str options
    document = json.loads(encode_resource(options, "key"))
    info = info_from_resource({**RESOURCE, **document}, bucket="b", backend="x")
    assert info.metadata == metadata
    assert info.write_id == write_id
    for name in (
        "cache_control", "content_disposition", "content_encoding", "content_language",
        "storage_class",
    ):  # fmt: skip
        assert getattr(info, name) == headers.get(name)
    assert info.content_type == headers.get("content_type", DEFAULT_TYPE)
    assert (info.key, info.size, info.etag, info.version_id) == ("key", 5, "17", "17")
    assert info.last_modified == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@given(metadata=st.dictionaries(names, texts, max_size=3))
def test_inexact_metadata_headers_are_detected(metadata: dict[str, str]) -> None:
    document = json.loads(encode_resource(PutOptions(metadata=metadata)))
    headers_sent = CIMultiDict(HEADERS)
    for name, value in document.get("metadata", {}).items():
        headers_sent[f"X-Goog-Meta-{name}"] = value.encode("ascii", "replace").decode().strip()
    info, exact = info_from_headers(headers_sent, bucket="b", key="key", backend="x")
    if exact:
        assert info.metadata == metadata
    else:
        assert any(
            not value or not value.isascii() or value != value.strip() or "=?" in value
            or not value.isprintable()
            for value in metadata.values()
        )  # fmt: skip


def test_both_checksums_are_read_from_joined_or_separate_headers() -> None:
    crc, md5 = "yZRlqg==", "XUFAKrxLKna5cZ2REBfFkg=="
    for hashes in ([f"crc32c={crc}, md5={md5}"], [f"crc32c={crc}", f"md5={md5}"]):
        headers = CIMultiDict(HEADERS)
        for value in hashes:
            headers.add("X-Goog-Hash", value)
        info, _ = info_from_headers(headers, bucket="b", key="key", backend="x")
        assert info.checksums == {"crc32c": crc, "md5": md5}


@pytest.mark.parametrize("value", ["private, max-age=0", "public, max-age=3600"])
def test_default_cache_control_is_none(value: str) -> None:
    info, _ = info_from_headers(
        CIMultiDict({**HEADERS, "Cache-Control": value}), bucket="b", key="key", backend="x"
    )
    assert info.cache_control is None


@pytest.mark.parametrize("missing", RESOURCE)
def test_resource_without_required_field_is_malformed(missing: str) -> None:
    document = {name: value for name, value in RESOURCE.items() if name != missing}
    with pytest.raises(UnavailableError):
        info_from_resource(document, bucket="b", backend="x")


@pytest.mark.parametrize(
    "change",
    [
        {"X-Goog-Generation": None},
        {"Last-Modified": "yesterday"},
        {"X-Goog-Stored-Content-Length": "many"},
        {"Content-Range": "bytes 5-2/1"},
    ],
)
def test_malformed_headers_raise(change: dict[str, str | None]) -> None:
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    partial = "Content-Range" in change
    with pytest.raises(UnavailableError):
        info_from_headers(CIMultiDict(headers), bucket="b", key="key", backend="x", partial=partial)


def test_metadata_headers_that_differ_in_case_are_not_exact() -> None:
    headers = CIMultiDict(HEADERS)
    headers.add("X-Goog-Meta-Key", "1")
    assert info_from_headers(headers, bucket="b", key="key", backend="x")[1]
    # A transport may report the two fields separately or joined.
    headers.add("x-goog-meta-key", "2")
    assert not info_from_headers(headers, bucket="b", key="key", backend="x")[1]
    joined = CIMultiDict({**HEADERS, "X-Goog-Meta-Key": "1, 2"})
    assert not info_from_headers(joined, bucket="b", key="key", backend="x")[1]


def test_missing_size_is_zero_if_checksum_is_of_empty_body() -> None:
    document = {name: value for name, value in RESOURCE.items() if name != "size"}
    assert info_from_resource({**document, "crc32c": "AAAAAA=="}, bucket="b", backend="x").size == 0
    with pytest.raises(UnavailableError):
        info_from_resource({**document, "crc32c": "AAAAAQ=="}, bucket="b", backend="x")


@pytest.mark.parametrize("value", [5, None, ["x"], {}])
def test_metadata_value_that_is_not_a_string_is_malformed(value: object) -> None:
    with pytest.raises(UnavailableError):
        info_from_resource({**RESOURCE, "metadata": {"name": value}}, bucket="b", backend="x")


def test_metadata_names_are_lower_case_unless_they_collide() -> None:
    document = {**RESOURCE, "metadata": {"My-Key": "1", "KEY": "2", "key": "3", "Größe": "4"}}
    info = info_from_resource(document, bucket="b", backend="x")
    assert info.metadata == {"my-key": "1", "KEY": "2", "key": "3", "größe": "4"}


def test_content_range_of_whole_body_is_ignored() -> None:
    headers = CIMultiDict({**HEADERS, "Content-Range": "bytes 0--1/0"})
    info, _ = info_from_headers(headers, bucket="b", key="key", backend="x", partial=False)
    assert info.size == 5
    with pytest.raises(UnavailableError):
        info_from_headers(headers, bucket="b", key="key", backend="x", partial=True)


def test_headers_without_a_date_are_not_exact() -> None:
    headers = CIMultiDict(HEADERS)
    del headers["Last-Modified"]
    assert not info_from_headers(headers, bucket="b", key="key", backend="x")[1]
    assert info_from_headers(CIMultiDict(HEADERS), bucket="b", key="key", backend="x")[1]


def test_etag_that_is_not_a_generation_matches_nothing() -> None:
    assert require_generation("17") == "17"
    # Generation 0 means that there is no object.
    for etag in ("0", "00", "017", "-1", "", "abc", "1.5", "\u0661", "1" * 20, "CP+6q4"):
        with pytest.raises(PreconditionFailedError):
            require_generation(etag)
    assert condition_query(PutOptions(if_none_match="*")) == {"ifGenerationMatch": "0"}
    assert condition_query(PutOptions(if_match="17")) == {"ifGenerationMatch": "17"}
    assert condition_query(PutOptions()) == {}


def test_metadata_with_lone_surrogate_is_preserved() -> None:
    """JSON can carry a lone surrogate, so another tool may store one. A rewrite preserves it."""
    metadata = {"My Key": "\ud800"}
    assert json.loads(encode_resource(PutOptions(metadata=metadata)))["metadata"] == {
        **metadata,
        "trove-exact": "json",
    }
