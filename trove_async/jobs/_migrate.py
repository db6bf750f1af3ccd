"""Copies or moves the objects of one backend to another."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from trove_async._engine.copy_marks import is_marked
from trove_async._settings import check_switches
from trove_async.errors import ConfigError
from trove_async.models import ObjectInfo
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._placement import (
    CONFLICT,
    Move,
    are_related,
    finds_anywhere,
    head_on,
    pair_of,
    ranks_between,
    reading_order,
    relocate,
    router_of,
)
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import ListedKey, first_key_after, is_ordered, walk_copies, walk_objects, walk_routed

_MAX_SKEW: Final = timedelta(minutes=15)
"""The maximum difference between the clocks of two services. Services refuse requests of clients whose clocks
differ by more (S3: RequestTimeTooSkewed)."""


async def migrate(
    store: Trove,
    bucket: str,
    *,
    source: str,
    target: str,
    prefix: str = "",
    delete: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Copy the objects of a bucket from one backend to another, whatever the rules say.

    A migration without downtime has these phases:

    1. *Write new, read both*: the rules send the keys to `target`, and ``Trove(locate="anywhere")`` or the
       layer `Fallback` finds what only `source` has. If it is the layer, its members must be backends of
       their own as well, because it cannot be `source` or `target` together with one of them.
    2. *Backfill*: ``migrate(store, bucket, source="old", target="new")``.
    3. *Verify*: a second run, or one with ``dry_run=True``, has nothing to change, and
       ``verify(store, bucket, backend="old", against="new")`` finds no difference.
    4. *Done*: remove `source` from the store.

    If both backends have an object of one key, the rules decide which one is newer. If they send the key to
    `source`, because the migration has not switched yet, an object of `target` that differs is replaced.
    Otherwise the object of `target` is what users have written since, and stays.

    Args:
        store: The store.
        bucket: The bucket.
        source: The name of the backend to copy from.
        target: The name of the backend to copy to.
        prefix: Copy only keys that start with this.
        delete: Whether to delete each object from `source` once its copy is verified. Objects of which
            `target` has a different one are kept, and skipped as a ``"conflict"``.
        dry_run: Whether to count what would be done, and change nothing.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, as in `rebalance`.
        max_objects_per_second: The maximum number of objects to process in a second.
        max_bytes_per_second: The maximum number of bytes to transfer in a second.
        on: Where to run. None: in this process.

    Returns:
        The report. Objects that `target` already has are unchanged. If the rules send the key to `target`, and
        `source` has a different object with a later date, it is skipped as a ``"conflict"``: something still
        writes to `source`. An object is skipped as a ``"conflict"`` as well if a third backend has one of its
        key, and users would read a different one of them afterwards.

    Raises:
        BackendNotFoundError: `source` or `target` is unknown.
        ConfigError: Both are the same, or `delete` is passed although the rules send keys to `source`.
        Otherwise as `rebalance`.
    """
    check_target(store, bucket, prefix, dry_run=dry_run)
    check_switches(delete=delete)
    for name in (source, target):
        store._core.check_backend(name)  # noqa: SLF001 - jobs are part of the library
    if source == target:
        raise ConfigError(f"source and target must be different backends, got {source!r} twice")
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    job = Migrate(store, bucket, prefix, source, target, delete=delete, dry_run=dry_run)
    return await run_job(store, job, options)


class Migrate:
    """The job. See `Job`."""

    name = "migrate"

    def __init__(
        self,
        store: Trove,
        bucket: str,
        prefix: str,
        source: str,
        target: str,
        *,
        delete: bool,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._router = router_of(store)
        self.bucket = bucket
        self._prefix = prefix
        self._source = source
        self._target = target
        self._delete = delete
        self.dry_run = dry_run
        self._origin = store.backend(source)
        self._pair = pair_of(store, source, target)
        self._is_merged = is_ordered(self._origin) and is_ordered(store.backend(target))

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprint of the rules."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "source": self._source,
            "target": self._target,
            "delete": self._delete,
            "dry_run": self.dry_run,
            "routes": self._router.fingerprint,
        }

    @property
    def ordered(self) -> bool:
        """Whether the source lists in key order."""
        return is_ordered(self._origin)

    async def check(self) -> None:
        """Raise ConfigError if `delete` would hide the objects, or one backend is a member of the other."""
        if are_related(self._store, self.bucket, self._source, self._target):
            raise ConfigError(
                f"of {self._source!r} and {self._target!r}, one is a layer over a member of the other: make"
                " its members backends of their own, and migrate between these"
            )
        if self._delete and not finds_anywhere(self._store):
            reached = await self._router.reaches(self.bucket, self._prefix)
            if self._source in reached:
                raise ConfigError(
                    f"the rules send keys to {self._source!r}, so the store would not find objects that"
                    f" were moved to {self._target!r}: change the rules first, or pass delete=False"
                )

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ListedKey], None]:
        """Walk the objects of the source, with those of the target if both list in order."""
        return walk_routed(self._router, self.bucket, self._walk(key_range))

    async def _walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ListedKey], None]:
        if self._is_merged:
            copies = walk_copies(self._pair, self.bucket, self._prefix, key_range)
            async with aclosing(copies) as merged:
                async for page in merged:
                    items = [item for item in page.items if item.on(self._source) is not None]
                    yield WalkPage(items, page.ordered, page.cursor)
            return
        objects = walk_objects(self._origin, self.bucket, self._prefix, key_range)
        async with aclosing(objects) as pages:
            async for listed in pages:
                alone = [ListedKey(info.key, [info], whole=False) for info in listed.items]
                yield WalkPage(alone, listed.ordered, listed.cursor)

    async def first_after(self, key: str) -> str | None:
        """Return the next key of the source."""
        return await first_key_after(self._origin, self.bucket, self._prefix, key)

    def peek(self, item: ListedKey) -> Outcome | None:
        """Return that nothing is to be done, if users read the target's object, and it is the later one."""
        existing = item.on(self._target)
        if self._delete or existing is None or item.routed == self._source:
            return None
        return None if _is_later(self._info(item), existing) else UNCHANGED

    def weight(self, item: ListedKey) -> int:
        """Return the size of the object."""
        return self._info(item).stored_size

    async def process(self, item: ListedKey) -> Outcome:
        """Copy or move the object."""
        info = self._info(item)
        hidden = item.routed == self._source  # what the target has is older
        exists = item.on(self._target) is not None or not item.whole
        if await self._changes_what_is_read(item):
            return CONFLICT
        if exists and hidden and not self._delete and await self._is_copied_by_date(info):
            return UNCHANGED
        move = Move(
            info=info,
            to=self._target,
            exists=exists,
            replace=hidden,
            keep_source=not self._delete,
        )
        outcome = await relocate(self._store, move, dry_run=self.dry_run)
        if outcome.reason == "conflict" and not self._delete:
            existing = item.on(self._target)
            is_stale = existing is not None and _is_later(info, existing)
            return outcome if is_stale else UNCHANGED  # written by users since
        return outcome

    async def _changes_what_is_read(self, item: ListedKey) -> bool:
        """Return whether users would then read a third backend's older object, or no longer read its newer one."""
        if not finds_anywhere(self._store):
            return False  # users read the routed backend alone
        order = reading_order(self._store, item.routed)
        if not self._delete and order.index(self._source) < order.index(self._target):
            return False  # the source stays, and hides the same objects as before
        for name in ranks_between(order, self._source, self._target):
            if await head_on(self._store, name, self._info(item)) is not None:
                return True
        return False

    def _info(self, item: ListedKey) -> ObjectInfo:
        info = item.on(self._source)
        assert info is not None  # noqa: S101 - `walk` yields no other items
        return info

    async def _is_copied_by_date(self, info: ObjectInfo) -> bool:
        """Return whether the target has a copy of the source, judging by dates where nothing else can tell."""
        source = await head_on(self._store, self._source, info)
        target = await head_on(self._store, self._target, info)
        if source is None or target is None:
            return False
        is_comparable = source.checksums.keys() & target.checksums.keys() or is_marked(target)
        return (
            not is_comparable
            and source.size == target.size
            and target.last_modified - source.last_modified > _MAX_SKEW
        )


def _is_later(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether an object has the later date, by the clocks of their services."""
    return one.last_modified > other.last_modified
