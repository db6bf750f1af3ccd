"""Small XML documents of the S3 API, compared with botocore's parser and serializer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.s3.botocore_reference import parse_with_botocore, s3_model
from tests.drivers.s3.listing_documents import NAMESPACE, keys
from trove_async.drivers.s3._documents import (
    ErrorDocument,
    ErrorDocumentError,
    SentPart,
    UnfinishedUpload,
    WriteResult,
    complete_body,
    create_bucket_body,
    delete_body,
    is_deletable_in_bulk,
    parse_buckets,
    parse_completed,
    parse_copied,
    parse_deleted,
    parse_error,
    parse_part_copied,
    parse_tags,
    parse_upload_id,
    parse_uploads,
)
from trove_async.drivers.s3._list_objects import MalformedResponse
from trove_async.drivers.s3._xml import escape
from trove_async.models import BucketInfo

if TYPE_CHECKING:
    from collections.abc import Callable

XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
TIMESTAMP = "2026-11-24T11:00:50.532Z"
TIMESTAMP_UTC = datetime(2026, 11, 24, 11, 0, 50, 532000, tzinfo=UTC)


def document(root: str, content: str, namespace: str = f' xmlns="{NAMESPACE}"') -> bytes:
    return f"{XML_DECLARATION}<{root}{namespace}>{content}</{root}>".encode()


def serialize_with_botocore(operation: str, **arguments: Any) -> Any:
    model = s3_model().operation_model(operation)
    request = create_serializer("rest-xml").serialize_to_request(arguments, model)
    return ET.canonicalize(request["body"].decode(), rewrite_prefixes=True)


def keys_in(body: bytes) -> list[str | None]:
    root = ET.fromstring(body)  # noqa: S314 - our own document
    return [key.text for key in root.iter(f"{{{NAMESPACE}}}Key")]


def canonicalize(body: bytes) -> Any:
    return ET.canonicalize(body.decode(), rewrite_prefixes=True)


SEAWEEDFS_ERROR = document(
    "Error",
    "<Code>NoSuchKey</Code><Message>The specified key does not exist.</Message>"
    "<Resource>/probe/nope</Resource><RequestId>18EA</RequestId><Key>nope</Key>",
    namespace="",
)


def test_reads_an_error() -> None:
    assert parse_error(SEAWEEDFS_ERROR) == ErrorDocument(
        code="NoSuchKey",
        message="The specified key does not exist.",
        fields={"Resource": "/probe/nope", "RequestId": "18EA", "Key": "nope"},
    )


def test_reads_a_wrapped_error() -> None:
    body = document("ErrorResponse", "<Error><Code>Throttling</Code></Error>")
    assert parse_error(body).code == "Throttling"


@pytest.mark.parametrize(
    ("element", "region"),
    [
        ("<Region>eu-west-1</Region>", "eu-west-1"),
        ("<BucketRegion>eu-west-1</BucketRegion>", "eu-west-1"),
        ("<Region/>", None),
        ("", None),
    ],
)
def test_reads_the_region_of_an_error(element: str, region: str | None) -> None:
    body = document("Error", f"<Code>AuthorizationHeaderMalformed</Code>{element}", namespace="")
    assert parse_error(body).region == region


def test_error_does_not_show_the_signature() -> None:
    body = document(
        "Error",
        "<Code>SignatureDoesNotMatch</Code><Message>no</Message>"
        "<StringToSign>AWS4-HMAC</StringToSign><SignatureProvided>0badcafe</SignatureProvided>",
    )
    assert "0badcafe" not in repr(parse_error(body))
    assert "0badcafe" not in str(ErrorDocumentError(parse_error(body)))


@pytest.mark.parametrize(
    "body", [b"", b"<html/>", b"Bad Gateway", b"<Error>", b"\xff", document("Contents", "")]
)
def test_document_that_is_not_an_error_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse_error(body)


@pytest.mark.parametrize(
    "parse",
    [
        parse_upload_id,
        parse_completed,
        parse_copied,
        parse_part_copied,
        parse_deleted,
        parse_uploads,
        parse_buckets,
        parse_tags,
    ],
)
def test_every_parser_distinguishes_errors_results_and_malformed_documents(
    parse: Callable[[bytes], object],
) -> None:
    with pytest.raises(ErrorDocumentError) as caught:
        parse(b"  \n" + document("Error", "<Code>InternalError</Code><Message>oops</Message>"))
    assert caught.value.document == ErrorDocument(code="InternalError", message="oops")
    for garbage in (b"", b"   ", b"<html><body/></html>", b"<Error>", SEAWEEDFS_ERROR + b"<"):
        with pytest.raises(MalformedResponse):
            parse(garbage)


def test_reads_an_upload_id() -> None:
    content = "<Bucket>b</Bucket><Key>k</Key><UploadId>VXBsb2Fk_id-1</UploadId>"
    assert parse_upload_id(document("InitiateMultipartUploadResult", content)) == "VXBsb2Fk_id-1"
    with pytest.raises(MalformedResponse):
        parse_upload_id(document("InitiateMultipartUploadResult", "<Key>k</Key>"))


@pytest.mark.parametrize(
    ("parse", "root"),
    [
        (parse_completed, "CompleteMultipartUploadResult"),
        (parse_copied, "CopyObjectResult"),
        (parse_part_copied, "CopyPartResult"),
    ],
)
@pytest.mark.parametrize("quote", ["&#34;", "&quot;", '"', ""])
def test_reads_etag_and_date_of_a_stored_object(
    parse: Callable[[bytes], WriteResult], root: str, quote: str
) -> None:
    content = f"<LastModified>{TIMESTAMP}</LastModified><ETag>{quote}9aff-1{quote}</ETag>"
    assert parse(b"\n  " + document(root, content)) == WriteResult(
        etag="9aff-1", last_modified=TIMESTAMP_UTC
    )
    assert parse(document(root, "<ETag>9aff-1</ETag>", namespace="")) == WriteResult(etag="9aff-1")
    with pytest.raises(MalformedResponse):
        parse(document(root, "<LastModified/>"))


@pytest.mark.parametrize(
    ("elements", "checksums"),
    [
        ("<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>", {"crc32c": "AAAAAA=="}),
        ("<ChecksumCRC32C>AAAAAA==-2</ChecksumCRC32C>", {}),
        (
            "<ChecksumCRC32>AAAAAA==</ChecksumCRC32><ChecksumType>FULL_OBJECT</ChecksumType>",
            {"crc32": "AAAAAA=="},
        ),
        ("<ChecksumSHA256>x</ChecksumSHA256><ChecksumType>COMPOSITE</ChecksumType>", {}),
    ],
)
def test_reads_only_full_object_checksums(elements: str, checksums: dict[str, str]) -> None:
    body = document("CompleteMultipartUploadResult", f"<ETag>a</ETag>{elements}")
    assert parse_completed(body).checksums == checksums


@given(st.lists(keys, unique=True), st.lists(keys, unique=True))
def test_reads_the_result_of_each_deleted_key(deleted: list[str], failed: list[str]) -> None:
    body = document(
        "DeleteResult",
        "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in deleted)
        + "".join(
            f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
            for key in failed
        ),
    )
    reference = parse_with_botocore("DeleteObjects", body)

    results = parse_deleted(body)

    assert [item["Key"] for item in reference.get("Deleted", [])] == deleted
    assert results.keys() == {*deleted, *failed}
    for key, error in results.items():
        assert (error.code if error else None) == ("AccessDenied" if key in failed else None)


def test_reads_a_page_of_uploads() -> None:
    content = (
        f"<Bucket>b</Bucket><Upload><Initiated>{TIMESTAMP}</Initiated><Key>m+p%2Bu</Key>"
        "<UploadId>id1</UploadId><Owner><ID>x</ID></Owner></Upload>"
        f"<Upload><Key>é</Key><UploadId>id2</UploadId><Initiated>{TIMESTAMP}</Initiated></Upload>"
    )
    unencoded = parse_uploads(
        document("ListMultipartUploadsResult", f"{content}<IsTruncated>false</IsTruncated>")
    )
    assert unencoded.uploads == [
        UnfinishedUpload(key="m+p%2Bu", upload_id="id1", initiated=TIMESTAMP_UTC),
        UnfinishedUpload(key="é", upload_id="id2", initiated=TIMESTAMP_UTC),
    ]
    assert unencoded.next_markers is None
    encoded = parse_uploads(
        document(
            "ListMultipartUploadsResult",
            f"{content}<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
            "<NextKeyMarker>m+p%2Bu</NextKeyMarker>"
            "<NextUploadIdMarker>id+2</NextUploadIdMarker>",
        )
    )
    assert [upload.key for upload in encoded.uploads] == ["m p+u", "é"]
    assert encoded.next_markers == ("m p+u", "id+2")


@pytest.mark.parametrize(
    "content",
    [
        "<IsTruncated>true</IsTruncated>",
        f"<Upload><Key>k</Key><Initiated>{TIMESTAMP}</Initiated></Upload>",
        "<Upload><Key>k</Key><UploadId>i</UploadId></Upload>",
        "<Upload><Key>k</Key><UploadId>i</UploadId><Initiated>T99Z</Initiated></Upload>",
        (
            "<EncodingType>url</EncodingType><Upload><Key>%FF</Key><UploadId>i</UploadId>"
            f"<Initiated>{TIMESTAMP}</Initiated></Upload>"
        ),
    ],
)
def test_incomplete_or_invalid_page_of_uploads_is_malformed(content: str) -> None:
    with pytest.raises(MalformedResponse):
        parse_uploads(document("ListMultipartUploadsResult", content))


def test_reads_buckets() -> None:
    content = (
        "<Owner><ID>x</ID></Owner><Buckets>"
        f"<Bucket><Name>a</Name><CreationDate>{TIMESTAMP}</CreationDate></Bucket>"
        "<Bucket><Name>b</Name></Bucket></Buckets>"
    )
    page = parse_buckets(document("ListAllMyBucketsResult", content))
    assert page.buckets == [BucketInfo(name="a", created=TIMESTAMP_UTC), BucketInfo(name="b")]
    assert page.token is None
    truncated = f"{content}<ContinuationToken>t+%</ContinuationToken>"
    assert parse_buckets(document("ListAllMyBucketsResult", truncated)).token == "t+%"
    with pytest.raises(MalformedResponse):
        parse_buckets(document("ListAllMyBucketsResult", "<Buckets><Bucket/></Buckets>"))


texts = st.text(st.characters(codec="utf-8"), max_size=20)
xml_texts = texts.filter(is_deletable_in_bulk)


@given(st.lists(xml_texts.filter(bool), unique=True, max_size=5))
def test_keys_to_delete_round_trip(keys: list[str]) -> None:
    assert keys_in(delete_body(keys)) == keys


@pytest.mark.parametrize("key", ["a\x00", "a\x01b", "\x1f", "\x0b", "\ufffe", "a\uffff"])
def test_keys_that_xml_cannot_contain_are_rejected(key: str) -> None:
    assert not is_deletable_in_bulk(key)
    with pytest.raises(ValueError, match="cannot contain"):
        delete_body([key])


@pytest.mark.parametrize("key", ["a\tb\nc\rd\r\n", "&<>\"']]>", "\x7f\x85", "\ufffd", "\U0010ffff"])
def test_keys_that_xml_can_contain_round_trip(key: str) -> None:
    assert is_deletable_in_bulk(key)
    assert keys_in(delete_body([key])) == [key]


def test_writes_what_botocore_writes() -> None:
    keys = ["a", "b & c", "é"]
    assert canonicalize(delete_body(keys, quiet=True)) == serialize_with_botocore(
        "DeleteObjects",
        Bucket="b",
        Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
    )
    assert canonicalize(create_bucket_body("eu-west-1")) == serialize_with_botocore(
        "CreateBucket",
        Bucket="b",
        CreateBucketConfiguration={"LocationConstraint": "eu-west-1"},
    )
    assert canonicalize(
        complete_body(
            [
                SentPart(number=10, etag="ten"),
                SentPart(number=9, etag="nine", checksums={"crc32c": "AAAAAA=="}),
            ]
        )
    ) == serialize_with_botocore(
        "CompleteMultipartUpload",
        Bucket="b",
        Key="k",
        UploadId="id",
        MultipartUpload={
            "Parts": [
                {"ChecksumCRC32C": "AAAAAA==", "ETag": '"nine"', "PartNumber": 9},
                {"ETag": '"ten"', "PartNumber": 10},
            ]
        },
    )


def test_bucket_in_us_east_1_is_created_without_a_body() -> None:
    assert create_bucket_body("us-east-1") == b""
