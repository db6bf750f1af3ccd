"""The loop of a sync: pairs the entries of both sides, and transfers and deletes what differs.

Two tasks read the sides ahead. The main task pairs their entries and decides. Workers transfer what differs.
The queues between them have limits, so memory does not grow with the number of files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

from anyio.abc import TaskGroup

from trove_async._concurrency import for_each, in_thread, task_group
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.jobs._limits import RateLimit
from trove_async.jobs._options import RunOptions
from trove_async.jobs._report import UNCHANGED, Outcome, Tally

from .direction import Direction, SkipError, SyncAction, SyncChange
from .entries import Entry
from .rules import Verdict
from .sides import Feed, Side, next_pairs
from .sorting import Spool
from .target_files import CONFLICTS

S = TypeVar("S", bound=Entry)
T = TypeVar("T", bound=Entry)

_DELETIONS: Final = 250
"""Keys of one deletion. Services delete the keys of a request one after the other, so several requests at once
are faster than one of the maximum size, 1,000 on S3 (API Reference, DeleteObjects)."""

_MAX_DELETIONS: Final = 8
"""Maximum number of concurrent deletions."""

_MAX_DEFERRED: Final = 10_000
"""Maximum number of transfers that wait until the deletions are done."""

_MAX_OUTAGES: Final = 100

_OUTAGES: Final = (UnavailableError, StorageFullError, UnauthenticatedError)
"""Errors that concern the backend rather than one object."""


class SyncRun(Generic[S, T]):
    """One run of a sync.

    Args:
        source: The source's entries.
        target: The target's entries.
        direction: Compares and transfers.
        options: The limits.
        dry_run: Whether nothing is changed.
        delete: Whether to delete at the target what the source lacks.
        allow_empty: Whether to delete also if the source has no entries.
        source_name: The source, for the error if it has no entries.
        tally: The counts, to which this adds.
        source_is_complete: Returns False if a part of the source could not be listed. Then nothing is deleted.
        report_progress: Called after every change of the counts.
        notify: Called with every change. None: changes are not reported.

    Attributes:
        deleted: The number of objects or files that were deleted, or would be by a run that is not dry.
    """

    def __init__(
        self,
        source: Side[S],
        target: Side[T],
        direction: Direction[S, T],
        options: RunOptions,
        *,
        dry_run: bool,
        delete: bool,
        allow_empty: bool,
        source_name: str,
        tally: Tally,
        source_is_complete: Callable[[], bool],
        report_progress: Callable[[], None],
        notify: Callable[[SyncChange], None] | None,
    ) -> None:
        self._source = Feed(source)
        self._target = Feed(target)
        self._direction = direction
        self._dry_run = dry_run
        self._delete = delete
        self._may_delete = allow_empty
        self._source_name = source_name
        self._tally = tally
        self._source_is_complete = source_is_complete
        self._report_progress = report_progress
        self._notify = notify
        self._objects = RateLimit(options.max_objects_per_second)
        self._bytes = RateLimit(options.max_bytes_per_second)
        self._queue: asyncio.Queue[_Transfer[S, T] | None] = asyncio.Queue(options.concurrency)
        self._max_workers = options.concurrency
        self._workers = self._idle = 0
        self._deletions = asyncio.Semaphore(_MAX_DELETIONS)
        self._undeleted = Spool()
        self._waiting_keys: list[str] = []
        self._deferred: list[_Transfer[S, T]] = []
        self._may_defer = delete and not dry_run
        self._outages = 0
        self.deleted = 0

    async def run(self) -> None:
        """Run to the end. After a cancel or an error nothing is in flight.

        Raises:
            TroveError: A bucket cannot be listed, a store is closed, or a backend is unavailable.
            OSError: A directory cannot be listed.
            ConfigError: The source has no entries, and something would be deleted.
        """
        try:
            async with task_group() as helpers:
                self._direction.start(helpers)
                try:
                    # 1. Pair and transfer. Deletions begin once the source has been listed.
                    async with task_group() as group:
                        await self._pair(group)
                    # 2. Transfer what was in the way of a file or directory that is now deleted.
                    deferred, self._deferred = self._deferred, []
                    self._may_defer = False
                    await for_each(deferred, self._process, limit=self._max_workers)
                finally:
                    self._direction.close()
        finally:
            await in_thread(self._undeleted.close)

    async def _pair(self, group: TaskGroup) -> None:
        group.start_soon(self._source.run)
        group.start_soon(self._target.run)
        while (pairs := await next_pairs(self._source, self._target)) is not None:
            for source, target in pairs:
                if source is not None:
                    self._may_delete = True
                    await self._decide(source, target, group)
                elif target is not None and self._delete:
                    self._add_deletable(target)
            await self._delete_what_is_known(group)
            self._report_progress()
        for _ in range(self._workers):
            await self._queue.put(None)
        await self._delete_rest(group)

    # -- transfers ---------------------------------------------------------------------------------------

    async def _decide(self, source: S, target: T | None, group: TaskGroup) -> None:
        """Count an entry that needs no I/O, or queue it."""
        try:
            verdict = self._direction.verdict(source, target)
        except SkipError as skip:
            self._tally.add(source.key, Outcome(result="skipped", reason=str(skip)))
            return
        except Exception as error:  # noqa: BLE001 - of this entry
            self._add_error(source.key, error)
            return
        if verdict is Verdict.SAME:
            self._tally.add(source.key, UNCHANGED)
            return
        if verdict is Verdict.CHANGED and self._dry_run:
            self._add(source.key, Outcome(result="changed", bytes=source.size))
            return
        if not self._idle and self._workers < self._max_workers:
            self._workers += 1
            group.start_soon(self._work)
        await self._queue.put(_Transfer(source, target, verdict))

    async def _work(self) -> None:
        while True:
            self._idle += 1
            transfer = await self._queue.get()
            self._idle -= 1
            if transfer is None:
                return
            await self._process(transfer)

    async def _process(self, transfer: _Transfer[S, T]) -> None:
        key = transfer.source.key
        try:
            outcome = await self._outcome_of(transfer)
        except _OUTAGES as error:
            self._add_error(key, error)
            self._outages += 1
            if self._outages >= _MAX_OUTAGES:
                raise
        except (ClosedError, BucketNotFoundError):
            raise
        except Exception as error:  # noqa: BLE001 - of this object
            if self._may_defer and _is_conflict(error) and len(self._deferred) < _MAX_DEFERRED:
                self._deferred.append(transfer)
            else:
                self._add_error(key, error)
        else:
            self._outages = 0
            self._add(key, outcome)
        self._report_progress()

    async def _outcome_of(self, transfer: _Transfer[S, T]) -> Outcome:
        source, target, verdict = transfer.source, transfer.target, transfer.verdict
        await self._objects.acquire(1)
        if (
            verdict is Verdict.COMPARE
            and target is not None
            and await self._direction.is_same(source, target)
        ):
            return UNCHANGED
        if self._dry_run:
            return Outcome(result="changed", bytes=source.size)
        await self._bytes.acquire(source.size)
        return await self._direction.transfer(source, target)

    # -- counts ------------------------------------------------------------------------------------------

    def _add(self, key: str, outcome: Outcome, action: SyncAction | None = None) -> None:
        self._tally.add(key, outcome)
        if outcome.result == "changed":
            self._tell(action, key, size=outcome.bytes)

    def _add_error(self, key: str, error: Exception, action: SyncAction | None = None) -> None:
        self._tally.add_error(key, error)
        self._tell(action, key, error=error)

    def _tell(
        self, action: SyncAction | None, key: str, *, size: int = 0, error: Exception | None = None
    ) -> None:
        notify = self._notify
        if notify is None:
            return
        try:
            notify(
                SyncChange(action=action or self._direction.action, key=key, size=size, error=error)
            )
        except BaseException:
            self._notify = None  # the sync ends, and other workers do not call it again
            raise

    # -- deletions ---------------------------------------------------------------------------------------

    def _add_deletable(self, target: T) -> None:
        deletable = self._direction.deletable(target)
        if deletable.reason:
            self._tally.add(target.key, Outcome(result="skipped", reason=deletable.reason))
        else:
            self._waiting_keys.append(target.key)

    async def _delete_what_is_known(self, group: TaskGroup) -> None:
        """Start deletions once the source has been listed. Until then, keep the keys."""
        if not self._source.ended or not self._source_is_complete():
            self._undeleted.add(key.encode() for key in self._waiting_keys)
            self._waiting_keys.clear()
            if self._undeleted.is_full:
                await in_thread(self._undeleted.flush)
        else:
            while len(self._waiting_keys) >= _DELETIONS:
                keys = self._waiting_keys[:_DELETIONS]
                del self._waiting_keys[:_DELETIONS]
                await self._start_deletion(keys, group)

    async def _delete_rest(self, group: TaskGroup) -> None:
        self._undeleted.add(key.encode() for key in self._waiting_keys)
        self._waiting_keys.clear()
        records = await in_thread(self._undeleted.records)
        while keys := await in_thread(_next_keys, records):
            if self._source_is_complete():
                await self._start_deletion(keys, group)
                continue
            kept = Outcome(result="skipped", reason="not deleted: the source is incomplete")
            for key in keys:
                self._tally.add(key, kept)

    async def _start_deletion(self, keys: Sequence[str], group: TaskGroup) -> None:
        if not self._may_delete:
            raise ConfigError(
                f"{self._source_name} has nothing to sync, so delete=True would delete everything from the"
                " target: correct the source, or pass allow_empty=True"
            )
        if self._dry_run:
            self._count_deletions(keys, [None] * len(keys))
            return
        await self._deletions.acquire()
        group.start_soon(self._delete_keys, keys)

    async def _delete_keys(self, keys: Sequence[str]) -> None:
        try:
            await self._objects.acquire(len(keys))
            errors = await self._direction.delete(keys)
        except ClosedError:
            raise
        except Exception as error:  # noqa: BLE001 - of these objects
            errors = [error] * len(keys)
        finally:
            self._deletions.release()
        self._count_deletions(keys, errors)
        self._report_progress()

    def _count_deletions(self, keys: Sequence[str], errors: Sequence[Exception | None]) -> None:
        for key, error in zip(keys, errors, strict=True):
            if error is None:
                self.deleted += 1
                self._add(key, Outcome(result="changed"), action="delete")
            else:
                self._add_error(key, error, action="delete")


class _Transfer(Generic[S, T]):
    """An entry that may have to be transferred."""

    __slots__ = ("source", "target", "verdict")

    def __init__(self, source: S, target: T | None, verdict: Verdict) -> None:
        self.source = source
        self.target = target
        self.verdict = verdict


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in CONFLICTS


def _next_keys(records: Iterator[bytes]) -> list[str]:
    return [record.decode() for record in islice(records, _DELETIONS)]
