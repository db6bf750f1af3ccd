"""Computes the ranges and sizes of chunks in resumable uploads.

JSON API, "Perform a resumable upload": the sizes of all chunks except the last are multiples of 256 KiB.
The Range of a 308 response states how much the service has persisted, which may be less than was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from trove_async.errors import UnavailableError
from trove_async.models import KiB

QUANTUM: Final = 256 * KiB
"""The size of every chunk except the last is a multiple of this."""

_PERSISTED_RANGE = re.compile(r"bytes=0-([0-9]{1,19})")


def chunk_range(start: int, end: int, total: int | None = None) -> str:
    """Return the Content-Range of a chunk. Pass `total` only for the last chunk, which may be empty."""
    span = "*" if start == end else f"{start}-{end - 1}"
    return f"bytes {span}/{'*' if total is None else total}"


UNKNOWN_RANGE: Final = "bytes */*"
"""The Content-Range of a request for the progress of a session."""


def persisted_size(headers: Mapping[str, str]) -> int:
    """Return how many bytes the service has persisted, according to a 308 response.

    Without a Range, it has persisted none.

    Raises:
        UnavailableError: The Range is malformed.
    """
    value = headers.get("range")
    if value is None:
        return 0
    match = _PERSISTED_RANGE.fullmatch(value)
    if match is None:
        raise UnavailableError(f"the service's response is malformed: Range {value[:80]!r}")
    return int(match[1]) + 1


def tail_size(size: int) -> int:
    """Return how many bytes at the end of the last part to keep for the commit.

    The service creates the object when it receives the last byte, and only a commit may create it. So
    at least one byte is kept, unless the part is empty.
    """
    return (size - 1) % QUANTUM + 1 if size else 0


def slice_views(views: Sequence[memoryview], start: int, end: int) -> list[memoryview]:
    """Return the bytes from `start` to `end` of the concatenated views, without copying them."""
    pieces = []
    offset = 0
    for view in views:
        piece = view[max(start - offset, 0) : max(end - offset, 0)]
        if piece:
            pieces.append(piece)
        offset += len(view)
    return pieces
