"""Runs ranges of a job in a worker process of Dask. This module does not import Dask.

One `WorkerStore` belongs to one run of a job on one worker. It opens its store for the first range, and closes
it when the run ends. What a range returns are plain values, because the client may have another version.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio

from trove_async import __version__
from trove_async._concurrency import run_cleanup
from trove_async.errors import ConfigError, TroveError
from trove_async.store import Trove

from ._checkpoint import State
from ._configuration import store_from
from ._job import Job
from ._observed import Observed
from ._options import ObjectTarget, RunOptions
from ._ranges import KeyRange
from ._registry import build_job
from ._report import JobProgress, Tally
from ._run import JobRun

TOPIC: Final = "trove_async.jobs"
"""The topic of the events that report progress. Every event names its run."""

_STOPPED: Final[Mapping[str, Any]] = {"result": "stopped"}
"""The outcome of a range that is not done, and of which nothing is known that the client does not know."""


class Scheduler(Protocol):
    """The requests to the scheduler that `distributed.Client` sends for its methods of the same names.

    The scheduler removes the metadata of a task together with the task.
    """

    def get_metadata(self, *, keys: Sequence[str], default: object) -> Awaitable[Any]:
        """Return metadata."""
        ...

    def set_metadata(self, *, keys: Sequence[str], value: object) -> Awaitable[Any]:
        """Set metadata. Returns once the scheduler has it."""
        ...


class Worker(Protocol):
    """The part of `distributed.Worker` that is used."""

    address: str
    scheduler: Scheduler

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ANN401 - as in Dask
        """Send an event to the clients that have subscribed to the topic."""
        ...


@dataclass(frozen=True, slots=True)
class _RunningRange:
    """A range that a worker runs.

    Attributes:
        again: Whether a lost worker had begun it.
    """

    run: JobRun[Any]
    observed: Observed[Any]
    again: bool

    def outcome(self) -> Mapping[str, Any]:
        """Return the counts, and what is left of the range."""
        left, tally = self.run.state().ranges, self.run.tally
        if not left:
            self.observed.correct(tally)
            return {"result": "done", "tally": tally.to_json()}
        if self.again:
            return _STOPPED  # the counts would be right only for the whole range
        ranges = [[item.start_after, item.until, item.cursor] for item in left]
        return {"result": "stopped", "ranges": ranges, "tally": tally.to_json()}


class WorkerStore:
    """The store of one run of a job in a worker process, and the ranges that it processes.

    Args:
        configuration: The encoded configuration of the store.
        worker: The worker.
    """

    def __init__(self, configuration: bytes, worker: Worker) -> None:
        self._configuration = configuration
        self._worker = worker
        self._store: Trove | None = None
        self._opening = anyio.Lock()
        self._running: dict[str, anyio.CancelScope] = {}
        self._idle = anyio.Event()
        self._idle.set()
        self._closed = False

    async def run(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a range, and return its outcome: ``{"result": …}`` with its counts or its error.

        Args:
            request: The job, the range and the options, as plain values. ``"task"`` is the key of Dask's
                task, for `stop`.
        """
        if request["version"] != __version__:
            return self._unusable(
                f"it has trove_async {__version__}, and the client has {request['version']}: install one version"
            )
        if self._closed:
            return _STOPPED
        running: _RunningRange | None = None
        async with self._tracked(request["task"]):
            try:
                store = await self._opened()
                job = build_job(store, request["job"], request["arguments"], request["store"])
            except Exception as error:  # noqa: BLE001 - of the user's function or of a driver
                return self._unusable(f"it cannot open the store: {_safe_text(error)}", error)
            try:
                running = await self._prepare(store, job, request)
                await running.run.run()
            except Exception as error:  # noqa: BLE001 - raised by the client
                return {"result": "failed", "error": _encoded(error)}
        # Reached at the end of the range, and after `stop` or `aclose`.
        if running is None:
            return _STOPPED
        outcome = running.outcome()
        if outcome["result"] == "done" and not (
            outcome["tally"]["errors"] or outcome["tally"]["skips"]
        ):
            # Dask also returns it, but as a value that the client has to fetch.
            self._worker.log_event(
                TOPIC, {"run": request["run"], "task": request["task"], "outcome": outcome}
            )
        return outcome

    async def _prepare(
        self, store: Trove, job: Job[Any], request: Mapping[str, Any]
    ) -> _RunningRange:
        # 1. Load what lost workers have recorded of this range.
        key_range, keys = KeyRange(*request["range"]), [request["task"]]
        scheduler = self._worker.scheduler
        earlier = await scheduler.get_metadata(keys=keys, default=None) or request["earlier"]

        async def save(values: Mapping[str, Any]) -> None:
            await scheduler.set_metadata(keys=keys, value=values)

        # 2. Build the run.
        own = request["own_object"]
        target = None if own is None else ObjectTarget(*own)
        options = RunOptions(
            progress=self._reporter(request, again=bool(earlier)),
            concurrency=request["concurrency"],
            checkpoint=target,
            max_objects_per_second=request["max_objects_per_second"],
            max_bytes_per_second=request["max_bytes_per_second"],
        )
        own_key = target.key if target is not None and target.bucket == job.bucket else None
        observed = Observed(job, key_range, earlier, save, own_key=own_key)
        state = State(ranges=[key_range], tally=Tally())
        return _RunningRange(JobRun(store, observed, options, state=state), observed, bool(earlier))

    def _reporter(
        self, request: Mapping[str, Any], *, again: bool
    ) -> Callable[[JobProgress], None]:
        """Return a progress callback that sends the counts to the client.

        A range that is walked again would count what is already known. So it only reports that it began.
        """
        place = {"run": request["run"], "index": request["index"]}
        reported_at = float("-inf")

        def report(progress: JobProgress) -> None:
            nonlocal reported_at
            if progress.elapsed - reported_at < request["progress_seconds"]:
                return
            reported_at = progress.elapsed
            counts = {name: getattr(progress, name) for name in COUNTS}
            self._worker.log_event(TOPIC, {**place, "counts": {} if again else counts})

        return report

    def _unusable(self, reason: str, error: Exception | None = None) -> Mapping[str, Any]:
        if isinstance(error, TroveError) and error.retryable:
            return {"result": "failed", "error": _encoded(error)}
        return {"result": "unusable", "message": f"worker {self._worker.address}: {reason}"}

    async def _opened(self) -> Trove:
        async with self._opening:
            if self._store is None:
                configuration = pickle.loads(self._configuration)  # noqa: S301 - of the client
                self._store = await store_from(configuration).open()
            return self._store

    @asynccontextmanager
    async def _tracked(self, task: str) -> AsyncGenerator[None, None]:
        with anyio.CancelScope() as scope:
            self._running[task] = scope
            self._idle = anyio.Event() if len(self._running) == 1 else self._idle
            try:
                yield
            finally:
                del self._running[task]
                if not self._running:
                    self._idle.set()

    def stop(self, task: str) -> None:
        """Stop a range because the client has cancelled its task, or has ended."""
        if task in self._running:
            self._running[task].cancel()

    async def aclose(self) -> None:
        """Stop all ranges, wait until they have stopped, and close the store."""
        self._closed = True
        for scope in self._running.values():
            scope.cancel()
        if self._running:
            await self._idle.wait()
        if self._store is not None:
            store, self._store = self._store, None
            with suppress(Exception):  # of a worker that ends, and no task is left to report it
                await run_cleanup(store.aclose())


COUNTS: Final = (
    "examined",
    "changed",
    "unchanged",
    "skipped",
    "failed",
    "bytes",
    "ranges_done",
    "ranges",
)
"""The counts of a `JobProgress`, which the events contain."""


def _safe_text(error: Exception) -> str:
    """Return the class and, if it shows no credentials, the message of an error."""
    name = type(error).__name__
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, TroveError | ImportError | OSError):
        return f"{name}: {error}"
    return f"{name} (its message is not shown, because it may contain credentials)"


def _encoded(error: Exception) -> bytes:
    """Return an error that can be sent, without its traceback and causes."""
    try:
        encoded = pickle.dumps(error)
        pickle.loads(encoded)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - of a user's class
        encoded = pickle.dumps(TroveError(f"{type(error).__name__}: {error}"))
    return encoded
