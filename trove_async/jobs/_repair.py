"""Brings the replicas of a mirrored backend up to date."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import cast

from trove_async._engine.backend_checks import check_writable
from trove_async._settings import check_switches
from trove_async.driver import Replicated
from trove_async.errors import NotSupportedError
from trove_async.options import ComparedPage, Difference, ListOptions
from trove_async.router import DEFAULT
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Compared:
    """A key of which a replica differs.

    Attributes:
        key: The key.
        size: The number of bytes to copy.
    """

    key: str
    size: int = 0


async def repair(
    store: Trove,
    bucket: str,
    *,
    backend: str = DEFAULT,
    prefix: str = "",
    deep: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
    concurrency: int = 16,
    checkpoint: str | os.PathLike[str] | None = None,
    max_objects_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    on: Executor | None = None,
) -> Report:
    """Bring the replicas of a `Mirrored` backend up to date with its primary.

    Missing and different objects are copied to the replicas, and objects that the primary does not have are
    deleted from them. The report counts only the keys of which a replica differs.

    Args:
        store: The store.
        bucket: The bucket.
        backend: The name of the mirrored backend.
        prefix: Compare only keys that start with this.
        deep: Whether to head every object on every replica, and so compare checksums and metadata as well. If
            False, listings are compared: names, sizes, and what else they contain.
        dry_run: Whether to count what would be done, and change nothing.
        progress: Called with a `JobProgress`, at most ten times a second. An exception that it raises ends
            the job and is raised.
        concurrency: The maximum number of objects in flight.
        checkpoint: Where the state is recorded, as in `rebalance`.
        max_objects_per_second: The maximum number of objects to process in a second.
        max_bytes_per_second: The maximum number of bytes to transfer in a second.
        on: Where to run. None: in this process.

    Returns:
        The report.

    Raises:
        NotSupportedError: The backend has no replicas, or is read-only.
        BackendNotFoundError: `backend` is unknown.
        UnavailableError: A replica is down, so that nothing can be compared.
        Otherwise as `rebalance`.
    """
    check_target(store, bucket, prefix, dry_run=dry_run)
    check_switches(deep=deep)
    store._core.check_backend(backend)  # noqa: SLF001 - jobs are part of the library
    options = run_options(
        progress=progress,
        concurrency=concurrency,
        checkpoint=checkpoint,
        max_objects_per_second=max_objects_per_second,
        max_bytes_per_second=max_bytes_per_second,
        on=on,
    )
    job = Repair(store, bucket, prefix, backend, deep=deep, dry_run=dry_run)
    return await run_job(store, job, options)


class Repair:
    """The job. See `Job`."""

    name = "repair"

    def __init__(
        self, store: Trove, bucket: str, prefix: str, backend: str, *, deep: bool, dry_run: bool
    ) -> None:
        self._backend = store._core.backends[backend]  # noqa: SLF001 - jobs are part of the library
        self.bucket = bucket
        self._prefix = prefix
        self._deep = deep
        self.dry_run = dry_run

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "backend": self._backend.name,
            "deep": self._deep,
            "dry_run": self.dry_run,
        }

    @property
    def ordered(self) -> bool:
        """False: a comparison cannot be cut into ranges without comparing everything."""
        return False

    async def check(self) -> None:
        """Raise NotSupportedError if the backend has no replicas, or they would be changed and it is read-only."""
        if not self.dry_run:
            check_writable(self._backend, "repair replicas")
        if not self._backend.capabilities.replicated:
            raise NotSupportedError(
                f"backend {self._backend.name!r} has no replicas: wrap it in trove_async.layers.Mirrored",
                backend=self._backend.name,
            )

    async def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[Compared], None]:
        """Walk the keys of which a replica differs."""
        ordered = self._backend.capabilities.ordered and key_range.cursor is None
        token = key_range.cursor
        while True:
            options = ListOptions(
                prefix=self._prefix,
                start_after=key_range.start_after or None,
                token=token,
                limit=PAGE_SIZE,
            )
            page = await self._compare(options)
            token = page.token
            items = [Compared(item.key, _copied_size(item)) for item in page.differences]
            yield WalkPage(items, ordered, None if ordered else token)
            if token is None:
                return

    async def first_after(self, key: str) -> str | None:  # noqa: ARG002 - as in `Job`
        """Return None, so that no range is split: the next difference may be far away."""
        return None

    async def _compare(self, options: ListOptions) -> ComparedPage:
        driver = cast("Replicated", self._backend.driver)
        return await driver.compare(self.bucket, options, deep=self._deep)

    def peek(self, item: Compared) -> Outcome | None:
        """Return the outcome of a dry run."""
        return Outcome(result="changed", bytes=item.size) if self.dry_run else None

    def weight(self, item: Compared) -> int:
        """Return the size of the object."""
        return item.size

    async def process(self, item: Compared) -> Outcome:
        """Repair the object on all replicas."""
        driver = cast("Replicated", self._backend.driver)
        done = await driver.repair(self.bucket, item.key)
        if not done.copied and not done.deleted:
            return UNCHANGED
        return Outcome(result="changed", bytes=done.size * len(done.copied))


def _copied_size(difference: Difference) -> int:
    """Return the number of bytes to copy. An object that only replicas have is deleted."""
    copies = sum(kind != "surplus" for kind in difference.replicas.values())
    return difference.size * copies
