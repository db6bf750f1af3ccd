"""Moves objects to the backends that the rules name."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping

from trove_async._settings import check_switches
from trove_async.models import ObjectInfo
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._placement import Move, completed, relocate, router_of
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import ListedKey, first_key_after, is_ordered, walk_copies, walk_routed


async def rebalance(
    store: Trove,
    bucket: str,
    *,
    prefix: str = "",
    delete_shadowed: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Move every object of a bucket to the backend that the rules name.

    Use it after a change of the rules. In a store with ``locate="anywhere"`` every object stays readable
    meanwhile; without it, misplaced objects become readable once they are moved.

    If the backend that the rules name has a different object of the same key, that one is the object that
    users read and write, and the misplaced one is hidden. It is skipped as a ``"conflict"``. If both have the
    same bytes, the misplaced one is deleted.

    Args:
        store: The store, not a pinned handle.
        bucket: The bucket.
        prefix: Examine only keys that start with this.
        delete_shadowed: Whether to delete misplaced objects that are hidden by a different object.
        dry_run: Whether to count what would be done, and change nothing.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, so that a later call with the same arguments continues:
            an `os.PathLike`, a ``file://`` URL, or ``"BUCKET/KEY"`` in the store (not for a dry run). If the
            earlier run has ended, the call starts anew.
        max_objects_per_second: The maximum number of objects to move in a second.
        max_bytes_per_second: The maximum number of bytes to copy in a second.
        on: Where to run. None: in this process.

    Returns:
        The report. Errors of single objects are in it, and do not end the job.

    Raises:
        ConfigError: `store` is a pinned handle, an argument is not valid, or the checkpoint belongs to a
            different job.
        BucketNotFoundError: No backend has the bucket.
        TroveError: A listing or the checkpoint failed, or a backend is down: 100 objects in a row failed with
            UnavailableError, StorageFullError or UnauthenticatedError. With a checkpoint, the job can be
            resumed.
        TypeError: An argument has the wrong type.
    """
    check_target(store, bucket, prefix, dry_run=dry_run)
    check_switches(delete_shadowed=delete_shadowed)
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    job = Rebalance(store, bucket, prefix, delete_shadowed=delete_shadowed, dry_run=dry_run)
    return await run_job(store, job, options)


class Rebalance:
    """The job. See `Job`."""

    name = "rebalance"

    def __init__(
        self, store: Trove, bucket: str, prefix: str, *, delete_shadowed: bool, dry_run: bool
    ) -> None:
        self._store = store
        self._router = router_of(store)
        self.bucket = bucket
        self._prefix = prefix
        self._delete_shadowed = delete_shadowed
        self.dry_run = dry_run
        self._order = {name: rank for rank, name in enumerate(store.backends)}

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprint of the rules."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "delete_shadowed": self._delete_shadowed,
            "dry_run": self.dry_run,
            "routes": self._router.fingerprint,
        }

    @property
    def ordered(self) -> bool:
        """Whether all backends list in key order."""
        return is_ordered(self._store)

    async def check(self) -> None:
        """Do nothing."""

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ListedKey], None]:
        """Walk the objects of all backends."""
        walk = walk_copies(self._store, self.bucket, self._prefix, key_range)
        return walk_routed(self._router, self.bucket, walk)

    async def first_after(self, key: str) -> str | None:
        """Return the next key on any backend."""
        return await first_key_after(
            self._store, self.bucket, self._prefix, key, include_shadowed=True
        )

    def peek(self, item: ListedKey) -> Outcome | None:
        """Return that nothing is to be done, if the only object is where it belongs."""
        return UNCHANGED if _is_in_place(item, item.routed) else None

    def weight(self, item: ListedKey) -> int:
        """Return the size of the object."""
        return item.infos[0].stored_size

    async def process(self, item: ListedKey) -> Outcome:
        """Move the object. The other objects of the key, which it hides, are compared with it."""
        backend = item.routed
        listed = item
        item = await completed(self._store, item)
        misplaced = self._misplaced(item, backend)
        if listed.on(misplaced[0].backend) is None:
            return UNCHANGED  # in an unordered listing, that object is an item of its own
        exists = item.on(backend) is not None
        skip: Outcome | None = None
        changed: Outcome | None = None
        # The first of the others is the one that users read, if the routed backend has none.
        for info in misplaced:
            is_later = self.dry_run and info is not misplaced[0] and item.on(backend) is None
            move = Move(
                info=info,
                to=backend,
                exists=exists,
                delete_shadowed=self._delete_shadowed,
                moved_before=misplaced[0].backend if is_later else None,
            )
            outcome = await relocate(self._store, move, dry_run=self.dry_run)
            if outcome.result == "skipped":
                skip = skip or outcome
            else:
                changed = changed or outcome
            if skip is not None and skip.reason != "conflict":
                break  # a user changes the object: leave the others until the next run
            exists = True
        return skip or changed or UNCHANGED

    def _misplaced(self, item: ListedKey, backend: str) -> list[ObjectInfo]:
        others = [info for info in item.infos if info.backend != backend]
        return sorted(others, key=lambda info: self._order[info.backend])


def _is_in_place(item: ListedKey, backend: str) -> bool:
    return len(item.infos) == 1 and item.infos[0].backend == backend
