"""Encodes the ``multipart/related`` body of an upload in one request.

The first part is the metadata, the second the content (JSON API, "Perform a multipart upload").
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from trove_async._names import check_header


def encode_related(
    resource: bytes, content_type: str, views: Sequence[memoryview]
) -> tuple[str, Sequence[memoryview]]:
    """Return the Content-Type and the body of the request.

    Args:
        resource: The metadata as JSON.
        content_type: The media type of the object.
        views: The content.

    Raises:
        InvalidNameError: The media type cannot be the value of a header.
    """
    check_header("content_type", content_type)
    # The content must not contain the boundary (RFC 2046, 5.1.1): 128 random bits cannot be guessed.
    boundary = secrets.token_hex(16)
    header = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
        + resource
        + f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    )
    trailer = f"\r\n--{boundary}--\r\n".encode()
    media_type = f"multipart/related; boundary={boundary}"
    return media_type, [memoryview(header), *views, memoryview(trailer)]
