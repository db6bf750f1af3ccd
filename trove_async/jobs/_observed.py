"""Keeps the counts of a range right although a process that worked on it was lost.

A range whose worker was killed is walked again. Objects that were changed before are then found unchanged, or
are not listed any more, so the second walk alone would report too few changes. Therefore each page of a walk is
recorded, outside of the worker, before its first object is processed: the interval of its keys, and how many
of its objects were to be processed. The second walk counts how many of them are still to be processed. The
difference are those that the lost process has changed.

This is exact if `Job.peek` recognises what was changed, or the walk does not list it any more. For other jobs,
objects that `Job.process` finds unchanged the second time are reported as unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Generic, TypeVar

import anyio

from ._job import HasKey, Job, WalkPage
from ._ranges import KeyRange
from ._report import Outcome, Tally

T = TypeVar("T", bound=HasKey)


class Intervals:
    """A set of keys, as disjoint intervals that exclude their start and include their end."""

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[str, str]] | None = None) -> None:
        self._items = items or []

    def __bool__(self) -> bool:
        return bool(self._items)

    def __contains__(self, key: str) -> bool:
        return any(start < key <= end for start, end in self._items)

    def add(self, start: str, end: str) -> None:
        """Add the keys after `start`, up to and including `end`."""
        separate = []
        for item in self._items:
            if item[1] < start or end < item[0]:
                separate.append(item)
            else:
                start, end = min(start, item[0]), max(end, item[1])
        self._items = sorted([*separate, (start, end)])

    def to_json(self) -> list[list[str]]:
        """Return the intervals as JSON values."""
        return [list(item) for item in self._items]


class Observations:
    """What the walks of one range have seen before anything was changed.

    Attributes:
        seen: The keys.
        pending: The number of their objects that were to be processed.
        unchanged: The number of their objects with nothing to do.
        weight: The bytes of the objects that were to be processed.
    """

    __slots__ = ("pending", "seen", "unchanged", "weight")

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        values = values or {"seen": [], "pending": 0, "unchanged": 0, "weight": 0}
        self.seen = Intervals([(start, end) for start, end in values["seen"]])
        self.pending: int = values["pending"]
        self.unchanged: int = values["unchanged"]
        self.weight: int = values["weight"]

    def add(self, outcome: Outcome | None, weight: int) -> None:
        """Count an object. `outcome` is what `Job.peek` has returned."""
        if outcome is None:
            self.pending += 1
            self.weight += weight
        elif outcome.result == "unchanged":
            self.unchanged += 1

    def to_json(self) -> dict[str, Any]:
        """Return the observations as JSON values."""
        return {
            "seen": self.seen.to_json(),
            "pending": self.pending,
            "unchanged": self.unchanged,
            "weight": self.weight,
        }


class Observed(Generic[T]):
    """A job that records the pages of its walks. See the documentation of the module.

    Args:
        job: The job.
        key_range: The range that is run.
        earlier: What lost processes have recorded for this range.
        save: Records the observations. It returns once they would outlast this process.
        own_key: A key that the run ignores.
    """

    def __init__(
        self,
        job: Job[T],
        key_range: KeyRange,
        earlier: Mapping[str, Any] | None,
        save: Callable[[Mapping[str, Any]], Awaitable[object]],
        *,
        own_key: str | None = None,
    ) -> None:
        self._job = job
        self._range = key_range
        self._own_key = own_key
        self._save = save
        self._saving = anyio.Lock()
        self._earlier = Observations(earlier)
        self._all = Observations(earlier)
        self._again = Observations()  # what this process has seen of the earlier keys
        self._seen = Intervals()  # by this process
        # Attributes of the contract.
        self.name = job.name
        self.bucket = job.bucket
        self.dry_run = job.dry_run
        self.arguments = job.arguments
        self.ordered = job.ordered
        self.check = job.check
        self.first_after = job.first_after
        self.peek = job.peek
        self.weight = job.weight

    async def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[T], None]:
        """Walk the job's items, and record each page first."""
        position = key_range.start_after
        async with aclosing(self._job.walk(key_range)) as pages:
            async for page in pages:
                if page.ordered and page.items:
                    if self._observe(page, position):
                        async with self._saving:
                            await self._save(self._all.to_json())
                    position = page.items[-1].key
                yield page

    async def process(self, item: T) -> Outcome:
        """Process an item. If a lost process has copied it already, count the bytes of that copy."""
        outcome = await self._job.process(item)
        if outcome.result == "changed" and item.key in self._earlier.seen:
            return replace(outcome, bytes=max(outcome.bytes, self._job.weight(item)))
        return outcome

    def _observe(self, page: WalkPage[T], start: str) -> bool:
        """Count the items of a page. Return whether any of them is to be processed for the first time."""
        is_new = False
        for item in page.items:
            key = item.key
            # Two listings may meet on one page, after a split.
            if key == self._own_key or key not in self._range or key in self._seen:
                continue
            try:
                outcome = self._job.peek(item)
            except Exception:  # noqa: BLE001, S112 - the run counts it as an error of the object
                continue
            weight = self._job.weight(item) if outcome is None else 0
            if key in self._earlier.seen:
                self._again.add(outcome, weight)
            else:
                self._all.add(outcome, weight)
                is_new = is_new or outcome is None
        end = page.items[-1].key
        if self._range.until is not None:
            end = min(end, self._range.until)
        self._seen.add(start, end)
        self._all.seen.add(start, end)
        return is_new

    def correct(self, tally: Tally) -> None:
        """Add what lost processes have changed to the counts of the whole range."""
        changed = max(0, self._earlier.pending - self._again.pending)
        found = min(changed, max(0, self._again.unchanged - self._earlier.unchanged))
        tally.changed += changed
        tally.unchanged -= found
        tally.examined += changed - found
        if changed:
            tally.bytes += max(0, self._earlier.weight - self._again.weight)
