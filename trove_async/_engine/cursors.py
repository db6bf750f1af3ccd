"""Positions in a listing, encoded as cursors: text that outlives the process."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from trove_async.errors import CursorError
from trove_async.models import Listed

CursorScope: TypeAlias = tuple[object, ...]
"""The arguments, backends and routes of a listing, as JSON values. A cursor fits only listings of one scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a listing after its last returned entry.

    Attributes:
        start_after: The start of the whole listing: only greater keys are listed.
        stage: The index of the stage. The ordered backends, if any, are merged in the first stage.
            Each unordered backend is a separate stage.
        key: The key or common prefix of the last entry, or `start_after` before the first one.
        rank: The index of the entry's backend, if the next entry may have the same key
            (`include_shadowed`). None: all entries of the key were returned.
        before: With `rank`, the greatest key returned before `key`. Backends of a higher rank resume
            after it, because they may have `key` as well.
        token: The token of the entry's page, if the backend is unordered.
        limit: The requested length of that page. The page is requested again with the same length.
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
    def is_after_entry(self) -> bool:
        """Whether the position is after an entry, rather than before the first one."""
        return self.key != self.start_after

    def next_stage(self, limit: int) -> Position:
        """Return the position at the start of the next stage."""
        return Position(
            start_after=self.start_after, stage=self.stage + 1, key=self.start_after, limit=limit
        )


def encode(position: Position, scope: CursorScope) -> str:
    """Return the position as a cursor: letters, digits, ``-`` and ``_``."""
    content = [
        _fingerprint(scope),
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


def decode(cursor: str, scope: CursorScope) -> Position:
    """Return the position that a cursor encodes.

    Raises:
        CursorError: The cursor is malformed, or belongs to a listing with a different scope.
    """
    # 1. Parse it.
    content = _parse(cursor)
    if content is None:
        raise CursorError(
            "cursor must be a cursor of a listing: pass a value of ObjectIterator.cursor"
        )
    # 2. Compare the scope: the position would be meaningless with other routes or arguments.
    fingerprint, start_after, stage, key, rank, before, token, limit = content
    if fingerprint != _fingerprint(scope):
        raise CursorError(
            "this cursor belongs to a different listing: pass it with the same bucket, prefix,"
            " delimiter, include_shadowed, backends and routes"
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
    except (ValueError, RecursionError):  # of base64, UTF-8 or JSON
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


def _fingerprint(scope: CursorScope) -> str:
    return hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16]
