"""What the jobs that change the backend of objects have in common."""

from __future__ import annotations

from typing import Final

from trove_async._engine.key_guard import MoveInterruptedError
from trove_async._engine.relocation import Relocated
from trove_async.store import Trove

from ._report import Outcome

_REASONS: Final = {
    Relocated.CONFLICT: "conflict",
    Relocated.GONE: "deleted meanwhile",
    Relocated.CHANGED: "changed meanwhile",
}

IN_USE: Final = Outcome(result="skipped", reason="in use")
"""A user was writing the object. The next run of the job processes it."""


async def relocate(
    store: Trove,
    bucket: str,
    key: str,
    *,
    source: str,
    target: str,
    replace: bool = False,
    keep_source: bool = False,
) -> Outcome:
    """Move or copy an object to another backend. See `trove_async._engine.relocation`."""
    try:
        done = await store._objects.relocate(  # noqa: SLF001 - jobs are part of the library
            bucket, key, source=source, target=target, replace=replace, keep_source=keep_source
        )
    except MoveInterruptedError:
        return IN_USE
    if done.result in _REASONS:
        return Outcome(result="skipped", reason=_REASONS[done.result])
    if done.result is Relocated.SAME and keep_source:
        return Outcome(result="unchanged")
    return Outcome(result="changed", bytes=done.bytes)
