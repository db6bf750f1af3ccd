"""Blocks that take longer than a thread hop are processed in worker threads, and never on the event loop.

AES-GCM processes a block of any allowed size in less time, so it runs on the loop.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import assert_idle, content, store_of
from trove_async import BufferPool, ClosedError, Trove
from trove_async._concurrency import OwnedTask
from trove_async._engine.block_workers import INLINE_WORK
from trove_async.drivers.memory import MemoryDriver
from trove_async.middleware import MAX_BLOCK
from trove_async.middlewares import Compression, Encryption, Keyring, _seekable_zstd
from trove_async.middlewares._streaming_aead import SegmentCipher
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from trove_async.middleware import Middleware

RING = Keyring({"key": bytes(range(32))})
TEXT = content(4 * MiB).hex().encode()


class Calls:
    """The calls of the functions that do the work of a transform."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.largest_on_loop = 0  # of the compression
        self.largest_encrypted_on_loop = 0
        self.in_threads = 0
        self._loop_thread = threading.get_ident()
        compress, decompress = _seekable_zstd.compress, _seekable_zstd.decompress
        encrypt, decrypt = SegmentCipher.encrypt, SegmentCipher.decrypt
        encrypt_into = SegmentCipher.encrypt_into

        def counted_compress(block: memoryview, level: int) -> bytes:
            self.count(len(block))
            return compress(block, level)

        def counted_decompress(frame: memoryview, size: int) -> bytes:
            self.count(max(len(frame), size))
            return decompress(frame, size)

        def counted_encrypt(
            cipher: SegmentCipher, index: int, block: memoryview, *, last: bool
        ) -> bytes:
            self.count_encrypted(len(block))
            return encrypt(cipher, index, block, last=last)

        def counted_encrypt_into(
            cipher: SegmentCipher, index: int, block: memoryview, out: memoryview, *, last: bool
        ) -> None:
            self.count_encrypted(len(block))
            encrypt_into(cipher, index, block, out, last=last)

        def counted_decrypt(
            cipher: SegmentCipher, index: int, segment: memoryview, *, last: bool
        ) -> bytes:
            self.count_encrypted(len(segment))
            return decrypt(cipher, index, segment, last=last)

        monkeypatch.setattr(_seekable_zstd, "compress", counted_compress)
        monkeypatch.setattr(_seekable_zstd, "decompress", counted_decompress)
        monkeypatch.setattr(SegmentCipher, "encrypt", counted_encrypt)
        monkeypatch.setattr(SegmentCipher, "encrypt_into", counted_encrypt_into)
        monkeypatch.setattr(SegmentCipher, "decrypt", counted_decrypt)

    def count_encrypted(self, size: int) -> None:
        assert threading.get_ident() == self._loop_thread
        self.largest_encrypted_on_loop = max(self.largest_encrypted_on_loop, size)

    def count(self, size: int) -> None:
        if threading.get_ident() == self._loop_thread:
            self.largest_on_loop = max(self.largest_on_loop, size)
        else:
            self.in_threads += 1


async def chunks(total: int, size: int) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        at = start % (len(TEXT) - size)
        yield TEXT[at : at + min(size, total - start)]


async def unsized(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), MiB):
        yield body[at : at + MiB]


async def use(store: Trove, total: int, chunk_size: int) -> None:
    await store.put("bucket", "key", chunks(total, chunk_size))
    async with store.get("bucket", "key") as obj:
        received = 0
        async for chunk in obj:
            received += len(chunk)
    assert received == total
    start = total // 2 + 17
    assert len(await store.read("bucket", "key", range=(start, start + 100))) == 100
    await store.get_ranges("bucket", "key", [(0, 5), (start, start + MiB)])
    await store.copy("bucket", "key", "bucket", "copy")


@pytest.mark.parametrize("chunk_size", [30_000, 256 * KiB, MiB, 3 * MiB])
async def test_large_blocks_are_processed_in_threads(
    chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    stack: list[Middleware] = [Compression(level=1), Encryption(RING)]
    pool = BufferPool(16 * MiB, 4 * MiB)
    async with store_of(MemoryDriver(), pool=pool, middleware=stack) as store:
        await use(store, 10 * MiB + 123, chunk_size)
        assert_idle(store)
    assert calls.largest_on_loop <= INLINE_WORK
    assert calls.in_threads > 0
    assert 0 < calls.largest_encrypted_on_loop <= MAX_BLOCK


@pytest.mark.parametrize(
    "size", [INLINE_WORK - 1, INLINE_WORK, INLINE_WORK + 1, INLINE_WORK + 100, MiB]
)
async def test_bodies_of_about_the_limit_are_not_processed_on_the_loop_if_larger(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    stacks: list[list[Middleware]] = [
        [Compression(level=1)],
        [Encryption(RING)],
        [Compression(level=1), Encryption(RING)],
    ]
    for stack in stacks:
        async with store_of(MemoryDriver(), middleware=stack) as store:
            await store.put("bucket", "key", TEXT[:size])
            await store.put("bucket", "streamed", chunks(size, 100_000))
            assert await store.read("bucket", "key") == TEXT[:size]
            assert len(await store.read("bucket", "streamed")) == size
    assert calls.largest_on_loop <= INLINE_WORK
    assert calls.largest_encrypted_on_loop <= MAX_BLOCK


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_large_body_is_processed_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    stack: list[Middleware] = [Compression(level=1), Encryption(RING)]
    async with store_of(MemoryDriver(), pool=BufferPool(), middleware=stack) as store:
        await use(store, 64 * MiB, MiB)
    assert calls.largest_on_loop <= INLINE_WORK


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("frames", [100, 9000])
async def test_long_seek_table_is_written_and_parsed_in_threads(
    monkeypatch: pytest.MonkeyPatch, frames: int, *, encrypted: bool
) -> None:
    threads: set[tuple[str, bool]] = set()
    loop_thread = threading.get_ident()
    write_table, parse = _seekable_zstd.write_table, _seekable_zstd.SeekTable._parse

    def written(*args: Any) -> bytes:
        threads.add(("write", threading.get_ident() == loop_thread))
        return write_table(*args)

    def parsed(*args: Any) -> _seekable_zstd.SeekTable:
        threads.add(("parse", threading.get_ident() == loop_thread))
        return parse(*args)

    monkeypatch.setattr(_seekable_zstd, "write_table", written)
    monkeypatch.setattr(_seekable_zstd.SeekTable, "_parse", parsed)
    _seekable_zstd._remembered.cache_clear()
    body = (b"%1023d\n" % 7) * frames
    stack: list[Middleware] = [Compression(frame_size=KiB), Encryption(RING)]
    async with store_of(MemoryDriver(), middleware=stack if encrypted else stack[:1]) as store:
        await store.put("bucket", "key", unsized(body))  # so a read needs the table
        assert (await store.head("bucket", "key")).size == len(body)
        assert await store.read("bucket", "key") == body
        start = len(body) // 2
        assert await store.read("bucket", "key", range=(start, start + 5)) == body[start:][:5]
        assert_idle(store)
    on_loop = frames == 100
    assert threads == {("write", on_loop), ("parse", on_loop)}


@pytest.mark.parametrize("work", ["write_table", "SeekTable._parse"])
async def test_call_cancelled_while_a_thread_handles_its_seek_table_leaves_nothing(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (b"%1023d\n" % 7) * 9000
    reached, released = threading.Event(), threading.Event()
    owner: Any = _seekable_zstd.SeekTable if "." in work else _seekable_zstd
    name = work.rpartition(".")[2]
    original = getattr(owner, name)

    def held(*args: Any) -> Any:
        reached.set()
        released.wait()
        return original(*args)

    pool = BufferPool(4 * MiB, part_size=MiB)
    compression = Compression(frame_size=KiB, level=-7)
    async with store_of(MemoryDriver(), middleware=[compression], pool=pool) as store:
        if work == "write_table":
            monkeypatch.setattr(owner, name, held)
            call: Coroutine[Any, Any, object] = store.put("bucket", "key", unsized(body))
        else:
            await store.put("bucket", "key", unsized(body))
            monkeypatch.setattr(owner, name, held)
            call = store.read("bucket", "key", range=(5, 10))
        task = asyncio.get_running_loop().create_task(call)
        while not reached.is_set():
            await asyncio.sleep(0)
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_idle(store)
        if work == "write_table":
            assert not await store.exists("bucket", "key")
        else:
            assert await store.read("bucket", "key", range=(5, 10)) == body[5:10]


async def test_put_that_outlives_its_store_starts_no_thread() -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield TEXT[:MiB]
        reached.set()
        await closed.wait()
        yield TEXT[MiB:]

    driver = MemoryDriver()
    async with store_of(driver, middleware=[Compression()]) as store:
        workers = store._core.transforms.workers
        put = OwnedTask(store.put("bucket", "key", body()))
        await reached.wait()
    closed.set()
    with pytest.raises(ClosedError):
        await put.result()
    assert workers._threads is None
    assert store.pool.statistics().leased == 0
    assert not driver._buckets["bucket"].objects


FORKING_PROGRAM = """
import os

from trove_async._engine.block_workers import MAX_BLOCK, BlockWorkers

buffer = BlockWorkers().take_buffer(MAX_BLOCK)
buffer[:4] = b"body"
child = os.fork()
if child == 0:
    buffer[:4] = b"evil"
    os._exit(0)
os.waitpid(child, 0)
assert bytes(buffer[:4]) == b"body"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_buffers_are_not_shared_with_a_forked_child() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", FORKING_PROGRAM], timeout=30, check=True, env=environment
    )
