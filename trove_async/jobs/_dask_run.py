"""One run of a job on a Dask cluster, as seen by the process that waits for its report."""

from __future__ import annotations

import asyncio
import logging
import pickle
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

from distributed import Client

from trove_async import __version__
from trove_async._concurrency import for_each, run_cleanup, task_group
from trove_async.errors import ConfigError, TroveError, UnavailableError
from trove_async.retry import RetryPolicy
from trove_async.store import Trove

from ._checkpoint import Checkpoint, State
from ._dask_cluster import Cluster
from ._dask_worker import COUNTS
from ._fingerprints import description_of
from ._job import Job
from ._options import ObjectTarget, RunOptions, T
from ._ranges import KeyRange
from ._report import JobProgress, Report, Tally, call_back
from ._run import CHECKPOINT_SECONDS, cut, report_of

_logger = logging.getLogger("trove_async")

_PROGRESS_SECONDS: Final = 0.1

_MAX_EVENTS: Final = 100
"""Maximum number of events in a second that report progress, from all workers together."""

_MAX_SUBMITTED: Final = 1000
"""Maximum number of ranges that are submitted at a time."""

_STOP_SECONDS: Final = 30.0
"""Time limit for stopping the ranges and closing the stores of the workers."""


class DaskRun(Generic[T]):
    """One run. Arguments as in `DaskExecutor`."""

    def __init__(
        self,
        client_or_address: Client | str,
        configuration: bytes,
        job: Job[T],
        store: Trove,
        options: RunOptions,
        *,
        ranges_per_worker: int,
        attempts: int,
    ) -> None:
        self._job = job
        self._store = store
        self._description: Mapping[str, str] = {}
        self._options = options
        self._ranges_per_worker = ranges_per_worker
        self._attempts = attempts
        self._pauses = RetryPolicy(attempts=attempts, base_delay=0.5, max_delay=30.0)
        self._cluster = Cluster(
            client_or_address, secrets.token_hex(8), configuration, self._receive
        )
        self._checkpoint = (
            None
            if options.checkpoint is None
            else Checkpoint(store, options.checkpoint, job.name, job.arguments)
        )
        self._share: Mapping[str, Any] = {}
        self._tally = Tally()  # of finished ranges
        self._open: dict[int, KeyRange] = {}  # ranges that are not finished
        self._stopped: list[KeyRange] = []  # what is left of ranges that were stopped
        self._running: dict[int, Mapping[str, int]] = {}  # counts of ranges that have begun
        self._most_ranges = self._most_ranges_done = 0
        self._news = asyncio.Event()
        self._started_at = 0.0

    async def run(self) -> Report:
        """Run the job, and return its report."""
        if self._checkpoint is None:
            return await self._run()
        async with self._checkpoint.held():
            return await self._run()

    async def _run(self) -> Report:
        self._description = description_of(self._store, self._job.bucket)
        self._started_at = asyncio.get_running_loop().time()
        state = None if self._checkpoint is None else await self._checkpoint.load()
        whole: Sequence[KeyRange] = [KeyRange()]
        if state is not None:
            self._tally, whole = state.tally, state.ranges
        self._stopped = list(whole)  # until they are cut
        try:
            # 1. Reach the cluster, and cut the keys.
            await self._cluster.start()
            slots = max(1, await self._cluster.slots())
            ranges = await self._cut(whole, slots * self._ranges_per_worker)
            self._open, self._stopped = dict(enumerate(ranges)), []
            await self._save()
            # 2. Run the ranges.
            limit = self._divide(slots)
            async with task_group() as background:
                background.start_soon(self._report_regularly)
                background.start_soon(self._save_regularly)
                await for_each(list(self._open), self._run_range, limit=limit)
                background.cancel_scope.cancel()
            self._report_progress()
            await self._save(complete=True)
        except BaseException as error:
            # 3. Or stop them, and record the exact state.
            await run_cleanup(self._stop(error), 2 * _STOP_SECONDS)
            raise
        try:
            await run_cleanup(self._cluster.aclose(), _STOP_SECONDS)
        except Exception as error:  # noqa: BLE001 - all objects are done, so there is a report
            # Workers that are left open close their stores at exit.
            _logger.warning("the job is done, but its workers could not be cleaned up: %s", error)
        return self._report()

    async def _cut(self, whole: Sequence[KeyRange], count: int) -> Sequence[KeyRange]:
        if not self._job.ordered:
            return whole
        ranges: list[KeyRange] = []
        for item in whole:
            each = 1 if item.cursor is not None else max(1, count // len(whole))
            ranges.extend(await cut(self._job, each, item))
        return ranges

    def _divide(self, slots: int) -> int:
        """Divide the limits among the ranges that run at the same time. Return how many to submit at most."""
        options = self._options
        rates = (options.max_objects_per_second, options.max_bytes_per_second)
        parallel = max(1, min(slots, len(self._open), options.concurrency))
        objects, size = (None if rate is None else rate / parallel for rate in rates)
        self._share = {
            "concurrency": options.concurrency // parallel,
            "max_objects_per_second": objects,
            "max_bytes_per_second": size,
            "progress_seconds": max(_PROGRESS_SECONDS, parallel / _MAX_EVENTS),
        }
        is_strict = rates != (None, None) or options.concurrency < slots
        return parallel if is_strict else _MAX_SUBMITTED

    # -- ranges ------------------------------------------------------------------------------------

    async def _run_range(self, index: int) -> None:
        """Run a range until it is done."""
        target = self._options.checkpoint
        key_range = self._open[index]
        request: dict[str, Any] = {
            **self._share,
            "version": __version__,
            "job": self._job.name,
            "arguments": dict(self._job.arguments),
            "store": self._description,
            "range": (key_range.start_after, key_range.until, key_range.cursor),
            "earlier": None,
            "own_object": (target.bucket, target.key) if isinstance(target, ObjectTarget) else None,
        }
        for attempt in range(1, self._attempts + 1):
            outcome = await self._cluster.run(index, request)
            if outcome["result"] == "done":
                self._finish(index, outcome)
                return
            request["earlier"] = outcome["earlier"] or request["earlier"]
            error = _error_of(outcome)
            if not (isinstance(error, TroveError) and error.retryable) or attempt == self._attempts:
                raise error
            retry_after = error.retry_after
            del error  # a frame that refers to its own exception is collected late
            await asyncio.sleep(self._pauses.delay(attempt, retry_after))

    def _finish(self, index: int, outcome: Mapping[str, Any]) -> None:
        self._tally.merge(Tally.from_json(outcome["tally"]))
        del self._open[index]
        self._running.pop(index, None)
        self._news.set()

    # -- progress and checkpoints ------------------------------------------------------------------

    def _receive(self, message: Mapping[str, Any]) -> None:
        """Receive the counts of a range that is running. They are empty if it runs again."""
        index = message["index"]
        if index in self._open:
            counts = message["counts"] or self._running.get(index) or dict.fromkeys(COUNTS, 0)
            self._running[index] = counts
            self._news.set()

    async def _report_regularly(self) -> None:
        if self._options.progress is None:
            return
        while True:
            self._report_progress()
            await asyncio.sleep(_PROGRESS_SECONDS)
            await self._news.wait()
            self._news.clear()

    def _report_progress(self) -> None:
        if self._options.progress is None:
            return
        tally, running = self._tally, list(self._running.values())

        def total(name: str) -> int:
            done: int = getattr(tally, name)
            return done + sum(counts[name] for counts in running)

        # A range that runs again may be split less often than before.
        done = max(self._most_ranges_done, total("ranges_done"))
        waiting = len(self._open) - len(running)
        known = tally.ranges_done + waiting + sum(max(1, one["ranges"]) for one in running)
        self._most_ranges_done = done
        self._most_ranges = max(self._most_ranges, known, done)
        call_back(
            self._options.progress,
            JobProgress(
                job=self._job.name,
                bucket=self._job.bucket,
                **{name: total(name) for name in COUNTS if not name.startswith("ranges")},
                ranges_done=done,
                ranges=self._most_ranges,
                elapsed=asyncio.get_running_loop().time() - self._started_at,
            ),
        )

    def _report(self) -> Report:
        elapsed = asyncio.get_running_loop().time() - self._started_at
        return report_of(self._job, self._tally, elapsed)

    async def _save_regularly(self) -> None:
        if self._checkpoint is not None:
            while True:
                await asyncio.sleep(CHECKPOINT_SECONDS)
                await self._save()

    async def _save(self, *, complete: bool = False) -> None:
        if self._checkpoint is not None:
            ranges = [*self._open.values(), *self._stopped]
            await self._checkpoint.save(State(ranges=ranges, tally=self._tally, complete=complete))

    # -- errors and cancels ------------------------------------------------------------------------

    async def _stop(self, error: BaseException) -> None:
        """Stop the ranges, leave the cluster, and record the state. Problems are added to the error."""
        steps = {
            "The ranges could not be stopped": self._stop_ranges,
            "The cluster could not be cleaned up": self._cluster.aclose,
            "The checkpoint could not be written": self._save,
        }
        for problem, step in steps.items():
            try:
                await step()
            except Exception as failure:  # noqa: BLE001 - the first error is raised
                error.add_note(f"{problem}: {failure}")
        if isinstance(error, TroveError):
            error.add_note(f"The job stopped. {self._report()}")

    async def _stop_ranges(self) -> None:
        for index, outcome in (await self._cluster.stop(set(self._running))).items():
            if outcome["result"] == "done":
                self._finish(index, outcome)
            elif "ranges" in outcome:
                self._stopped += [KeyRange(*item) for item in outcome["ranges"]]
                self._finish(index, outcome)


def _error_of(outcome: Mapping[str, Any]) -> Exception:
    """Return the error that an outcome describes."""
    match outcome["result"]:
        case "failed":
            error: Exception = pickle.loads(outcome["error"])  # noqa: S301 - of a worker, which Dask trusts
            return error
        case "unusable":
            return ConfigError(f"the job cannot run on Dask's {outcome['message']}")
        case "killed":
            return UnavailableError(
                "Dask has given up a range, because several workers were lost while they ran it: look at"
                " the logs and memory limits of the workers"
            )
    return UnavailableError("a worker of Dask was closed while it ran a range")
