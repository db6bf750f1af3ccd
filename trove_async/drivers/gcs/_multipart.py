"""The bodies of one-request uploads: ``multipart/related`` around views that are never joined.

Its first part says what the object is to have, its second is the object (JSON API, "Perform a
multipart upload").
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from trove_async.errors import InvalidNameError
from trove_async.models import KiB

_JOINED: Final = 64 * KiB
"""Bytes up to which one piece is made of all: cheaper than two more calls of the socket."""


def related(
    resource: bytes, content_type: str, views: Sequence[memoryview]
) -> tuple[str, Sequence[memoryview]]:
    """Return the request's Content-Type, and its body.

    Args:
        resource: What the object is to have, as JSON.
        content_type: The object's type.
        views: The object.

    Raises:
        InvalidNameError: The type would break the header that it stands in.
    """
    if any(mark in content_type for mark in "\r\n\0"):
        raise InvalidNameError("content_type may hold no CR, LF or NUL")
    # 128 random bits, so that no body holds it by chance or by design (RFC 2046, 5.1.1).
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode()
        + resource
        + f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    )
    tail = f"\r\n--{boundary}--\r\n".encode()
    told = f"multipart/related; boundary={boundary}"
    if sum(map(len, views)) <= _JOINED:
        return told, [memoryview(b"".join([head, *views, tail]))]
    return told, [memoryview(head), *views, memoryview(tail)]
