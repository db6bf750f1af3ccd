"""Many deletions in one request: JSON API, "Batch requests".

Each is an HTTP request in a part of ``multipart/mixed``; so are their answers, which come in any
order and are told apart by their Content-ID.
"""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from trove_async.errors import UnavailableError
from trove_async.models import DeleteResult, MiB

from ._failures import refused
from ._names import object_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async.errors import TroveError

MOST: Final = 100
"""Calls of one batch. JSON API, "Batch requests"."""

PATH: Final = "/batch/storage/v1"

ANSWER_BYTES: Final = 4 * MiB
"""More than the answers to 100 deletes have."""

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""")  # RFC 2046, 5.1.1
_ID = re.compile(rb"(?im)^content-id:[^\r\n]{0,100}response-[^\r\n]{0,100}\+([0-9]{1,9})>")
_STATUS = re.compile(rb"(?m)^HTTP/[0-9.]+ ([0-9]{3})\b")


def batch(bucket: str, keys: Sequence[str]) -> tuple[str, bytes]:
    """Return the request's Content-Type, and its body."""
    boundary = secrets.token_hex(16)
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <delete+{number}>\r\n\r\n"
        f"DELETE {object_path(bucket, key)} HTTP/1.1\r\n\r\n\r\n"
        for number, key in enumerate(keys)
    ]
    body = "".join([*parts, f"--{boundary}--\r\n"])
    return f"multipart/mixed; boundary={boundary}", body.encode()


def results(content_type: str, body: bytes, keys: Sequence[str]) -> list[DeleteResult]:
    """Return what became of each key; a NotFoundError may be about the bucket.

    Args:
        content_type: The answer's.
        body: The answer.
        keys: As they were asked for.

    Raises:
        UnavailableError: The answer makes no sense.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise UnavailableError("the service's answer to a batch has no parts")
    errors: dict[int, TroveError | None] = {}
    for part in body.split(b"--" + (found[1] or found[2]).encode()):
        number, status = _ID.search(part), _STATUS.search(part)
        if number is not None and status is not None:
            errors[int(number[1])] = _error(int(status[1]), part)
    unheard = UnavailableError("the service's answer to a batch does not tell of this key")
    return [DeleteResult(key=key, error=errors.get(n, unheard)) for n, key in enumerate(keys)]


def _error(status: int, part: bytes) -> TroveError | None:
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    document = part.rstrip().rpartition(b"\r\n\r\n")[2]
    return refused(status, {}, document).error()
