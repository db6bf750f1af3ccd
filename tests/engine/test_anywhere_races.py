"""``locate="anywhere"`` while objects are moved: between the requests of a search, and around a deletion."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, Sparse, assert_idle, fill, single_attempt_store
from trove_async import ObjectNotFoundError, Trove, UnavailableError
from trove_async._concurrency import OwnedTask, task_group
from trove_async.options import DeleteOptions, GetOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = "app.log"


class Signing(CallLog):
    def __init__(self) -> None:
        super().__init__(presign=True)

    async def presign(self, method: str, *_: Any) -> str:
        return f"{method} {id(self)}"


def anywhere(default: Any, cold: Any, archive: Any = None) -> Trove:
    """Return a store that routes the key to the second backend."""
    backends = {"cold": cold} if archive is None else {"cold": cold, "archive": archive}
    return single_attempt_store(
        default, backends=backends, routes=[("*.log", "cold")], locate="anywhere"
    )


async def drivers_with(*keys: str, on: str, kind: Any = CallLog) -> tuple[Any, Any]:
    default, cold = kind(), kind()
    for name, driver in (("default", default), ("cold", cold)):
        await fill(driver, "data", *(keys if name == on else ()))
    return default, cold


async def move(source: Any, target: Any) -> None:
    """Move the object as a different process would."""
    async with source.get("data", KEY, GetOptions()) as reader:
        body = await reader.read(1000)
    await target.put("data", KEY, [memoryview(body)], PutOptions())
    await source.delete("data", KEY, DeleteOptions())


def once(driver: Any, step: str, action: Callable[[], Awaitable[object]]) -> None:
    """Run an action before the next request of a kind."""

    async def run() -> None:
        del driver.before[step]
        await action()

    driver.before[step] = run


def check_placement(store: Trove) -> None:
    placement = store._core.placement
    assert placement is not None
    assert not placement._held
    assert not placement._watches


SEARCHES: dict[str, tuple[str, Callable[[Trove], Awaitable[object]], object]] = {
    "read": ("get", lambda store: store.read("data", KEY), b"app.log"),
    "range": ("get", lambda store: store.read("data", KEY, range=(4, 7)), b"log"),
    "get_ranges": ("head", lambda store: store.get_ranges("data", KEY, [(4, 7)]), [b"log"]),
    "exists": ("head", lambda store: store.exists("data", KEY), True),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_object_that_is_moved_between_two_requests_is_found(name: str) -> None:
    step, search, expected = SEARCHES[name]
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        once(default, step, lambda: move(default, cold))
        assert await search(store) == expected
        check_placement(store)


@pytest.mark.parametrize("name", SEARCHES)
async def test_object_that_is_moved_back_between_two_requests_is_found(name: str) -> None:
    step, search, expected = SEARCHES[name]
    default, cold = await drivers_with(KEY, on="cold")
    async with anywhere(default, cold) as store:
        once(cold, step, lambda: move(cold, default))
        assert await search(store) == expected


@pytest.mark.parametrize("source", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("moment", [0, 1, 2])
async def test_object_is_found_whichever_way_and_whenever_it_is_moved(
    source: int, target: int, moment: int
) -> None:
    drivers = [CallLog(), CallLog(), CallLog()]
    for index, driver in enumerate(drivers):
        await fill(driver, "data", *([KEY] if index == source else []))
    async with anywhere(*drivers) as store:
        if source != target:
            once(drivers[moment], "get", lambda: move(drivers[source], drivers[target]))
        assert await store.read("data", KEY) == b"app.log"


async def test_object_that_this_store_moves_twice_during_a_search_is_found() -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        away = store.backend("default")

        async def move_home() -> None:
            await store.move("data", KEY, "data", KEY)
            once(cold, "head", move_away)

        async def move_away() -> None:
            await away.move("data", KEY, "data", KEY, source_backend="cold")

        once(default, "head", move_home)
        # The first head of the default backend is that of the search, not of the move.
        assert await store.exists("data", KEY)
        check_placement(store)


async def test_object_whose_third_move_is_in_progress_during_a_search_is_found() -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:

        async def move_home() -> None:
            await store.move("data", KEY, "data", KEY)
            once(cold, "head", move_away)

        async def move_away() -> None:
            await store.backend("default").move("data", KEY, "data", KEY, source_backend="cold")
            once(default, "head", lambda: move(default, cold))  # of which the search is not told

        once(default, "head", move_home)
        assert await store.exists("data", KEY)
        check_placement(store)


@pytest.mark.parametrize("outcome", ["cancelled", "lost"])
async def test_search_is_told_of_moves_that_fail_after_they_have_deleted_the_source(
    outcome: str,
) -> None:
    default, cold = await drivers_with(KEY, on="default")

    async def move_from(source: Any, start: Callable[[], Awaitable[object]]) -> None:
        async def fail() -> None:
            if outcome == "cancelled":
                moving.cancel()
                await asyncio.sleep(0)
            raise UnavailableError("the response was lost")

        once(source, "delete.done", fail)
        moving = asyncio.get_running_loop().create_task(_run(start))
        with suppress(asyncio.CancelledError, UnavailableError):
            await moving

    async with anywhere(default, cold) as store:

        async def move_home() -> None:
            await move_from(default, lambda: store.move("data", KEY, "data", KEY))
            once(cold, "head", move_away)

        async def move_away() -> None:
            await move_from(
                cold,
                lambda: store.backend("default").move(
                    "data", KEY, "data", KEY, source_backend="cold"
                ),
            )

        once(default, "head", move_home)
        assert await store.exists("data", KEY)
        assert default.stored_keys("data") == [KEY]


async def _run(start: Callable[[], Awaitable[object]]) -> None:
    await start()


@pytest.mark.parametrize("cancels", [1, 2])
async def test_cancel_while_a_hidden_object_is_closed_leaves_no_reader(cancels: int) -> None:
    default, cold = await drivers_with(KEY, on="default")
    archive = CallLog()
    await fill(archive, "data")
    async with anywhere(default, cold, archive) as store:
        await store.backend("archive").put("data", KEY, b"hidden")
        closing = asyncio.Event()

        async def hang() -> None:
            closing.set()
            await asyncio.sleep(0.05)

        once(default, "get", lambda: store.move("data", KEY, "data", KEY))
        once(archive, "get.exit", hang)
        reading = asyncio.get_running_loop().create_task(store.read("data", KEY))
        await closing.wait()
        for _ in range(cancels):
            reading.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert [one.open_readers for one in (default, cold, archive)] == [0, 0, 0]
        check_placement(store)


async def test_hidden_object_that_a_get_has_opened_is_closed() -> None:
    default, cold = await drivers_with(KEY, on="default")
    archive = CallLog()
    await fill(archive, "data")
    async with anywhere(default, cold, archive) as store:
        await store.backend("archive").put("data", KEY, b"hidden")
        once(default, "get", lambda: store.move("data", KEY, "data", KEY))
        async with store.get("data", KEY) as reader:
            assert await reader.read() == KEY.encode()
            assert archive.open_readers == 0
        assert [one.open_readers for one in (default, cold, archive)] == [0, 0, 0]


async def test_object_that_is_moved_to_and_fro_is_not_taken_for_the_one_that_it_hides() -> None:
    default, cold = await drivers_with(KEY, on="default")
    archive = CallLog()
    await fill(archive, "data")
    async with anywhere(default, cold, archive) as store:
        await store.backend("archive").put("data", KEY, b"hidden")

        async def move_home() -> None:
            await store.move("data", KEY, "data", KEY)
            once(archive, "head", move_away)

        async def move_away() -> None:
            await store.backend("default").move("data", KEY, "data", KEY, source_backend="cold")
            once(default, "head", lambda: store.move("data", KEY, "data", KEY))

        once(default, "head", move_home)
        # The search misses it on both backends, twice each, and finds the hidden one in between.
        assert (await store.head("data", KEY)).size == len(KEY)
        check_placement(store)


async def test_object_that_disappears_while_its_ranges_are_read_is_looked_for_again() -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        once(default, "get", lambda: move(default, cold))
        assert await store.get_ranges("data", KEY, [(0, 3)]) == [b"app"]


async def test_object_that_is_deleted_during_a_search_is_missing() -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        once(default, "get", lambda: default.delete("data", KEY, DeleteOptions()))
        with pytest.raises(ObjectNotFoundError):
            await store.get_ranges("data", KEY, [(0, 3)])


@pytest.mark.parametrize(("name", "step"), [("copy", "copy"), ("copy.log", "get")])
async def test_copy_looks_for_a_source_again_that_was_moved(name: str, step: str) -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        once(default, step, lambda: move(default, cold))
        await store.copy("data", KEY, "data", name)
        assert KEY not in default.stored_keys("data")
        assert await store.read("data", name) == b"app.log"


async def test_url_of_an_object_that_is_moved() -> None:
    default, cold = await drivers_with(KEY, on="default", kind=Signing)
    async with anywhere(default, cold) as store:
        once(default, "head", lambda: move(default, cold))
        assert await store.presign_get("data", KEY) == f"GET {id(cold)}"


async def test_object_that_is_moved_after_it_was_listed_is_described() -> None:
    default, cold = await drivers_with(KEY, "b.log", on="default", kind=Sparse)
    async with anywhere(default, cold) as store:
        listing = store.list("data", details=True)
        once(default, "head", lambda: move(default, cold))
        listed = [(info.key, info.backend, info.complete) async for info in listing]
        assert listed == [(KEY, "cold", True), ("b.log", "default", True)]
        once(cold, "head", lambda: cold.delete("data", KEY, DeleteOptions()))
        listed = [
            (info.key, info.backend, info.complete)
            async for info in store.list("data", details=True)
        ]
        assert listed == [("b.log", "default", True)]


# -- deletions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["get", "put", "put.done", "head", "delete"])
@pytest.mark.parametrize("bulk", [False, True])
async def test_deletion_waits_for_a_move_of_the_object(*, step: str, bulk: bool) -> None:
    default, cold = await drivers_with(KEY, "other.log", on="default")
    async with anywhere(default, cold) as store:
        driver = cold if step.startswith("put") else default
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            del driver.before[step]
            reached.set()
            await go_on.wait()

        driver.before[step] = wait
        deleted = asyncio.Event()

        async def delete() -> None:
            if bulk:
                await store.delete_many("data", ["other.log", KEY, KEY])
            else:
                await store.delete("data", KEY)
            deleted.set()

        async with task_group() as group:
            group.start_soon(store.move, "data", KEY, "data", KEY)
            await reached.wait()
            group.start_soon(delete)
            for _ in range(50):
                await asyncio.sleep(0)
            assert not deleted.is_set()
            go_on.set()
        assert (default.stored_keys("data"), cold.stored_keys("data")) == (
            [] if bulk else ["other.log"],
            [],
        )
        check_placement(store)


async def test_deletions_of_overlapping_keys_do_not_wait_for_each_other_forever() -> None:
    keys = [f"{number}.log" for number in range(20)]
    default, cold = await drivers_with(*keys, on="default")
    async with anywhere(default, cold) as store:

        async def delete(turn: int) -> None:
            await store.delete_many("data", keys if turn % 2 else keys[::-1])

        async with task_group() as group:
            for turn in range(5):
                group.start_soon(delete, turn)
                group.start_soon(store.delete, "data", keys[turn])
        assert default.stored_keys("data") == []
        check_placement(store)


async def test_cancelled_wait_holds_nothing() -> None:
    default, cold = await drivers_with(KEY, on="default")
    async with anywhere(default, cold) as store:
        reached = cold.hang("put")
        moving = OwnedTask(store.move("data", KEY, "data", KEY))
        await reached.wait()
        waiting = OwnedTask(store.delete("data", KEY))
        for _ in range(5):
            await asyncio.sleep(0)
        await waiting.aclose()
        await moving.aclose()
        check_placement(store)
        cold.before.clear()
        await store.delete("data", KEY)
        assert not await store.exists("data", KEY)


async def delete_two(store: Trove) -> None:
    await store.delete_many("data", ["other.log", "none.log"])


CALLS: dict[str, Callable[[Trove], Awaitable[object]]] = {
    "read": lambda store: store.read("data", KEY),
    "miss": lambda store: store.exists("data", "none.log"),
    "get_ranges": lambda store: store.get_ranges("data", KEY, [(0, 1)]),
    "move home": lambda store: store.move("data", KEY, "data", KEY),
    "copy": lambda store: store.copy("data", KEY, "data", "copy"),
    "put": lambda store: store.put("data", "new.log", b"", if_none_match="*"),
    "delete": lambda store: store.delete("data", "other.log"),
    "delete_many": delete_two,
    "list": lambda store: store.list("data").all(),
    "misplaced": lambda store: store.misplaced("data").all(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("where", [0, 1])
async def test_cancel_at_any_step_leaves_the_object_and_holds_nothing(
    name: str, where: int
) -> None:
    ended = False
    step = 0
    while not ended:
        drivers = await drivers_with(KEY, "other.log", on="default")
        async with anywhere(*drivers) as store:
            hanging = drivers[where]
            hanging.steps.clear()
            hanging.hang_at = step

            async def call(store: Trove = store, hanging: CallLog = hanging) -> None:
                nonlocal ended
                await CALLS[name](store)
                ended = True
                hanging.reached.set()

            task = OwnedTask(call())
            await hanging.reached.wait()
            await task.aclose()
            hanging.hang_at = None
            check_placement(store)
            assert_idle(store, *drivers)
            assert await store.read("data", KEY) == b"app.log"
        step += 1
    assert step > 1
