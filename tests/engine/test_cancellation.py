"""Cancels operations at each step of a driver, and after different numbers of loop iterations."""

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
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trove_async import Trove

OLD = content(300 * KiB, "old")
NEW = content(2 * MiB + 300 * KiB, "new")
SMALL = NEW[: 10 * KiB]
OBJECTS = {"key": OLD, "b/key": OLD, "source": NEW, "b/source": NEW}


async def chunks(body: bytes, size: int = 256 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        await asyncio.sleep(0)
        yield body[at : at + size]


async def stream_out(store: Trove, key: str) -> bytes:
    async with store.get("bucket", key) as obj:
        return b"".join([chunk async for chunk in obj])


async def put_spilled(store: Trove) -> None:
    with await store.pool.lease(2 * MiB):
        await store.put("bucket", "key", chunks(NEW))


async def put_path(store: Trove) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(NEW)
        file.flush()
        await store.put("bucket", "key", Path(file.name))


async def put_blocking_iterator(store: Trove) -> None:
    await store.put("bucket", "key", (NEW[at : at + MiB] for at in range(0, len(NEW), MiB)))


async def delete_two(store: Trove) -> None:
    await store.delete_many("bucket", ["key", "b/key"])


# By name: the operation, and the body that it would store as "key" (None: it stores no object).
CALLS: dict[str, tuple[Callable[[Trove], Awaitable[object]], bytes | None]] = {
    "put at once": (lambda store: store.put("bucket", "key", SMALL), SMALL),
    "put in parts": (lambda store: store.put("bucket", "key", NEW), NEW),
    "put a small stream": (lambda store: store.put("bucket", "key", chunks(SMALL)), SMALL),
    "put a stream": (lambda store: store.put("bucket", "key", chunks(NEW)), NEW),
    "put a stream of known size": (
        lambda store: store.put("bucket", "key", chunks(NEW), size=len(NEW)),
        NEW,
    ),
    "put a path": (put_path, NEW),
    "put a blocking iterator": (put_blocking_iterator, NEW),
    "put spilled": (put_spilled, NEW),
    "put a get": (
        lambda store: store.put("bucket", "key", store.get("bucket", "source")),
        NEW,
    ),
    "get": (lambda store: stream_out(store, "source"), None),
    "read": (lambda store: store.read("bucket", "source"), None),
    "ranges": (
        lambda store: store.get_ranges("bucket", "source", [(0, 10), (MiB, MiB + 5)]),
        None,
    ),
    "copy on the server": (
        lambda store: store.copy("bucket", "source", "bucket", "key"),
        NEW,
    ),
    "copy through the client": (
        lambda store: store.copy("bucket", "b/source", "bucket", "key"),
        NEW,
    ),
    "move on the server": (
        lambda store: store.move("bucket", "source", "bucket", "key"),
        NEW,
    ),
    "move through the client": (
        lambda store: store.move("bucket", "b/source", "bucket", "key"),
        NEW,
    ),
    "list": (lambda store: store.list("bucket").all(), None),
    "delete many": (delete_two, None),
}

FAKES: dict[str, Callable[[], Fake]] = {
    "parallel": lambda: Fake(parallel_parts=2, max_connections=2),
    "one by one": lambda: Fake(parallel_parts=1, max_connections=1),
    "no upload": lambda: Fake(upload=False, server_copy=False, bulk_delete=0),
    "least": lambda: Fake(
        upload=False,
        server_copy=False,
        get_conditions=False,
        delete_if_match=False,
        ranges=False,
        bulk_delete=0,
    ),
}


CONSECUTIVE_STEPS = 64
"""Up to this number of loop iterations, a cancel is tested after each one.

After more iterations, most calls only wait for threads, so a cancel is tested less often.
"""

COMBINATIONS = [
    pytest.param(call, kind, id=f"{call}, {kind}")
    for call in CALLS
    for kind in FAKES
    if (call, kind) != ("ranges", "least")
]


class Scene:
    """A store before a call, and the checks after the call was cancelled."""

    def __init__(self, call: str, store: Trove, fakes: tuple[Fake, Fake]) -> None:
        self._run, self.new_body = CALLS[call]
        self.moves = call.startswith("move")
        self.deletes = call.startswith("delete")
        self.store = store
        self.fakes = fakes
        self.etags: dict[str, str | None] = {}
        self.before: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        await self._run(self.store)

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
        if self.deletes:
            return
        etag = await self.etag("key")
        if etag != self.etags["key"]:
            assert await self.store.read("bucket", "key") == self.new_body, "neither old nor new"
        elif finished:
            assert self.new_body is None
        for key in ("source", "b/source"):
            current_etag = await self.etag(key)
            if current_etag is None:
                assert self.moves
                assert etag != self.etags["key"], "moved to nowhere"
            else:
                assert current_etag == self.etags[key]
        assert_idle(self.store, *self.fakes)

    async def etag(self, key: str) -> str | None:
        try:
            return (await self.store.head("bucket", key)).etag
        except ObjectNotFoundError:
            return None


@pytest.fixture(autouse=True)
def _abandon_hanging_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "COMMIT_SECONDS", 0.02)


@pytest.mark.parametrize(("call", "kind"), COMBINATIONS)
@pytest.mark.parametrize("hanging", [0, 1])
async def test_cancel_where_a_driver_hangs_leaves_nothing(
    call: str, kind: str, hanging: int
) -> None:
    fakes = FAKES[kind](), FAKES[kind]()
    async with store_of(*fakes, pool=small_pool(spill_after=0.01)) as store:
        scene = Scene(call, store, fakes)
        step = 0
        while True:
            await scene.prepare()
            fakes[hanging].hang_at = step
            task = OwnedTask(scene.run())
            reached = OwnedTask(fakes[hanging].reached.wait())
            await asyncio.wait([task._task, reached._task], return_when="FIRST_COMPLETED")
            finished = task.done
            await reached.aclose()
            await task.aclose()
            if finished:
                await task.result()
            await scene.check(finished=finished)
            if finished:
                break
            step += 1
        assert hanging == 1 or step > 0


@pytest.mark.parametrize(("call", "kind"), COMBINATIONS)
async def test_cancel_after_a_number_of_loop_iterations_leaves_nothing(
    call: str, kind: str
) -> None:
    fakes = FAKES[kind](), FAKES[kind]()
    async with store_of(*fakes, pool=small_pool(spill_after=0.001)) as store:
        scene = Scene(call, store, fakes)
        finished, steps = False, 0
        while not finished:
            await scene.prepare()
            task = OwnedTask(scene.run())
            for _ in range(steps):
                await asyncio.sleep(0)
                if task.done:
                    break
            finished = task.done
            await task.aclose()
            if finished:
                await task.result()
            await scene.check(finished=finished)
            steps += 1 if steps < CONSECUTIVE_STEPS else steps // 8


@pytest.mark.parametrize(("call", "kind"), COMBINATIONS)
async def test_repeated_cancels_leave_nothing(call: str, kind: str) -> None:
    fakes = FAKES[kind](), FAKES[kind]()
    async with store_of(*fakes, pool=small_pool(spill_after=0.001)) as store:
        scene = Scene(call, store, fakes)
        finished, steps = False, 0
        while not finished:
            await scene.prepare()
            task = asyncio.get_running_loop().create_task(scene.run())
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = task.done()
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
            await scene.check(finished=finished)
            steps += 1 + steps // 4
