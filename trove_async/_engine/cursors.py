"""Where a listing stands, as a text that survives the process: what a cursor holds, and its check."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from trove_async.errors import CursorError
from trove_async.models import Listed

Facts: TypeAlias = tuple[object, ...]
"""What two listings must share to share a cursor; anything that JSON can write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Behind which entry a listing stands.

    Attributes:
        start_after: Where the whole listing started: what is not greater is not shown at all.
        stage: 0 is the merged, ordered backends, if there are any; then each other one by itself.
        key: The key, or common prefix, of that entry; `start_after` before the first.
        rank: Its backend's place among those asked, where the next entry may have the same key
            (`include_shadowed`); None: all entries of that key are behind.
        before: Then also the greatest key shown before `key`: other backends start after that.
        token: Where the page that it is on begins, of a backend that lists without order.
        limit: How long that page was to be: fetched anew it must be no shorter.
    """

    start_after: str = ""
    stage: int = 0
    key: str = ""
    rank: int | None = None
    before: str | None = None
    token: str | None = None
    limit: int = 1000

    def start_of(self, rank: int) -> str:
        """Return the key after which the backend of that rank has to go on, in order."""
        return self.key if self.rank is None or rank <= self.rank else self.before or ""

    def precedes(self, entry: Listed, rank: int) -> bool:
        """Tell whether an entry of the backend of that rank is yet to come, in order."""
        if entry.key == self.key:
            return self.rank is not None and rank > self.rank
        return entry.key > self.key

    @property
    def token_of_entry(self) -> bool:
        """Whether there was an entry at all, on the page of `token`."""
        return self.key != self.start_after

    def next_stage(self, limit: int) -> Position:
        """Return the start of the stage after this one."""
        return Position(
            start_after=self.start_after, stage=self.stage + 1, key=self.start_after, limit=limit
        )


def encode(at: Position, facts: Facts) -> str:
    """Return the position as a cursor: letters, digits, ``-`` and ``_``."""
    content = [
        _fingerprint(facts),
        at.start_after,
        at.stage,
        at.key,
        at.rank,
        at.before,
        at.token,
        at.limit,
    ]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, facts: Facts) -> Position:
    """Return the position that a cursor tells.

    Raises:
        CursorError: It is no cursor, or one of a listing with other facts.
    """
    content = _parse(cursor)
    if content is None:
        raise CursorError("this is no cursor of a listing: pass what ObjectIterator.cursor was")
    fingerprint, start_after, stage, key, rank, before, token, limit = content
    if fingerprint != _fingerprint(facts):
        raise CursorError(
            "this cursor belongs to another listing: bucket, prefix, delimiter, backends and"
            " routes must be those that it came from"
        )
    if not (
        _is_text(start_after)
        and _is_count(stage)
        and _is_text(key)
        and (rank is None or _is_count(rank))
        and (before is None or _is_text(before))
        and (token is None or _is_text(token))
        and _is_count(limit)
        and limit > 0
    ):
        raise CursorError("this cursor was tampered with: pass what ObjectIterator.cursor was")
    return Position(
        start_after=start_after,
        stage=stage,
        key=key,
        rank=rank,
        before=before,
        token=token,
        limit=limit,
    )


def _parse(cursor: str) -> list[object] | None:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):  # of base64, of UTF-8, of JSON
        return None
    return (
        content
        if isinstance(content, list) and len(content) == len(Position.__slots__) + 1
        else None
    )


def _is_text(value: object) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _fingerprint(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
