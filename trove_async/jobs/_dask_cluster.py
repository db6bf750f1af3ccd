"""One run's part of a Dask cluster: its plugin, tasks and events.

What is sent to the cluster is pickled by value where it is code (`_plugin_of`, `_task`), so a scheduler without
trove_async can pass it on, and a worker without trove_async can report that. Only the plugin contains the
configuration of the store. The scheduler keeps it as bytes, and its repr does not show it.

All calls of Dask run on the loop of its client, which may be in a different thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from distributed import CancelledError, Client, Future, KilledWorker, WorkerPlugin

from trove_async._concurrency import OwnedTask, run_cleanup
from trove_async.errors import ClosedError, ConfigError, TroveError, UnavailableError

from ._dask_worker import TOPIC

R = TypeVar("R")

_logger = logging.getLogger("trove_async")

_REGISTRATIONS: Final = 5
"""How often the plugin is sent to all workers, if one of them ends meanwhile."""

_CONNECT_SECONDS: Final = 10.0
_COLLECT_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05

_ADVICE: Final = "check that it is running, and start the job again; with a checkpoint it continues"

_handlers: WeakKeyDictionary[Client, dict[str, Callable[[Mapping[str, Any]], None]]] = (
    WeakKeyDictionary()
)
"""The receivers of events, by client and run. A client has one handler for a topic, and keeps it forever."""

_requests: Final[set[OwnedTask[Any]]] = set()
"""Requests that may outlast the call that waits for them."""


class Cluster:
    """One run's part of a cluster.

    Args:
        client_or_address: The client of the user, or the address of the scheduler.
        run_id: The unique name of the run.
        configuration: The encoded configuration of the store.
        on_event: Called with each event of the run, on the loop that calls `start`.
    """

    def __init__(
        self,
        client_or_address: Client | str,
        run_id: str,
        configuration: bytes,
        on_event: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._given = client_or_address
        self._id = run_id
        self._plugin = _plugin_of(f"trove_async-{run_id}", configuration)
        self._task = _task()
        self._on_event = on_event
        self._client: Client | None = None
        self._registered = False
        self._futures: dict[int, Future[Any]] = {}
        self._outcomes: dict[str, Mapping[str, Any]] = {}
        self._submitted = 0

    # -- start -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and give all workers the configuration.

        Raises:
            UnavailableError: The scheduler cannot be reached.
            ConfigError: The client is closed, or the address is malformed.
        """
        loop = asyncio.get_running_loop()
        if isinstance(self._given, Client):
            self._client = self._given
            if self._client.status != "running":
                raise ConfigError(
                    f"the Dask client is {self._client.status}: pass one that is connected"
                )
        else:
            self._client = await self._connect(self._given)

        def forward(message: Mapping[str, Any]) -> None:
            if "outcome" in message:
                self._outcomes[message["task"]] = message["outcome"]
                return
            with suppress(RuntimeError):  # the loop of the job has been closed
                loop.call_soon_threadsafe(self._on_event, message)

        await self._call(self._register, forward)

    async def _connect(self, address: str) -> Client:
        try:
            client = Client(
                address, asynchronous=True, set_as_default=False, timeout=_CONNECT_SECONDS
            )
        except ValueError as error:
            raise ConfigError(f"the address of Dask's scheduler is malformed: {error}") from error
        try:
            await client
        except BaseException as error:
            with suppress(Exception):
                await run_cleanup(client.close())
            if isinstance(error, ValueError):
                raise ConfigError(
                    f"the address of Dask's scheduler is malformed: {error}"
                ) from error
            if isinstance(error, OSError):
                raise UnavailableError(
                    f"cannot connect to Dask's scheduler at {address}: {_ADVICE}"
                ) from error
            raise
        return client

    async def _register(self, client: Client, forward: Callable[[Mapping[str, Any]], None]) -> None:
        runs = _handlers.setdefault(client, {})
        runs[self._id] = forward
        if len(runs) == 1:
            client.subscribe_topic(TOPIC, _dispatcher(runs))
        self._registered = True
        for attempt in range(_REGISTRATIONS):
            try:
                await client.register_plugin(self._plugin)
            except OSError:  # a worker ended meanwhile, and others may not have received it
                if attempt == _REGISTRATIONS - 1 or client.status != "running":
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
            else:
                return

    async def slots(self) -> int:
        """Return the number of tasks that the workers can run at once."""

        async def ask(client: Client) -> int:
            return sum((await client.nthreads()).values())

        return await self._call(ask)

    # -- tasks -------------------------------------------------------------------------------------

    async def run(self, index: int, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a range on a worker, and return its outcome. See `WorkerStore.run`.

        After a cancel the range may still be running. Call `stop`.

        Raises:
            UnavailableError: The connection to the scheduler was lost, or the task was cancelled.
        """
        return await self._call(self._run, index, request)

    async def _run(
        self, client: Client, index: int, request: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        # 1. Submit. If the worker is lost, Dask runs the task again.
        self._submitted += 1
        key = f"trove_async-{request['job']}-{self._id}-{index}-{self._submitted}"
        sent = {**request, "task": key, "run": self._id, "index": index}
        future: Future[Any] = client.submit(
            self._task, self._plugin.name, sent, key=key, pure=False
        )
        self._futures[index] = future
        # 2. Wait. Small outcomes were sent as events: a gather from the worker costs twice as much as the task.
        failure = await future.exception()
        outcome = self._outcomes.pop(key, None)
        if isinstance(failure, KilledWorker):
            outcome = {"result": "killed"}
        elif outcome is None:
            outcome = cast("Mapping[str, Any]", await _result_of(future))
        # 3. Get what the next attempt must know, before Dask forgets the task.
        if outcome["result"] != "done":
            outcome = {**outcome, "earlier": await client.get_metadata((key,), default=None)}
        del self._futures[index]
        return outcome

    # -- end ---------------------------------------------------------------------------------------

    async def stop(self, begun: Collection[int]) -> Mapping[int, Mapping[str, Any]]:
        """Stop all ranges, close the stores, and return the outcomes of the ranges that had begun."""
        return await self._call(self._stop, begun) if self._client is not None else {}

    async def _stop(
        self, client: Client, begun: Collection[int]
    ) -> Mapping[int, Mapping[str, Any]]:
        # 1. Remove the plugin. That stops the ranges, and waits until they have stopped. Only then no worker
        #    records anything that the scheduler would keep when the task is gone.
        try:
            await self._unregister(client)
        except UnavailableError as error:  # the counts of the other workers are needed nevertheless
            _logger.warning("a job on Dask was stopped, but %s", error.message)
        # 2. Cancel the tasks that no worker had begun.
        waiting = [self._futures.pop(index) for index in list(self._futures) if index not in begun]
        if waiting:
            await client.cancel(waiting)
        # 3. Collect the state of the others, as far as their workers respond.
        answers = {index: _started(future.result()) for index, future in self._futures.items()}
        with suppress(TimeoutError):
            async with asyncio.timeout(_COLLECT_SECONDS):
                for answer in answers.values():
                    with suppress(KilledWorker, CancelledError):
                        await answer.result()
        outcomes = {index: answer.outcome() for index, answer in answers.items()}
        return {index: outcome for index, outcome in outcomes.items() if outcome is not None}

    async def _unregister(self, client: Client) -> None:
        if not self._registered or client.status != "running":
            return
        self._registered = False
        name = self._plugin.name
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                try:
                    await client.unregister_worker_plugin(name)
                except ValueError:  # unknown: the registration was cancelled
                    pass
                except OSError:  # a worker ended meanwhile, and others may not have been asked
                    await self._ask_each_worker(client)
        except TimeoutError as error:
            raise UnavailableError(
                f"some workers did not confirm within {_STOP_SECONDS:g} s that they have stopped"
            ) from error

    async def _ask_each_worker(self, client: Client) -> None:
        """Remove the plugin from each worker that is not lost meanwhile."""
        remove, name = _remover(), self._plugin.name
        asked = {
            worker: _started(client.run(remove, name, workers=[worker], on_error="ignore"))
            for worker in await client.nthreads()
        }
        while asked:
            await asyncio.sleep(_POLL_SECONDS)
            # Dask goes on connecting to a lost worker for half a minute.
            present = await client.nthreads()
            asked = {
                worker: answer
                for worker, answer in asked.items()
                if worker in present and not answer.done
            }

    async def aclose(self) -> None:
        """Remove everything from the cluster. Idempotent."""
        if self._client is None:
            return
        try:
            await self._call(self._clean_up)
        finally:
            client, self._client = self._client, None
            if client is not self._given:
                with suppress(OSError):
                    await client.close()

    async def _clean_up(self, client: Client) -> None:
        runs = _handlers.get(client, {})
        if runs.pop(self._id, None) is not None and not runs and client.status == "running":
            client.unsubscribe_topic(TOPIC)
        futures, self._futures = list(self._futures.values()), {}
        if client.status != "running":
            return
        try:
            await self._unregister(client)
        finally:
            if futures:
                await client.cancel(futures)

    # -- the client's loop -------------------------------------------------------------------------

    async def _call(
        self,
        work: Callable[..., Awaitable[R]],
        *args: object,
    ) -> R:
        """Run `work` on the loop of the client. A cancel is passed on."""
        client = self._client
        assert client is not None  # noqa: S101 - called after `start`

        async def translate() -> R:
            try:
                return await work(client, *args)
            except (asyncio.CancelledError, ClosedError) as error:
                # A client shares some requests among its callers, so one of them can cancel ours.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise UnavailableError(
                    "a request to Dask was cancelled by other code that uses the same client: start the job"
                    " again with a new client"
                ) from error
            except (OSError, CancelledError) as error:
                lost = client.status != "running" or not isinstance(error, CancelledError)
                problem = (
                    "the connection to Dask's scheduler was lost, or the client was closed: "
                    + _ADVICE
                    if lost
                    else "a task of the job was cancelled in Dask, for example by a restart of the"
                    " cluster: start the job again"
                )
                raise UnavailableError(problem) from error
            except TroveError:
                raise
            except Exception as error:
                if client.status in {"closed", "closing"}:
                    raise UnavailableError("the Dask client was closed during the job") from error
                raise

        theirs: asyncio.AbstractEventLoop = cast("Any", client.loop).asyncio_loop
        if theirs is asyncio.get_running_loop():
            return await translate()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(translate(), theirs))


async def _result_of(future: Future[Any]) -> Any:  # noqa: ANN401 - plain values
    """Return the result of a task. A cancel leaves the request to Dask running.

    A client fetches the results that several callers wait for with one request. A cancel of one caller would
    cancel the request for all of them, and before it is sent, also for all later ones.
    """
    return await _started(future.result()).result()


def _started(request: Any) -> OwnedTask[Any]:  # noqa: ANN401 - typed by Dask as its result
    task = OwnedTask(cast("Coroutine[Any, Any, Any]", request))
    _requests.add(task)  # a loop refers only weakly to its tasks
    task.when_done(lambda: _requests.discard(task))
    return task


def _dispatcher(
    runs: Mapping[str, Callable[[Mapping[str, Any]], None]],
) -> Callable[[tuple[float, Mapping[str, Any]]], None]:
    def dispatch(event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        receive = runs.get(message.get("run", ""))
        if receive is not None:
            receive(message)

    return dispatch


def _plugin_of(name: str, configuration: bytes) -> Any:  # noqa: ANN401, C901 - a local class
    # Local classes are pickled by value. So the methods may not use names of this module.
    class TrovePlugin(WorkerPlugin):
        def __init__(self, name: str, configuration: bytes) -> None:
            self.name = name
            self._configuration = configuration
            self._store: Any = None
            self._address = ""
            self._problem = ""

        def __repr__(self) -> str:
            return f"<plugin {self.name}>"

        def setup(self, worker: Any) -> None:  # noqa: ANN401 - not typed by Dask
            # An error here would end a worker that starts, and an open that hangs would keep it from
            # starting. So the first range opens the store.
            self._address = worker.address
            try:
                from trove_async.jobs._dask_worker import WorkerStore  # noqa: PLC0415

                self._store = WorkerStore(self._configuration, worker)
            except Exception as error:  # noqa: BLE001 - reported by each range
                self._problem = f"{type(error).__name__}: {error}"

        async def teardown(self, worker: Any) -> None:  # noqa: ANN401, ARG002 - as in Dask
            if self._store is not None:
                await self._store.aclose()

        def transition(self, key: Any, start: str, finish: str, **_options: Any) -> None:  # noqa: ANN401
            if start == "executing" and finish == "released" and self._store is not None:
                self._store.stop(key)

        async def run(self, request: Any) -> Any:  # noqa: ANN401 - plain values
            if self._store is None:
                return {
                    "result": "unusable",
                    "message": f"worker {self._address}: trove_async cannot be imported there"
                    f" ({self._problem}): install the client's version on all workers",
                }
            return await self._store.run(request)

    return TrovePlugin(name, configuration)


def _task() -> Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]:
    # A local function is pickled by value, as the class above.
    async def run_range(plugin: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        from distributed import get_worker  # noqa: PLC0415

        worker = get_worker()
        if plugin not in worker.plugins:
            return {"result": "stopped"}
        registered: Any = worker.plugins[plugin]
        result: Mapping[str, Any] = await registered.run(request)
        return result

    return run_range


def _remover() -> Callable[..., Awaitable[None]]:
    async def remove(name: str, dask_worker: Any = None) -> None:  # noqa: ANN401 - not typed by Dask
        if name in dask_worker.plugins:
            await dask_worker.plugin_remove(name)

    return remove
