"""Cancels operations on transformed objects at each step of a driver and after each loop iteration."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import ObjectNotFoundError
from trove_async._concurrency import OwnedTask
from trove_async._resilience import upload
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trove_async import Trove
    from trove_async.middleware import Middleware

RING = Keyring({"key": bytes(range(32))})

# By name: the middlewares of a store. Blocks of 64 KiB are encoded and decoded on the loop, larger ones in
# threads.
STACKS: dict[str, Sequence[Middleware]] = {
    "aes": [Encryption(RING)],
    "aes of small segments": [Encryption(RING, segment_size=64 * KiB)],
    "zstd": [Compression(level=1, frame_size=512 * KiB)],
    "both": [Compression(level=1, frame_size=512 * KiB), Encryption(RING)],
}


def compressible(size: int, seed: str) -> bytes:
    """Return bytes that become half as large when they are compressed."""
    return content(size // 2, seed).hex().encode()


OLD = compressible(300 * KiB, "old")
NEW = compressible(2 * MiB + 300 * KiB, "new")
SMALL = NEW[: 10 * KiB]
OBJECTS = {"key": OLD, "b/key": OLD, "source": NEW, "b/source": NEW}


class Chunks:
    """A generator of a body, which counts how many of its iterations are open."""

    def __init__(self) -> None:
        self.open = 0

    async def of(self, body: bytes, size: int = 256 * KiB) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for at in range(0, len(body), size):
                await asyncio.sleep(0)
                yield body[at : at + size]
        finally:
            self.open -= 1


async def stream_out(store: Trove, key: str) -> None:
    async with store.get("bucket", key) as obj:
        assert b"".join([chunk async for chunk in obj]) == NEW


async def stream_range_out(store: Trove, key: str) -> None:
    bounds = 300 * KiB, 2 * MiB + 10
    async with store.get("bucket", key, range=bounds) as obj:
        assert b"".join([chunk async for chunk in obj]) == NEW[slice(*bounds)]


async def read_ranges(store: Trove) -> None:
    ranges = [(0, 10), (MiB, MiB + 5), (2 * MiB, 2 * MiB + 5)]
    assert await store.get_ranges("bucket", "source", ranges) == [
        NEW[slice(*bounds)] for bounds in ranges
    ]


async def put_path(store: Trove) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(NEW)
        file.flush()
        await store.put("bucket", "key", Path(file.name))


async def put_spilled(store: Trove, chunks: Chunks) -> None:
    with await store.pool.lease(2 * MiB):
        await store.put("bucket", "key", chunks.of(NEW))


# By name: the operation, and the body that it would store as "key" (None: it stores no object).
CALLS: dict[str, tuple[Callable[[Trove, Chunks], Awaitable[object]], bytes | None]] = {
    "put at once": (lambda store, _: store.put("bucket", "key", SMALL), SMALL),
    "put in parts": (lambda store, _: store.put("bucket", "key", NEW), NEW),
    "put a small stream": (
        lambda store, chunks: store.put("bucket", "key", chunks.of(SMALL)),
        SMALL,
    ),
    "put a stream": (lambda store, chunks: store.put("bucket", "key", chunks.of(NEW)), NEW),
    "put a stream of known size": (
        lambda store, chunks: store.put("bucket", "key", chunks.of(NEW), size=len(NEW)),
        NEW,
    ),
    "put a path": (lambda store, _: put_path(store), NEW),
    "put spilled": (put_spilled, NEW),
    "put a get": (
        lambda store, _: store.put("bucket", "key", store.get("bucket", "source")),
        NEW,
    ),
    "get": (lambda store, _: stream_out(store, "source"), None),
    "get a range": (lambda store, _: stream_range_out(store, "source"), None),
    "read": (lambda store, _: store.read("bucket", "source"), None),
    "ranges": (lambda store, _: read_ranges(store), None),
    "copy on the server": (
        lambda store, _: store.copy("bucket", "source", "bucket", "key"),
        NEW,
    ),
    "copy through the client": (
        lambda store, _: store.copy("bucket", "b/source", "bucket", "key"),
        NEW,
    ),
}

FAKES: dict[str, Callable[[], Fake]] = {
    "parallel": lambda: Fake(parallel_parts=2, max_connections=2),
    "one by one": lambda: Fake(parallel_parts=1, max_connections=1),
}

CONSECUTIVE_STEPS = 32
"""Up to this number of loop iterations, a cancel is tested after each one.

After more iterations, most calls only wait for threads, so a cancel is tested less often.
"""

COMBINATIONS = [
    pytest.param(call, stack, kind, id=f"{call}, {stack}, {kind}")
    for call in CALLS
    for stack, kind in (
        ("aes", "parallel"),
        ("aes of small segments", "one by one"),
        ("zstd", "one by one"),
        ("both", "parallel"),
    )
]


class Scene:
    """A store before a call, and the checks after the call was cancelled."""

    def __init__(self, call: str, store: Trove, fakes: tuple[Fake, Fake]) -> None:
        self._run, self.new_body = CALLS[call]
        self.store = store
        self.fakes = fakes
        self.chunks = Chunks()
        self.etags: dict[str, str | None] = {}
        self.before: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        await self._run(self.store, self.chunks)

    async def prepare(self) -> None:
        for fake in self.fakes:
            fake.hang_at = None
        # Restore the objects that the last call changed.
        for key, body in OBJECTS.items():
            if key not in self.etags or self.etags[key] != await self.etag(key):
                self.etags[key] = (await self.store.put("bucket", key, body)).etag
        for fake in self.fakes:
            fake.steps.clear()
            fake.reached.clear()
        self.before = asyncio.all_tasks()

    async def check(self, *, finished: bool) -> None:
        for _ in range(50):  # let the store's tasks that park and revoke readers end
            if not asyncio.all_tasks() - self.before:
                break
            await asyncio.sleep(0)
        assert not asyncio.all_tasks() - self.before
        for fake in self.fakes:
            fake.hang_at = None
        assert_idle(self.store, *self.fakes)
        assert self.chunks.open == 0, "the generator is still open"
        etag = await self.etag("key")
        if etag != self.etags["key"]:
            assert await self.store.read("bucket", "key") == self.new_body, "neither old nor new"
        elif finished:
            assert self.new_body is None
        assert_idle(self.store, *self.fakes)

    async def etag(self, key: str) -> str | None:
        try:
            return (await self.store.head("bucket", key)).etag
        except ObjectNotFoundError:
            return None


@pytest.fixture(autouse=True)
def _abandon_hanging_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "COMMIT_SECONDS", 0.02)


@pytest.mark.parametrize(("call", "stack", "kind"), COMBINATIONS)
async def test_cancel_where_a_driver_hangs_leaves_nothing(call: str, stack: str, kind: str) -> None:
    fakes = FAKES[kind](), FAKES[kind]()
    pool = small_pool(spill_after=0.01)
    async with store_of(*fakes, pool=pool, middleware=STACKS[stack]) as store:
        scene = Scene(call, store, fakes)
        for fake in fakes:
            finished, step = False, 0
            while not finished:
                await scene.prepare()
                fake.hang_at = step
                task = OwnedTask(scene.run())
                reached = OwnedTask(fake.reached.wait())
                await asyncio.wait([task._task, reached._task], return_when="FIRST_COMPLETED")
                finished = task.done
                await reached.aclose()
                await task.aclose()
                if finished:
                    await task.result()
                await scene.check(finished=finished)
                step += 1


@pytest.mark.parametrize(("call", "stack", "kind"), COMBINATIONS)
async def test_cancels_after_a_number_of_loop_iterations_leave_nothing(
    call: str, stack: str, kind: str
) -> None:
    cancels = 3 if kind == "parallel" else 1
    fakes = FAKES[kind](), FAKES[kind]()
    pool = small_pool(spill_after=0.001)
    async with store_of(*fakes, pool=pool, middleware=STACKS[stack]) as store:
        scene = Scene(call, store, fakes)
        finished, steps = False, 0
        while not finished:
            await scene.prepare()
            task = asyncio.get_running_loop().create_task(scene.run())
            for _ in range(steps):
                await asyncio.sleep(0)
                if task.done():
                    break
            finished = task.done()
            for _ in range(cancels):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
            await scene.check(finished=finished)
            steps += 1 if steps < CONSECUTIVE_STEPS else steps // 3
