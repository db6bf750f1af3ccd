"""The headers of request documents, and the query and headers of presigned URLs."""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5
from typing import Final

from trove_async.options import PresignOptions


def document_headers(body: bytes) -> dict[str, str]:
    """Return the headers of a request document that requires a checksum."""
    return {
        "content-type": "application/xml",
        # S3 requires one of several checksums. Older services support only MD5.
        "content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
    }


_PRESIGNED_QUERY: Final = {
    "version_id": "versionId",
    "response_content_type": "response-content-type",
    "response_content_disposition": "response-content-disposition",
}
"""The query field for each option of a presigned URL. S3 API Reference, "GetObject"."""


def presigned_query(options: PresignOptions) -> dict[str, str]:
    """Return the query fields of a presigned URL."""
    return {
        field: value
        for option, field in _PRESIGNED_QUERY.items()
        if (value := getattr(options, option)) is not None
    }


def presigned_headers(options: PresignOptions) -> dict[str, str]:
    """Return the headers that a request to a presigned URL must send."""
    return {} if options.content_type is None else {"content-type": options.content_type}
