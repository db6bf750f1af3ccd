"""Encodes objects again as a put would encode them today."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping

from trove_async._engine.key_guard import MoveInterruptedError
from trove_async.errors import ObjectChangedError, ObjectNotFoundError
from trove_async.models import ObjectInfo
from trove_async.store import Trove

from ._fingerprints import encoding_of
from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._placement import IN_USE
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import first_key_after, is_ordered, walk_objects


async def reencode(
    store: Trove,
    bucket: str,
    *,
    prefix: str = "",
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Apply today's middlewares to the objects of a bucket: after a new key, or a new compression.

    Each object is copied onto itself, unless its record shows the encoding that a put would apply today. So a
    second run changes nothing. The content, the metadata and the tags stay the same; readers see the old
    encoding or the new one.

    Args:
        store: The store, or a handle that is pinned to one backend.
        bucket: The bucket.
        prefix: Examine only keys that start with this.
        dry_run: Whether to count what would be done, and change nothing.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, as in `rebalance`. If the middlewares have changed since, it is
            refused: remove it to encode all objects again. Keys that a source such as `TenantKeys` chooses are
            not compared, so remove it after such a change too.
        max_objects_per_second: The maximum number of objects to process in a second.
        max_bytes_per_second: The maximum number of bytes to transfer in a second.
        on: Where to run. None: in this process.

    Returns:
        The report. An object that needs an unknown key is counted as a DecryptionError, and stays as it is.

    Raises:
        As `rebalance`, but pinned handles are allowed.
    """
    check_target(store, bucket, prefix, dry_run=dry_run)
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    return await run_job(store, Reencode(store, bucket, prefix, dry_run=dry_run), options)


class Reencode:
    """The job. See `Job`."""

    name = "reencode"

    def __init__(self, store: Trove, bucket: str, prefix: str, *, dry_run: bool) -> None:
        self._store = store
        self.bucket = bucket
        self._prefix = prefix
        self.dry_run = dry_run

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprints of the rules and of today's encoding.

        An object that was encoded again under an older key must not count as done under a newer one.
        """
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "dry_run": self.dry_run,
            "routes": self._store._routing.fingerprint,  # noqa: SLF001 - jobs are part of the library
            "encoding": encoding_of(self._store),
        }

    @property
    def ordered(self) -> bool:
        """Whether all backends list in key order."""
        return is_ordered(self._store)

    async def check(self) -> None:
        """Do nothing."""

    def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[ObjectInfo], None]:
        """Walk the objects that users read."""
        return walk_objects(self._store, self.bucket, self._prefix, key_range)

    async def first_after(self, key: str) -> str | None:
        """Return the next key."""
        return await first_key_after(self._store, self.bucket, self._prefix, key)

    def peek(self, item: ObjectInfo) -> Outcome | None:  # noqa: ARG002 - as in `Job`
        """Return None: only the object's record, which most listings lack, decides."""
        return None

    def weight(self, item: ObjectInfo) -> int:
        """Return the size of the object."""
        return item.stored_size

    async def process(self, item: ObjectInfo) -> Outcome:
        """Encode the object again."""
        try:
            size = await self._store._objects.job_steps.reencode(  # noqa: SLF001 - jobs are part of the library
                item.bucket, item.key, item.backend, dry_run=self.dry_run
            )
        except MoveInterruptedError:
            return IN_USE
        except ObjectNotFoundError:
            return Outcome(result="skipped", reason="deleted meanwhile")
        except ObjectChangedError:
            return Outcome(result="skipped", reason="changed meanwhile")
        return UNCHANGED if size is None else Outcome(result="changed", bytes=size)
