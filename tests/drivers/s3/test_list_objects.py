"""Parsing of ListObjectsV2 pages, compared with botocore's parser and in handwritten cases."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.drivers.s3.botocore_reference import parse_list_with_botocore
from tests.drivers.s3.listing_documents import (
    AWS,
    MOTO,
    PLAIN,
    PRETTY,
    R2,
    SEAWEEDFS,
    STYLES,
    ListingStyle,
    dates,
    keys,
    objects,
)
from trove_async.drivers.s3 import _list_objects
from trove_async.drivers.s3._documents import parse_date_field
from trove_async.drivers.s3._list_objects import MalformedResponse, parse_page
from trove_async.models import ObjectInfo, Prefix

if TYPE_CHECKING:
    from collections.abc import Callable

    from trove_async.options import Page

OBJECT = {
    "Key": "a key",
    "LastModified": "2024-02-29T23:59:59.123Z",
    "ETag": "49f68a5c8493ec2c0bf489821c21fc3b-2",
    "Size": "1048576",
    "StorageClass": "GLACIER",
}

styles = st.sampled_from(list(STYLES.values()))


def parse(body: bytes) -> Page:
    return parse_page(body, bucket="bucket", backend="cold")


def parse_thoroughly(body: bytes) -> Page:
    """Parse a page with the thorough parser only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_list_objects, "_parse_quickly", raise_unusual)
        return parse(body)


def raise_unusual(_text: str) -> None:
    raise _list_objects._UnusualError


def outcome(parser: Callable[[bytes], Page], body: bytes) -> Page | None:
    """Return the parsed page, or None if it is malformed."""
    try:
        return parser(body)
    except MalformedResponse:
        return None


def keys_of(page: Page) -> list[str]:
    return [entry.key for entry in page.entries]


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_reads_an_object_in_every_style(style: ListingStyle) -> None:
    [entry] = parse(style.document([OBJECT], [])).entries
    assert entry == ObjectInfo(
        bucket="bucket",
        key="a key",
        size=1048576,
        etag="49f68a5c8493ec2c0bf489821c21fc3b-2",
        last_modified=datetime(2024, 2, 29, 23, 59, 59, 123000, tzinfo=UTC),
        storage_class="GLACIER" if "StorageClass" in style.order else None,
        backend="cold",
        complete=False,
    )


@given(styles, st.lists(objects, max_size=5), st.lists(keys, max_size=3), st.none() | keys)
def test_reads_what_botocore_reads(
    style: ListingStyle, items: list[dict[str, str]], prefixes: list[str], token: str | None
) -> None:
    token = token and token.replace("\r", "")  # `ListingStyle` does not escape it in tokens
    body = style.document(items, prefixes, token or None)
    expected_objects, expected_prefixes, expected_token = parse_list_with_botocore(body)

    page = parse(body)

    assert page.token == expected_token == (token or None)
    parsed = {entry.key: entry for entry in page.entries if isinstance(entry, ObjectInfo)}
    assert sorted(keys_of(page)) == sorted(
        [item["Key"] for item in expected_objects] + expected_prefixes
    )
    assert sorted(entry.prefix for entry in page.entries if isinstance(entry, Prefix)) == sorted(
        expected_prefixes
    )
    for expected in {item["Key"]: item for item in expected_objects}.values():
        entry = parsed[expected["Key"]]
        assert entry.size == expected["Size"]
        assert entry.etag == expected["ETag"].strip('"')
        assert entry.last_modified == expected["LastModified"]
        assert entry.storage_class == (expected.get("StorageClass") or None)


@given(styles, st.lists(objects, max_size=5), st.lists(keys, max_size=3), st.none() | keys)
def test_quick_and_thorough_parsers_agree(
    style: ListingStyle, items: list[dict[str, str]], prefixes: list[str], token: str | None
) -> None:
    body = style.document(items, prefixes, token)
    assert parse(body) == parse_thoroughly(body)


fragments = st.sampled_from(
    [
        *["", "<", ">", "&", "&#1;", "&#xD;", "&nbsp;", "\x01", "\r", "]]>", "\ufffe", "é", " "],
        *["<![CDATA[", "<!--", "-->", "<?pi?>", "<!DOCTYPE a>", "</ListBucketResult>"],
        *["<Contents>", "</Contents>", "<Contents/>", '<Contents a="1">', "<trove-run/>"],
        *["<Key>", "</Key>", "<Key>b</Key>", "<Owner><Key>x</Key></Owner>", "<Size>1</Size>"],
        "<StorageClass>A</StorageClass>",
    ]
)


@given(
    style=styles,
    prefixes=st.lists(keys, max_size=2),
    start=st.integers(0, 2000),
    length=st.integers(0, 40),
    fragment=fragments,
)
@example(AWS, ["a/"], 0, 0, "<trove-run/>")
def test_parsers_agree_on_damaged_pages(
    style: ListingStyle, prefixes: list[str], start: int, length: int, fragment: str
) -> None:
    document = style.document([OBJECT, {**OBJECT, "Key": "b"}], prefixes).decode()
    start %= len(document)
    damaged = (document[:start] + fragment + document[start + length :]).encode()
    assert outcome(parse, damaged) == outcome(parse_thoroughly, damaged)


@pytest.mark.parametrize(
    "style",
    [AWS, SEAWEEDFS, MOTO, R2, PLAIN],
    ids=["aws", "seaweedfs", "moto", "r2", "plain"],
)
def test_usual_pages_are_parsed_quickly(
    style: ListingStyle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_list_objects, "_parse_thoroughly", raise_unusual)
    items = [{**OBJECT, "Key": key} for key in ("a", "é & <ü>", "z")]
    assert keys_of(parse(style.document(items, ["b/", "y/"]))) == ["a", "b/", "y/", "z", "é & <ü>"]


def test_objects_and_prefixes_are_in_bytewise_order() -> None:
    items = [{**OBJECT, "Key": key} for key in ("a", "b/z", "\uffee", "\U0001f600")]
    page = parse(AWS.document(items, ["a/", "b/", "é/"]))
    assert keys_of(page) == ["a", "a/", "b/", "b/z", "é/", "\uffee", "\U0001f600"]
    assert keys_of(page) == sorted(keys_of(page), key=str.encode)


@pytest.mark.parametrize(
    "key", ["a b", "a+b", "a%20b", "%", "%zz", "a\x01b", "\x0b", "\uffff", "é"]
)
@pytest.mark.parametrize("style", [AWS, MOTO], ids=["aws", "moto"])
def test_decodes_keys_in_every_encoding_of_spaces(style: ListingStyle, key: str) -> None:
    assert keys_of(parse(style.document([{**OBJECT, "Key": key}], [key]))) == [key, key]


def test_keys_are_not_decoded_without_an_encoding_type() -> None:
    assert keys_of(parse(PLAIN.document([{**OBJECT, "Key": "a%20b+c"}], []))) == ["a%20b+c"]


@given(keys)
def test_character_references_are_resolved(key: str) -> None:
    decimal = "".join(f"&#{ord(char)};" for char in key)
    hexadecimal = "".join(f"&#x{ord(char):X};" for char in key)
    for written in (decimal, hexadecimal, escape(key, {"\r": "&#13;", "'": "&apos;"})):
        body = PLAIN.document([OBJECT], []).replace(b"a key", written.encode())
        assert keys_of(parse(body)) == [key]


@given(dates)
def test_dates_are_read_as_utc(date: str) -> None:
    [entry] = parse(AWS.document([{**OBJECT, "LastModified": date}], [])).entries
    assert isinstance(entry, ObjectInfo)
    assert entry.last_modified == datetime.fromisoformat(date)
    assert entry.last_modified.tzinfo is UTC


def test_object_without_an_etag_has_none() -> None:
    body = AWS.document([OBJECT], []).replace(
        b"<ETag>&quot;49f68a5c8493ec2c0bf489821c21fc3b-2&quot;</ETag>", b""
    )
    [entry] = parse(body).entries
    assert isinstance(entry, ObjectInfo)
    assert entry.etag is None


def test_token_of_the_last_page_is_ignored() -> None:
    body = AWS.document([OBJECT], [], token="more")
    assert parse(body).token == "more"
    assert parse(body.replace(b"<IsTruncated>true", b"<IsTruncated>false")).token is None


def test_token_is_not_decoded() -> None:
    assert parse(AWS.document([], [], token="a%2Fb+c&")).token == "a%2Fb+c&"


def test_empty_page_has_no_entries() -> None:
    page = parse(PRETTY.document([], []))
    assert not page.entries
    assert page.token is None


COMPLETE_PAGE = AWS.document([OBJECT], ["p/"], token="t")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"<!DOCTYPE html><html><body>502</body></html>",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b"<Error><Code>InternalError</Code></Error>",
        COMPLETE_PAGE[: len(COMPLETE_PAGE) // 2],
        COMPLETE_PAGE[:-1],
        COMPLETE_PAGE + b"<",
        COMPLETE_PAGE + COMPLETE_PAGE,
        COMPLETE_PAGE.replace(
            b"<ListBucketResult", b'<!DOCTYPE a [<!ENTITY e "x">]><ListBucketResult', 1
        ),
        COMPLETE_PAGE.replace(b"a+key", b"&undeclared;"),
        COMPLETE_PAGE.replace(b"a+key", b"a&#x110000;b"),
        COMPLETE_PAGE.replace(b"a+key", b"a\xffb"),
        COMPLETE_PAGE.replace(b"a+key", b"%FF"),
        COMPLETE_PAGE.replace(b"a+key", b""),
        COMPLETE_PAGE.replace(b"p/<", b"<"),
        COMPLETE_PAGE.replace(b"<Key>a+key</Key>", b""),
        COMPLETE_PAGE.replace(b"1048576", b"-1"),
        COMPLETE_PAGE.replace(b"1048576", b"1e6"),
        COMPLETE_PAGE.replace(b"<Size>1048576</Size>", b""),
        COMPLETE_PAGE.replace(b"2024-02-29", b"2023-02-29"),
        COMPLETE_PAGE.replace(b"23:59:59.123Z", b"23:59:59+25:00"),
        COMPLETE_PAGE.replace(b"<NextContinuationToken>t</NextContinuationToken>", b""),
        COMPLETE_PAGE.replace(b"<IsTruncated>true", b"<IsTruncated>perhaps"),
    ],
)
def test_malformed_or_truncated_page_raises(body: bytes) -> None:
    assert body != COMPLETE_PAGE
    with pytest.raises(MalformedResponse):
        parse(body)


def page_of_dates(*written: str) -> bytes:
    items = [{**OBJECT, "Key": f"{n}", "LastModified": date} for n, date in enumerate(written)]
    return AWS.document(items, [])


def test_dates_of_several_forms_on_one_page_are_read() -> None:
    written = ["2024-02-29T23:59:59Z", "2025-01-01T00:00:00.5Z", "2025-01-01T02:00:00+02:00"]
    entries = parse(page_of_dates(*written)).entries
    assert [info.last_modified for info in entries if isinstance(info, ObjectInfo)] == [
        datetime.fromisoformat(date) for date in written
    ]


@pytest.mark.parametrize(
    "written",
    [
        ["2024-02-29T23:59:59Z", "20240229T235959Z"],  # other forms of ISO 8601
        ["20240229T235959Z", "2024-02-29T23:59:59Z"],
        ["2024-02-29T23:59:59Z", "2024-W09-4T23:59:59Z"],
        ["2024-02-29T23:59:59Z", "2024-02-29"],
        ["2024-02-29T23:59:59Z", "2024-02-29 23:59:59Z"],
        ["2024-02-29T23:59:59Z", "٢٠٢٤-02-29T23:59:59Z"],  # digits that are not ASCII
        ["2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z\n2024-02-29T23:59:59Z"],
        ["2024-02-29T23:59:59Z", "2024-02-29T23:59:5", "9Z2024-02-29T23:59:59Z"],
        ["2024-02-29T23:59:59Z", "2024-13-29T23:59:59Z"],
    ],
)
def test_page_with_a_malformed_date_is_malformed(written: list[str]) -> None:
    with pytest.raises(MalformedResponse):
        parse(page_of_dates(*written))


def test_long_first_date_takes_no_memory_for_each_object() -> None:
    body = page_of_dates("2" * 500_000, *["2024-02-29T23:59:59Z"] * 999)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedResponse):
            parse(body)
        assert tracemalloc.get_traced_memory()[1] < 32 * len(body)
    finally:
        tracemalloc.stop()


def test_text_between_objects_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    body = AWS.document([OBJECT, {**OBJECT, "Key": "b"}], [])
    gap = body.replace(b"</Contents><Contents>", b"</Contents><Error>x</Error><Contents>")
    assert gap != body
    assert keys_of(parse(gap)) == ["a key", "b"]  # of the thorough parser
    monkeypatch.setattr(_list_objects, "_parse_thoroughly", raise_unusual)
    assert keys_of(parse(body)) == ["a key", "b"]
    with pytest.raises(_list_objects._UnusualError):
        parse(gap)


def test_entities_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    body = f'<!DOCTYPE a [<!ENTITY l0 "lol">{entities}]><ListBucketResult>&l9;</ListBucketResult>'
    with pytest.raises(MalformedResponse, match="DTD"):
        parse(body.encode())


@pytest.mark.parametrize(
    "date",
    [
        "2026-11-28T16:00:00Z",
        "2026-11-28T16:00:00.000Z",
        "2026-11-28T16:00:00+00:00",
        "2026-11-28T16:00:00+0000",
        "2026-11-28T18:00:00+02:00",
        "2026-11-28T10:30:00.5-0530",
        "2026-11-28T16:00:00",
    ],
)
@pytest.mark.parametrize("whitespace", ["", "\n  "], ids=["quick", "thorough"])
def test_dates_with_any_offset_are_read(date: str, whitespace: str) -> None:
    body = (
        f"<ListBucketResult><IsTruncated>false</IsTruncated>{whitespace}<Contents>{whitespace}"
        f"<Key>k</Key>{whitespace}<LastModified>{date}</LastModified><ETag>&quot;x&quot;</ETag><Size>3</Size></Contents>"
        "</ListBucketResult>"
    ).encode()
    (entry,) = parse_page(body, bucket="b", backend="").entries
    assert isinstance(entry, ObjectInfo)
    assert entry.last_modified.replace(microsecond=0) == datetime(2026, 11, 28, 16, tzinfo=UTC)
    assert entry.last_modified.utcoffset() == timedelta(0)
    assert parse_date_field("LastModified", date) == entry.last_modified
