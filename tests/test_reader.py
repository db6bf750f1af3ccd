"""Readers: saving to files, buffers, progress callbacks and cancellation."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any, cast

import pytest

from trove_async import BodyConsumedError, ClosedError, Trove
from trove_async._concurrency import in_thread
from trove_async.drivers import MemoryDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BODY = b"0123456789" * 150_000
"""More than one chunk."""


@pytest.fixture
async def store() -> AsyncIterator[Trove]:
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", BODY)
        yield store


async def test_save_cancelled_at_any_step_leaves_no_temporary_file(
    store: Trove, tmp_path: Path
) -> None:
    target = tmp_path / "saved"

    async def save() -> None:
        async with store.get("data", "key") as obj:
            await obj.save(target)

    def contents() -> tuple[set[str], bytes]:
        return {path.name for path in tmp_path.iterdir()}, target.read_bytes()

    for steps in range(150):  # the number of steps depends on the speed of the threads
        await in_thread(target.write_bytes, b"old")
        task = asyncio.create_task(save())  # noqa: TID251 - to be cancelled from outside
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        names, content = await in_thread(contents)
        assert names == {"saved"}
        assert content in {b"old", BODY}
        if finished:
            task.result()
            break
        assert task.cancelled() or task.exception() is None
    await save()
    assert await in_thread(contents) == ({"saved"}, BODY)


async def test_save_into_a_missing_directory_names_the_file(store: Trove, tmp_path: Path) -> None:
    async with store.get("data", "key") as obj:
        with pytest.raises(FileNotFoundError) as caught:
            await obj.save(tmp_path / "missing" / "saved")
        assert caught.value.filename == str(tmp_path / "missing" / "saved")
        assert await obj.read() == BODY


async def test_save_to_the_longest_file_name(store: Trove, tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    async with store.get("data", "key") as obj:
        await obj.save(target)
    assert await in_thread(lambda: list(tmp_path.iterdir())) == [target]
    assert await in_thread(target.read_bytes) == BODY


@pytest.mark.parametrize("create", [os.mkfifo, os.mkdir])
async def test_save_replaces_only_regular_files(
    store: Trove, tmp_path: Path, create: Callable[[Path], None]
) -> None:
    target = tmp_path / "existing"
    await in_thread(create, target)
    before = await in_thread(target.stat)
    async with store.get("data", "key") as obj:
        with pytest.raises(FileExistsError):
            await obj.save(target)
        assert (await in_thread(target.stat)).st_ino == before.st_ino
        assert await in_thread(lambda: list(tmp_path.iterdir())) == [target]
        assert await obj.read() == BODY


async def test_failed_save_makes_later_reads_raise(
    store: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    async with store.get("data", "key") as obj:
        with monkeypatch.context() as patched, pytest.raises(OSError, match="no room"):
            patched.setattr(os, "replace", raise_disk_full)
            await obj.save(tmp_path / "first")
        for call in (lambda: obj.save(tmp_path / "second"), obj.read, lambda: obj.read(10)):
            with pytest.raises(BodyConsumedError, match="open the object again"):
                await call()
    assert await in_thread(lambda: list(tmp_path.iterdir())) == []


@pytest.mark.parametrize("size", [-1, 1000])
async def test_exception_of_a_progress_callback_loses_no_byte(store: Trove, size: int) -> None:
    should_raise = iter([False, True] * 10_000)

    def progress(*_: int | None) -> None:
        if next(should_raise):
            raise LookupError

    received, failures = [], 0
    async with store.get("data", "key", progress=progress) as obj:
        while obj.remaining:
            try:
                received.append(await obj.read(size))
            except LookupError:
                failures += 1
    assert failures
    assert b"".join(received) == BODY


async def test_read_none_returns_all_bytes(store: Trove) -> None:
    async with store.get("data", "key") as obj:
        start = await obj.read(3)
        assert start + await obj.read(None) == BODY
        assert await obj.read(None) == b""


async def test_readinto_a_read_only_buffer_loses_no_byte(store: Trove) -> None:
    async with store.get("data", "key") as obj:
        with pytest.raises(TypeError, match="bytearray"):
            await obj.readinto(cast("Any", bytes(10)))
        assert await obj.read() == BODY


async def test_read_after_the_store_was_closed_raises() -> None:
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("b")
        await store.put("b", "k", b"0123456789")
        reader = await store.get("b", "k")
        assert await reader.read(3) == b"012"
    with pytest.raises(ClosedError, match="closed"):
        await reader.read()
    await reader.aclose()


async def test_read_cancelled_at_any_step_loses_no_byte(store: Trove) -> None:
    for steps in range(100):
        async with store.get("data", "key") as obj:
            remaining = obj.remaining
            task = asyncio.create_task(obj.read())  # noqa: TID251 - to be cancelled from outside
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.wait([task])
            if finished:
                assert task.result() == BODY
                return
            assert obj.remaining == remaining
            received = await obj.read(10)
            received += await obj.read(2 * len(BODY))
            assert received + await obj.read() == BODY
            assert await obj.read() == b""
    pytest.fail("no read finished within 100 steps")
