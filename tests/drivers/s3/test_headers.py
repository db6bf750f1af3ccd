"""Options as headers, and headers as what is known of an object."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.s3.botocore_reference import parse_with_botocore
from trove_async.drivers.s3._headers import (
    EXACT,
    META,
    condition_headers,
    content_range,
    http_date,
    info_from,
    object_headers,
    put_headers,
    put_info,
)
from trove_async.drivers.s3._list_objects import MalformedResponse
from trove_async.drivers.s3._sdk_parameters import parameters
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

FULL = PutOptions(
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
ANSWER = {
    "etag": '"abc-2"',
    "last-modified": "Tue, 24 Nov 2026 11:00:50 GMT",
    "content-length": "1024",
    "content-type": "binary/octet-stream",
}

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30)
names = st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,10}", fullmatch=True)


def info(**headers: str) -> ObjectInfo:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return info_from({**ANSWER, **named}, bucket="b", key="k", backend="cold")


def test_a_put_says_all_that_its_options_do() -> None:
    assert put_headers(FULL) == {
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


def test_a_put_without_options_says_only_that_it_has_no_type() -> None:
    assert put_headers(PutOptions()) == {"content-type": "binary/octet-stream"}


def test_an_upload_is_opened_without_conditions_and_checksums_of_the_whole() -> None:
    opened_driver = object_headers(FULL)
    assert put_headers(FULL).keys() - opened_driver.keys() == {
        "if-match",
        "x-amz-checksum-crc32c",
        "content-md5",
    }


def test_create_only_is_a_star_without_quotes() -> None:
    assert condition_headers(PutOptions(if_none_match="*")) == {"if-none-match": "*"}


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_comes_back_as_it_was(metadata: dict[str, str]) -> None:
    sent = object_headers(PutOptions(metadata=metadata, write_id="0011"))
    kept = {name: value for name, value in sent.items() if name.startswith(META)}
    told = info_from({**ANSWER, **kept}, bucket="b", key="k")
    assert dict(told.metadata) == metadata
    assert told.write_id == "0011"


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_survives_a_service_that_decodes_it_before_it_is_stored(
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
    assert dict(info_from({**ANSWER, **returned}, bucket="b", key="k").metadata) == metadata


@given(st.dictionaries(names, texts, max_size=4))
def test_metadata_headers_are_such_that_no_server_changes_them(metadata: dict[str, str]) -> None:
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
        ("two  blanks", "two  blanks"),
        ("", ""),
        ("grüß", "grüß"),
        ("gr\udcc3\udcbc\udcc3\udc9f", "grüß"),
        ("gr\udcfc\udcdf", "grüß"),  # ISO-8859-1, as transports hand it over
        ("=?utf-7?Q?+2AA-?=", "=?utf-7?Q?+2AA-?="),
        (Header("grüß " * 20, "utf-8").encode(linesep=" "), "grüß " * 20),
    ],
)
def test_reads_metadata_that_others_wrote(header: str, value: str) -> None:
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
def test_fields_in_other_charsets_are_text_that_can_be_sent_again(field: str, raw: bytes) -> None:
    told = info(**{field: raw.decode("utf-8", "surrogateescape")})
    name = field.replace("-", "_")
    assert getattr(told, name) == "grüß"
    sent = object_headers(PutOptions(**{name: getattr(told, name)}))
    assert sent[field].encode() == "grüß".encode()


@pytest.mark.parametrize("name", ["a%0D%0Ab", "a%20b", "%C3%BC", "A", ""])
def test_names_that_we_do_not_write_are_no_metadata(name: str) -> None:
    assert info(**{"x-amz-meta-trove-exact": f"{name}=v&b=%20"}).metadata == {"b": " "}


def test_tells_all_that_an_answer_does() -> None:
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
def test_expires_that_is_no_date_is_long_ago(value: str) -> None:
    assert info(expires=value).expires == datetime(1970, 1, 1, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_expires_of_any_year_comes_back(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    sent = object_headers(PutOptions(expires=moment))["expires"]
    assert info(expires=sent).expires == moment
    assert parameters({"expires": sent}) == {"Expires": moment}


def test_what_is_not_told_is_none_or_the_standard() -> None:
    bare = info()
    assert bare.content_type is None
    assert bare.storage_class == "STANDARD"
    assert bare.complete
    assert dict(bare.metadata) == dict(bare.checksums) == dict(bare.tags) == {}
    assert bare.content_language is None
    assert bare.expires is None
    assert bare.write_id is bare.version_id is bare.cache_control is None


def test_metadata_that_no_header_can_carry_leaves_it_incomplete() -> None:
    assert not info(x_amz_missing_meta="1").complete


@pytest.mark.parametrize(
    ("checksum", "kind", "told"),
    [
        ("AAAAAA==", {}, {"crc32c": "AAAAAA=="}),
        ("AAAAAA==", {"x-amz-checksum-type": "FULL_OBJECT"}, {"crc32c": "AAAAAA=="}),
        ("AAAAAA==", {"x-amz-checksum-type": "COMPOSITE"}, {}),
        ("AAAAAA==-2", {}, {}),
        ("AAAAAA==", {"content-range": "bytes 0-9/1024"}, {}),
        ("AAAAAA==", {"content-range": "bytes 0-1023/1024"}, {"crc32c": "AAAAAA=="}),
    ],
)
def test_tells_only_checksums_of_the_whole(
    checksum: str, kind: dict[str, str], told: dict[str, str]
) -> None:
    assert info(**{"x-amz-checksum-crc32c": checksum, **kind}).checksums == told


def test_the_size_is_that_of_the_object_not_of_the_answer() -> None:
    assert info(content_range="bytes 5-14/99", content_length="10").size == 99
    assert content_range({"content-range": "bytes 5-14/99"}) == (5, 15, 99)
    assert content_range({}) is None


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
def test_refuses_answers_without_a_size_or_a_date(headers: dict[str, str]) -> None:
    with pytest.raises(MalformedResponse):
        info(**headers)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds are naive
def test_dates_are_read_as_they_were_written(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert http_date(format_datetime(moment, usegmt=True)) == moment
    assert http_date(format_datetime(moment)) == moment
    assert http_date(format_datetime(moment)).tzinfo is UTC


def test_a_put_is_known_by_its_options_and_its_answer() -> None:
    response = {
        "date": "Tue, 24 Nov 2026 11:00:50 GMT",
        "etag": '"abc"',
        "x-amz-version-id": "v1",
        "x-amz-checksum-crc32c": "AAAAAA==",
    }
    told = put_info(response, bucket="b", key="k", size=3, options=FULL, backend="cold")
    assert told == ObjectInfo(
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
        expires=FULL.expires,
        metadata=FULL.metadata,
        tags=FULL.tags,
        storage_class="GLACIER",
        checksums={"crc32c": "AAAAAA=="},
        version_id="v1",
        backend="cold",
        write_id="0011",
    )


def test_a_put_answered_without_a_date_was_now() -> None:
    before = datetime.now(UTC)
    told = put_info({"etag": '"abc"'}, bucket="b", key="k", size=3, options=PutOptions())
    assert before <= told.last_modified <= datetime.now(UTC)


def test_a_put_keeps_nothing_of_the_borrowed_options() -> None:
    metadata = {"a": "1"}
    told = put_info({}, bucket="b", key="k", size=3, options=PutOptions(metadata=metadata))
    metadata["a"] = "2"
    assert told.metadata == {"a": "1"}


def test_reserved_names_are_not_the_users() -> None:
    told = info(**{META + EXACT: "a=%20", META + "trove-write-id": "0011", META + "b": "c"})
    assert dict(told.metadata) == {"a": " ", "b": "c"}


def test_reserved_metadata_that_others_wrote_does_no_harm() -> None:
    told = info(**{META + EXACT: "a=%ff&%ff=b&c=%20", META + "b": "c"})
    assert dict(told.metadata) == {"b": "c", "c": " "}


def test_reads_what_botocore_reads() -> None:
    headers = {**ANSWER, "x-amz-meta-a": "b", "x-amz-version-id": "v1"}
    theirs = parse_with_botocore("HeadObject", b"", headers=headers)
    ours = info_from(headers, bucket="b", key="k")
    assert ours.size == theirs["ContentLength"]
    assert ours.etag == theirs["ETag"].strip('"')
    assert ours.last_modified == theirs["LastModified"]
    assert dict(ours.metadata) == theirs["Metadata"]
    assert ours.version_id == theirs["VersionId"]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, AWS-Chunked", "gzip"),
        ("gzip,br", "gzip,br"),
        ("gzip", "gzip"),
    ],
)
def test_encoding_of_the_request_is_none_of_the_content(told: str, kept: str | None) -> None:
    assert info(content_encoding=told).content_encoding == kept


def test_date_of_the_object_is_taken_from_a_put_that_tells_it() -> None:
    said = {
        "last-modified": "Sat, 28 Nov 2026 16:00:00 GMT",
        "date": "Sun, 29 Nov 2026 16:00:00 GMT",
    }
    told = put_info(said, bucket="b", key="k", size=3, options=PutOptions())
    assert told.last_modified == datetime(2026, 11, 28, 16, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["GMT", "UTC", "+0000", "-0000"])
def test_http_dates_of_other_servers_are_in_utc(zone: str) -> None:
    date = http_date(f"Sat, 28 Nov 2026 16:00:00 {zone}")
    assert date == datetime(2026, 11, 28, 16, tzinfo=UTC)
    assert date.tzinfo is UTC
