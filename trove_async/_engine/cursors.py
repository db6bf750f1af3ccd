"""Positions in a listing, encoded as cursors: text that outlives the process."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from trove_async.errors import CursorError
from trove_async.models import Listed

Facts: TypeAlias = tuple[object, ...]
"""The facts that must be equal in two listings for a cursor to fit both, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a listing after its last returned entry.

    Attributes:
        start_after: The start of the whole listing: only greater entries are shown.
        stage: The stage. The ordered backends, merged, are the first stage, if there are any. Every
            unordered backend is a stage of its own.
        key: The key or common prefix of the last entry, or `start_after` before the first one.
        rank: The index of the entry's backend, if the next entry may have the same key
            (`include_shadowed`). None: all entries of the key were returned.
        before: With `rank`, the greatest key shown before `key`: other backends start after it.
        token: The token of the entry's page, if the backend is unordered.
        limit: The requested length of that page. It is requested again with the same length.
    """

    start_after: str = ""
    stage: int = 0
    key: str = ""
    rank: int | None = None
    before: str | None = None
    token: str | None = None
    limit: int = 1000

    def start_of(self, rank: int) -> str:
        """Return the key after which the ordered backend of that rank resumes."""
        return self.key if self.rank is None or rank <= self.rank else self.before or ""

    def precedes(self, entry: Listed, rank: int) -> bool:
        """Return whether the position is before an entry of the ordered backend of that rank."""
        if entry.key == self.key:
            return self.rank is not None and rank > self.rank
        return entry.key > self.key

    @property
    def token_of_entry(self) -> bool:
        """Whether the position is after an entry on the page of `token`."""
        return self.key != self.start_after

    def next_stage(self, limit: int) -> Position:
        """Return the position at the start of the next stage."""
        return Position(
            start_after=self.start_after, stage=self.stage + 1, key=self.start_after, limit=limit
        )


def encode(position: Position, facts: Facts) -> str:
    """Return the position as a cursor: letters, digits, ``-`` and ``_``."""
    content = [
        _fingerprint(facts),
        position.start_after,
        position.stage,
        position.key,
        position.rank,
        position.before,
        position.token,
        position.limit,
    ]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, facts: Facts) -> Position:
    """Return the position that a cursor encodes.

    Raises:
        CursorError: The cursor is malformed, or belongs to a listing with other routes or arguments.
    """
    # 1. Parse it.
    content = _parse(cursor)
    if content is None:
        raise CursorError(
            "cursor must be a cursor of a listing: pass a value of ObjectIterator.cursor"
        )
    # 2. Compare the facts: with other routes or arguments the position would be meaningless.
    fingerprint, start_after, stage, key, rank, before, token, limit = content
    if fingerprint != _fingerprint(facts):
        raise CursorError(
            "this cursor belongs to another listing: pass it with the same bucket, prefix,"
            " delimiter, backends and routes"
        )
    # 3. Check the types. The fingerprint does not cover them, and users may edit a cursor.
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
        raise CursorError(
            "this cursor was modified: pass an unchanged value of ObjectIterator.cursor"
        )
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
