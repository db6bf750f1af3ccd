"""A put cancelled during its commit waits for the commit before it raises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.concurrency.steps import let_tasks_run
from tests.fakes import LARGE, Fake, assert_idle, store_of
from trove_async import ClosedError, PermissionDeniedError, TimedOutError, Timeout, UnavailableError
from trove_async._concurrency import OwnedTask
from trove_async._resilience import upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async import Trove

OLD = b"old"


class HeldCommit:
    """Makes a fake's commit wait at a step for `release`, and then raise `error` if it is set.

    Attributes:
        reached: Set when the commit is at the step.
    """

    def __init__(self, fake: Fake, step: str) -> None:
        self.reached, self.release = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        fake.before[step] = self.wait

    async def wait(self) -> None:
        self.reached.set()
        await self.release.wait()
        if self.error is not None:
            raise self.error


async def chunks() -> AsyncIterator[bytes]:
    yield LARGE


@pytest.fixture(params=["commit", "commit.done"])
def step(request: pytest.FixtureRequest) -> str:
    """The step at which a commit is held: before or after its work."""
    return str(request.param)


async def start_put(store: Trove, commit: HeldCommit) -> asyncio.Task[object]:
    """Start a put, and return its task once the commit is in flight."""
    put = OwnedTask(store.put("bucket", "key", chunks()))
    await commit.reached.wait()
    return put._task


async def test_put_cancelled_during_its_commit_stores_the_object_and_raises(step: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        commit = HeldCommit(fake, step)
        put = await start_put(store, commit)
        for _ in range(3):
            put.cancel()
            await let_tasks_run(20)
        assert not put.done()
        assert fake.open_uploads == 1, "the upload was aborted during its commit"
        commit.release.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert await store.read("bucket", "key") == LARGE
        assert_idle(store, fake)


async def test_put_whose_scope_is_cancelled_during_its_commit_stores_the_object(step: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        commit = HeldCommit(fake, step)
        with anyio.CancelScope() as scope:
            loop = asyncio.get_running_loop()

            async def cancel() -> None:
                await commit.reached.wait()
                scope.cancel()
                loop.call_later(0.02, commit.release.set)

            cancelling = OwnedTask(cancel())
            await store.put("bucket", "key", LARGE)
        assert scope.cancelled_caught
        await cancelling.result()
        assert await store.read("bucket", "key") == LARGE
        assert_idle(store, fake)


async def test_put_that_times_out_during_its_commit_stores_the_object(step: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        commit = HeldCommit(fake, step)
        store._core.timeout = Timeout(total=0.05)
        put = await start_put(store, commit)
        while not put.cancelling():
            await asyncio.sleep(0)
        await let_tasks_run(20)
        assert not put.done()
        commit.release.set()
        with pytest.raises(TimedOutError):
            await put
        store._core.timeout = Timeout()
        assert await store.read("bucket", "key") == LARGE
        assert_idle(store, fake)


async def test_put_whose_store_closes_during_its_commit_stores_the_object(step: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        commit = HeldCommit(fake, step)
        put = await start_put(store, commit)
        closing = OwnedTask(store.aclose())
        await let_tasks_run(20)
        assert not closing.done
        commit.release.set()
        with pytest.raises(ClosedError):
            await put
        await closing.result()
    assert fake._object("bucket", "key").info.size == len(LARGE)


@pytest.mark.parametrize("error", [PermissionDeniedError("no"), UnavailableError("not now")])
async def test_cancelled_put_whose_commit_fails_is_aborted_and_not_retried(
    error: Exception,
) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        commit = HeldCommit(fake, "commit")
        commit.error = error
        put = await start_put(store, commit)
        put.cancel()
        await let_tasks_run(20)
        commit.release.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert fake.count("commit") == 1
        assert await store.read("bucket", "key") == OLD
        assert_idle(store, fake)


async def test_cancelled_put_abandons_a_commit_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "COMMIT_SECONDS", 0.01)
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        put = await start_put(store, HeldCommit(fake, "commit"))
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert await store.read("bucket", "key") == OLD
        assert_idle(store, fake)
