"""The small documents: what the service answers beside listings, and what it is sent.

An answer of 200 may hold an error: S3 begins to answer CompleteMultipartUpload, CopyObject and
UploadPartCopy before it knows how they end (S3 API Reference, each one's description). All readers
here raise `AnsweredError` for it.
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
"""Our names of checksums and S3's elements for them."""

# -- what is answered ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument:
    """An error as the service tells it.

    Attributes:
        code: S3's word for it, such as ``NoSuchKey``.
        message: Its sentence for people.
        fields: What else it tells, by element. Some of it repeats what was signed, and with what:
            it is to be looked at, never to be shown.
    """

    code: str
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @property
    def region(self) -> str | None:
        """Where the bucket is, if the error says that it is elsewhere."""
        return self.fields.get("Region") or self.fields.get("BucketRegion") or None


class UnclearError(Exception):
    """A listing that was to encode its keys does not say whether it does, and it matters."""


def check_clear(keys: Iterable[str]) -> None:
    """Raise UnclearError if one of the keys could be encoded or not."""
    if any("%" in key or "+" in key for key in keys):
        raise UnclearError


class AnsweredError(Exception):
    """The document read for a result is an error.

    Args:
        answer: What it says.
    """

    def __init__(self, answer: ErrorDocument) -> None:
        super().__init__(answer.code)  # its sentence may quote the request
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is told of an object, or a part, that was put together or copied.

    Attributes:
        etag: As in `ObjectInfo.etag`.
        last_modified: Where it is told.
        checksums: Of the whole content, as in `ObjectInfo.checksums`.
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
    """Some of a bucket's open uploads, and where the next page begins.

    Attributes:
        uploads: In order of keys.
        next_markers: ``key-marker`` and ``upload-id-marker`` of the next page, if there is one.
        now: When the service answered, where it says so.
    """

    uploads: Sequence[OpenUpload]
    next_markers: tuple[str, str] | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketsPage:
    """Some of the owner's buckets, and the ``continuation-token`` of the next page, if any."""

    buckets: Sequence[BucketInfo]
    token: str | None = None


def parse_error(body: bytes) -> ErrorDocument:
    """Return the error that an answer is.

    Raises:
        MalformedResponse: It is no error of S3's: empty (as to HEAD), or another server's page.
    """
    root = _document(body)
    if name(root) == "ErrorResponse":  # how STS and IAM, and services built upon them, wrap it
        root = next(children(root, "Error"), root)
    if name(root) != "Error":
        raise MalformedResponse(f"no error, but <{name(root)[:40]}>")
    return _error(root)


def parse_upload_id(body: bytes) -> str:
    """Return the id of the upload that CreateMultipartUpload opened."""
    root = _document(body)
    if name(root) == "Error":
        raise AnsweredError(_error(root))
    # rclone calls it <InitiateMultipartUpload>. What has an UploadId is such an answer.
    upload_id = facts(root).get("UploadId", "").strip()
    if not upload_id:
        raise MalformedResponse(f"an upload without its id, in <{name(root)[:40]}>")
    return upload_id


def parse_completed(body: bytes) -> Stored:
    """Return what CompleteMultipartUpload made."""
    return _stored(result_of(body, "CompleteMultipartUploadResult"))


def parse_copied(body: bytes) -> Stored:
    """Return what CopyObject made."""
    return _stored(result_of(body, "CopyObjectResult"))


def parse_part_copied(body: bytes) -> Stored:
    """Return what UploadPartCopy made."""
    return _stored(result_of(body, "CopyPartResult"))


def parse_deleted(body: bytes) -> Mapping[str, ErrorDocument | None]:
    """Return what became of each key of a DeleteObjects: an error, or None where it is gone.

    A key that the answer does not name, or not as it was sent (there are services that do not
    protect a line end), is missing: nothing is known of it.
    """
    root = result_of(body, "DeleteResult")
    fates: dict[str, ErrorDocument | None] = {}
    for deleted in children(root, "Deleted"):
        fates[facts(deleted).get("Key", "")] = None
    for failed in children(root, "Error"):
        fates[facts(failed).get("Key", "")] = _error(failed)
    return fates


def parse_uploads(body: bytes, *, asked: bool = False) -> UploadsPage:
    """Return a page of ListMultipartUploads, its keys decoded if the answer encodes them.

    Args:
        body: The answer.
        asked: Whether encoded keys were asked for.

    Raises:
        UnclearError: They were, and the answer does not say whether it encodes them.
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
    """Return a page of ListBuckets."""
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
    """Return the tags that GetObjectTagging tells."""
    root = result_of(body, "Tagging")
    tags = (facts(tag) for tag_set in children(root, "TagSet") for tag in children(tag_set, "Tag"))
    return {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def _document(body: bytes) -> Element:
    # While it works S3 sends blanks, that the connection may not be taken for dead.
    return parse(decode(body).lstrip())


def result_of(body: bytes, *wanted: str) -> Element:
    """Return the root of a document that is one of those wanted.

    Raises:
        AnsweredError: It is an error.
        MalformedResponse: It is neither.
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
    """Return a key that an answer tells, encoded or not."""
    try:
        return decode_value(text) if encoded else text
    except UnicodeDecodeError:
        raise MalformedResponse("a key that is not UTF-8") from None


_IS_DATE = re.compile(DATE).fullmatch


def date_of(text: str) -> datetime:
    """Return a time that an answer tells."""
    try:
        if _IS_DATE(text.strip()):
            return moment(text.strip())
    except ValueError:
        pass
    raise MalformedResponse(f"date {text[:40]!r}")


# -- what is sent ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPart:
    """A part as the completion names it.

    Attributes:
        number: From 1 on.
        etag: As the service answered it.
        checksums: Its own, by algorithm, as it was sent with them.
    """

    number: int
    etag: str
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)


def can_name(key: str) -> bool:
    """Tell whether `delete_body` can name a key; others are deleted by a request each."""
    return carries(key)


def delete_body(keys: Iterable[str], *, quiet: bool = False) -> bytes:
    """Return the body of DeleteObjects.

    Args:
        keys: At most 1,000 (S3 API Reference, "DeleteObjects"), all of which it `can_name`.
        quiet: Whether only failures are to be answered.
    """
    objects = "".join([f"<Object><Key>{_carried(key)}</Key></Object>" for key in keys])
    return _body("Delete", objects + ("<Quiet>true</Quiet>" if quiet else ""))


def complete_body(parts: Iterable[SentPart]) -> bytes:
    """Return the body of CompleteMultipartUpload; the parts are put in order."""
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
    """Return the body of CreateBucket: none for us-east-1, which S3 does not take for a location."""
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
