"""A resumable session's arithmetic, without any I/O: which bytes the service has, and what is next.

JSON API, "Perform a resumable upload": all chunks but the last are multiples of 256 KiB; an answer
of 308 tells by its Range what the service has kept, which may be less than it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from trove_async.errors import UnavailableError
from trove_async.models import KiB

QUANTUM: Final = 256 * KiB
"""Bytes that all chunks but the last are a multiple of."""

_KEPT = re.compile(r"bytes=0-([0-9]{1,19})")


def chunk_range(start: int, end: int, total: int | None = None) -> str:
    """Return the Content-Range of a chunk; with a total it is the last, and may be empty."""
    span = "*" if start == end else f"{start}-{end - 1}"
    return f"bytes {span}/{'*' if total is None else total}"


UNKNOWN_RANGE: Final = "bytes */*"
"""The Content-Range that asks how far the session has come."""


def kept(headers: Mapping[str, str]) -> int:
    """Return how many bytes the service has, as a 308 tells: without a Range it has none.

    Raises:
        UnavailableError: It tells something else.
    """
    told = headers.get("range")
    if told is None:
        return 0
    found = _KEPT.fullmatch(told)
    if found is None:
        raise UnavailableError(f"the service's answer makes no sense: Range {told[:80]!r}")
    return int(found[1]) + 1


def held_back(size: int) -> int:
    """Return how many bytes at the end of a body are kept for the commit: at least one.

    The service makes the object when it has got the last byte, and the caller decides when that is.
    """
    return (size - 1) % QUANTUM + 1 if size else 0


def cut(views: Sequence[memoryview], start: int, end: int) -> list[memoryview]:
    """Return the views' bytes from `start` to `end`, as views."""
    pieces = []
    at = 0
    for view in views:
        piece = view[max(start - at, 0) : max(end - at, 0)]
        if piece:
            pieces.append(piece)
        at += len(view)
    return pieces
