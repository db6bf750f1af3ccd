"""Runs jobs on a Dask cluster.

Example::

    executor = DaskExecutor("tcp://scheduler:8786", store={"default": "s3://…", "backends": {…}, "routes": […]})
    report = await rebalance(store, "data", on=executor)

**What runs where.** This process cuts the keys into ranges, and submits a task for each. A worker opens one store
for a run, processes its ranges, and closes the store when the run ends, however it ends. A task runs as a
coroutine and holds one of its worker's slots. A job whose listings are not in key order is one range.

**Limits.** `concurrency` and the limits on rates are those of the whole job: each range that can run at the same
time has an equal share. With a limit on a rate, no more ranges are submitted than could run at the start, so
workers that join later do not exceed it; and the last ranges run at their share.

**Lost workers.** Dask runs the range of a lost worker again. Before a range processes a page of its listing, it
records at the scheduler how many objects of the page are to be processed. So the report counts what the lost worker
has changed, once. This is exact for jobs that recognise from a listing what was changed, such as `rebalance`.
`migrate` without ``delete`` and `reencode` report such objects as unchanged. So do jobs over listings that are not
in key order; objects that are not listed any more are then missing in the report. Counts of finished ranges are sent to this process at
once. A range that fails because a backend is unavailable is repeated after a pause, up to `attempts` times.

**Checkpoints.** They are the same as those of a local run, and written by this process: a job may begin here and
continue on a cluster, or the other way round. A periodic checkpoint records which ranges are finished. After an
error or a cancel it also records what is left of each range.

**Credentials.** The configuration of the store is sent to the workers once, in a `WorkerPlugin` that the scheduler
keeps as bytes until the run ends. It is in no task, key, event or message. Anybody who can connect to the
scheduler can read it, and can run code on the workers anyway: use Dask's TLS between different networks.

If this process is killed, the workers stop its ranges, but keep their stores open until the cluster is restarted or
``client.unregister_worker_plugin`` is called with the plugin's name, which starts with ``trove_async-``.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterator

try:
    import distributed
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[dask]'", name=error.name
    ) from error

from trove_async._settings import check_counts
from trove_async.errors import ConfigError, TroveError
from trove_async.store import Trove

from ._configuration import Configuration, check_configuration
from ._dask_run import DaskRun
from ._job import Job
from ._options import RunOptions, T
from ._report import Report


def _error_classes(base: type[TroveError]) -> Iterator[type[TroveError]]:
    yield base
    for derived in base.__subclasses__():
        yield from _error_classes(derived)


# With Dask, every class of exceptions that exists when it is imported is pickled with its cause and traceback (by
# `tblib.pickling_support`). The cause may be an SDK's exception, which refers to the request and its credentials.
for _error_class in _error_classes(TroveError):
    copyreg.dispatch_table.pop(_error_class, None)


class DaskExecutor:
    """Runs the key ranges of a job on the workers of a Dask cluster.

    It holds no connection, and may run several jobs, also at the same time.

    Args:
        client_or_address: A connected `distributed.Client`, sync or asynchronous, or the address of a scheduler,
            to which each run then connects. A client is never closed.
        store: The configuration from which every worker opens its store: a mapping, as for
            `Trove.from_config`, the same as TOML text, or a function without arguments that returns a new
            `Trove`, which the workers must be able to import. References such as ``${NAME}`` in a
            configuration are replaced here, to check it, and by every worker from its own environment. The places
            of the backends (their URLs), the layers, the rules, `locate` and the middlewares must be those of the
            store that is passed to the job; a worker refuses to run otherwise. Different memory backends,
            and different keys with equal ids, are not detected.
        ranges_per_worker: How many ranges to cut for each slot of a worker. Ranges differ in size, so a larger
            number balances the load better, and less is repeated if a worker is lost. Each costs a few
            milliseconds.
        attempts: How often a range is run if it fails because a backend is unavailable, or because Dask has given
            it up after several lost workers.

    Raises:
        TypeError: An argument has the wrong type.
        ConfigError: A value is not valid, or the function cannot be imported by other processes.
        TroveError: As `Trove`, for a mapping or TOML text.
    """

    def __init__(
        self,
        client_or_address: distributed.Client | str,
        *,
        store: Configuration,
        ranges_per_worker: int = 8,
        attempts: int = 5,
    ) -> None:
        if not isinstance(client_or_address, distributed.Client | str):
            raise TypeError(
                "client_or_address must be a distributed.Client or the address of a scheduler, got"
                f" {type(client_or_address).__name__}"
            )
        if client_or_address == "":
            raise ConfigError("client_or_address must not be empty")
        check_counts(ranges_per_worker=ranges_per_worker, attempts=attempts)
        self._cluster = client_or_address
        self._configuration = check_configuration(store)
        self._is_function = callable(store)
        self._ranges_per_worker = ranges_per_worker
        self._attempts = attempts

    def __repr__(self) -> str:
        if not hasattr(self, "_attempts"):
            return "<DaskExecutor, not initialised>"  # its constructor raised
        return (
            f"DaskExecutor(ranges_per_worker={self._ranges_per_worker}, attempts={self._attempts})"
        )

    def __getstate__(self) -> object:
        raise TypeError("a DaskExecutor cannot be pickled: it contains credentials")

    async def run(self, job: Job[T], store: Trove, options: RunOptions) -> Report:
        """Run a job whose arguments have been checked, and return its report. Called by the jobs.

        If it is cancelled, it stops the ranges on the workers first.

        Raises:
            ConfigError: A worker lacks trove_async, has a different version, cannot open the store, or opens a
                different one. The message names the worker. Or the store has middlewares, and the
                configuration is not a function. Or the checkpoint belongs to a different job.
            UnavailableError: The scheduler or a backend cannot be reached.
            TroveError: As in a local run.
        """
        if store._core.transforms.configured and not self._is_function:  # noqa: SLF001 - as in the jobs
            raise ConfigError(
                "the store of the job has middlewares, which a mapping or TOML text cannot have: pass DaskExecutor"
                " a function that returns a Trove with the same middlewares"
            )
        run = DaskRun(
            self._cluster,
            self._configuration,
            job,
            store,
            options,
            ranges_per_worker=self._ranges_per_worker,
            attempts=self._attempts,
        )
        return await run.run()


__all__ = ["DaskExecutor"]
