"""Conversion of options to headers, and of headers to object info."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from tests.drivers.s3.botocore_reference import parse_with_botocore
from trove_async.drivers.s3._headers import (
    EXACT,
    META,
    condition_headers,
    object_headers,
    object_info,
    put_headers,
    put_info,
    read_content_range,
    read_date,
)
from trove_async.drivers.s3._list_objects import MalformedResponse
from trove_async.drivers.s3._sdk_parameters import header_parameters
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

ALL_OPTIONS = PutOptions(
    content_type="text/plain",
    cache_control="max-age=60",
    content_disposition="attachment",
    content_encoding="gzip",
    content_language="de-CH",
    expires=datetime(2026, 12, 1, 10, 0, tzinfo=UTC),
    metadata={"owner": "some one", "size": "groß", "spaced": " in  and around "},
    tags={"cost centre": "a+b/c=d&e", "empty": ""},
    storage_class="GLACIER",
    if_match="abc",
    checksums={"sha256": "c2hh", "crc32c": "AAAAAA==", "md5": "bWQ1"},
    write_id="0011",
)
RESPONSE_HEADERS = {
    "etag": '"abc-2"',
    "last-modified": "Tue, 24 Nov 2026 11:00:50 GMT",
    "content-length": "1024",
    "content-type": "binary/octet-stream",
}

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30)
names = st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,10}", fullmatch=True)


def info(**headers: str) -> ObjectInfo:
    """Return the info that is read from `RESPONSE_HEADERS` and these headers."""
    header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return object_info({**RESPONSE_HEADERS, **header_fields}, bucket="b", key="k", backend="cold")


def test_put_headers_contain_every_option() -> None:
    assert put_headers(ALL_OPTIONS) == {
        "content-type": "text/plain",
        "cache-control": "max-age=60",
        "content-disposition": "attachment",
        "content-encoding": "gzip",
        "content-language": "de-CH",
        "expires": "Tue, 01 Dec 2026 10:00:00 GMT",
        "x-amz-meta-trove-write-id": "0011",
        "x-amz-meta-owner": "some one",
        "x-amz-meta-size": "=?UTF-8?B?Z3Jvw58=?=",
        "x-amz-meta-trove-exact": "spaced=%20in%20%20and%20around%20",
        "x-amz-tagging": "cost%20centre=a%2Bb%2Fc%3Dd%26e&empty=",
        "x-amz-storage-class": "GLACIER",
        "if-match": '"abc"',
        "x-amz-checksum-crc32c": "AAAAAA==",
        "content-md5": "bWQ1",
    }


def test_put_without_options_sends_the_default_content_type() -> None:
    assert put_headers(PutOptions()) == {"content-type": "binary/octet-stream"}


def test_upload_is_created_without_conditions_and_checksums() -> None:
    upload_headers = object_headers(ALL_OPTIONS)
    assert put_headers(ALL_OPTIONS).keys() - upload_headers.keys() == {
        "if-match",
        "x-amz-checksum-crc32c",
        "content-md5",
    }


def test_if_none_match_star_is_not_quoted() -> None:
    assert condition_headers(PutOptions(if_none_match="*")) == {"if-none-match": "*"}


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_round_trips(metadata: dict[str, str]) -> None:
    sent = object_headers(PutOptions(metadata=metadata, write_id="0011"))
    meta_headers = {name: value for name, value in sent.items() if name.startswith(META)}
    read_info = object_info({**RESPONSE_HEADERS, **meta_headers}, bucket="b", key="k")
    assert dict(read_info.metadata) == metadata
    assert read_info.write_id == "0011"


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_survives_a_service_that_stores_it_decoded(
    metadata: dict[str, str],
) -> None:
    stored = {
        name: info(**{"x-amz-meta-v": value}).metadata["v"]
        for name, value in object_headers(PutOptions(metadata=metadata)).items()
        if name.startswith(META)
    }
    returned = {
        name: value.strip()
        if value.isascii()
        else f"=?UTF-8?B?{b64encode(value.encode()).decode()}?="
        for name, value in stored.items()
    }
    assert (
        dict(object_info({**RESPONSE_HEADERS, **returned}, bucket="b", key="k").metadata)
        == metadata
    )


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_headers_are_ascii_without_extra_spaces(metadata: dict[str, str]) -> None:
    for name, value in object_headers(PutOptions(metadata=metadata)).items():
        if name.startswith(META):
            assert value.isascii()
            assert value.isprintable()
            assert value
            assert value == " ".join(value.split())


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("=?UTF-8?B?w4RNw4RaWsOVw5EgUzM=?=", "ÄMÄZZÕÑ S3"),
        ("=?utf-8?q?gr=C3=BC=C3=9F_dich?=", "grüß dich"),
        ("=?UTF-8*de?Q?gr=C3=BC=C3=9F?=", "grüß"),
        ("=?iso-8859-1?Q?gr=FC=DF?=", "grüß"),
        ("=?UTF-8?B?w4Q=?= =?UTF-8?B?w5Y=?= plain", "ÄÖ plain"),
        ("=?nonsense?B?w4Q=?=", "=?nonsense?B?w4Q=?="),
        ("=?UTF-8?B?w4?=", "=?UTF-8?B?w4?="),
        ("=?UTF-8?B?/w==?=", "=?UTF-8?B?/w==?="),
        ("a =? b", "a =? b"),
        ("two  spaces", "two  spaces"),
        ("", ""),
        ("grüß", "grüß"),
        ("gr\udcc3\udcbc\udcc3\udc9f", "grüß"),
        ("gr\udcfc\udcdf", "grüß"),  # ISO-8859-1, decoded as transports do
        ("=?utf-7?Q?+2AA-?=", "=?utf-7?Q?+2AA-?="),
        (Header("grüß " * 20, "utf-8").encode(linesep=" "), "grüß " * 20),
    ],
)
def test_reads_metadata_of_other_tools(header: str, value: str) -> None:
    assert info(**{"x-amz-meta-v": header}).metadata == {"v": value}


@pytest.mark.parametrize("raw", ["grüß".encode(), "grüß".encode("latin-1")])
@pytest.mark.parametrize(
    "field",
    [
        "content-type",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
    ],
)
def test_fields_in_other_charsets_can_be_sent_again(field: str, raw: bytes) -> None:
    read_info = info(**{field: raw.decode("utf-8", "surrogateescape")})
    name = field.replace("-", "_")
    assert getattr(read_info, name) == "grüß"
    sent = object_headers(PutOptions(**{name: getattr(read_info, name)}))
    assert sent[field].encode() == "grüß".encode()


@pytest.mark.parametrize("name", ["a%0D%0Ab", "a%20b", "%C3%BC", "A", ""])
def test_invalid_names_in_exact_metadata_are_ignored(name: str) -> None:
    assert info(**{"x-amz-meta-trove-exact": f"{name}=v&b=%20"}).metadata == {"b": " "}


def test_info_contains_every_header() -> None:
    assert info(
        cache_control="max-age=60",
        content_disposition="attachment",
        content_encoding="gzip",
        content_language="de-CH",
        expires="Tue, 01 Dec 2026 10:00:00 GMT",
        content_type="text/plain",
        x_amz_storage_class="GLACIER",
        x_amz_version_id="v1",
        x_amz_checksum_crc32c="AAAAAA==",
        **{"X-Amz-Meta-Owner": "me", "x-amz-meta-trove-write-id": "0011"},
    ) == ObjectInfo(
        bucket="b",
        key="k",
        size=1024,
        etag="abc-2",
        last_modified=datetime(2026, 11, 24, 11, 0, 50, tzinfo=UTC),
        cache_control="max-age=60",
        content_disposition="attachment",
        content_encoding="gzip",
        content_language="de-CH",
        expires=datetime(2026, 12, 1, 10, 0, tzinfo=UTC),
        content_type="text/plain",
        storage_class="GLACIER",
        version_id="v1",
        checksums={"crc32c": "AAAAAA=="},
        metadata={"owner": "me"},
        backend="cold",
        write_id="0011",
    )


@pytest.mark.parametrize("value", ["0", "-1", "", "Thu, 32 Jan 2026 00:00:00 GMT", "soon", "\xff"])
def test_invalid_expires_is_the_epoch(value: str) -> None:
    assert info(expires=value).expires == datetime(1970, 1, 1, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_expires_round_trips_in_any_year(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    sent = object_headers(PutOptions(expires=moment))["expires"]
    assert info(expires=sent).expires == moment
    assert header_parameters({"expires": sent}) == {"Expires": moment}


def test_headers_may_be_a_case_insensitive_mapping() -> None:
    headers = {
        **RESPONSE_HEADERS,
        "cache-control": "max-age=60",
        "content-encoding": "aws-chunked,gzip",
        "content-language": "de-CH",
        "x-amz-checksum-crc32c": "AAAAAA==",
        "x-amz-meta-owner": "me",
        "x-amz-storage-class": "GLACIER",
    }
    mapping = CIMultiDictProxy(CIMultiDict({name.title(): headers[name] for name in headers}))
    expected = object_info(headers, bucket="b", key="k")
    assert object_info(mapping, bucket="b", key="k") == expected
    assert (expected.storage_class, expected.content_encoding) == ("GLACIER", "gzip")


def test_empty_storage_class_is_the_default() -> None:
    assert info(x_amz_storage_class="").storage_class == "STANDARD"


def test_missing_headers_are_none_or_the_default() -> None:
    minimal = info()
    assert minimal.content_type is None
    assert minimal.storage_class == "STANDARD"
    assert minimal.complete
    assert dict(minimal.metadata) == dict(minimal.checksums) == dict(minimal.tags) == {}
    assert minimal.content_language is None
    assert minimal.expires is None
    assert minimal.write_id is minimal.version_id is minimal.cache_control is None


def test_missing_metadata_makes_the_info_incomplete() -> None:
    assert not info(x_amz_missing_meta="1").complete


@pytest.mark.parametrize(
    ("checksum", "headers", "expected"),
    [
        ("AAAAAA==", {}, {"crc32c": "AAAAAA=="}),
        ("AAAAAA==", {"x-amz-checksum-type": "FULL_OBJECT"}, {"crc32c": "AAAAAA=="}),
        ("AAAAAA==", {"x-amz-checksum-type": "COMPOSITE"}, {}),
        ("AAAAAA==-2", {}, {}),
        ("AAAAAA==", {"content-range": "bytes 0-9/1024"}, {}),
        ("AAAAAA==", {"content-range": "bytes 0-1023/1024"}, {"crc32c": "AAAAAA=="}),
    ],
)
def test_info_contains_only_full_object_checksums(
    checksum: str, headers: dict[str, str], expected: dict[str, str]
) -> None:
    assert info(**{"x-amz-checksum-crc32c": checksum, **headers}).checksums == expected


def test_size_in_a_range_response_is_that_of_the_object() -> None:
    assert info(content_range="bytes 5-14/99", content_length="10").size == 99
    assert read_content_range({"content-range": "bytes 5-14/99"}) == (5, 15, 99)
    assert read_content_range({}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": ""},
        {"content-length": "-1"},
        {"content-length": "1_0"},
        {"last-modified": ""},
        {"last-modified": "yesterday"},
        {"last-modified": "Tue, 31 Feb 2026 11:00:50 GMT"},
        {"last-modified": "Tue, 24 Foo 2026 11:00:50 GMT"},
        {"last-modified": "Fri, 31 Dec 9999 23:59:59 -1200"},
        {"last-modified": f"Tue, 24 Nov 2026 11:00:50 +{'9' * 20}"},
        {"content-range": "bytes */99"},
        {"content-range": "bytes 5-14/*"},
        {"content-range": "bytes 14-5/99"},
        {"content-range": "bytes 5-99/99"},
    ],
)
def test_response_without_a_valid_size_or_date_is_malformed(headers: dict[str, str]) -> None:
    (name,) = headers
    with pytest.raises(MalformedResponse, match=f"(?i){name}"):
        info(**headers)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds are naive
def test_http_dates_round_trip(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert read_date("Date", format_datetime(moment, usegmt=True)) == moment
    assert read_date("Date", format_datetime(moment)) == moment
    assert read_date("Date", format_datetime(moment)).tzinfo is UTC


def test_put_info_combines_options_and_response() -> None:
    response = {
        "date": "Tue, 24 Nov 2026 11:00:50 GMT",
        "etag": '"abc"',
        "x-amz-version-id": "v1",
        "x-amz-checksum-crc32c": "AAAAAA==",
    }
    stored_info = put_info(
        response, bucket="b", key="k", size=3, options=ALL_OPTIONS, backend="cold"
    )
    assert stored_info == ObjectInfo(
        bucket="b",
        key="k",
        size=3,
        etag="abc",
        last_modified=datetime(2026, 11, 24, 11, 0, 50, tzinfo=UTC),
        content_type="text/plain",
        cache_control="max-age=60",
        content_disposition="attachment",
        content_encoding="gzip",
        content_language="de-CH",
        expires=ALL_OPTIONS.expires,
        metadata=ALL_OPTIONS.metadata,
        tags=ALL_OPTIONS.tags,
        storage_class="GLACIER",
        checksums={"crc32c": "AAAAAA=="},
        version_id="v1",
        backend="cold",
        write_id="0011",
    )


def test_put_response_without_a_date_uses_the_current_time() -> None:
    before = datetime.now(UTC)
    stored_info = put_info({"etag": '"abc"'}, bucket="b", key="k", size=3, options=PutOptions())
    assert before <= stored_info.last_modified <= datetime.now(UTC)


def test_put_info_copies_the_metadata() -> None:
    metadata = {"a": "1"}
    stored_info = put_info({}, bucket="b", key="k", size=3, options=PutOptions(metadata=metadata))
    metadata["a"] = "2"
    assert stored_info.metadata == {"a": "1"}


def test_metadata_does_not_contain_reserved_names() -> None:
    read_info = info(**{META + EXACT: "a=%20", META + "trove-write-id": "0011", META + "b": "c"})
    assert dict(read_info.metadata) == {"a": " ", "b": "c"}


def test_undecodable_pairs_in_exact_metadata_are_ignored() -> None:
    read_info = info(**{META + EXACT: "a=%ff&%ff=b&c=%20", META + "b": "c"})
    assert dict(read_info.metadata) == {"b": "c", "c": " "}


def test_reads_what_botocore_reads() -> None:
    headers = {**RESPONSE_HEADERS, "x-amz-meta-a": "b", "x-amz-version-id": "v1"}
    expected = parse_with_botocore("HeadObject", b"", headers=headers)
    parsed = object_info(headers, bucket="b", key="k")
    assert parsed.size == expected["ContentLength"]
    assert parsed.etag == expected["ETag"].strip('"')
    assert parsed.last_modified == expected["LastModified"]
    assert dict(parsed.metadata) == expected["Metadata"]
    assert parsed.version_id == expected["VersionId"]


@pytest.mark.parametrize(
    ("received", "content_encoding"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, AWS-Chunked", "gzip"),
        ("gzip,br", "gzip,br"),
        ("gzip", "gzip"),
    ],
)
def test_aws_chunked_is_removed_from_the_content_encoding(
    received: str, content_encoding: str | None
) -> None:
    assert info(content_encoding=received).content_encoding == content_encoding


def test_put_info_prefers_last_modified_to_date() -> None:
    headers = {
        "last-modified": "Sat, 28 Nov 2026 16:00:00 GMT",
        "date": "Sun, 29 Nov 2026 16:00:00 GMT",
    }
    stored_info = put_info(headers, bucket="b", key="k", size=3, options=PutOptions())
    assert stored_info.last_modified == datetime(2026, 11, 28, 16, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["GMT", "UTC", "+0000", "-0000"])
def test_http_dates_may_name_utc_in_several_ways(zone: str) -> None:
    date = read_date("Date", f"Sat, 28 Nov 2026 16:00:00 {zone}")
    assert date == datetime(2026, 11, 28, 16, tzinfo=UTC)
    assert date.tzinfo is UTC
