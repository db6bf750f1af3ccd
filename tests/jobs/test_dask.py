"""Jobs on a Dask cluster of processes: the same reports, whatever happens to the workers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import dask.config
import pytest
from distributed import Client, LocalCluster
from distributed.protocol.pickle import dumps

from tests.jobs.worker_stores import CANARY, open_and_die, open_broken, open_sometimes
from trove_async import ConfigError, RetryPolicy, Trove, TroveError, UnavailableError
from trove_async.jobs import _dask_cluster, _dask_run, rebalance, verify
from trove_async.jobs._dask_cluster import _plugin_of
from trove_async.jobs._options import RunOptions
from trove_async.jobs._ranges import KeyRange
from trove_async.jobs._rebalance import Rebalance
from trove_async.jobs.dask import DaskExecutor
from trove_async.middlewares import Compression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trove_async.jobs import JobProgress, Report

# A worker that was killed leaves sockets to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    # Otherwise the cluster removes a worker that is starting again 15 s after it was killed before.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        new_cluster() as cluster,
    ):
        yield cluster


def new_cluster() -> LocalCluster:
    return LocalCluster(
        processes=True,
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


def cluster_of(client: Client) -> LocalCluster:
    assert isinstance(client.cluster, LocalCluster)
    return client.cluster


class Place:
    """Two local backends with objects at the wrong place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("hot", "cold"):
            (root / name).mkdir(parents=True)
        self.configuration: Mapping[str, Any] = {
            "default": f"file://{root}/hot",
            "backends": {"cold": f"file://{root}/cold"},
            "routes": [["*/*.log", "cold"]],
        }
        self.expected: dict[str, bytes] = {}

    def open(self) -> Trove:
        return Trove(
            self.configuration["default"],
            backends=self.configuration["backends"],
            routes=[("*/*.log", "cold")],
        )

    async def fill(self, store: Trove, count: int) -> None:
        """Put objects into the default backend. Two thirds of them belong elsewhere."""
        await store.create_bucket("data")
        for number in range(count):
            key = f"{number % 7}/{number:05}.{'txt' if number % 3 == 0 else 'log'}"
            self.expected[key] = key.encode() * 10
            await store.backend("default").put("data", key, self.expected[key])

    async def assert_in_place(self, store: Trove) -> None:
        """Assert that every object is exactly once, at its place, with its content."""
        found = [
            (info.key, info.backend) async for info in store.list("data", include_shadowed=True)
        ]
        assert found == [
            (key, "cold" if key.endswith(".log") else "default") for key in sorted(self.expected)
        ]
        for key, content in self.expected.items():
            assert await store.read("data", key) == content


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


def counts_of(report: Report) -> dict[str, Any]:
    """Return what the reports of equal jobs have in common."""
    names = ("job", "bucket", "dry_run", "examined", "changed", "unchanged", "skipped", "failed")
    findings = {
        kind: (finding.count, sorted(finding.keys))
        for kind, finding in [*report.errors.items(), *report.skips.items()]
    }
    return {**{name: getattr(report, name) for name in (*names, "bytes")}, "findings": findings}


def assert_resumed(report: Report, whole: Report) -> None:
    """Assert that a resumed job has examined each object once.

    The few objects whose move ended while it was being cancelled are found unchanged by the second run.
    """
    assert (report.examined, report.failed, report.skipped) == (whole.examined, 0, 0)
    assert whole.changed - 64 <= report.changed <= whole.changed


async def moved_locally(place: Place, tmp_path: Path) -> Report:
    """Return the report of the same job in this process, on a copy."""
    copy = Place(tmp_path / "copy")
    async with copy.open() as store:
        await copy.fill(store, len(place.expected))
        return await rebalance(store, "data")


async def assert_nothing_left(client: Client) -> None:
    """Assert that no plugin is left, and that tasks and their metadata, which are removed later, go."""
    assert not any((await asyncio.to_thread(client.run, _worker_plugins)).values())
    assert await asyncio.to_thread(client.run_on_scheduler, _scheduler_plugins) == []

    left = ["?"]

    async def is_clean() -> bool:
        left[:] = await asyncio.to_thread(client.run_on_scheduler, _scheduler_items)
        return not left

    try:
        async with asyncio.timeout(20):
            await until(is_clean)
    except TimeoutError:
        pytest.fail(f"the scheduler keeps {left}")


def _worker_plugins(dask_worker: Any) -> list[str]:
    return [name for name in dask_worker.plugins if name.startswith("trove")]


def _scheduler_plugins(dask_scheduler: Any) -> list[str]:
    return [name for name in dask_scheduler.worker_plugins if name.startswith("trove")]


def _scheduler_items(dask_scheduler: Any) -> list[str]:
    places = {"metadata": dask_scheduler.task_metadata, "task": dask_scheduler.tasks}
    return [
        f"{kind} {name}"
        for kind, names in places.items()
        for name in names
        if str(name).startswith("trove")
    ]


async def until(condition: Callable[[], Any]) -> None:
    while not await condition():
        await asyncio.sleep(0.02)


# -- reports ------------------------------------------------------------------------------------------


async def test_report_equals_that_of_a_local_run(
    place: Place, tmp_path: Path, client: Client
) -> None:
    seen: list[JobProgress] = []
    async with place.open() as store:
        await place.fill(store, 150)
        executor = DaskExecutor(client, store=place.configuration)
        report = await rebalance(store, "data", on=executor, progress=seen.append)
        await place.assert_in_place(store)
        assert counts_of(report) == counts_of(await moved_locally(place, tmp_path))
        again = await rebalance(store, "data", on=executor)
        assert (again.changed, again.unchanged) == (0, 150)
    await assert_nothing_left(client)
    assert (seen[0].examined, seen[-1].examined) == (0, 150)
    assert seen[-1].ranges_done == seen[-1].ranges == report.ranges
    for before, after in pairwise(seen):
        assert after.examined >= before.examined
        assert after.ranges_done >= before.ranges_done
        assert after.ranges >= before.ranges
        assert after.elapsed >= before.elapsed
    for one in seen:
        assert one.examined == one.changed + one.unchanged + one.skipped + one.failed


async def test_address_and_asynchronous_client_work_as_well(
    place: Place, cluster: LocalCluster, client: Client
) -> None:
    address = cluster.scheduler_address
    async with place.open() as store, Client(address, asynchronous=True) as asynchronous:
        await place.fill(store, 12)
        given: list[tuple[Client | str, str]] = [(address, "0/"), (asynchronous, "1/")]
        for one, prefix in given:
            text = (
                f'default = "{place.configuration["default"]}"\nroutes = [["*/*.log", "cold"]]\n'
                f'[backends]\ncold = "{place.configuration["backends"]["cold"]}"\n'
            )
            report = await rebalance(store, "data", prefix=prefix, on=DaskExecutor(one, store=text))
            assert (report.examined, report.failed) == (2, 0)
        assert asynchronous.status == "running"
    assert cluster.status.name == "running"
    await assert_nothing_left(client)


async def test_two_runs_with_different_configurations_share_a_cluster(
    tmp_path: Path, client: Client
) -> None:
    places = [Place(tmp_path / name) for name in "ab"]

    async def move(place: Place, count: int) -> None:
        async with place.open() as store:
            await place.fill(store, count)
            executor = DaskExecutor(client, store=place.configuration)
            assert (await rebalance(store, "data", on=executor)).examined == count
            await place.assert_in_place(store)

    async with asyncio.TaskGroup() as group:
        for place, count in zip(places, (40, 60), strict=True):
            group.create_task(move(place, count))
    await assert_nothing_left(client)


async def test_errors_of_objects_are_in_the_report(place: Place, client: Client) -> None:
    async with place.open() as store:
        await place.fill(store, 10)
        executor = DaskExecutor(client, store=place.configuration)
        reports = [
            await verify(store, "data", backend="default", against="cold", on=on)
            for on in (None, executor)
        ]
    assert counts_of(reports[0]) == counts_of(reports[1])
    assert reports[1].failed == 10


# -- lost workers -------------------------------------------------------------------------------------


async def kill_workers_during_a_rebalance(
    random: Random, place: Place, tmp_path: Path, client: Client, count: int
) -> None:
    moments = sorted(random.sample(range(count), 2))
    seen = [-1]

    def nannies() -> list[Any]:
        return [one for one in cluster_of(client).workers.values() if one.process is not None]

    def kill_sometimes(progress: JobProgress) -> None:
        assert progress.examined >= seen[-1]
        seen.append(progress.examined)
        # A nanny gives up a worker that ends while it starts.
        running = [nanny for nanny in nannies() if nanny.process.status.name == "running"]
        if moments and progress.examined >= moments[0] and running:
            moments.pop(0)
            os.kill(random.choice(running).pid, signal.SIGKILL)

    async with place.open() as store:
        await place.fill(store, count)
        report = await rebalance(
            store,
            "data",
            on=DaskExecutor(client, store=place.configuration, ranges_per_worker=3),
            progress=kill_sometimes,
            max_objects_per_second=count,
        )
        await place.assert_in_place(store)
    assert len(moments) < 2  # at least one was killed
    assert counts_of(report) == counts_of(await moved_locally(place, tmp_path))
    await asyncio.to_thread(client.wait_for_workers, 2)
    await assert_nothing_left(client)


@pytest.mark.parametrize("seed", range(3))
async def test_killed_workers_lose_no_object_and_no_count(
    seed: int, place: Place, tmp_path: Path, client: Client
) -> None:
    await kill_workers_during_a_rebalance(Random(seed), place, tmp_path, client, 200)


async def test_worker_lost_while_the_job_ends_does_not_delay_the_report(
    place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    unregister: Any = client.unregister_worker_plugin

    async def unregister_and_fail(name: str) -> None:
        await unregister(name)
        process = next(iter(cluster_of(client).workers.values())).pid
        os.kill(process, signal.SIGSTOP)  # it answers no more
        asyncio.get_running_loop().call_later(0.2, os.kill, process, signal.SIGKILL)
        raise OSError("a worker ended")

    monkeypatch.setattr(client, "unregister_worker_plugin", unregister_and_fail)
    async with place.open() as store:
        await place.fill(store, 10)
        report = await rebalance(store, "data", on=DaskExecutor(client, store=place.configuration))
    assert report.examined == 10
    assert report.duration < _dask_cluster._STOP_SECONDS
    await asyncio.to_thread(client.wait_for_workers, 2)
    await assert_nothing_left(client)


async def test_workers_that_cannot_be_cleaned_up_cost_no_report(
    place: Place,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hang(_name: str) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(_dask_cluster, "_STOP_SECONDS", 0.1)
    with Client(cluster, set_as_default=False) as client:
        unregister = client.unregister_worker_plugin
        monkeypatch.setattr(client, "unregister_worker_plugin", hang)
        async with place.open() as store:
            await place.fill(store, 10)
            executor = DaskExecutor(client, store=place.configuration)
            assert (await rebalance(store, "data", on=executor)).examined == 10
        assert "did not confirm within 0.1 s" in caplog.text
        for name in await asyncio.to_thread(client.run_on_scheduler, _scheduler_plugins):
            await asyncio.to_thread(unregister, name)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
async def test_killed_workers_lose_no_object_and_no_count_in_many_runs(
    seed: int, place: Place, tmp_path: Path, client: Client
) -> None:
    await kill_workers_during_a_rebalance(Random(seed), place, tmp_path, client, 1000)


@pytest.mark.soak
async def test_range_that_kills_every_worker_ends_the_job(place: Place, client: Client) -> None:
    async with place.open() as store:
        await place.fill(store, 3)
        executor = DaskExecutor(client, store=open_and_die, attempts=1, ranges_per_worker=1)
        with pytest.raises(UnavailableError, match="several workers were lost"):
            await rebalance(store, "data", on=executor)
    await asyncio.to_thread(client.wait_for_workers, 2)
    await assert_nothing_left(client)


@pytest.mark.soak
async def test_restart_of_the_cluster_ends_the_job(place: Place, client: Client) -> None:
    restarts: list[asyncio.Task[None]] = []

    def restart(progress: JobProgress) -> None:
        if progress.examined and not restarts:
            restarts.append(asyncio.create_task(asyncio.to_thread(client.restart)))  # noqa: TID251

    async with place.open() as store:
        await place.fill(store, 100)
        executor = DaskExecutor(client, store=place.configuration)
        with pytest.raises(UnavailableError, match="cancelled in Dask"):
            await rebalance(store, "data", on=executor, progress=restart, max_objects_per_second=20)
        await restarts[0]
        await assert_nothing_left(client)
        await rebalance(store, "data", on=executor)
        await place.assert_in_place(store)


async def test_unavailable_backend_is_tried_again(
    place: Place, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        _dask_run,
        "RetryPolicy",
        lambda *, attempts, **_others: RetryPolicy(attempts=attempts, base_delay=0.01),
    )
    failures = tmp_path / "failures"
    failures.mkdir()
    async with place.open() as store:
        await place.fill(store, 10)
        opened = partial(open_sometimes, str(place.root), str(failures))
        for attempts, succeeds in ((1, False), (4, True)):
            (failures / "1").touch()
            executor = DaskExecutor(client, store=opened, attempts=attempts, ranges_per_worker=1)
            if succeeds:
                assert (await rebalance(store, "data", on=executor)).examined == 10
            else:
                with pytest.raises(UnavailableError, match="being restarted"):
                    await rebalance(store, "data", on=executor)
        await place.assert_in_place(store)
    await assert_nothing_left(client)


# -- cancels and checkpoints --------------------------------------------------------------------------


async def cancelled_halfway(
    run: Callable[[Callable[[JobProgress], None]], Any], count: int
) -> None:
    """Cancel a job once it has processed about half of the objects."""
    half = asyncio.Event()

    def look(progress: JobProgress) -> None:
        if progress.examined >= count / 2:
            half.set()

    task = asyncio.create_task(run(look))  # noqa: TID251 - cancelled as a user does
    await half.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_job_stops_the_workers_and_continues_in_this_process(
    place: Place, tmp_path: Path, client: Client
) -> None:
    checkpoint = tmp_path / "checkpoint"
    async with place.open() as store:
        await place.fill(store, 200)
        executor = DaskExecutor(client, store=place.configuration, ranges_per_worker=2)
        await cancelled_halfway(
            lambda progress: rebalance(
                store,
                "data",
                on=executor,
                checkpoint=checkpoint,
                progress=progress,
                max_objects_per_second=200,
            ),
            200,
        )
        await assert_nothing_left(client)
        before = [info.key async for info in store.backend("cold").list("data")]
        assert 0 < len(before) < 200
        report = await rebalance(store, "data", checkpoint=checkpoint)
        await place.assert_in_place(store)
    assert_resumed(report, await moved_locally(place, tmp_path))
    assert client.status == "running"


async def test_job_begun_in_this_process_continues_on_the_cluster(
    place: Place, tmp_path: Path, client: Client
) -> None:
    async with place.open() as store:
        await place.fill(store, 200)
        # A checkpoint that is an object of the bucket itself is never moved or counted.
        checkpoint = "data/0/state.log"
        await cancelled_halfway(
            lambda progress: rebalance(
                store,
                "data",
                checkpoint=checkpoint,
                progress=progress,
                max_objects_per_second=400,
                concurrency=4,
            ),
            200,
        )
        executor = DaskExecutor(client, store=place.configuration)
        report = await rebalance(store, "data", on=executor, checkpoint=checkpoint)
        assert await store.exists("data", "0/state.log")
        await store.delete("data", "0/state.log")
        await place.assert_in_place(store)
    assert_resumed(report, await moved_locally(place, tmp_path))


async def test_error_of_the_progress_callback_ends_the_job(place: Place, client: Client) -> None:
    def fail(progress: JobProgress) -> None:
        if progress.examined:
            raise LookupError("no terminal")

    async with place.open() as store:
        await place.fill(store, 50)
        executor = DaskExecutor(client, store=place.configuration)
        with pytest.raises(LookupError, match="no terminal"):
            await rebalance(store, "data", on=executor, progress=fail, max_objects_per_second=100)
    await assert_nothing_left(client)


async def test_cancelled_job_leaves_the_client_usable(place: Place, cluster: LocalCluster) -> None:
    # Dask's client waits here before it requests results, and marks all later requests as cancelled with the
    # one that is cancelled here.
    with Client(cluster, set_as_default=False) as client:
        async with place.open() as store:
            await place.fill(store, 10)
            executor = DaskExecutor(client, store=place.configuration)
            permits, loop = client._gather_semaphore, client.loop
            assert loop is not None
            taken = 0
            while not permits.locked():
                loop.add_callback(permits.acquire)
                taken += 1
                await asyncio.sleep(0.05)
            job = asyncio.create_task(  # noqa: TID251 - cancelled below
                verify(store, "data", backend="default", against="cold", on=executor)
            )
            while client._gather_future is None:
                await asyncio.sleep(0.01)
            job.cancel()
            await asyncio.sleep(0.1)
            for _ in range(taken):
                loop.add_callback(permits.release)
            with pytest.raises(asyncio.CancelledError):
                await job
            assert (
                await verify(store, "data", backend="default", against="cold", on=executor)
            ).failed == 10


async def test_worker_that_does_not_respond_costs_only_its_own_counts(
    place: Place, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dask_cluster, "_STOP_SECONDS", 1.0)
    monkeypatch.setattr(_dask_cluster, "_COLLECT_SECONDS", 1.0)
    checkpoint = tmp_path / "checkpoint"
    process = next(iter(cluster_of(client).workers.values())).pid
    frozen: list[int] = []

    def freeze(progress: JobProgress) -> None:
        if progress.changed >= 30 and not frozen:  # on both workers
            frozen.append(progress.changed)
            os.kill(process, signal.SIGSTOP)
            job.cancel()

    async with place.open() as store:
        await place.fill(store, 150)
        job = asyncio.get_running_loop().create_task(
            rebalance(
                store,
                "data",
                on=DaskExecutor(client, store=place.configuration, ranges_per_worker=1),
                progress=freeze,
                checkpoint=checkpoint,
                max_objects_per_second=100,
            )
        )
        try:
            with pytest.raises(asyncio.CancelledError):
                await job
        finally:
            os.kill(process, signal.SIGCONT)
        await assert_nothing_left(client)
        report = await rebalance(store, "data", checkpoint=checkpoint)
        await place.assert_in_place(store)
        whole = await moved_locally(place, tmp_path)
    assert whole.changed - frozen[0] < report.changed < whole.changed


async def test_job_that_is_cancelled_at_its_end_has_ended(
    place: Place, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(cluster, set_as_default=False) as client:
        unregister: Any = client.unregister_worker_plugin
        loop = asyncio.get_running_loop()

        async def unregister_slowly(name: str) -> None:
            loop.call_soon_threadsafe(job.cancel)
            await asyncio.sleep(0.1)
            await unregister(name)

        monkeypatch.setattr(client, "unregister_worker_plugin", unregister_slowly)
        checkpoint = tmp_path / "checkpoint"
        async with place.open() as store:
            await place.fill(store, 10)
            executor = DaskExecutor(client, store=place.configuration)
            job = loop.create_task(rebalance(store, "data", on=executor, checkpoint=checkpoint))
            with pytest.raises(asyncio.CancelledError):
                await job
            await place.assert_in_place(store)
            assert json.loads(checkpoint.read_text())["complete"]
        await assert_nothing_left(client)


async def test_request_that_other_code_cancelled_raises(
    place: Place, cluster: LocalCluster
) -> None:
    with Client(cluster, set_as_default=False) as client:
        assert client.loop is not None
        request = client.loop.asyncio_loop.create_future()
        request.cancel()
        async with place.open() as store:
            await place.fill(store, 10)
            executor = DaskExecutor(client, store=place.configuration)
            client._gather_keys, client._gather_future = set(), request
            with pytest.raises(UnavailableError, match="cancelled by other code"):
                await verify(store, "data", backend="default", against="cold", on=executor)
            client._gather_future = None


async def test_killed_client_leaves_no_range_running(place: Place, client: Client) -> None:
    async with place.open() as store:
        await place.fill(store, 300)
        address = cluster_of(client).scheduler_address
        program = (
            "import asyncio, sys\n"
            "from trove_async import Trove\n"
            "from trove_async.jobs import rebalance\n"
            "from trove_async.jobs.dask import DaskExecutor\n"
            f"configuration = {dict(place.configuration)!r}\n"
            "def tell(progress):\n"
            "    if progress.examined: print('begun', flush=True)\n"
            "async def main():\n"
            "    arguments = {**configuration, 'routes': [('*/*.log', 'cold')]}\n"
            "    async with Trove(**arguments) as store:\n"
            f"        executor = DaskExecutor({address!r}, store=configuration)\n"
            "        await rebalance(store, 'data', on=executor, progress=tell, max_objects_per_second=20)\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        process.kill()
        await process.wait()

        async def is_idle() -> bool:
            running = await asyncio.to_thread(client.run, _running_ranges)
            return not any(running.values())

        await until(is_idle)
        # The next run does what is left.
        report = await rebalance(store, "data", on=DaskExecutor(client, store=place.configuration))
        assert report.examined == 300
        await place.assert_in_place(store)
    # What the killed client has left. Other tests of this module expect nothing.
    for name in await asyncio.to_thread(client.run_on_scheduler, _scheduler_plugins):
        await asyncio.to_thread(client.unregister_worker_plugin, name)


def _running_ranges(dask_worker: Any) -> int:
    plugins = [plugin for name, plugin in dask_worker.plugins.items() if name.startswith("trove")]
    return sum(len(plugin._store._running) for plugin in plugins)


# -- what cannot run ----------------------------------------------------------------------------------


async def test_worker_with_other_rules_is_named(place: Place, client: Client) -> None:
    async with place.open() as store:
        await place.fill(store, 3)
        configuration = {**place.configuration, "routes": [["*/*.txt", "cold"]]}
        with pytest.raises(ConfigError, match=r"worker tcp://.* other backends or rules"):
            await rebalance(store, "data", on=DaskExecutor(client, store=configuration))
    await assert_nothing_left(client)


async def test_worker_with_another_place_is_refused(
    place: Place, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with place.open() as store:
        await place.fill(store, 3)
        configuration = {
            **place.configuration,
            "backends": {"cold": f"file://{tmp_path}/elsewhere"},
        }
        with pytest.raises(ConfigError, match=r"worker tcp://.* in: backend 'cold'"):
            await rebalance(store, "data", on=DaskExecutor(client, store=configuration))
    assert not (tmp_path / "elsewhere" / "data").exists()
    await assert_nothing_left(client)


@pytest.mark.parametrize("configuration", [{"default": "mem://"}, 'default = "mem://"'])
async def test_store_with_middlewares_needs_a_function(configuration: Any) -> None:
    async with Trove("mem://", middleware=[Compression()]) as store:
        executor = DaskExecutor("tcp://127.0.0.1:9", store=configuration)
        with pytest.raises(ConfigError, match="a function that returns a Trove"):
            await verify(store, "data", on=executor)


async def test_worker_with_another_version_is_named(
    place: Place, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dask_run, "__version__", "0.0.1")
    async with place.open() as store:
        await place.fill(store, 3)
        with pytest.raises(ConfigError, match=r"worker tcp://.* and the client has 0.0.1"):
            await rebalance(store, "data", on=DaskExecutor(client, store=place.configuration))


def test_worker_without_the_library_is_named() -> None:
    plugin = dumps(_plugin_of("trove_async-x", b"configuration"))
    task = dumps(_dask_cluster._task())
    program = (
        "import asyncio, pickle, sys\n"
        "sys.modules['trove_async'] = None\n"
        f"plugin = pickle.loads({plugin!r})\n"
        f"pickle.loads({task!r})\n"
        "class Worker: address = 'tcp://worker:1'\n"
        "plugin.setup(Worker())\n"
        "print(asyncio.run(plugin.run({}))['message'])\n"
        "asyncio.run(plugin.teardown(Worker()))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "worker tcp://worker:1: trove_async cannot be imported there" in done.stdout


async def test_unreachable_scheduler_raises(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dask_cluster, "_CONNECT_SECONDS", 0.1)
    async with place.open() as store:
        await place.fill(store, 3)
        for address, kind, text in (
            ("tcp://127.0.0.1:9", UnavailableError, "cannot connect to Dask's scheduler"),
            ("nonsense://x", ConfigError, "malformed"),
        ):
            with pytest.raises(kind, match=text):
                await rebalance(store, "data", on=DaskExecutor(address, store=place.configuration))


async def test_lost_scheduler_raises(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dask_cluster, "_CONNECT_SECONDS", 1.0)
    checkpoint = tmp_path / "checkpoint"
    async with place.open() as store:
        await place.fill(store, 100)
        cluster = await asyncio.to_thread(new_cluster)
        close_cluster: Callable[[], Any] = cluster.close
        closing: list[asyncio.Task[None]] = []

        def close(progress: JobProgress) -> None:
            if progress.examined and not closing:
                closing.append(asyncio.create_task(asyncio.to_thread(close_cluster)))  # noqa: TID251

        executor = DaskExecutor(cluster.scheduler_address, store=place.configuration)
        with pytest.raises(UnavailableError, match=r"scheduler was lost.*checkpoint"):
            await rebalance(
                store,
                "data",
                on=executor,
                progress=close,
                checkpoint=checkpoint,
                max_objects_per_second=20,
            )
        await closing[0]
        await rebalance(store, "data", checkpoint=checkpoint)
        await place.assert_in_place(store)


# -- credentials --------------------------------------------------------------------------------------


async def test_credentials_are_in_nothing_that_dask_shows(
    place: Place, tmp_path: Path, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    async def look() -> bool:
        events = await asyncio.to_thread(client.get_events)
        tasks = await asyncio.to_thread(client.run_on_scheduler, _tasks_text)
        shown.extend([repr(events), tasks])
        return "trove_async" in tasks

    configuration = {
        **place.configuration,
        "backends": {
            **place.configuration["backends"],
            "other": f"s3://{CANARY}key:{CANARY}secret@us-east-1/other-bucket?endpoint=http://127.0.0.1:9",
        },
    }
    executor = DaskExecutor(client, store=configuration, attempts=1)
    shown.append(repr(executor))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(executor)
    plugin = _plugin_of("trove_async-name", executor._configuration)
    shown.append(repr(plugin))
    arguments = {**configuration, "routes": [("*/*.log", "cold")]}
    async with Trove(**arguments) as store:
        await place.fill(store.backend("default"), 60)
        async with asyncio.TaskGroup() as group:
            group.create_task(until(look))
            with pytest.raises(TroveError) as caught:
                await rebalance(store, "data", on=executor, max_objects_per_second=30)
    shown.append(all_of(caught.value))
    with pytest.raises(ConfigError, match="ValueError") as broken:
        await run_broken(place, client)
    shown.append(all_of(broken.value))
    await asyncio.to_thread(client.dump_cluster_state, str(tmp_path / "dump"), format="yaml")
    shown.append((tmp_path / "dump.yaml").read_text())
    shown.extend(capfd.readouterr())
    for text in shown:
        assert CANARY not in text


def all_of(error: BaseException) -> str:
    """Return an error with its traceback and the local variables, except those of this module."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    variables = [frame.f_locals for frame in frames if frame.f_code.co_filename != __file__]
    notes = getattr(error, "__notes__", [])
    chained = [all_of(one) for one in (error.__cause__, error.__context__) if one is not None]
    return repr([error, str(error), notes, variables, chained])


async def run_broken(place: Place, client: Client) -> Report:
    async with place.open() as store:
        return await rebalance(store, "data", on=DaskExecutor(client, store=open_broken))


def _tasks_text(dask_scheduler: Any) -> str:
    """Return what the scheduler knows of the tasks, including what it sends to the workers."""
    tasks = list(dask_scheduler.tasks.values())
    sent = [dumps(task.run_spec).decode("latin-1") for task in tasks]
    return repr([[(task.key, task, task.run_spec, task.annotations) for task in tasks], sent])


# -- arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"client_or_address": 1}, TypeError, "client_or_address"),
        ({"client_or_address": ""}, ConfigError, "client_or_address"),
        ({"ranges_per_worker": 0}, ConfigError, "ranges_per_worker"),
        ({"attempts": True}, TypeError, "attempts"),
        ({"store": 3}, TypeError, "store must be a mapping"),
        ({"store": Trove}, TypeError, "store must be a mapping"),
        ({"store": lambda: None}, ConfigError, "importable"),
        ({"store": {}}, ConfigError, "the configuration: default: is required"),
        ({"store": f"default = '{CANARY}"}, ConfigError, "not valid TOML"),
    ],
)
def test_bad_arguments_raise(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    given = {"client_or_address": "tcp://127.0.0.1:9", "store": {"default": "mem://"}, **arguments}
    with pytest.raises(kind, match=text) as caught:
        DaskExecutor(given.pop("client_or_address"), **given)
    assert CANARY not in str(caught.value)


def test_limits_are_divided_among_the_ranges_that_run() -> None:
    store = Trove("mem://")
    job = Rebalance(store, "data", "", dry_run=False, delete_shadowed=False)

    def divided(slots: int, ranges: int, **options: Any) -> tuple[int, Mapping[str, Any]]:
        run = _dask_run.DaskRun(
            "tcp://x", b"", job, store, RunOptions(**options), ranges_per_worker=8, attempts=5
        )
        run._open = {index: KeyRange() for index in range(ranges)}
        return run._divide(slots), run._share

    unlimited: dict[str, Any] = {"max_objects_per_second": None, "max_bytes_per_second": None}
    unlimited["progress_seconds"] = 0.1
    assert divided(4, 32, concurrency=64) == (1000, {"concurrency": 16, **unlimited})
    assert divided(4, 1, concurrency=64) == (1000, {"concurrency": 64, **unlimited})
    assert divided(8, 64, concurrency=2) == (2, {"concurrency": 1, **unlimited})
    assert divided(50, 400)[1]["progress_seconds"] == 0.5
    limit, share = divided(4, 32, max_objects_per_second=100.0, max_bytes_per_second=1000.0)
    assert (limit, share["max_objects_per_second"], share["max_bytes_per_second"]) == (4, 25, 250)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import sys, trove_async.jobs; print('distributed' in sys.modules)", "False"),
        (
            """
import sys
sys.modules["distributed"] = None
try:
    import trove_async.jobs.dask
except ImportError as error:
    print(error)
""",
            "trove_async.jobs.dask requires an extra: pip install 'trove-async[dask]'",
        ),
    ],
)
def test_dask_is_imported_only_when_used(program: str, expected: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_errors_are_pickled_without_their_causes() -> None:
    error = UnavailableError("the service does not respond")
    error.__cause__ = ValueError(CANARY)  # as the exception of an SDK, which refers to its request
    assert CANARY.encode() not in pickle.dumps(error)
