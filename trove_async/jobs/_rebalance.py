"""Moves objects to the backends that the rules name."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from trove_async.errors import ConfigError
from trove_async.router import Pinned
from trove_async.store import Trove

from ._job import WalkPage
from ._options import Executor, check_target, run_options
from ._placement import relocate
from ._ranges import KeyRange
from ._report import UNCHANGED, Outcome, ProgressCallback, Report
from ._run import run_job
from ._walks import Copies, first_key_after, is_ordered, walk_copies


async def rebalance(
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
    """Move the objects of a bucket to the backends that the rules name.

    Reads and writes go on meanwhile. See the documentation of the package for what the jobs guarantee.
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
    return await run_job(store, Rebalance(store, bucket, prefix, dry_run=dry_run), options)


class Rebalance:
    """The job. See `Job`."""

    name = "rebalance"

    def __init__(self, store: Trove, bucket: str, prefix: str, *, dry_run: bool) -> None:
        routing = store._routing  # noqa: SLF001 - jobs are part of the library
        if isinstance(routing, Pinned):
            raise ConfigError("a pinned handle has no rules: pass the store itself")
        self._store = store
        self._routing = routing
        self.bucket = bucket
        self._prefix = prefix
        self.dry_run = dry_run
        self._order = {name: rank for rank, name in enumerate(store.backends)}

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments, and the fingerprint of the rules."""
        return {
            "bucket": self.bucket,
            "prefix": self._prefix,
            "dry_run": self.dry_run,
            "routes": self._routing.fingerprint,
        }

    @property
    def ordered(self) -> bool:
        """Whether all backends list in key order."""
        return is_ordered(self._store)

    async def check(self) -> None:
        """Do nothing."""

    async def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[Copies], None]:
        """Walk the objects of all backends."""
        walk = walk_copies(self._store, self.bucket, self._prefix, key_range)
        async with aclosing(walk) as pages:
            async for page in pages:
                yield page

    async def first_after(self, key: str) -> str | None:
        """Return the next key on any backend."""
        return await first_key_after(
            self._store, self.bucket, self._prefix, key, include_shadowed=True
        )

    def peek(self, item: Copies) -> Outcome | None:
        """Return that nothing is to be done, if the only object is where it belongs."""
        backend = self._routing.resolve(self.bucket, item.key)
        if not isinstance(backend, str):
            close = getattr(backend, "close", None)
            if close is not None:
                close()  # resolved again by `process`
            return None
        return self._peek_from(backend, item)

    def _peek_from(self, backend: str, item: Copies) -> Outcome | None:
        if len(item.infos) == 1 and item.infos[0].backend == backend:
            return UNCHANGED
        return None

    def weight(self, item: Copies) -> int:
        """Return the size of the object."""
        return item.infos[0].stored_size

    async def process(self, item: Copies) -> Outcome:
        """Move the object."""
        resolved = self._routing.resolve(self.bucket, item.key)
        backend = resolved if isinstance(resolved, str) else await resolved
        if (outcome := self._peek_from(backend, item)) is not None:
            return outcome
        # The first of the others is the one that users read, if the routed backend has none.
        others = sorted(
            (info for info in item.infos if info.backend != backend),
            key=lambda info: self._order[info.backend],
        )
        if self.dry_run:
            return Outcome(result="changed", bytes=others[0].stored_size)
        outcomes = [
            await relocate(self._store, self.bucket, item.key, source=info.backend, target=backend)
            for info in others
        ]
        return next((one for one in outcomes if one.result == "skipped"), outcomes[0])
