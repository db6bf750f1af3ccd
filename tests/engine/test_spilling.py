"""Spill files, which are used within a budget if no memory is free."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from tests.concurrency.steps import let_tasks_run
from trove_async import BufferPool, PoolTimeoutError
from trove_async._concurrency import OwnedTask
from trove_async.models import KiB, MiB
from trove_async.pool import Lease, SpillFile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.idle_time


# -- spilling ----------------------------------------------------------------------------------------


async def test_memory_is_preferred_to_a_file() -> None:
    pool = BufferPool(2 * MiB)
    buffer = await pool.lease_or_spill(MiB)
    assert isinstance(buffer, Lease)
    buffer.release()


async def test_spill_file_is_used_if_no_memory_is_released() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.01)
    with await pool.lease(2 * MiB):
        buffer = await pool.lease_or_spill(MiB)
        assert isinstance(buffer, SpillFile)
        assert pool.statistics().spilled == MiB
        assert pool.statistics().waiting == 0
        await buffer.aclose()
        assert pool.statistics().spilled == 0


async def test_waiting_continues_while_memory_is_released_fast_enough() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.05)
    leases = [await pool.lease(MiB), await pool.lease(MiB)]
    first, second = OwnedTask(pool.lease(MiB)), OwnedTask(pool.lease_or_spill(MiB))
    await let_tasks_run()
    leases.pop().release()  # serves the first waiter: at this pace, the second need not spill
    await first.result()
    await asyncio.sleep(0.07)
    assert not second.done
    leases.pop().release()
    buffer = await second.result()
    assert isinstance(buffer, Lease)
    buffer.release()
    (await first.result()).release()


async def test_spill_file_is_used_if_memory_is_released_too_slowly() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.02)
    leases = [await pool.lease(MiB), await pool.lease(MiB)]
    waiters = [OwnedTask(pool.lease(MiB)) for _ in range(5)]
    await let_tasks_run()
    last = OwnedTask(pool.lease_or_spill(MiB))
    await let_tasks_run()
    leases.pop().release()
    buffer = await last.result()
    assert isinstance(buffer, SpillFile)
    await buffer.aclose()
    for task in waiters:
        await task.aclose()
    (await waiters[0].result()).release()
    leases.pop().release()


async def test_full_spill_budget_waits_for_memory_until_the_deadline() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.01, spill_max_bytes=MiB, deadline=0.05)
    spill = pool.try_spill(MiB)
    assert spill is not None
    assert pool.try_spill(1) is None
    with await pool.lease(2 * MiB):
        with pytest.raises(PoolTimeoutError, match="spill_max_bytes"):
            await pool.lease_or_spill(MiB)
        waiter = OwnedTask(pool.lease_or_spill(MiB))
        await let_tasks_run()
        await spill.aclose()  # returns its budget, which the waiter gets
        buffer = await waiter.result()
        assert isinstance(buffer, SpillFile)
        await buffer.aclose()
    assert pool.statistics().waiting == 0


async def test_spilling_can_be_switched_off() -> None:
    pool = BufferPool(2 * MiB, spill_after=0.0, spill_max_bytes=0, deadline=0.05)
    with await pool.lease(2 * MiB), pytest.raises(PoolTimeoutError):
        await pool.lease_or_spill(MiB)


async def test_spill_file_returns_the_written_bytes_and_has_no_name(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, spill_dir=tmp_path)
    body = random.randbytes(3 * 256 * KiB + 1)
    async with SpillFile(pool, len(body)) as spill:
        assert bytes(await spill.view()) == b""
        for at in range(0, len(body), 256 * KiB):
            await spill.write(body[at : at + 256 * KiB])
        assert os.listdir(tmp_path) == []  # noqa: PTH208 - in a test
        view = await spill.view()
        assert view.readonly
        assert bytes(view) == body
        assert spill.written == len(body)
        assert pool.statistics().spilled_total == len(body)
    assert bytes(view) == body  # a view that is still held stays valid
    assert pool.statistics().spilled == 0


async def test_spill_file_extends_within_the_budget() -> None:
    pool = BufferPool(2 * MiB, spill_max_bytes=10)
    async with SpillFile(pool, 4) as spill:
        assert spill.try_extend(6)
        assert not spill.try_extend(1)
        assert pool.statistics().spilled == 10
    assert pool.statistics().spilled == 0


async def test_spill_file_is_closed_once_even_if_cancelled() -> None:
    pool = BufferPool(2 * MiB)
    spill = SpillFile(pool, 4)
    await spill.write(b"data")
    assert bytes(await spill.view()) == b"data"
    file = spill._file
    assert file is not None
    closer = OwnedTask(spill.aclose())
    await asyncio.sleep(0)
    await closer.aclose()
    assert file.closed
    await spill.aclose()
    assert pool.statistics().spilled == 0


async def test_cancel_is_raised_after_the_write_has_ended() -> None:
    started, release = threading.Event(), threading.Event()
    written = []

    class SlowSpillFile(SpillFile):
        def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
            started.set()
            release.wait(10)
            super()._write(*pieces)
            written.append(b"".join(pieces))

    pool = BufferPool(2 * MiB)
    spill = SlowSpillFile(pool, MiB)
    write = OwnedTask(spill.write(bytes(MiB)))
    while not started.is_set():
        await asyncio.sleep(0)
    cancel = OwnedTask(write.aclose())
    await let_tasks_run()
    assert not cancel.done
    release.set()
    await cancel.result()
    assert written == [bytes(MiB)]
    await spill.aclose()
    assert pool.statistics().spilled == 0


async def test_small_writes_are_buffered() -> None:
    sizes = []

    class RecordingSpillFile(SpillFile):
        def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
            sizes.append(sum(map(len, pieces)))
            super()._write(*pieces)

    pool = BufferPool(2 * MiB)
    body = random.randbytes(200 * KiB)
    async with RecordingSpillFile(pool, len(body)) as spill:
        for at in range(0, len(body), 1000):
            await spill.write(body[at : at + 1000])
        assert spill.written == len(body)
        assert bytes(await spill.view()) == body
        assert bytes(await spill.view()) == body
    assert len(sizes) == 4
    assert min(sizes[:-1]) >= 64 * KiB


async def test_failing_disk_raises_and_leaves_nothing(tmp_path: Path) -> None:
    pool = BufferPool(2 * MiB, spill_dir=tmp_path / "missing")
    async with SpillFile(pool, 4) as spill:
        await spill.write(b"data")
        with pytest.raises(FileNotFoundError) as caught:
            await spill.view()
        assert caught.value.errno == errno.ENOENT
    assert pool.statistics().spilled == 0
