"""Parse S3's response documents, except object and version listings. Build request documents.

A 200 response may contain an error: S3 begins its response to CompleteMultipartUpload, CopyObject
and UploadPartCopy before it knows their outcome (S3 API Reference, each operation's description).
All parsers of results raise `ErrorDocumentError` then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trove_async.models import BucketInfo

from ._encoding import bare_etag, decode_value, quoted_etag
from ._headers import covers_whole_object
from ._xml import (
    DATE,
    MalformedResponse,
    child_texts,
    children,
    decode,
    escape,
    is_xml_text,
    local_name,
    parse,
    parse_date,
)

if TYPE_CHECKING:
    from ._xml import Element

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

CHECKSUM_ELEMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "crc32c": "ChecksumCRC32C",
        "crc64nvme": "ChecksumCRC64NVME",
        "sha256": "ChecksumSHA256",
        "crc32": "ChecksumCRC32",
        "sha1": "ChecksumSHA1",
    }
)
"""S3's element name of each checksum algorithm."""

# -- responses -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument:
    """A parsed error document.

    Attributes:
        code: The error code, such as ``NoSuchKey``.
        message: The human-readable message.
        fields: The other elements, by name. Never show them: some repeat the signed request and its
            access key.
    """

    code: str
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @property
    def region(self) -> str | None:
        """The bucket's region, if the document contains it."""
        return self.fields.get("Region") or self.fields.get("BucketRegion") or None


class AmbiguousKeysError(Exception):
    """Raised when a listing does not show whether its keys are encoded."""


def check_unambiguous(keys: Iterable[str]) -> None:
    """Raise AmbiguousKeysError if decoding would change one of the keys."""
    joined = "".join(keys)
    if "%" in joined or "+" in joined:
        raise AmbiguousKeysError


class ErrorDocumentError(Exception):
    """Raised when a successful response contains an error document instead of a result.

    Args:
        document: The error document.
    """

    def __init__(self, document: ErrorDocument) -> None:
        super().__init__(document.code)  # not the message, which may quote the request
        self.document = document


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The result of a completion or a copy: an object or a part.

    Attributes:
        etag: The ETag without its quotes. A weak ETag is unchanged: it suffices to identify a part,
            and `read_write_result` discards that of an object.
        last_modified: The date, if the response has one.
        checksums: Checksums of the whole content, as in `ObjectInfo.checksums`.
    """

    etag: str
    last_modified: datetime | None = None
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsPage:
    """A page of a bucket's unfinished uploads.

    Attributes:
        uploads: The uploads, ordered by key.
        next_markers: ``key-marker`` and ``upload-id-marker`` of the next page, if there is one.
        now: The date of the response, or the local time if it has none.
    """

    uploads: Sequence[UnfinishedUpload]
    next_markers: tuple[str, str] | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketsPage:
    """A page of the owner's buckets, and the ``continuation-token`` of the next page, if any."""

    buckets: Sequence[BucketInfo]
    token: str | None = None


def parse_error(body: bytes) -> ErrorDocument:
    """Parse an error document.

    Raises:
        MalformedResponse: The body is not an S3 error: it is empty (after a HEAD), or comes from
            another server.
    """
    root = _document(body)
    if local_name(root) == "ErrorResponse":  # the wrapper of STS, IAM and services built on them
        root = next(children(root, "Error"), root)
    if local_name(root) != "Error":
        raise MalformedResponse(f"expected <Error>, got <{local_name(root)[:40]}>")
    return _error(root)


def parse_upload_id(body: bytes) -> str:
    """Parse the upload id from the response to CreateMultipartUpload."""
    root = _document(body)
    if local_name(root) == "Error":
        raise ErrorDocumentError(_error(root))
    # The root's name is not checked: rclone sends <InitiateMultipartUpload>. An UploadId suffices.
    upload_id = child_texts(root).get("UploadId", "").strip()
    if not upload_id:
        raise MalformedResponse(f"<{local_name(root)[:40]}> has no UploadId")
    return upload_id


def parse_completed(body: bytes) -> WriteResult:
    """Parse the response to CompleteMultipartUpload."""
    return _write_result(parse_result(body, "CompleteMultipartUploadResult"))


def parse_copied(body: bytes) -> WriteResult:
    """Parse the response to CopyObject."""
    return _write_result(parse_result(body, "CopyObjectResult"))


def parse_part_copied(body: bytes) -> WriteResult:
    """Parse the response to UploadPartCopy."""
    return _write_result(parse_result(body, "CopyPartResult"))


def parse_deleted(body: bytes) -> Mapping[str, ErrorDocument | None]:
    """Parse the response to DeleteObjects: an error for each key, or None if it was deleted.

    A key that the response omits or alters is missing from the result. Its outcome is unknown.
    Some services alter line ends, because they do not escape them.
    """
    root = parse_result(body, "DeleteResult")
    outcomes: dict[str, ErrorDocument | None] = {}
    for deleted in children(root, "Deleted"):
        outcomes[child_texts(deleted).get("Key", "")] = None
    for failed in children(root, "Error"):
        outcomes[child_texts(failed).get("Key", "")] = _error(failed)
    return outcomes


def parse_uploads(body: bytes, *, encoding_requested: bool = False) -> UploadsPage:
    """Parse a page of ListMultipartUploads. Keys are decoded if the response declares an encoding.

    Args:
        body: The response body.
        encoding_requested: Whether the request asked for encoded keys.

    Raises:
        AmbiguousKeysError: The request asked for encoded keys, the response declares no encoding, and
            the keys are ambiguous.
    """
    root = parse_result(body, "ListMultipartUploadsResult")
    page = child_texts(root)
    encoded = page.get("EncodingType", "").strip() == "url"
    if encoding_requested and not encoded:
        check_unambiguous(
            upload.get("Key", "") for upload in map(child_texts, children(root, "Upload"))
        )
    uploads = [
        UnfinishedUpload(
            key=decode_key(upload.get("Key", ""), encoded=encoded),
            upload_id=upload.get("UploadId", ""),
            initiated=parse_date_field("Initiated", upload.get("Initiated", "")),
        )
        for upload in map(child_texts, children(root, "Upload"))
    ]
    if not all(upload.key and upload.upload_id for upload in uploads):
        raise MalformedResponse("an Upload has no Key or UploadId")
    if page.get("IsTruncated", "").strip() != "true":
        return UploadsPage(uploads=uploads)
    key = decode_key(page.get("NextKeyMarker", ""), encoded=encoded)
    upload_id = page.get("NextUploadIdMarker", "")
    if not key:
        raise MalformedResponse("IsTruncated is true, but there is no NextKeyMarker")
    return UploadsPage(uploads=uploads, next_markers=(key, upload_id))


def parse_buckets(body: bytes) -> BucketsPage:
    """Parse a page of ListBuckets."""
    root = parse_result(body, "ListAllMyBucketsResult")
    buckets = []
    for element in (bucket for container in children(root, "Buckets") for bucket in container):
        fields = child_texts(element)
        created = fields.get("CreationDate", "").strip()
        bucket = fields.get("Name", "")
        if not bucket:
            raise MalformedResponse("a Bucket has no Name")
        buckets.append(
            BucketInfo(
                name=bucket, created=parse_date_field("CreationDate", created) if created else None
            )
        )
    return BucketsPage(buckets=buckets, token=child_texts(root).get("ContinuationToken") or None)


def parse_tags(body: bytes) -> Mapping[str, str]:
    """Parse the response to GetObjectTagging."""
    root = parse_result(body, "Tagging")
    tags = (
        child_texts(tag) for tag_set in children(root, "TagSet") for tag in children(tag_set, "Tag")
    )
    return {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def _document(body: bytes) -> Element:
    # S3 sends white space while an operation runs, to keep the connection alive.
    return parse(decode(body).lstrip())


def parse_result(body: bytes, expected: str) -> Element:
    """Return the root of a document, whose name must be `expected`.

    Raises:
        ErrorDocumentError: The document is an error.
        MalformedResponse: The document is neither.
    """
    root = _document(body)
    if local_name(root) == "Error":
        raise ErrorDocumentError(_error(root))
    if local_name(root) != expected:
        raise MalformedResponse(f"expected <{expected}>, got <{local_name(root)[:40]}>")
    return root


def _error(element: Element) -> ErrorDocument:
    fields = {key: text.strip() for key, text in child_texts(element).items()}
    code, message = fields.pop("Code", ""), fields.pop("Message", "")
    return ErrorDocument(code=code, message=message, fields=fields)


def _write_result(root: Element) -> WriteResult:
    fields = child_texts(root)
    etag = bare_etag(fields.get("ETag", "").strip())
    if not etag:
        raise MalformedResponse(f"<{local_name(root)}> has no ETag")
    checksum_type = fields.get("ChecksumType")
    modified = fields.get("LastModified", "").strip()
    return WriteResult(
        etag=etag,
        last_modified=parse_date_field("LastModified", modified) if modified else None,
        checksums={
            algorithm: fields[element]
            for algorithm, element in CHECKSUM_ELEMENTS.items()
            if fields.get(element) and covers_whole_object(fields[element], checksum_type)
        },
    )


def decode_key(text: str, *, encoded: bool) -> str:
    """Return a key of a response, decoded if necessary."""
    try:
        return decode_value(text) if encoded else text
    except UnicodeDecodeError:
        raise MalformedResponse("a key is not UTF-8") from None


_IS_DATE = re.compile(DATE).fullmatch


def parse_date_field(name: str, text: str) -> datetime:
    """Parse the date in an element of a response document."""
    try:
        if _IS_DATE(text.strip()):
            return parse_date(text.strip())
    except ValueError:
        pass
    raise MalformedResponse(f"{name} must be a date, got {text[:40]!r}")


# -- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPart:
    """An uploaded part, as CompleteMultipartUpload lists it.

    Attributes:
        number: The part's number, from 1.
        etag: The ETag from the service's response.
        checksums: The part's checksums, by algorithm.
    """

    number: int
    etag: str
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)


def is_deletable_in_bulk(key: str) -> bool:
    """Return whether `delete_body` can contain a key. Other keys need one request each."""
    return is_xml_text(key)


def delete_body(keys: Iterable[str], *, quiet: bool = False) -> bytes:
    """Return the body of DeleteObjects.

    Args:
        keys: At most 1,000 keys (S3 API Reference, "DeleteObjects"). `is_deletable_in_bulk` must
            hold for each.
        quiet: Whether the response lists only failures.
    """
    objects = "".join([f"<Object><Key>{_escaped_text(key)}</Key></Object>" for key in keys])
    return _body("Delete", objects + ("<Quiet>true</Quiet>" if quiet else ""))


def complete_body(parts: Iterable[SentPart]) -> bytes:
    """Return the body of CompleteMultipartUpload, with the parts sorted by number."""
    return _body(
        "CompleteMultipartUpload",
        "".join(
            [
                f"<Part>{_checksums(part.checksums)}<ETag>{escape(quoted_etag(part.etag))}</ETag>"
                f"<PartNumber>{part.number}</PartNumber></Part>"
                for part in sorted(parts, key=_number)
            ]
        ),
    )


def create_bucket_body(region: str) -> bytes:
    """Return the body of CreateBucket.

    It is empty for us-east-1, which S3 rejects as a location.
    """
    if region == "us-east-1":
        return b""
    location = f"<LocationConstraint>{_escaped_text(region)}</LocationConstraint>"
    return _body("CreateBucketConfiguration", location)


def _body(root: str, content: str) -> bytes:
    return f'<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


def _escaped_text(text: str) -> str:
    if not is_xml_text(text):
        raise ValueError(f"XML 1.0 cannot contain {text!r}")
    return escape(text)


def _checksums(checksums: Mapping[str, str]) -> str:
    return "".join(
        [
            f"<{element}>{escape(checksums[algorithm])}</{element}>"
            for algorithm, element in CHECKSUM_ELEMENTS.items()
            if algorithm in checksums
        ]
    )


def _number(part: SentPart) -> int:
    return part.number
