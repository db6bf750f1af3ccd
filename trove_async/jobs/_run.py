"""The loop that runs a job: walks key ranges, processes objects concurrently, and records the state.

Every range has one listing. While there are free slots for objects, the range with the most pages is split,
and its second half gets its own listing, up to `MAX_LISTINGS`. So listings are parallel only where listing is
the bottleneck. What is held in memory are a page of each listing and the objects in flight.

The state of a range is its position, and the keys before it that are still in flight. A checkpoint therefore
records exactly what is not done, however slow a single object is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from trove_async._concurrency import run_cleanup, task_group
from trove_async.errors import (
    ClosedError,
    ConfigError,
    StorageFullError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.store import Trove

from ._checkpoint import Checkpoint, State
from ._job import HasKey, Job, WalkPage
from ._limits import RateLimit
from ._options import ObjectTarget, RunOptions
from ._ranges import KeyRange, find_split
from ._report import JobProgress, Outcome, Report, Tally, call_back

T = TypeVar("T", bound=HasKey)

MAX_LISTINGS: Final = 8
"""Maximum number of concurrent listings of one run."""

CHECKPOINT_SECONDS: Final = 5.0
"""Seconds between two checkpoints."""

MAX_OUTAGES: Final = 100
"""The job stops once so many objects in a row have failed because of a backend as a whole. See `OUTAGES`."""

OUTAGES: Final = (UnavailableError, StorageFullError, UnauthenticatedError)
"""Errors that concern the backend rather than one object: it is down, full, or rejects the credentials."""

_PROGRESS_SECONDS: Final = 0.1
_PAGES_BEFORE_SPLIT: Final = 2


async def run_job(store: Trove, job: Job[T], options: RunOptions) -> Report:
    """Run a job to its end, and return its report.

    With a checkpoint, it continues where an earlier run of the same job stopped. If that run has ended, it
    starts anew.

    Raises:
        ConfigError: The checkpoint of a dry run is an object of the store.
        TroveError: A listing or the checkpoint failed, the store is closed, or a backend is unavailable
            (`MAX_OUTAGES`). The checkpoint records what was done.
        Exception: The progress callback raised it.
    """
    if job.dry_run and isinstance(options.checkpoint, ObjectTarget):
        raise ConfigError(
            "a dry run does not write to the store: pass a file as checkpoint, or none"
        )
    await job.check()
    if options.on is not None:
        return await options.on.run(job, store, options)
    if options.checkpoint is None:
        return await _run_here(store, job, options, None)
    checkpoint = Checkpoint(store, options.checkpoint, job.name, job.arguments)
    async with checkpoint.held():
        return await _run_here(store, job, options, checkpoint)


async def _run_here(
    store: Trove, job: Job[T], options: RunOptions, checkpoint: Checkpoint | None
) -> Report:
    # 1. Load the state of an earlier run, and check that the checkpoint can be written.
    started = asyncio.get_running_loop().time()
    state = None if checkpoint is None else await checkpoint.load()
    run = JobRun(store, job, options, state=state, checkpoint=checkpoint)
    if checkpoint is not None:
        await checkpoint.save(run.state())
    # 2. Run, and record the state however that ends.
    try:
        await run.run()
    except BaseException as error:
        if checkpoint is not None:
            try:
                await run_cleanup(checkpoint.save(run.state()))
            except Exception as failure:  # noqa: BLE001 - the first error is raised
                error.add_note(f"The checkpoint could not be written: {failure}")
        if isinstance(error, TroveError):
            error.add_note(f"The job stopped. {report_of(job, run.tally, run.elapsed(started))}")
        raise
    if checkpoint is not None:
        await checkpoint.save(State(ranges=(), tally=run.tally, complete=True))
    return report_of(job, run.tally, run.elapsed(started))


async def run_range(store: Trove, job: Job[T], key_range: KeyRange, options: RunOptions) -> Tally:
    """Run a job on one range, without a checkpoint, and return its counts. For executors.

    Raises:
        TroveError: As `run_job`.
    """
    run = JobRun(store, job, options, state=State(ranges=[key_range], tally=Tally()))
    await run.run()
    return run.tally


async def cut(job: Job[T], count: int, whole: KeyRange | None = None) -> Sequence[KeyRange]:
    """Cut a range into up to `count` ranges, by a few requests for single keys. For executors.

    The ranges have different sizes: cut into several times as many as there are workers. Only for jobs whose
    walk is ordered.
    """
    # Each range is split in turn, the oldest first, so that their depths in the tree of splits are equal.
    waiting, finished = deque([whole or KeyRange()]), list[KeyRange]()
    while waiting and len(waiting) + len(finished) < count:
        key_range = waiting.popleft()
        split = await find_split(key_range, job.first_after)
        if split.point is None:
            finished.append(KeyRange(key_range.start_after, split.until))
            continue
        waiting.append(KeyRange(key_range.start_after, split.point))
        waiting.append(KeyRange(split.point, split.until))
    return sorted([*waiting, *finished], key=lambda item: item.start_after)


def report_of(job: Job[T], tally: Tally, duration: float) -> Report:
    """Return the public report of a job."""
    return Report(
        job=job.name,
        bucket=job.bucket,
        dry_run=job.dry_run,
        examined=tally.examined,
        changed=tally.changed,
        unchanged=tally.unchanged,
        skipped=tally.skipped,
        failed=tally.failed,
        bytes=tally.bytes,
        errors=tally.errors.public(),
        skips=tally.skips.public(),
        ranges=tally.ranges_done,
        duration=duration,
    )


class _Slot:
    """An object in flight.

    Attributes:
        before: Where a walk must start to find it again. In an ordered walk this is the key that was handed out
            before it. In an unordered one it is the cursor of its page, or None on the first page.
        key: Its key.
    """

    __slots__ = ("before", "key")

    def __init__(self, before: str | None, key: str) -> None:
        self.before = before
        self.key = key


class _OpenRange:
    """A range that is being walked.

    Attributes:
        position: The last key that was handed out. Everything up to it is done, except `in_flight`.
        until: The end of the range. A split lowers it.
        cursor: The cursor before the current page, if the walk is unordered.
        ordered: Whether the walk is ordered.
        in_flight: The objects in flight, the oldest first.
        pages: The number of pages since the last split.
        walked: Whether all keys have been handed out.
    """

    __slots__ = ("cursor", "in_flight", "ordered", "pages", "position", "start", "until", "walked")

    def __init__(self, key_range: KeyRange) -> None:
        self.start = key_range
        self.position = key_range.start_after
        self.until = key_range.until
        self.cursor = key_range.cursor
        self.ordered = key_range.cursor is None
        self.in_flight: dict[_Slot, None] = {}
        self.pages = 0
        self.walked = False

    def is_beyond(self, key: str) -> bool:
        """Return whether the key belongs to a later range."""
        return self.ordered and self.until is not None and key > self.until

    def hand_out(self, key: str) -> _Slot:
        """Record an object in flight."""
        slot = _Slot(self.position if self.ordered else self.cursor, key)
        self.in_flight[slot] = None
        self.position = key
        return slot

    def remaining(self) -> list[KeyRange]:
        """Return what is not done."""
        if not self.ordered:
            first = next(iter(self.in_flight), None)
            if self.walked and first is None:
                return []
            cursor = self.cursor if first is None else first.before
            return [KeyRange(self.start.start_after, self.start.until, cursor)]
        ranges: list[KeyRange] = []
        for slot in self.in_flight:
            before = slot.before or ""
            if ranges and ranges[-1].until == before:
                before = ranges.pop().start_after
            ranges.append(KeyRange(before, slot.key))
        if not self.walked and (self.until is None or self.position < self.until):
            start = self.position
            if ranges and ranges[-1].until == start:
                start = ranges.pop().start_after
            ranges.append(KeyRange(start, self.until))
        return ranges


class JobRun(Generic[T]):
    """One run of a job in this process.

    Args:
        store: The store.
        job: The job.
        options: How to run it. The executor is ignored.
        state: The state at which to continue. None: the start.
        checkpoint: The checkpoint to write regularly.

    Attributes:
        tally: The counts so far.
    """

    def __init__(
        self,
        store: Trove,
        job: Job[T],
        options: RunOptions,
        *,
        state: State | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._store = store
        self._job = job
        self._progress = options.progress
        self._checkpoint = checkpoint
        target = options.checkpoint
        is_in_bucket = isinstance(target, ObjectTarget) and target.bucket == job.bucket
        self._own_key = target.key if isinstance(target, ObjectTarget) and is_in_bucket else None
        self._slots = anyio.Semaphore(options.concurrency)
        self._objects = RateLimit(options.max_objects_per_second)
        self._bytes = RateLimit(options.max_bytes_per_second)
        self.tally = Tally() if state is None else state.tally
        self._waiting = deque([KeyRange()] if state is None else state.ranges)
        self._open: dict[_OpenRange, None] = {}
        self._listings = 0
        self._splitting = False
        self._outages: list[tuple[_OpenRange, _Slot, Exception]] = []
        self._started_at = self._reported_at = float("-inf")

    def elapsed(self, started: float) -> float:
        """Return the seconds since a time of the loop's clock."""
        return asyncio.get_running_loop().time() - started

    def state(self) -> State:
        """Return what is not done, and the counts of what is."""
        ranges = [item for open_range in self._open for item in open_range.remaining()]
        return State(ranges=[*ranges, *self._waiting], tally=self.tally)

    async def run(self) -> None:
        """Walk all ranges. After a cancel or an error, nothing is in flight, and `state` is exact."""
        self._started_at = asyncio.get_running_loop().time()
        self._report_progress(at_once=True)
        async with task_group() as background:
            if self._checkpoint is not None:
                background.start_soon(self._save_regularly, self._checkpoint)
            async with task_group() as group:
                for _ in range(min(len(self._waiting), MAX_LISTINGS)):
                    self._start_listing(group)
            background.cancel_scope.cancel()
        self._settle_outages()
        self._report_progress(at_once=True)

    async def _save_regularly(self, checkpoint: Checkpoint) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await checkpoint.save(self.state())

    # -- listings ------------------------------------------------------------------------------------

    def _start_listing(self, group: TaskGroup) -> None:
        self._listings += 1
        group.start_soon(self._walk_ranges, group)

    async def _walk_ranges(self, group: TaskGroup) -> None:
        while self._waiting:
            open_range = _OpenRange(self._waiting.popleft())
            self._open[open_range] = None
            await self._walk(open_range, group)
        self._listings -= 1

    async def _walk(self, open_range: _OpenRange, group: TaskGroup) -> None:
        async with aclosing(self._job.walk(open_range.start)) as pages:
            async for page in pages:
                open_range.ordered = page.ordered
                open_range.pages += 1
                if not await self._hand_out(open_range, page, group):
                    break
                open_range.cursor = page.cursor
                if not page.ordered and page.cursor is None:
                    break  # the end: a cursor of None would mean the start
                self._report_progress()
                self._split_if_idle(group)
                await asyncio.sleep(0)  # a listing of many pages must not starve other tasks
        open_range.walked = True
        self._close_if_done(open_range)

    async def _hand_out(self, open_range: _OpenRange, page: WalkPage[T], group: TaskGroup) -> bool:
        """Process the items of a page. Return False at the end of the range."""
        job, tally = self._job, self.tally
        for item in page.items:
            key = item.key
            if open_range.is_beyond(key):
                return False
            # 1. Count an object that needs no I/O.
            if key == self._own_key:
                open_range.position = key
                continue
            try:
                outcome = job.peek(item)
            except Exception as error:  # noqa: BLE001 - of a user's function, for this object
                tally.add_error(key, error)
                open_range.position = key
                continue
            if outcome is not None:
                tally.add(key, outcome)
                open_range.position = key
                continue
            # 2. Wait for its turn. A split may end the range meanwhile.
            await self._objects.acquire(1)
            weight = 0 if job.dry_run else job.weight(item)
            await self._bytes.acquire(weight)
            await self._slots.acquire()
            if open_range.is_beyond(key):
                self._slots.release()
                self._bytes.give_back(weight)
                return False
            # 3. Start to process it.
            group.start_soon(self._process, open_range, open_range.hand_out(key), item, weight)
        return True

    def _close_if_done(self, open_range: _OpenRange) -> None:
        if open_range.walked and not open_range.in_flight and open_range in self._open:
            del self._open[open_range]
            self.tally.ranges_done += 1

    # -- splits --------------------------------------------------------------------------------------

    def _split_if_idle(self, group: TaskGroup) -> None:
        """Split the largest range if there are free slots and listings, as far as is known."""
        if self._splitting or self._listings >= MAX_LISTINGS or not self._slots.value:
            return
        candidates = [
            item
            for item in self._open
            if item.ordered and not item.walked and item.pages >= _PAGES_BEFORE_SPLIT
        ]
        if candidates:
            self._splitting = True
            group.start_soon(self._split, max(candidates, key=lambda item: item.pages), group)

    async def _split(self, open_range: _OpenRange, group: TaskGroup) -> None:
        searched = KeyRange(open_range.position, open_range.until)
        split = await find_split(searched, self._job.first_after)
        # No await from here on: the listing of this range continues.
        self._splitting = False
        open_range.pages = 0
        if open_range.walked:
            return
        if split.until is not None and split.until > open_range.position:
            open_range.until = split.until
        if split.point is None or split.point <= open_range.position:
            return
        self._waiting.append(KeyRange(split.point, open_range.until))
        open_range.until = split.point
        self._start_listing(group)

    # -- objects -------------------------------------------------------------------------------------

    async def _process(self, open_range: _OpenRange, slot: _Slot, item: T, weight: int) -> None:
        try:
            outcome: Outcome = await self._job.process(item)
        except OUTAGES as error:
            self._add_outage(open_range, slot, error)
        except Exception as error:  # noqa: BLE001 - of this object
            if isinstance(error, ClosedError):
                self._store._core.check_usable()  # noqa: SLF001 - raises if the store is closed
            self._settle_outages()
            self.tally.add_error(slot.key, error)
            self._finish(open_range, slot)
        else:
            self._settle_outages()
            self._bytes.give_back(weight - outcome.bytes)
            self.tally.add(slot.key, outcome)
            self._finish(open_range, slot)
        finally:
            self._slots.release()
        self._report_progress()

    def _finish(self, open_range: _OpenRange, slot: _Slot) -> None:
        del open_range.in_flight[slot]
        self._close_if_done(open_range)

    def _add_outage(self, open_range: _OpenRange, slot: _Slot, error: TroveError) -> None:
        """Leave an object in flight because a backend as a whole has failed.

        As long as it is in flight, a checkpoint records it as not done. Once another object has reached the
        backends, it is counted as failed. If the job stops before that, a resumed run processes it again.

        Raises:
            TroveError: So many objects in a row have failed like this that the job stops.
        """
        self._outages.append((open_range, slot, error))
        if len(self._outages) >= MAX_OUTAGES:
            raise error

    def _settle_outages(self) -> None:
        """Count the objects that `_add_outage` has left in flight as failed."""
        for open_range, slot, error in self._outages:
            self.tally.add_error(slot.key, error)
            self._finish(open_range, slot)
        self._outages.clear()

    def _report_progress(self, *, at_once: bool = False) -> None:
        if self._progress is None:
            return
        now = asyncio.get_running_loop().time()
        if not at_once and now - self._reported_at < _PROGRESS_SECONDS:
            return
        self._reported_at = now
        tally = self.tally
        call_back(
            self._progress,
            JobProgress(
                job=self._job.name,
                bucket=self._job.bucket,
                examined=tally.examined,
                changed=tally.changed,
                unchanged=tally.unchanged,
                skipped=tally.skipped,
                failed=tally.failed,
                bytes=tally.bytes,
                ranges_done=tally.ranges_done,
                ranges=tally.ranges_done + len(self._open) + len(self._waiting),
                elapsed=now - self._started_at,
            ),
        )
