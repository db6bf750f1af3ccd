"""The contract between the loop of a sync and the three directions: upload, download, copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from anyio.abc import TaskGroup

from trove_async.errors import ObjectChangedError
from trove_async.jobs._report import Outcome

from .entries import Entry
from .rules import Verdict

S_contra = TypeVar("S_contra", bound=Entry, contravariant=True)
T_contra = TypeVar("T_contra", bound=Entry, contravariant=True)

VANISHED = Outcome(result="skipped", reason="deleted during the sync")
"""The outcome of a source that was deleted after it was listed."""


GONE = (FileNotFoundError, NotADirectoryError, ObjectChangedError)
"""Errors of a comparison with a file or an object that was changed or deleted meanwhile: it is transferred,
which finds out."""


SyncAction: TypeAlias = Literal["upload", "download", "copy", "delete"]
"""What a sync does with one object or file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncChange:
    """One object or file that a sync has changed at the target, could not change, or would change.

    Attributes:
        action: What was done.
        key: The key relative to the source and the target.
        size: The number of bytes transferred.
        error: Why it failed; None: it did not.
    """

    action: SyncAction
    key: str
    size: int = 0
    error: Exception | None = None


class SkipError(Exception):
    """A source that is left out. The message is the reason, for the report."""


class Deletable(NamedTuple):
    """Something at the target that the source lacks.

    Attributes:
        key: Its relative key.
        reason: Why it is kept; ``""``: it may be deleted.
    """

    key: str
    reason: str = ""


class Direction(Protocol[S_contra, T_contra]):
    """Compares and transfers single objects and files."""

    @property
    def action(self) -> SyncAction:
        """What a transfer is called."""
        ...

    def start(self, group: TaskGroup) -> None:
        """Start helper tasks, which run until `close`."""
        ...

    def close(self) -> None:
        """Let the helper tasks end."""
        ...

    def verdict(self, source: S_contra, target: T_contra | None, /) -> Verdict:
        """Decide without I/O whether the source has to be transferred. Called in the order of the keys.

        Raises:
            SkipError: The source is left out, for a reason that is no error.
            Exception: The source cannot be transferred.
        """
        ...

    async def is_same(self, source: S_contra, target: T_contra, /) -> bool:
        """Compare the contents, after `Verdict.COMPARE`."""
        ...

    async def transfer(self, source: S_contra, target: T_contra | None, /) -> Outcome:
        """Transfer the source. After an error or a cancel, the target is as it was or complete."""
        ...

    def deletable(self, target: T_contra, /) -> Deletable:
        """Return what would be deleted for an entry of the target that the source lacks."""
        ...

    async def delete(self, keys: Sequence[str]) -> Sequence[Exception | None]:
        """Delete at the target, up to 1,000 keys. Return one result for each."""
        ...
