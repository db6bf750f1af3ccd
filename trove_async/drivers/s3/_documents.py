"""Parse S3's response documents, except object listings, and build its request documents.

A 200 response may contain an error: S3 begins its response to CompleteMultipartUpload, CopyObject
and UploadPartCopy before it knows their outcome (S3 API Reference, each operation's description).
All parsers of results raise `AnsweredError` for it.
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
from ._headers import of_whole
from ._xml import (
    DATE,
    MalformedResponse,
    carries,
    children,
    decode,
    escape,
    facts,
    moment,
    name,
    parse,
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
        message: The message for people.
        fields: The other elements, by name. Some repeat the signed request and its access key, so
            they must never be shown.
    """

    code: str
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @property
    def region(self) -> str | None:
        """The bucket's region, if the request went to the wrong one."""
        return self.fields.get("Region") or self.fields.get("BucketRegion") or None


class UnclearError(Exception):
    """Raised when a listing does not declare whether its keys are encoded, and the keys differ."""


def check_clear(keys: Iterable[str]) -> None:
    """Raise UnclearError if decoding would change one of the keys."""
    if any("%" in key or "+" in key for key in keys):
        raise UnclearError


class AnsweredError(Exception):
    """Raised when a response that should hold a result holds an error document.

    Args:
        answer: The error document.
    """

    def __init__(self, answer: ErrorDocument) -> None:
        super().__init__(answer.code)  # not the message, which may quote the request
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The result of a completion or a copy: an object or a part.

    Attributes:
        etag: The ETag without its quotes.
        last_modified: The date, if the response has one.
        checksums: Checksums of the whole content, as in `ObjectInfo.checksums`.
    """

    etag: str
    last_modified: datetime | None = None
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUpload:
    """A multipart upload that is neither complete nor aborted."""

    key: str
    upload_id: str
    initiated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsPage:
    """A page of a bucket's open uploads.

    Attributes:
        uploads: The uploads, ordered by key.
        next_markers: ``key-marker`` and ``upload-id-marker`` of the next page, if there is one.
        now: The date of the response, or the local time if it has none.
    """

    uploads: Sequence[OpenUpload]
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
    if name(root) == "ErrorResponse":  # the wrapper of STS, IAM and services built on them
        root = next(children(root, "Error"), root)
    if name(root) != "Error":
        raise MalformedResponse(f"no error, but <{name(root)[:40]}>")
    return _error(root)


def parse_upload_id(body: bytes) -> str:
    """Parse the upload id from the response to CreateMultipartUpload."""
    root = _document(body)
    if name(root) == "Error":
        raise AnsweredError(_error(root))
    # The root's name is not checked: rclone sends <InitiateMultipartUpload>. An UploadId suffices.
    upload_id = facts(root).get("UploadId", "").strip()
    if not upload_id:
        raise MalformedResponse(f"an upload without its id, in <{name(root)[:40]}>")
    return upload_id


def parse_completed(body: bytes) -> Stored:
    """Parse the response to CompleteMultipartUpload."""
    return _stored(result_of(body, "CompleteMultipartUploadResult"))


def parse_copied(body: bytes) -> Stored:
    """Parse the response to CopyObject."""
    return _stored(result_of(body, "CopyObjectResult"))


def parse_part_copied(body: bytes) -> Stored:
    """Parse the response to UploadPartCopy."""
    return _stored(result_of(body, "CopyPartResult"))


def parse_deleted(body: bytes) -> Mapping[str, ErrorDocument | None]:
    """Parse the response to DeleteObjects: an error for each key, or None if it was deleted.

    A key that the response omits or alters is missing, and its outcome is unknown. Some services
    alter line ends, because they do not escape them.
    """
    root = result_of(body, "DeleteResult")
    fates: dict[str, ErrorDocument | None] = {}
    for deleted in children(root, "Deleted"):
        fates[facts(deleted).get("Key", "")] = None
    for failed in children(root, "Error"):
        fates[facts(failed).get("Key", "")] = _error(failed)
    return fates


def parse_uploads(body: bytes, *, asked: bool = False) -> UploadsPage:
    """Parse a page of ListMultipartUploads. Keys are decoded if the response declares an encoding.

    Args:
        body: The response body.
        asked: Whether the request asked for encoded keys.

    Raises:
        UnclearError: The request asked for encoded keys, the response declares no encoding, and
            the keys are ambiguous.
    """
    root = result_of(body, "ListMultipartUploadsResult")
    page = facts(root)
    encoded = page.get("EncodingType", "").strip() == "url"
    if asked and not encoded:
        check_clear(upload.get("Key", "") for upload in map(facts, children(root, "Upload")))
    uploads = [
        OpenUpload(
            key=key_of(upload.get("Key", ""), encoded=encoded),
            upload_id=upload.get("UploadId", ""),
            initiated=date_of(upload.get("Initiated", "")),
        )
        for upload in map(facts, children(root, "Upload"))
    ]
    if not all(upload.key and upload.upload_id for upload in uploads):
        raise MalformedResponse("an upload without its key or id")
    if page.get("IsTruncated", "").strip() != "true":
        return UploadsPage(uploads=uploads)
    key = key_of(page.get("NextKeyMarker", ""), encoded=encoded)
    upload_id = page.get("NextUploadIdMarker", "")
    if not key:
        raise MalformedResponse("more uploads, and no marker of the next")
    return UploadsPage(uploads=uploads, next_markers=(key, upload_id))


def parse_buckets(body: bytes) -> BucketsPage:
    """Parse a page of ListBuckets."""
    root = result_of(body, "ListAllMyBucketsResult")
    buckets = []
    for bucket in (bucket for all_ in children(root, "Buckets") for bucket in all_):
        told = facts(bucket)
        created = told.get("CreationDate", "").strip()
        named = told.get("Name", "")
        if not named:
            raise MalformedResponse("a bucket without its name")
        buckets.append(BucketInfo(name=named, created=date_of(created) if created else None))
    return BucketsPage(buckets=buckets, token=facts(root).get("ContinuationToken") or None)


def parse_tags(body: bytes) -> Mapping[str, str]:
    """Parse the response to GetObjectTagging."""
    root = result_of(body, "Tagging")
    tags = (facts(tag) for tag_set in children(root, "TagSet") for tag in children(tag_set, "Tag"))
    return {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def _document(body: bytes) -> Element:
    # S3 sends blanks while an operation runs, to keep the connection alive.
    return parse(decode(body).lstrip())


def result_of(body: bytes, *wanted: str) -> Element:
    """Return the root of a document, if its name is one of those wanted.

    Raises:
        AnsweredError: The document is an error.
        MalformedResponse: The document is neither.
    """
    root = _document(body)
    if name(root) == "Error":
        raise AnsweredError(_error(root))
    if name(root) not in wanted:
        raise MalformedResponse(f"a {wanted[0]} is due, <{name(root)[:40]}> is answered")
    return root


def _error(element: Element) -> ErrorDocument:
    fields = {key: text.strip() for key, text in facts(element).items()}
    code, message = fields.pop("Code", ""), fields.pop("Message", "")
    return ErrorDocument(code=code, message=message, fields=fields)


def _stored(root: Element) -> Stored:
    told = facts(root)
    etag = bare_etag(told.get("ETag", "").strip())
    if not etag:
        raise MalformedResponse(f"a {name(root)} without an ETag")
    kind = told.get("ChecksumType")
    modified = told.get("LastModified", "").strip()
    return Stored(
        etag=etag,
        last_modified=date_of(modified) if modified else None,
        checksums={
            algorithm: told[element]
            for algorithm, element in CHECKSUM_ELEMENTS.items()
            if told.get(element) and of_whole(told[element], kind)
        },
    )


def key_of(text: str, *, encoded: bool) -> str:
    """Return a key of a response, decoded if it is encoded."""
    try:
        return decode_value(text) if encoded else text
    except UnicodeDecodeError:
        raise MalformedResponse("a key that is not UTF-8") from None


_IS_DATE = re.compile(DATE).fullmatch


def date_of(text: str) -> datetime:
    """Parse a date in a response document."""
    try:
        if _IS_DATE(text.strip()):
            return moment(text.strip())
    except ValueError:
        pass
    raise MalformedResponse(f"date {text[:40]!r}")


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


def can_name(key: str) -> bool:
    """Return whether `delete_body` can name a key. Other keys take one request each."""
    return carries(key)


def delete_body(keys: Iterable[str], *, quiet: bool = False) -> bytes:
    """Return the body of DeleteObjects.

    Args:
        keys: At most 1,000 keys (S3 API Reference, "DeleteObjects"). `can_name` holds for each.
        quiet: Whether the response lists only failures.
    """
    objects = "".join([f"<Object><Key>{_carried(key)}</Key></Object>" for key in keys])
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
    location = f"<LocationConstraint>{_carried(region)}</LocationConstraint>"
    return _body("CreateBucketConfiguration", location)


def _body(root: str, content: str) -> bytes:
    return f'<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


def _carried(text: str) -> str:
    if not carries(text):
        raise ValueError(f"XML 1.0 cannot carry {text!r}")
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
