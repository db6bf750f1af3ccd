"""Convert headers, checksums and identifiers to parameters of the SDK, and parsed checksums back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from trove_async._http_dates import parse_service_date
from trove_async.models import ObjectInfo

from ._data_plane import UploadId
from ._documents import CHECKSUM_ELEMENTS
from ._headers import META, covers_whole_object, source_headers

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
        f"x-amz-{source}server-side-encryption-customer-{field}": f"{prefix}SSECustomer{suffix}"
        for source, prefix in (("", ""), ("copy-source-", "CopySource"))
        for field, suffix in (("algorithm", "Algorithm"), ("key", "Key"), ("key-md5", "KeyMD5"))
    },
    "x-amz-tagging": "Tagging",
    "x-amz-copy-source": "CopySource",
    "x-amz-copy-source-if-match": "CopySourceIfMatch",
    "x-amz-copy-source-if-unmodified-since": "CopySourceIfUnmodifiedSince",
    "x-amz-source-expected-bucket-owner": "ExpectedSourceBucketOwner",
    **{f"x-amz-checksum-{name}": element for name, element in CHECKSUM_ELEMENTS.items()},
}
"""The SDK's parameter for each header that the driver sends."""


_CONVERSIONS: Final[Mapping[str, Callable[[str], object]]] = {
    "expires": parse_service_date,  # the SDK would guess the format of a str
    "x-amz-server-side-encryption-bucket-key-enabled": "true".__eq__,
}
"""Converts the values of headers that must not be passed to the SDK as a str."""

PRESIGNED_PARAMETERS: Final = {
    "versionId": "VersionId",
    "response-content-type": "ResponseContentType",
    "response-content-disposition": "ResponseContentDisposition",
    "content-type": "ContentType",
}
"""The SDK's parameter for each query field and header that can be signed into a presigned URL."""


def header_parameters(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the SDK's parameters for a request's headers."""
    result: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(META):
            metadata[name[len(META) :]] = value
        else:
            result[_PARAMETERS[name]] = _CONVERSIONS[name](value) if name in _CONVERSIONS else value
    if metadata:
        result["Metadata"] = metadata
    return result


def checksum_parameters(checksums: Mapping[str, str]) -> dict[str, str]:
    """Return the SDK's parameters for checksums."""
    return {CHECKSUM_ELEMENTS[name]: value for name, value in checksums.items()}


def full_checksums(response: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums of the whole content from a parsed response."""
    checksum_type = response.get("ChecksumType")
    return {
        name: response[element]
        for name, element in CHECKSUM_ELEMENTS.items()
        if response.get(element) and covers_whole_object(response[element], checksum_type)
    }


def version_parameters(version_id: str | None) -> dict[str, str]:
    """Return the parameters that select a version. They are empty for the current version."""
    return {} if version_id is None else {"VersionId": version_id}


def copy_parameters(source: ObjectInfo, owner: str | None) -> dict[str, Any]:
    """Return the parameters that select a copy's source, with conditions on its version and owner.

    The headers contain the source's name encoded. It is replaced, because the SDK encodes it itself.
    """
    selection = {
        "Bucket": source.bucket,
        "Key": source.key,
        **version_parameters(source.version_id),
    }
    return {**header_parameters(source_headers(source, owner)), "CopySource": selection}


def upload_parameters(upload: UploadId) -> dict[str, str]:
    """Return the parameters that identify an upload."""
    return {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id}
