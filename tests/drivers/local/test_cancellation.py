"""A cancelled call leaves no file, no open descriptor and no running thread."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.drivers.local.system_calls import Gate
from trove_async.drivers.local._threads import CallCancelled, CancelFlag, FileExecutor, Threads
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Part,
    PutOptions,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.drivers.local.conftest import BucketClient


async def _cancel_at(gate: Gate, work: Callable[[], Awaitable[object]], times: int = 1) -> None:
    """Cancel `work` once or more while its thread is blocked at the gate, then open the gate."""

    async def run() -> None:
        await work()

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await loop.run_in_executor(None, gate.reached.wait, 10)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not task.done()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert gate.returned.is_set()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("call", ["pwritev", "utime", "setxattr"])
async def test_put_cancelled_before_its_rename_leaves_the_old_object(
    client: BucketClient,
    monkeypatch: pytest.MonkeyPatch,
    count_open_files: Callable[[], int],
    call: str,
    times: int,
) -> None:
    await client.put("d/k", b"old", metadata={"a": "b"})
    before = count_open_files()
    with monkeypatch.context() as patch:
        gate = Gate(getattr(os, call))
        patch.setattr(os, call, gate)
        await _cancel_at(gate, lambda: client.put("d/k", b"new"), times)
        for key in ["e/k", "dir/"]:
            gate = Gate(gate.real)
            patch.setattr(os, call, gate)
            await _cancel_at(gate, lambda key=key: client.put(key, b"new"), times)  # type: ignore[misc] # a default binds the loop's variable
    assert count_open_files() == before
    assert await client.read("d/k") == b"old"
    assert await client.keys() == ["d/k"]
    assert client.own_files() == []
    assert not (client.bucket / "e").exists()


async def test_cancelled_put_does_not_wait_for_its_lock_and_leaves_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = client.driver._root
    assert root is not None
    with root.locks.key("b", "k", CancelFlag()):
        gate = Gate(os.utime)
        monkeypatch.setattr(os, "utime", gate)
        await _cancel_at(gate, lambda: client.put("k", b"new"))
    assert (await client.keys(), client.own_files()) == ([], [])


async def test_cancelled_part_waits_for_its_thread(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        gate = Gate(os.pwritev)
        part = Part(number=1, offset=0, size=3, last=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", gate)
            await _cancel_at(gate, lambda: upload.send(part, [memoryview(b"abc")]))
    assert (await client.keys(), client.own_files(), count_open_files()) == ([], [], before)


async def test_upload_cancelled_while_opening_leaves_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    with monkeypatch.context() as patch:
        gate = Gate(os.open)
        patch.setattr(os, "open", gate)
        await _cancel_at(gate, lambda: client.driver.upload("b", "k", PutOptions()).__aenter__())
    assert (client.own_files(), count_open_files()) == ([], before)


async def test_upload_cancelled_during_its_commit_leaves_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    before = count_open_files()
    async with client.driver.upload("b", "k", PutOptions()) as upload:
        with monkeypatch.context() as patch:
            gate = Gate(os.utime)
            patch.setattr(os, "utime", gate)
            await _cancel_at(gate, lambda: upload.commit({}))
    assert (await client.keys(), client.own_files(), count_open_files()) == ([], [], before)


@pytest.mark.parametrize("size", [10, 1024 * 1024])
async def test_get_cancelled_while_opening_closes_its_file(
    client: BucketClient,
    monkeypatch: pytest.MonkeyPatch,
    count_open_files: Callable[[], int],
    size: int,
) -> None:
    await client.put("dir/", bytes(size))
    before = count_open_files()
    with monkeypatch.context() as patch:
        gate = Gate(os.getxattr)
        patch.setattr(os, "getxattr", gate)
        await _cancel_at(gate, lambda: client.read("dir/"))
    assert count_open_files() == before


async def test_cancelled_read_waits_for_its_thread(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    await client.put("big", bytes(1024 * 1024))
    before = count_open_files()
    real = FileExecutor.submit
    async with client.driver.get("b", "big", GetOptions()) as reader:
        gates: list[Gate] = []

        def submit(executor: FileExecutor, work: Callable[[], object], *_: object) -> object:
            gates[0].real = work
            return real(executor, gates[0])

        for times in [1, 2]:
            gates[:] = [Gate(os.read)]
            with monkeypatch.context() as patch:
                patch.setattr(FileExecutor, "submit", submit)
                await _cancel_at(gates[0], lambda: reader.read(1000), times)
    assert count_open_files() == before


async def test_cancelled_copy_and_listing_leave_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch, count_open_files: Callable[[], int]
) -> None:
    source = await client.put("d/k", bytes(100))
    before = count_open_files()
    with monkeypatch.context() as patch:
        gate = Gate(os.copy_file_range)
        patch.setattr(os, "copy_file_range", gate)
        options = CopyOptions(source=source, put=PutOptions())
        await _cancel_at(gate, lambda: client.driver.copy("b", "d/k", "b", "l", options))
    with monkeypatch.context() as patch:
        gate = Gate(os.scandir)
        patch.setattr(os, "scandir", gate)
        await _cancel_at(gate, lambda: client.driver.list_page("b", ListOptions()))
    assert (await client.keys(), client.own_files(), count_open_files()) == (["d/k"], [], before)


async def test_delete_cancelled_before_its_unlink_deletes_nothing(
    client: BucketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put("k", b"x")
    with monkeypatch.context() as patch:
        gate = Gate(os.stat)
        patch.setattr(os, "stat", gate)
        await _cancel_at(gate, lambda: client.driver.delete("b", "k", DeleteOptions()))
    assert await client.read("k") == b"x"


async def test_cancelled_work_that_has_not_started_never_runs() -> None:
    threads = Threads(1)
    gate = Gate(lambda: None)
    started = threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(threads.run(gate))
        await asyncio.get_running_loop().run_in_executor(None, gate.reached.wait, 10)
        queued = group.create_task(threads.run(started.set))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.opened.set()
    await threads.aclose()
    assert not started.is_set()


async def test_result_of_cancelled_work_is_undone() -> None:
    threads = Threads(1)
    undone: list[str] = []
    gate = Gate(lambda: "result")
    await _cancel_at(gate, lambda: threads.run(gate, undo=undone.append))  # type: ignore[arg-type] # it is a str
    assert undone == ["result"]
    await threads.aclose()


async def test_error_of_cancelled_work_is_discarded() -> None:
    def fail() -> None:
        raise OSError

    threads = Threads(1)
    gate = Gate(fail)
    await _cancel_at(gate, lambda: threads.run(gate))
    await threads.aclose()
    await threads.aclose()


def test_check_raises_after_a_cancel_was_requested() -> None:
    cancel = CancelFlag()
    cancel.check()
    cancel.requested = True
    with pytest.raises(CallCancelled):
        cancel.check()
