"""The file of a checkpoint is replaced atomically, and belongs to one run at a time."""

from __future__ import annotations

import asyncio
import fcntl
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fakes import small_pool
from tests.jobs.fake_job import FakeJob
from trove_async import ConfigError, Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs._checkpoint_file import CheckpointFile
from trove_async.jobs._options import FileTarget, RunOptions
from trove_async.jobs._run import run_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEYS = [f"k{number:04}" for number in range(50)]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Trove]:
    async with Trove(MemoryDriver(), pool=small_pool()) as store:
        yield store


async def test_second_run_at_the_same_time_is_refused(store: Trove, tmp_path: Path) -> None:
    options = RunOptions(checkpoint=FileTarget(tmp_path / "state"), concurrency=1)
    first, second = FakeJob(KEYS), FakeJob(KEYS)
    working, go = asyncio.Event(), asyncio.Event()

    async def work(_: str) -> None:
        working.set()
        await go.wait()

    first.work = work
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run_job(store, first, options))
        await working.wait()
        with pytest.raises(ConfigError, match="another run is using the checkpoint"):
            await run_job(store, second, options)
        assert not second.seen
        go.set()
    assert running.result().examined == 50
    assert names_in(tmp_path) == {"state"}
    assert (await run_job(store, second, options)).examined == 50


@pytest.mark.parametrize("outcome", ["error", "cancel"])
async def test_lock_is_released_however_the_run_ends(
    store: Trove, tmp_path: Path, outcome: str
) -> None:
    options = RunOptions(checkpoint=FileTarget(tmp_path / "state"), concurrency=1)
    job = FakeJob(KEYS)
    working = asyncio.Event()

    async def fail() -> None:
        raise InterruptedError

    async def work(_: str) -> None:
        working.set()
        await asyncio.Event().wait()

    job.work = work
    if outcome == "error":
        job.before_page = fail
        with pytest.raises(InterruptedError):
            await run_job(store, job, options)
    else:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(run_job(store, job, options))
            await working.wait()
            running.cancel()
    assert names_in(tmp_path) == {"state"}
    assert (await run_job(store, FakeJob(KEYS), options)).examined == 50


async def write_often(file: CheckpointFile, content: bytes) -> None:
    for _ in range(20):
        await file.write(content)


async def test_files_of_two_runs_do_not_disturb_each_other(tmp_path: Path) -> None:
    # As where the file system has no locks.
    files = [CheckpointFile(tmp_path / "state", 100) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for number, file in enumerate(files):
            group.create_task(write_often(file, b"%d" % number * 50))
    content = await files[0].read()
    assert content is not None
    assert (len(content), len(set(content))) == (50, 1)
    assert names_in(tmp_path) == {"state"}


async def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f"state.{'0' * 16}.tmp"
    others = {"state", "state.tmp", f"other.{'0' * 16}.tmp", f"state.{'0' * 15}.tmp"}
    for name in {leftover.name, *others, "state.lock"}:
        (tmp_path / name).touch()
    file = CheckpointFile(tmp_path / "state", 100)
    await file.lock()
    assert names_in(tmp_path) == {*others, "state.lock"}
    await file.unlock()
    await file.unlock()
    assert names_in(tmp_path) == others


async def test_run_continues_without_locks_of_the_file_system(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    options = RunOptions(checkpoint=FileTarget(tmp_path / "state"))
    assert (await run_job(store, FakeJob(KEYS), options)).examined == 50
