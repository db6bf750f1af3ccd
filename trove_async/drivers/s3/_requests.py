"""What both planes say of a request in the same words."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import md5

from trove_async._http_dates import format_http_date
from trove_async.errors import InvalidNameError
from trove_async.models import ObjectInfo
from trove_async.options import PresignOptions

from ._encoding import encode_path, encode_query, quoted_etag

NO_VERSION = "null"
"""The version id of what was written while the bucket kept no versions, whichever content that is.
S3 User Guide, "Adding objects to versioning-suspended buckets"."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}").fullmatch
"""What any bucket may be called: the names that us-east-1 once allowed. S3 User Guide, "General
purpose bucket naming rules"."""


def check_bucket(name: str) -> None:
    """Raise InvalidNameError for what no bucket can be called: services mangle some such names."""
    if not _NAME(name):
        raise InvalidNameError(
            "a bucket's name is 3 to 255 letters, digits, dots, hyphens and underscores"
        )


def source_headers(source: ObjectInfo, owner: str | None) -> dict[str, str]:
    """Return the headers that name one version of a copy's source, and whose it is to be."""
    place = f"/{encode_path(source.bucket)}/{encode_path(source.key)}"
    if source.version_id is not None:
        place = f"{place}?{encode_query({'versionId': source.version_id})}"
    headers = {"x-amz-copy-source": place}
    if source.etag is not None:
        headers["x-amz-copy-source-if-match"] = quoted_etag(source.etag)
    elif source.version_id in {None, NO_VERSION}:
        # S3 API Reference, "CopyObject": the other condition that a later version fails.
        headers["x-amz-copy-source-if-unmodified-since"] = format_http_date(source.last_modified)
    if owner is not None:
        headers["x-amz-source-expected-bucket-owner"] = owner
    return headers


def document_headers(body: bytes) -> dict[str, str]:
    """Return the headers of a document that must come with a checksum."""
    return {
        "content-type": "application/xml",
        # One of several is required; older services know this one only.
        "content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
    }


_PRESIGNED_QUERY = {
    "version_id": "versionId",
    "response_content_type": "response-content-type",
    "response_content_disposition": "response-content-disposition",
}


def presigned_query(options: PresignOptions) -> dict[str, str]:
    """Return what a presigned URL fixes of the response. S3 API Reference, "GetObject"."""
    return {
        theirs: value
        for ours, theirs in _PRESIGNED_QUERY.items()
        if (value := getattr(options, ours)) is not None
    }


def presigned_headers(options: PresignOptions) -> dict[str, str]:
    """Return the headers that a request to a presigned URL must have."""
    return {} if options.content_type is None else {"content-type": options.content_type}
