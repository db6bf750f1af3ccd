"""What a worker does with the ranges of a run."""

from __future__ import annotations

import asyncio
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from trove_async import ClosedError, PermissionDeniedError, Trove, UnavailableError, __version__
from trove_async.drivers import MemoryDriver
from trove_async.jobs._dask_worker import TOPIC, WorkerStore
from trove_async.jobs._fingerprints import description_of
from trove_async.jobs._rebalance import Rebalance
from trove_async.testing import Call, Faulty

if TYPE_CHECKING:
    from collections.abc import Sequence


class Slow(Faulty):
    """Memory whose gets wait for an event."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver())
        self.go = asyncio.Event()
        self.waiting = asyncio.Event()

    async def begin(self, call: Call) -> None:
        if call.operation == "get":
            self.waiting.set()
            await self.go.wait()


class FakeScheduler:
    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    async def get_metadata(self, *, keys: Sequence[str], default: object) -> Any:
        return self.metadata.get(keys[0], default)

    async def set_metadata(self, *, keys: Sequence[str], value: object) -> Any:
        self.metadata[keys[0]] = value


class FakeWorker:
    address = "tcp://worker:1"

    def __init__(self) -> None:
        self.scheduler: Any = FakeScheduler()
        self.events: list[tuple[str, Any]] = []

    def log_event(self, topic: str, msg: Any) -> None:
        self.events.append((topic, msg))


_drivers: dict[str, Any] = {}
_stores: list[Trove] = []


def build() -> Trove:
    store = Trove(_drivers["hot"], backends={"cold": _drivers["cold"]}, routes=[("*.log", "cold")])
    _stores.append(store)
    return store


def build_unavailable(error: Exception) -> Trove:
    raise error


async def prepared(
    hot: Any, cold: Any, count: int, *, bucket: str = "data"
) -> tuple[FakeWorker, WorkerStore, dict[str, Any]]:
    """Return a worker, its store, and a request for the range of all keys."""
    _drivers.update(hot=hot, cold=cold)
    _stores.clear()
    worker = FakeWorker()
    async with Trove(hot, backends={"cold": cold}, routes=[("*.log", "cold")]) as store:
        job = Rebalance(store, bucket, "", delete_shadowed=False, dry_run=False)
        request = {
            "version": __version__,
            "task": "task",
            "run": "run",
            "index": 0,
            "job": job.name,
            "arguments": dict(job.arguments),
            "store": description_of(store, bucket),
            "range": ("", None, None),
            "earlier": None,
            "own_object": None,
            "concurrency": 4,
            "max_objects_per_second": None,
            "max_bytes_per_second": None,
            "progress_seconds": 0.0,
        }
        await store.create_bucket("data")
        for number in range(count):
            await store.backend("default").put("data", f"{number}.log", b"x")
    return worker, WorkerStore(pickle.dumps(build), worker), request


async def test_range_is_counted_and_its_outcome_is_an_event() -> None:
    worker, store, request = await prepared(MemoryDriver(), MemoryDriver(), 5)
    outcome = await store.run(request)
    assert outcome["result"] == "done"
    assert outcome["tally"]["changed"] == 5
    assert (TOPIC, {"run": "run", "task": "task", "outcome": outcome}) in worker.events
    assert worker.scheduler.metadata["task"]["pending"] == 5
    await store.aclose()
    with pytest.raises(ClosedError):
        await _stores[0].head("data", "0.log")


async def test_one_store_is_opened_for_all_ranges() -> None:
    _, store, request = await prepared(MemoryDriver(), MemoryDriver(), 0)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(store.run({**request, "task": f"task {number}"}))
    assert len(_stores) == 1
    await store.aclose()
    await store.aclose()
    assert await store.run(request) == {"result": "stopped"}


@pytest.mark.parametrize("how", ["stop", "aclose"])
async def test_stopped_range_returns_what_is_left(how: str) -> None:
    hot = Slow()
    _, store, request = await prepared(hot, MemoryDriver(), 6)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(store.run(request))
        await hot.waiting.wait()
        if how == "stop":
            store.stop("unknown task")
            store.stop("task")
            hot.go.set()  # a move that has begun is awaited
        else:
            asyncio.get_running_loop().call_later(0, hot.go.set)
            await store.aclose()
            assert running.done()
            with pytest.raises(ClosedError):
                await _stores[0].head("data", "0.log")
    outcome = running.result()
    assert outcome["result"] == "stopped"
    assert outcome["tally"]["examined"] == 0
    assert outcome["ranges"] == [["", None, None]]
    await store.aclose()


async def test_range_that_is_run_again_returns_nothing_partial() -> None:
    hot = Slow()
    worker, store, request = await prepared(hot, MemoryDriver(), 6)
    worker.scheduler.metadata["task"] = {
        "seen": [("", "2.log")],
        "pending": 4,
        "unchanged": 0,
        "weight": 4,
    }
    async with asyncio.TaskGroup() as group:
        running = group.create_task(store.run(request))
        await hot.waiting.wait()
        store.stop("task")
        hot.go.set()
    assert running.result() == {"result": "stopped"}
    outcome = await store.run(request)
    # One of the four objects that the lost worker had seen is not listed any more.
    assert (outcome["tally"]["changed"], outcome["tally"]["bytes"]) == (7, 7)
    assert all(not event["counts"] for _, event in worker.events if "counts" in event)
    await store.aclose()


async def test_cancelled_task_leaves_nothing_running() -> None:
    hot = Slow()
    _, store, request = await prepared(hot, MemoryDriver(), 6)
    running = asyncio.create_task(store.run(request))  # noqa: TID251 - cancelled as Dask does
    await hot.waiting.wait()
    running.cancel()
    hot.go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store._running == {}
    await store.aclose()


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (UnavailableError("down"), "failed"),
        (PermissionDeniedError("no"), "unusable"),
        (RuntimeError("secret"), "unusable"),
        (ImportError("no module"), "unusable"),
    ],
)
async def test_store_that_cannot_be_opened(error: Exception, result: str) -> None:
    worker, _, request = await prepared(MemoryDriver(), MemoryDriver(), 0)
    store = WorkerStore(pickle.dumps(partial(build_unavailable, error)), worker)
    outcome = await store.run(request)
    assert outcome["result"] == result
    if result == "failed":
        assert isinstance(pickle.loads(outcome["error"]), UnavailableError)  # noqa: S301 - our own
    else:
        assert "worker tcp://worker:1: it cannot open the store" in outcome["message"]
        assert "secret" not in outcome["message"]
    await store.aclose()


async def test_other_version_is_refused() -> None:
    _, store, request = await prepared(MemoryDriver(), MemoryDriver(), 0)
    outcome = await store.run({**request, "version": "0.0.1"})
    assert outcome["result"] == "unusable"
    assert _stores == []


async def test_error_of_the_listing_is_returned() -> None:
    _, store, request = await prepared(MemoryDriver(), MemoryDriver(), 0, bucket="missing")
    outcome = await store.run(request)
    assert outcome["result"] == "failed"
    assert "missing" in str(pickle.loads(outcome["error"]))  # noqa: S301 - our own
    await store.aclose()


async def test_store_with_another_encoding_is_refused_before_any_object_is_touched() -> None:
    hot, cold = MemoryDriver(), MemoryDriver()
    _, store, request = await prepared(hot, cold, 3)
    outcome = await store.run({**request, "store": {**request["store"], "middleware": "other"}})
    assert outcome["result"] == "unusable"
    assert "differs from that of the job in: middleware" in outcome["message"]
    assert len([info.key async for info in _stores[0].backend("default").list("data")]) == 3
    await store.aclose()
