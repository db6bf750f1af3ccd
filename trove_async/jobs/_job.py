"""The contract between a job and the loop that runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ._ranges import KeyRange
from ._report import Outcome


class HasKey(Protocol):
    """An item of a walk."""

    @property
    def key(self) -> str:
        """The key, by which the items of an ordered walk are sorted."""
        ...


T = TypeVar("T", bound=HasKey)


@dataclass(frozen=True, slots=True)
class WalkPage(Generic[T]):
    """A page of items.

    Attributes:
        items: The items, which may be none. In an ordered walk their keys ascend, and no key is repeated.
        ordered: Whether the walk is in bytewise order of the keys.
        cursor: In an unordered walk, the position behind this page; None at its end.
    """

    items: Sequence[T]
    ordered: bool = True
    cursor: str | None = None


class Job(Protocol[T]):
    """One job over one bucket. It holds no state of a run, so that a range may be run again.

    Every action is idempotent: after a crash, objects since the last checkpoint are processed again.
    """

    @property
    def name(self) -> str:
        """The public name of the job: ``"rebalance"``."""
        ...

    @property
    def bucket(self) -> str:
        """The bucket, for the report."""
        ...

    @property
    def dry_run(self) -> bool:
        """Whether the job only counts what it would change."""
        ...

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments that determine what the job does, as JSON values.

        A checkpoint belongs to a job with equal arguments. They contain no credentials.
        """
        ...

    @property
    def ordered(self) -> bool:
        """Whether the walk is known to be in key order, so that it can be cut into ranges beforehand."""
        ...

    async def check(self) -> None:
        """Raise if the job cannot run. Called once, before the first item.

        Raises:
            ConfigError: The store is not configured for the job.
            NotSupportedError: A backend lacks a feature that the job needs.
        """
        ...

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[T], None]:
        """Iterate over the pages of a range. Pages may go beyond ``until``: the run drops those items.

        An error ends the job.
        """
        ...

    async def first_after(self, key: str) -> str | None:
        """Return the first key of the walk after `key`, by one small request; None at the end."""
        ...

    def peek(self, item: T) -> Outcome | None:
        """Return the outcome of an item if it is known without I/O. None: call `process`."""
        ...

    def weight(self, item: T) -> int:
        """Return the bytes that processing the item may transfer, for the limit on bytes a second.

        What `Outcome.bytes` then shows as not transferred is not counted. Neither are dry runs.
        """
        ...

    async def process(self, item: T) -> Outcome:
        """Process an item. An Exception is an error of this object alone, except a ClosedError.

        After a cancel the object is as it was, or completely processed.
        """
        ...
