"""A relocation never revives a deleted object, hides a newer one, or loses one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import IMMEDIATE_RETRIES, Fake, WithoutEtags, assert_idle, content, small_pool
from trove_async import (
    ObjectNotFoundError,
    TimedOutError,
    Timeout,
    Trove,
    TroveError,
    UnavailableError,
)
from trove_async._checksums import running_crc32c
from trove_async._engine.key_guard import KeyGuard, MoveInterruptedError
from trove_async._engine.relocation import Relocated, RelocationResult
from trove_async.models import KiB, MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

BODY = content(300 * KiB, "body")
LARGE = content(12 * MiB, "large")


class Remote(Fake):
    """A service of its own kind, whose responses may get lost."""

    def __init__(self, name: str, **capabilities: Any) -> None:
        super().__init__(**{"embedded": False, "exact_keys": True, **capabilities})
        self._name = name

    @property
    def name(self) -> str:
        return self._name


@asynccontextmanager
async def store_of(source: Fake, target: Fake, **arguments: Any) -> AsyncIterator[Trove]:
    """Open a store whose rules send all keys to the target, with an object on the source."""
    async with Trove(
        source,
        backends={"new": target},
        routes=[("**", "new")],
        locate="anywhere",
        pool=small_pool(),
        retry=IMMEDIATE_RETRIES,
        **arguments,
    ) as store:
        await store.create_bucket("bucket", backends="all")
        await store.backend("default").put("bucket", "key", BODY, metadata={"n": "1"})
        source.steps.clear()
        target.steps.clear()
        yield store


async def relocate(store: Trove, **options: Any) -> RelocationResult:
    return await store._objects.job_steps.relocate(
        "bucket", "key", **{"source": "default", "target": "new", "size": len(BODY), **options}
    )


def put_directly(driver: Fake, body: bytes) -> Callable[[], Awaitable[object]]:
    """Return a function that puts the object as another process does, without a step."""

    async def put() -> None:
        driver._store("bucket", "key", (body,), running_crc32c([body]), PutOptions(write_id="x-1"))

    return put


def delete_directly(driver: Fake) -> Callable[[], Awaitable[object]]:
    async def delete() -> None:
        contents = driver._buckets["bucket"]
        if "key" in contents.objects:
            contents.remove("key")

    return delete


PAIRS: dict[str, Callable[[], tuple[Fake, Fake]]] = {
    "embedded": lambda: (Fake(), Fake()),
    "remote": lambda: (Remote("one"), Remote("other")),
    "without conditional delete": lambda: (
        Fake(delete_if_match=False),
        Fake(delete_if_match=False),
    ),
    "without conditional put": lambda: (
        Fake(),
        Fake(put_if_none_match=False, put_if_match=False),
    ),
    "without etags": lambda: (WithoutEtags(), WithoutEtags()),
}


@pytest.mark.parametrize("pair", PAIRS)
async def test_object_is_moved(pair: str) -> None:
    source, target = PAIRS[pair]()
    async with store_of(source, target) as store:
        assert await relocate(store) == RelocationResult(Relocated.MOVED, len(BODY))
        assert (source.stored_keys("bucket"), target.stored_keys("bucket")) == ([], ["key"])
        assert (await store.head("bucket", "key")).metadata == {"n": "1"}
        assert_idle(store, source, target)


@pytest.mark.parametrize("pair", PAIRS)
async def test_source_that_is_deleted_after_the_copy_is_not_revived(pair: str) -> None:
    source, target = PAIRS[pair]()
    async with store_of(source, target) as store:
        target.before["put.done"] = delete_directly(source)
        result = await relocate(store)
        assert result.result is Relocated.CHANGED
        # Without conditional puts, the copy may have replaced that of another run, so it stays.
        left = ["key"] if pair == "without conditional put" else []
        assert (source.stored_keys("bucket"), target.stored_keys("bucket")) == ([], left)


@pytest.mark.parametrize("pair", PAIRS)
async def test_source_that_is_replaced_after_the_copy_is_not_hidden(pair: str) -> None:
    source, target = PAIRS[pair]()
    async with store_of(source, target) as store:
        target.before["put.done"] = put_directly(source, b"newer")
        result = await relocate(store)
        assert result.result is Relocated.CHANGED
        assert target.stored_keys("bucket") == []
        assert await store.read("bucket", "key") == b"newer"


@pytest.mark.parametrize("pair", ["embedded", "remote"])
async def test_object_that_another_process_puts_at_the_destination_wins(pair: str) -> None:
    source, target = PAIRS[pair]()
    async with store_of(source, target) as store:
        target.before["put"] = put_directly(target, b"newer")
        result = await relocate(store)
        assert result.result is Relocated.CONFLICT
        assert await store.read("bucket", "key") == b"newer"
        assert source.stored_keys("bucket") == ["key"]


@pytest.mark.parametrize("pair", PAIRS)
async def test_kept_source_is_checked_as_well(pair: str) -> None:
    source, target = PAIRS[pair]()
    async with store_of(source, target) as store:
        target.before["put.done"] = delete_directly(source)
        assert (await relocate(store, keep_source=True)).result is Relocated.CHANGED
        if pair == "without conditional put":
            return  # as above
        assert target.stored_keys("bucket") == []
        del target.before["put.done"]
        await put_directly(source, BODY)()
        assert (await relocate(store, keep_source=True)).result is Relocated.MOVED
        assert source.stored_keys("bucket") == target.stored_keys("bucket") == ["key"]


async def test_missing_source_is_gone() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        await store.delete("bucket", "key")
        assert (await relocate(store)).result is Relocated.GONE


async def test_deletion_whose_response_was_lost_loses_nothing() -> None:
    source, target = Remote("one"), Remote("other")
    async with store_of(source, target) as store:
        source.fail("delete.done", UnavailableError("lost"))
        assert (await relocate(store)).result is Relocated.MOVED
        assert await store.read("bucket", "key") == BODY


async def test_copy_whose_outcome_stays_unknown_leaves_the_source() -> None:
    source, target = Remote("one"), Remote("other")
    async with store_of(source, target) as store:
        target.fail("put.done", *[UnavailableError("lost")] * 10)
        target.fail("head", *[UnavailableError("down")] * 40)
        with pytest.raises(UnavailableError):
            await relocate(store)
        assert source.stored_keys("bucket") == ["key"]
        target._faults.clear()
        assert await store.read("bucket", "key") == BODY
        assert (await relocate(store)).result is Relocated.SAME  # the next run finds the copy
        assert source.stored_keys("bucket") == []


async def test_failing_deletion_leaves_both() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        source.fail("delete", *[UnavailableError("down")] * 10)
        with pytest.raises(UnavailableError):
            await relocate(store)
        assert await store.read("bucket", "key") == BODY
        assert source.stored_keys("bucket") == ["key"]


async def test_hidden_object_at_the_destination_is_replaced_only_if_asked() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        await store.backend("new").put("bucket", "key", b"stale")
        assert (await relocate(store)).result is Relocated.CONFLICT
        assert (await relocate(store, replace=True)).result is Relocated.MOVED
        assert await store.read("bucket", "key") == BODY


@pytest.mark.parametrize("size", ["small", "large"])
async def test_cancel_at_each_step_keeps_the_object_readable(size: str) -> None:
    body = BODY if size == "small" else LARGE
    step = 0
    while True:
        source, target = Fake(), Fake()
        async with store_of(source, target) as store:
            await store.backend("default").put("bucket", "key", body)
            hanging = target if step % 2 else source
            hanging.steps.clear()
            hanging.hang_at = step // 2
            async with asyncio.TaskGroup() as group:
                task = group.create_task(relocate(store, size=len(body)))
                reached = group.create_task(hanging.reached.wait())
                await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
                reached.cancel()
                hanging.hang_at = None
                release = hanging._never
                task.cancel()
                await asyncio.sleep(0)
                if release is not None and not release.done():
                    release.set_result(None)
            assert await store.read("bucket", "key") == body
            holders = [source.stored_keys("bucket"), target.stored_keys("bucket")]
            assert holders in ([["key"], []], [[], ["key"]]), (step, holders)
            assert_idle(store, source, target)
            ended = not task.cancelled()
        step += 1
        if ended and step > 30:
            return
        assert step < 200


# -- users' writes --------------------------------------------------------------------------------


async def write_by(operation: str, store: Trove) -> None:
    if operation == "put":
        await store.put("bucket", "key", b"newer")
    elif operation == "delete":
        await store.delete("bucket", "key")
    elif operation == "delete_many":
        await store.delete_many("bucket", ["key"])
    elif operation == "copy":
        await store.copy("bucket", "other", "bucket", "key")
    else:
        await store.move("bucket", "key", "bucket", "elsewhere")


@pytest.mark.parametrize("write", ["put", "delete", "delete_many", "move", "copy"])
@pytest.mark.parametrize("at", ["get", "put", "put.done", "head", "delete", "delete.done"])
async def test_users_write_interrupts_the_move_of_its_key(write: str, at: str) -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        await store.put("bucket", "other", b"other")
        fake = target if at.startswith("put") else source
        reached, release = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await release.wait()

        fake.before[at] = wait
        results: list[object] = []

        async def run() -> None:
            try:
                results.append((await relocate(store)).result)
            except MoveInterruptedError:
                results.append("interrupted")

        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            await reached.wait()
            writing = group.create_task(write_by(write, store))
            for _ in range(10):
                await asyncio.sleep(0)
            fake.before.pop(at)
            release.set()
            await writing
        assert len(results) == 1
        expected = {"put": b"newer", "copy": b"other"}.get(write)
        if expected is not None:
            assert await store.read("bucket", "key") == expected
        else:
            with pytest.raises(ObjectNotFoundError):
                await store.read("bucket", "key")
            assert "key" not in source.stored_keys("bucket") + target.stored_keys("bucket")
        if write == "move":
            assert await store.read("bucket", "elsewhere") == BODY
        assert_idle(store, source, target)


@pytest.mark.idle_time
@pytest.mark.parametrize("total", [3, None])
@pytest.mark.parametrize("write", ["put", "delete", "delete_many", "move", "copy"])
async def test_users_write_waits_for_a_hanging_move_until_its_deadline(
    write: str, total: float | None
) -> None:
    source, target = Fake(), Fake()
    clock = asyncio.get_running_loop().time
    async with store_of(source, target, timeout=Timeout(total=total)) as store:
        await store.put("bucket", "other", b"other")
        reached = source.hang("delete")
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(ended(relocate(store)))
            await reached.wait()
            del source.before["delete"]  # the deletion hangs, but no later one
            started = clock()
            if total is None:
                await write_by(write, store)
                assert clock() - started < 30
            else:
                with pytest.raises(TimedOutError):
                    await write_by(write, store)
                assert clock() - started < 4
            await moving
        assert_idle(store, source, target)


async def ended(work: Awaitable[object]) -> None:
    with suppress(TroveError, MoveInterruptedError):
        await work


async def test_move_does_not_start_during_a_write_of_its_key() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        reached = target.hang("put")
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(store.put("bucket", "key", b"newer"))
            await reached.wait()
            with pytest.raises(MoveInterruptedError):
                await relocate(store)
            writing.cancel()
        assert source.stored_keys("bucket") == ["key"]


async def test_guard_forgets_keys_that_are_no_longer_used() -> None:
    guard = KeyGuard()
    async with guard.writing([("b", "k"), ("b", "l")]), guard.writing([("b", "k")]):
        assert len(guard._writes) == 2
        with pytest.raises(MoveInterruptedError), guard.moving(("b", "k")):
            pass
    with (
        guard.moving(("b", "k")),
        pytest.raises(MoveInterruptedError),
        guard.moving(("b", "k")),
    ):
        pass
    assert not guard._writes
    assert not guard.moves


async def test_cancel_of_the_job_is_not_taken_for_an_interruption() -> None:
    guard = KeyGuard()
    entered = asyncio.Event()

    async def move() -> None:
        with guard.moving(("b", "k")):
            entered.set()
            await asyncio.Event().wait()

    async def write() -> None:
        async with guard.writing([("b", "k")]):
            pass

    for with_write in (False, True):
        entered.clear()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(move())
            await entered.wait()
            if with_write:
                group.create_task(write())
                await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
