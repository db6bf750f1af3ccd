"""What the SDK calls what S3's headers and elements say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from trove_async._http_dates import parse_service_date
from trove_async.models import ObjectInfo

from ._data_plane import UploadId
from ._documents import CHECKSUM_ELEMENTS
from ._headers import META, of_whole, source_headers

_PARAMETERS: Final = {
    "content-type": "ContentType",
    "content-md5": "ContentMD5",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "expires": "Expires",
    "if-match": "IfMatch",
    "if-none-match": "IfNoneMatch",
    "x-amz-storage-class": "StorageClass",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-server-side-encryption-bucket-key-enabled": "BucketKeyEnabled",
    **{
        f"x-amz-{source}server-side-encryption-customer-{theirs}": f"{prefix}SSECustomer{ours}"
        for source, prefix in (("", ""), ("copy-source-", "CopySource"))
        for theirs, ours in (("algorithm", "Algorithm"), ("key", "Key"), ("key-md5", "KeyMD5"))
    },
    "x-amz-tagging": "Tagging",
    "x-amz-copy-source": "CopySource",
    "x-amz-copy-source-if-match": "CopySourceIfMatch",
    "x-amz-copy-source-if-unmodified-since": "CopySourceIfUnmodifiedSince",
    "x-amz-source-expected-bucket-owner": "ExpectedSourceBucketOwner",
    **{f"x-amz-checksum-{name}": element for name, element in CHECKSUM_ELEMENTS.items()},
}
"""What the SDK calls the headers that we send."""


_VALUES: Final[Mapping[str, Callable[[str], object]]] = {
    "expires": parse_service_date,  # of a date in text the SDK would have to guess the form
    "x-amz-server-side-encryption-bucket-key-enabled": "true".__eq__,
}
"""What it wants in place of text."""

PRESIGNED: Final = {
    "versionId": "VersionId",
    "response-content-type": "ResponseContentType",
    "response-content-disposition": "ResponseContentDisposition",
    "content-type": "ContentType",
}
"""What the SDK calls what a presigned URL may fix."""


def parameters(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what the SDK calls what the headers say."""
    said: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(META):
            metadata[name[len(META) :]] = value
        else:
            said[_PARAMETERS[name]] = _VALUES[name](value) if name in _VALUES else value
    if metadata:
        said["Metadata"] = metadata
    return said


def elements(checksums: Mapping[str, str]) -> dict[str, str]:
    """Return what the SDK calls checksums."""
    return {CHECKSUM_ELEMENTS[name]: value for name, value in checksums.items()}


def whole_checksums(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums that an answer tells of a whole object."""
    kind = told.get("ChecksumType")
    return {
        name: told[element]
        for name, element in CHECKSUM_ELEMENTS.items()
        if told.get(element) and of_whole(told[element], kind)
    }


def version(version_id: str | None) -> dict[str, str]:
    """Return what names one version, or nothing."""
    return {} if version_id is None else {"VersionId": version_id}


def copy_parameters(source: ObjectInfo, owner: str | None) -> dict[str, Any]:
    """Return what names one version of a copy's source, and whose it is to be.

    The SDK encodes the source's name itself, also where it is encoded already.
    """
    place = {"Bucket": source.bucket, "Key": source.key, **version(source.version_id)}
    return {**parameters(source_headers(source, owner)), "CopySource": place}


def upload_parameters(upload: UploadId) -> dict[str, str]:
    """Return what names an upload."""
    return {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id}
