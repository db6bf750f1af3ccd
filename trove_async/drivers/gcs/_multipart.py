"""Encodes the ``multipart/related`` body of an upload in one request.

The first part is the metadata, the second the content (JSON API, "Perform a multipart upload").
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from trove_async.errors import InvalidNameError
from trove_async.models import KiB

_MAX_JOINED: Final = 64 * KiB
"""The largest content that is copied into one buffer. The copy is cheaper than two more socket calls."""


def encode_related(
    resource: bytes, content_type: str, views: Sequence[memoryview]
) -> tuple[str, Sequence[memoryview]]:
    """Return the Content-Type and the body of the request.

    Args:
        resource: The metadata as JSON.
        content_type: The media type of the object.
        views: The content.

    Raises:
        InvalidNameError: The media type contains a character that a header must not have.
    """
    if any(character in content_type for character in "\r\n\0"):
        raise InvalidNameError("content_type must not contain CR, LF or NUL")
    # The content must not contain the boundary (RFC 2046, 5.1.1): 128 random bits cannot be guessed.
    boundary = secrets.token_hex(16)
    header = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
        + resource
        + f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    )
    trailer = f"\r\n--{boundary}--\r\n".encode()
    media_type = f"multipart/related; boundary={boundary}"
    if sum(map(len, views)) <= _MAX_JOINED:
        return media_type, [memoryview(b"".join([header, *views, trailer]))]
    return media_type, [memoryview(header), *views, memoryview(trailer)]
