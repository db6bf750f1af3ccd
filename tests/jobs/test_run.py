"""A run processes every key once, in bounded concurrency, and its state is exact however it ends."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.fakes import small_pool
from tests.jobs.fake_job import FakeJob, Item
from trove_async import (
    ClosedError,
    ConfigError,
    PermissionDeniedError,
    StorageFullError,
    Trove,
    UnavailableError,
)
from trove_async.drivers import MemoryDriver
from trove_async.jobs import _run
from trove_async.jobs._options import FileTarget, ObjectTarget, RunOptions
from trove_async.jobs._ranges import KeyRange
from trove_async.jobs._report import UNCHANGED, Outcome
from trove_async.jobs._run import MAX_OUTAGES, cut, run_job, run_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.jobs import JobProgress


class Stopped(BaseException):
    """Ends a run at once, as a cancel does."""


KEYS = [f"k{number:04}" for number in range(500)]


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Trove]:
    async with Trove(MemoryDriver(), pool=small_pool()) as store:
        await store.create_bucket("bucket")
        yield store


async def test_every_key_is_processed_once_and_counted(store: Trove) -> None:
    job = FakeJob(KEYS, needs_work=lambda key: key.endswith("3"))
    report = await run_job(store, job, RunOptions(concurrency=4))
    assert job.processed == dict.fromkeys([key for key in KEYS if key.endswith("3")], 1)
    assert job.seen == dict.fromkeys(KEYS, 1)
    assert (report.examined, report.changed, report.unchanged, report.failed) == (500, 50, 450, 0)
    assert report.bytes == 5000
    assert report.ok


async def test_unordered_walk_is_one_range(store: Trove) -> None:
    job = FakeJob(KEYS, ordered=False)
    report = await run_job(store, job, RunOptions(concurrency=4))
    assert job.processed == dict.fromkeys(KEYS, 1)
    assert (report.ranges, job.walks) == (1, 1)


@pytest.mark.parametrize("concurrency", [1, 7])
async def test_concurrency_is_the_maximum_over_all_ranges(store: Trove, concurrency: int) -> None:
    job = FakeJob(KEYS, needs_work=lambda key: key > "k0100")

    async def work(_key: str) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    job.work = work
    await run_job(store, job, RunOptions(concurrency=concurrency))
    assert job.max_in_flight == concurrency


async def test_slow_listing_is_split_into_parallel_ranges(store: Trove) -> None:
    job = FakeJob(KEYS, needs_work=lambda _: False)
    listing = most = 0

    async def wait() -> None:
        nonlocal listing, most
        listing += 1
        most = max(most, listing)
        for _ in range(100):
            await asyncio.sleep(0)
        listing -= 1

    job.before_page = wait
    report = await run_job(store, job, RunOptions())
    assert job.seen == dict.fromkeys(KEYS, 1)
    assert report.ranges >= 4
    assert 4 <= most <= _run.MAX_LISTINGS


async def test_no_range_is_split_while_the_objects_are_the_bottleneck(store: Trove) -> None:
    job = FakeJob(KEYS)
    for_all = asyncio.Semaphore(1)

    async def work(_: str) -> None:
        async with for_all:
            await asyncio.sleep(0)

    job.work = work
    report = await run_job(store, job, RunOptions(concurrency=2))
    assert report.ranges == 1


# -- errors ---------------------------------------------------------------------------------------


async def test_errors_of_single_objects_are_collected(store: Trove) -> None:
    job = FakeJob(KEYS)

    async def work(key: str) -> None:
        if key.endswith("7"):
            raise PermissionDeniedError(f"no access to {key}")
        if key == "k0001":
            raise ValueError("odd")

    job.work = work
    report = await run_job(store, job, RunOptions(concurrency=1))
    assert (report.changed, report.failed) == (449, 51)
    assert report.errors["PermissionDeniedError"].count == 50
    assert report.errors["PermissionDeniedError"].keys[:2] == ("k0007", "k0017")
    assert report.errors["ValueError"].keys == ("k0001",)
    assert not report.ok
    assert "failed, PermissionDeniedError: 50 ('k0007', 'k0017', 'k0027', …)" in str(report)


async def test_report_keeps_a_bounded_number_of_keys(store: Trove) -> None:
    job = FakeJob(KEYS)

    async def work(_: str) -> None:
        raise PermissionDeniedError("no")

    job.work = work
    report = await run_job(store, job, RunOptions())
    assert report.errors["PermissionDeniedError"].count == 500
    assert len(report.errors["PermissionDeniedError"].keys) == 100


async def test_error_of_the_peek_belongs_to_the_object(store: Trove) -> None:
    def fail(key: str) -> bool:
        if key == "k0003":
            raise RuntimeError("route function")
        return False

    report = await run_job(store, FakeJob(KEYS, needs_work=fail), RunOptions())
    assert report.errors["RuntimeError"].keys == ("k0003",)
    assert report.unchanged == 499


@pytest.mark.parametrize("kind", [UnavailableError, StorageFullError])
async def test_dead_backend_stops_the_job(store: Trove, tmp_path: Path, kind: type) -> None:
    job = FakeJob(KEYS)

    async def work(_: str) -> None:
        await asyncio.sleep(0)
        if len(job.processed) >= 50:
            raise kind("it is down")

    job.work = work
    options = RunOptions(concurrency=8, checkpoint=FileTarget(tmp_path / "state"))
    with pytest.raises(kind, match="it is down") as info:
        await run_job(store, job, options)
    assert "changed 50 " in "".join(info.value.__notes__)
    assert sum(job.seen.values()) < 50 + MAX_OUTAGES + 50
    # The objects of the outage are processed once it is over.
    job.work = lambda _: asyncio.sleep(0)
    report = await run_job(store, job, options)
    assert job.processed == dict.fromkeys(KEYS, 1)
    assert (report.changed, report.failed) == (500, 0)


async def test_single_outages_are_errors_of_their_objects(store: Trove) -> None:
    job = FakeJob(KEYS)

    async def work(key: str) -> None:
        if key.endswith("7"):
            raise UnavailableError("no response")

    job.work = work
    report = await run_job(store, job, RunOptions())
    assert (report.changed, report.failed) == (450, 50)


async def test_outage_at_the_end_is_counted(store: Trove) -> None:
    job = FakeJob(KEYS)

    async def work(key: str) -> None:
        if key > "k0489":
            raise UnavailableError("no response")

    job.work = work
    report = await run_job(store, job, RunOptions())
    assert (report.changed, report.failed) == (490, 10)
    assert report.ranges >= 1


async def test_error_of_the_listing_ends_the_job_and_the_rest_can_be_resumed(
    store: Trove, tmp_path: Path
) -> None:
    job = FakeJob(KEYS)

    async def fail() -> None:
        if job.pages == 20:
            raise UnavailableError("no page")

    job.before_page = fail
    options = RunOptions(checkpoint=FileTarget(tmp_path / "state"))
    with pytest.raises(UnavailableError, match="no page"):
        await run_job(store, job, options)
    job.before_page = lambda: asyncio.sleep(0)
    report = await run_job(store, job, options)
    assert report.changed == 500
    assert job.processed == dict.fromkeys(KEYS, 1)


async def test_closed_store_ends_the_job() -> None:
    async with Trove(MemoryDriver(), pool=small_pool()) as store:
        job = FakeJob(KEYS)

        async def work(key: str) -> None:
            if key == "k0050":
                await store.aclose()
            store._core.check_usable()

        job.work = work
        with pytest.raises(ClosedError):
            await run_job(store, job, RunOptions(concurrency=4))
        assert len(job.processed) < 100


# -- progress -------------------------------------------------------------------------------------


@pytest.mark.idle_time
async def test_progress_is_reported_at_most_ten_times_a_second(store: Trove) -> None:
    job = FakeJob(KEYS)
    job.work = lambda _: asyncio.sleep(0.01)
    reports: list[JobProgress] = []
    report = await run_job(store, job, RunOptions(concurrency=1, progress=reports.append))
    assert 40 <= len(reports) <= 60
    assert reports[0].examined == 0
    last = reports[-1]
    assert (last.examined, last.changed, last.bytes) == (500, 500, report.bytes)
    assert (last.ranges_done, last.ranges) == (report.ranges, report.ranges)
    assert last.elapsed == pytest.approx(5.0, abs=0.2)
    examined = [progress.examined for progress in reports]
    assert examined == sorted(examined)


async def test_error_of_the_callback_ends_the_job(store: Trove) -> None:
    job = FakeJob(KEYS)

    def fail(_: JobProgress) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await run_job(store, job, RunOptions(progress=fail))
    assert not job.processed


@pytest.mark.idle_time
async def test_rate_of_objects_and_bytes_is_limited(store: Trove) -> None:
    job = FakeJob(KEYS, needs_work=lambda key: key < "k0100")
    report = await run_job(store, job, RunOptions(max_objects_per_second=10))
    assert report.duration == pytest.approx(10.0, abs=0.3)
    report = await run_job(store, job, RunOptions(max_bytes_per_second=2000))
    assert report.duration == pytest.approx(5.0, abs=0.3)


@pytest.mark.idle_time
@pytest.mark.parametrize("dry_run", [True, False])
async def test_bytes_that_are_not_transferred_do_not_count(store: Trove, *, dry_run: bool) -> None:
    class Idle(FakeJob):
        async def process(self, item: Item) -> Outcome:
            outcome = await super().process(item)
            # A dry run returns what a run would transfer.
            return outcome if dry_run or item.key < "k0010" else UNCHANGED

    job = Idle(KEYS)
    job.dry_run = dry_run
    report = await run_job(store, job, RunOptions(max_bytes_per_second=100))
    assert report.duration == pytest.approx(0.0 if dry_run else 10.0, abs=0.3)


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
async def test_job_that_is_cancelled_anywhere_resumes_exactly(
    store: Trove, tmp_path: Path, *, ordered: bool
) -> None:
    for steps in range(1, 120, 3):
        job = FakeJob(KEYS[:100], ordered=ordered, needs_work=lambda key: key.endswith(("1", "5")))
        options = RunOptions(concurrency=3, checkpoint=FileTarget(tmp_path / f"state{steps}"))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run_job(store, job, options))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
        assert job.in_flight == 0
        before = dict(job.processed)
        assert max(before.values(), default=1) == 1
        report = await run_job(store, job, options)
        if len(before) == 20 and max(job.processed.values()) == 2:
            continue  # the first run was complete, so the second one has started anew
        if ordered:
            assert report.examined == 100
            assert job.processed == dict.fromkeys(
                [key for key in KEYS[:100] if key.endswith(("1", "5"))], 1
            )
        else:  # pages whose objects were not all done are repeated
            assert report.examined >= 100
            assert len(job.processed) == 20


async def test_slow_object_does_not_stop_the_others_from_being_recorded(
    store: Trove, tmp_path: Path
) -> None:
    job, stuck = FakeJob(KEYS), asyncio.Event()

    async def work(key: str) -> None:
        if key == "k0010":
            await stuck.wait()
        elif key == "k0499":
            raise Stopped

    job.work = work
    options = RunOptions(concurrency=2, checkpoint=FileTarget(tmp_path / "state"))
    with pytest.raises(Stopped):
        await run_job(store, job, options)
    saved = json.loads((tmp_path / "state").read_text())
    assert saved["counts"]["changed"] == 498
    assert ["k0009", "k0010", None] in saved["ranges"]
    stuck.set()
    job.work = lambda _: asyncio.sleep(0)
    await run_job(store, job, options)
    assert job.processed == dict.fromkeys(KEYS, 1)


@pytest.mark.idle_time
async def test_checkpoint_is_written_every_few_seconds(store: Trove) -> None:
    job = FakeJob(KEYS)
    job.work = lambda _: asyncio.sleep(0.1)
    options = RunOptions(concurrency=1, checkpoint=ObjectTarget("bucket", "state"))
    writes: list[str] = []
    store.events.subscribe(
        lambda event: writes.append(event.operation) if event.kind == "operation" else None
    )
    await run_job(store, job, options)
    assert 8 <= writes.count("put") <= 13  # 50 s


async def test_completed_job_starts_anew(store: Trove) -> None:
    job, options = FakeJob(KEYS), RunOptions(checkpoint=ObjectTarget("bucket", "state"))
    await run_job(store, job, options)
    report = await run_job(store, job, options)
    assert report.examined == 500
    assert job.processed == dict.fromkeys(KEYS, 2)


async def test_finished_checkpoint_of_another_job_starts_anew(store: Trove) -> None:
    options = RunOptions(checkpoint=ObjectTarget("bucket", "state"))
    await run_job(store, FakeJob(KEYS), options)
    other = FakeJob(KEYS, arguments={"which": "other"})
    assert (await run_job(store, other, options)).examined == 500
    assert other.processed == dict.fromkeys(KEYS, 1)


async def test_checkpoint_of_another_job_is_refused_before_anything_is_done(store: Trove) -> None:
    options = RunOptions(checkpoint=ObjectTarget("bucket", "state"))
    job = FakeJob(KEYS)

    async def fail(_: str) -> None:
        raise Stopped

    job.work = fail
    with pytest.raises(Stopped):
        await run_job(store, job, options)
    other = FakeJob(KEYS, arguments={"which": "other"})
    with pytest.raises(ConfigError, match="belongs to a different job"):
        await run_job(store, other, options)
    assert not other.seen


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'{"version": 2}',
        b'{"version": 1, "fingerprint": 3}',
        b'{"version": 1, "complete": false, "fingerprint": 3}',
        b"[" * 9999,
    ],
)
async def test_malformed_checkpoint_is_refused(store: Trove, content: bytes) -> None:
    await store.put("bucket", "state", content)
    with pytest.raises(ConfigError, match="checkpoint"):
        await run_job(store, FakeJob([]), RunOptions(checkpoint=ObjectTarget("bucket", "state")))


@pytest.mark.parametrize(
    "change",
    [
        {"ranges": [["a"]]},
        {"ranges": [[1, None, None]]},
        {"ranges": 5},
        {"counts": {}},
        {"counts": {"examined": -1}},
        {"counts": {"examined": 0, "changed": 0, "unchanged": 0, "bytes": 0, "ranges_done": 0,
                    "errors": {"a": 1}, "skips": {}}},
    ],
)  # fmt: skip
async def test_checkpoint_that_was_edited_is_refused(
    store: Trove, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "state"
    job, options = FakeJob(KEYS), RunOptions(checkpoint=FileTarget(path))

    async def fail(_: str) -> None:
        raise Stopped

    job.work = fail
    with pytest.raises(Stopped):
        await run_job(store, job, options)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="malformed"):
        await run_job(store, job, options)


async def test_checkpoint_that_cannot_be_written_ends_the_job_before_it_starts(
    store: Trove, tmp_path: Path
) -> None:
    job = FakeJob(KEYS)
    with pytest.raises(ConfigError, match="checkpoint cannot be written"):
        await run_job(store, job, RunOptions(checkpoint=FileTarget(tmp_path / "missing" / "state")))
    assert not job.seen


async def test_dry_run_writes_no_checkpoint_to_the_store(store: Trove, tmp_path: Path) -> None:
    job = FakeJob(KEYS)
    job.dry_run = True
    with pytest.raises(ConfigError, match="a dry run does not write to the store"):
        await run_job(store, job, RunOptions(checkpoint=ObjectTarget("bucket", "state")))
    assert not job.seen
    assert [info.key async for info in store.list("bucket")] == []
    report = await run_job(store, job, RunOptions(checkpoint=FileTarget(tmp_path / "state")))
    assert report.examined == 500


async def test_own_checkpoint_is_not_processed(store: Trove) -> None:
    job = FakeJob([*KEYS, "state"])
    report = await run_job(store, job, RunOptions(checkpoint=ObjectTarget("bucket", "state")))
    assert report.examined == 500
    assert "state" not in job.seen


# -- for executors --------------------------------------------------------------------------------


async def test_ranges_that_were_cut_cover_every_key_once(store: Trove) -> None:
    job = FakeJob(KEYS)
    ranges = await cut(job, 16)
    assert len(ranges) == 16
    total = 0
    for key_range in ranges:
        total += (await run_range(store, job, key_range, RunOptions(concurrency=2))).changed
    assert total == 500
    assert job.processed == dict.fromkeys(KEYS, 1)


async def test_bucket_of_few_keys_is_cut_into_fewer_ranges() -> None:
    assert await cut(FakeJob(["a"]), 16) == [KeyRange("", "a")]
    assert len(await cut(FakeJob(["a", "b", "c"]), 16)) <= 3
