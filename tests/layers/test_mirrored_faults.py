"""`Mirrored` with failures and cancels at every step, and random schedules against a model."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, content
from tests.layers.mirroring import (
    assert_nothing_held,
    contents,
    differences,
    finish_replicas,
    of_kind,
    repair_all,
    replicated,
    store_with,
    write_to,
)
from trove_async import BufferPool
from trove_async._concurrency import OwnedTask, task_group
from trove_async._resilience import upload
from trove_async.errors import (
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import Mirrored
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from trove_async import Event, Trove

OLD = content(300 * KiB, "old")
NEW = content(2 * MiB + 300 * KiB, "new")
SMALL = NEW[: 10 * KiB]


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 256 * KiB):
        await asyncio.sleep(0)
        yield body[at : at + 256 * KiB]


async def delete_many(store: Trove) -> None:
    await store.delete_many("bucket", ["key"])


# By name: the call, and what it makes of "key"; None: the object is deleted.
CALLS: dict[str, tuple[Callable[[Trove], Coroutine[Any, Any, object]], bytes | None]] = {
    "put": (lambda store: store.put("bucket", "key", SMALL), SMALL),
    "put in parts": (lambda store: store.put("bucket", "key", NEW), NEW),
    "put a stream": (lambda store: store.put("bucket", "key", chunks(NEW)), NEW),
    "copy": (lambda store: store.copy("bucket", "source", "bucket", "key"), NEW),
    "delete": (lambda store: store.delete("bucket", "key"), None),
    "delete many": (delete_many, None),
}

ACKNOWLEDGE: list[Any] = ["all", "primary", 2]


def pool() -> BufferPool:
    return BufferPool(8 * MiB, 1 * MiB, spill_after=0.01)


async def prepare(store: Trove, *fakes: Fake) -> None:
    """Give all members the same two objects."""
    for fake in fakes:
        fake.hang_at = None
    await finish_replicas(store)
    for key, body in (("key", OLD), ("source", NEW)):
        for fake in fakes:
            await write_to(fake, key, body, write_id=f"{key}-1")
    assert await differences(store) == {}
    for fake in fakes:
        fake.steps.clear()
        fake.reached.clear()


async def check_members(fakes: tuple[Fake, ...], new: bytes | None) -> bool:
    """Check that each member has the old or the new object, and no replica what the primary lacks.

    Return whether the primary has the new one.
    """
    primary, *replicas = [(await contents(fake)).get("key") for fake in fakes]
    assert primary in {OLD, new}
    for replica in replicas:
        assert replica in {OLD, new}
        assert replica == OLD or primary == new, "a replica is ahead of the primary"
    return primary == new


@pytest.mark.parametrize("acknowledge", ACKNOWLEDGE)
@pytest.mark.parametrize("call", CALLS)
async def test_replica_that_fails_at_each_step_is_reported_and_repaired(
    call: str, acknowledge: Any
) -> None:
    run, new = CALLS[call]
    fakes = Fake(), Fake(), Fake()
    async with store_with(Mirrored(*fakes, acknowledge=acknowledge), pool=pool()) as (
        store,
        events,
    ):
        step, failed = 0, 0
        while True:
            await prepare(store, *fakes)
            events.clear()
            error: TroveError | None = None
            result: Any = None
            original = fakes[1].step

            async def step_or_fail(
                name: str, driver_call: Any = None, *, at: int = step, step: Any = original
            ) -> None:
                index = len(fakes[1].steps)
                await step(name, driver_call)
                if index == at and not name.endswith(".exit"):
                    raise UnavailableError("the replica fails")

            fakes[1].step = step_or_fail  # type: ignore[method-assign,assignment]  # until it is reset
            try:
                result = await run(store)
            except UnavailableError as failure:
                error = failure
            await finish_replicas(store)
            for _ in range(10):
                await asyncio.sleep(0)
            fakes[1].step = original  # type: ignore[method-assign]  # see above
            reached = len(fakes[1].steps) > step
            # 1. The error or the report describes what happened.
            is_new = await check_members(fakes, new)
            assert_nothing_held(store, *fakes)
            missed = {member for _, _, member in of_kind(events, "missed")}
            found = await differences(store)
            assert set(found.get("key", {})) <= missed, "a replica has missed it unreported"
            assert set(found) <= {"key"}
            if error is not None:
                assert acknowledge == "all"
                assert error.maybe_done == is_new
                assert ("primary has" in str(error)) == is_new
            else:
                assert is_new
                named = getattr(result, "missed_replicas", ())
                assert set(named) <= missed
            # 2. A repair makes the members equal.
            await repair_all(store)
            assert len({str(sorted((await contents(fake)).items())) for fake in fakes}) == 1
            assert_nothing_held(store, *fakes)
            failed += error is not None
            if not reached:
                break
            step += 1
        assert step > 0
        assert failed > 0 or acknowledge != "all"


@pytest.fixture(autouse=True)
def _abandon_hanging_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "COMMIT_SECONDS", 0.02)


@pytest.mark.parametrize("acknowledge", ["all", "primary"])
@pytest.mark.parametrize("hanging", [0, 1])
@pytest.mark.parametrize("call", CALLS)
async def test_cancel_where_a_member_hangs_leaves_nothing(
    call: str, hanging: int, acknowledge: Any
) -> None:
    run, new = CALLS[call]
    fakes = Fake(), Fake()
    async with store_with(Mirrored(*fakes, acknowledge=acknowledge), pool=pool()) as (
        store,
        events,
    ):
        step = 0
        while True:
            await prepare(store, *fakes)
            events.clear()
            before = asyncio.all_tasks()
            fakes[hanging].hang_at = step
            task = OwnedTask(run(store))
            reached = OwnedTask(fakes[hanging].reached.wait())
            await asyncio.wait([task._task, reached._task], return_when="FIRST_COMPLETED")
            finished = task.done
            await reached.aclose()
            await task.aclose()
            fakes[hanging].hang_at = None
            never, fakes[hanging]._never = fakes[hanging]._never, None
            if never is not None:
                never.cancel()  # ends what hangs in the background
            await finish_replicas(store)
            for _ in range(50):
                if not asyncio.all_tasks() - before:
                    break
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
            assert_nothing_held(store, *fakes)
            await check_members(fakes, new)
            if await differences(store):
                assert of_kind(events, "missed") != []
            await repair_all(store)
            if finished and not fakes[hanging].reached.is_set():
                break
            step += 1
        assert step > 0


@pytest.mark.parametrize("acknowledge", ["all", "primary"])
@pytest.mark.parametrize("call", CALLS)
async def test_cancel_after_a_number_of_loop_iterations_leaves_nothing(
    call: str, acknowledge: Any
) -> None:
    run, new = CALLS[call]
    fakes = Fake(), Fake()
    async with store_with(Mirrored(*fakes, acknowledge=acknowledge), pool=pool()) as (
        store,
        events,
    ):
        finished, steps = False, 0
        while not finished:
            await prepare(store, *fakes)
            events.clear()
            before = asyncio.all_tasks()
            task = OwnedTask(run(store))
            for _ in range(steps):
                await asyncio.sleep(0)
                if task.done:
                    break
            finished = task.done
            await task.aclose()
            await finish_replicas(store)
            for _ in range(50):
                if not asyncio.all_tasks() - before:
                    break
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
            assert_nothing_held(store, *fakes)
            await check_members(fakes, new)
            if await differences(store):
                assert of_kind(events, "missed") != []
            await repair_all(store)
            steps += 1 if steps < 64 else steps // 8


@pytest.mark.parametrize("hanging", [0, 1])
async def test_cancelled_repair_leaves_the_old_or_the_repaired_object(hanging: int) -> None:
    for body in (SMALL, NEW):
        fakes = Fake(), Fake()
        async with store_with(Mirrored(*fakes), pool=pool()) as (store, _):
            step = 0
            while True:
                await prepare(store, *fakes)
                await write_to(fakes[0], "key", body, write_id="key-2")
                for fake in fakes:
                    fake.steps.clear()
                fakes[hanging].hang_at = step
                task = OwnedTask(replicated(store).repair("bucket", "key"))
                reached = OwnedTask(fakes[hanging].reached.wait())
                await asyncio.wait([task._task, reached._task], return_when="FIRST_COMPLETED")
                finished = task.done
                await reached.aclose()
                await task.aclose()
                fakes[hanging].hang_at = None
                fakes[hanging]._never = None
                for _ in range(5):
                    await asyncio.sleep(0)
                assert_nothing_held(store, *fakes)
                assert (await contents(fakes[1]))["key"] in {OLD, body}
                if finished:
                    assert (await contents(fakes[1]))["key"] == body
                    break
                step += 1
            assert step > 2


# -- random schedules ----------------------------------------------------------------------------------

FAILING = ["put", "upload", "send", "commit", "delete", "copy", "head", "get"]
KEYS = ["a", "b", "c"]


class Schedule:
    """Random calls of a store, failures of its members, and the bodies that each key may have."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.fakes = tuple(Fake() for _ in range(rng.choice([2, 3])))
        self.acknowledge: Any = rng.choice(ACKNOWLEDGE)
        self.possible: dict[str, set[bytes | None]] = {key: {None} for key in KEYS}
        self.events: list[Event] = []

    async def act(self, store: Trove, number: int) -> None:
        """Make one call, during which a member may fail."""
        rng = self.rng
        if rng.random() < 0.4:
            step = rng.choice(FAILING) + rng.choice(["", ".done"])
            rng.choice(self.fakes).fail(step, skip=rng.randrange(2))
        key = rng.choice(KEYS)
        if rng.random() < 0.2:
            await self.read(store, key)
        else:
            await self.write(store, key, b"%d" % number + rng.choice([b"", b"1", SMALL, NEW]))
        self.events[:] = [event for event in self.events if event.kind == "missed"]
        if rng.random() < 0.2:
            await asyncio.sleep(0)

    async def read(self, store: Trove, key: str) -> None:
        try:
            body = await store.read("bucket", key)
        except (ObjectNotFoundError, UnavailableError):
            return
        # A replica that has missed a write is read only if the primary is not available.
        assert of_kind(self.events, "fallback") or body in self.possible[key]

    async def write(self, store: Trove, key: str, body: bytes) -> None:
        written: bytes | None = body
        copied: list[bytes | None] = []
        try:
            match self.rng.choice(["put", "put", "put if it matches", "copy", "delete"]):
                case "put":
                    await store.put("bucket", key, body)
                case "put if it matches":
                    await store.put("bucket", key, body, if_match=await store.head("bucket", key))
                case "copy":
                    source = self.rng.choice(KEYS)
                    written = await store.read("bucket", source)
                    copied = [(await contents(fake)).get(source) for fake in self.fakes]
                    await store.copy("bucket", source, "bucket", key)
                case _:
                    written = None
                    await store.delete("bucket", key)
        except UnavailableError as error:
            if error.maybe_done:
                self.possible[key].update([written, *copied])
        except (ObjectNotFoundError, PreconditionFailedError):
            pass  # deleted, or a stale replica has answered the head
        else:
            # A stale replica may have answered the read of a source that was then copied.
            stale = bool(of_kind(self.events, "fallback"))
            self.possible[key] = {written, *(copied if stale else ())}


@pytest.mark.parametrize("seed", range(60))
async def test_random_schedule_agrees_with_a_model(seed: int) -> None:
    schedule = Schedule(seed)
    mirror = Mirrored(*schedule.fakes, acknowledge=schedule.acknowledge)
    async with store_with(mirror, pool=pool()) as (store, events):
        schedule.events = events
        for number in range(40):
            await schedule.act(store, number)
        for fake in schedule.fakes:
            fake._faults.clear()
        await finish_replicas(store)
        # 1. The primary has what the model allows.
        primary = await contents(schedule.fakes[0])
        for key, possible in schedule.possible.items():
            assert primary.get(key) in possible
        # 2. What the replicas lack was reported, and is repaired.
        different = set(await differences(store))
        assert different <= {key for _, key, _ in of_kind(events, "missed")}
        await repair_all(store)
        for fake in schedule.fakes:
            assert await contents(fake) == primary
        assert_nothing_held(store, *schedule.fakes)


# -- a store that is closed between the primary's write and those of the replicas ------------------------


@pytest.mark.parametrize("acknowledge", ["all", "primary"])
@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("put", "put"),
        ("put in parts", "commit"),
        ("copy", "copy"),
        ("delete", "delete"),
        ("delete many", "delete_many"),
    ],
)
async def test_close_after_the_primarys_write_reports_all_replicas(
    call: str, step: str, acknowledge: Any
) -> None:
    one = Fake()
    layer = Mirrored(one, Fake(), Fake(), acknowledge=acknowledge)
    async with store_with(layer, pool=pool()) as (store, events):
        await store.put("bucket", "key", OLD)
        await store.put("bucket", "source", NEW)
        await finish_replicas(store)
        events.clear()
        refusal: TroveError | None = None
        async with task_group() as group:

            async def close() -> None:  # while the response is on its way
                if not closing:
                    closing.append(True)
                    group.start_soon(store.aclose)
                while not layer._replicas._tasks.closed:
                    await asyncio.sleep(0)

            closing: list[bool] = []
            one.before[f"{step}.done"] = close
            try:
                await CALLS[call][0](store)
            except TroveError as error:
                refusal = error
        missed = {(key, member) for _, key, member in of_kind(events, "missed")}
        assert {member for _, member in missed} == {"replica 1 (memory)", "replica 2 (memory)"}
        assert len(of_kind(events, "missed")) == 2  # each once
        if acknowledge == "all":
            assert isinstance(refusal, UnavailableError)
            assert "the primary has done it" in str(refusal)
            assert "the store was closed" in str(refusal)
            assert refusal.maybe_done
