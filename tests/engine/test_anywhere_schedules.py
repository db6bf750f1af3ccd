"""Random interleavings of puts, deletions, reads and moves between two backends.

One writer changes a key. At the same time jobs move its object between the backends, and readers read it. Every
read must return the value that the key had at some moment of the read.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, Unordered, single_attempt_store
from trove_async import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    Route,
)
from trove_async._concurrency import task_group
from trove_async.middlewares import Compression

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trove_async import Trove

BLOCKS, SCHEDULES = 14, 50
"""The number of tests of each configuration, and of schedules in each of them."""

MOVE_ERRORS = (ObjectNotFoundError, ObjectChangedError, ObjectExistsError)


class Interleaved(Fake):
    """Memory that lets other tasks run a random number of times at each step."""

    source: random.Random | None = None

    async def step(self, name: str, call: Any = None) -> None:
        if self.source is not None:
            for _ in range(self.source.choice([0, 0, 1, 2, 3, 9])):
                await asyncio.sleep(0)
        await super().step(name, call)


class InterleavedUnordered(Unordered, Interleaved):
    """The same, with listings that are not ordered."""


class Schedule:
    """One random schedule.

    Attributes:
        states: The values of the key after each change: None if it does not exist.
        started: The number of changes that have started.
        finished: The number of changes that have finished.
    """

    def __init__(self, store: Trove, source: random.Random) -> None:
        self.store = store
        self.source = source
        self.states: list[bytes | None] = [None]
        self.started = 0
        self.finished = 0
        self.reads = 0
        self.ended = False
        self.started_moves = 0
        self.finished_moves = 0

    async def run(self) -> None:
        """Run all actors, and compare the result with the last value."""
        async with task_group() as group:
            group.start_soon(self.write)
            for _ in range(2):
                group.start_soon(self.read)
            group.start_soon(self.move_home)
            group.start_soon(self.move_away)

    # -- the writer -----------------------------------------------------------------------------------

    async def write(self) -> None:
        changes = [self.put, self.put, self.delete, self.delete_many, self.rename]
        changes += [self.put_if_match, self.put_if_none_match, self.delete_if_match]
        for _ in range(6):
            await self.source.choice(changes)()
            for _ in range(self.source.choice([0, 0, 10, 40])):
                await asyncio.sleep(0)
        self.ended = True

    async def change(self, value: bytes | None, change: Awaitable[object]) -> None:
        """Make a change. A condition that does not hold leaves the value as it is."""
        self.states.append(value)
        self.started += 1
        try:
            await change
        except (PreconditionFailedError, ObjectExistsError, ObjectNotFoundError):
            self.states.append(self.states[-2])
            self.started += 1
            self.finished += 1
        self.finished += 1

    def new_value(self) -> bytes:
        return b"value %d " % len(self.states) * self.source.choice([1, 1, 50_000])

    async def put(self) -> None:
        value = self.new_value()
        await self.change(value, self.store.put("data", "key", value))

    async def put_if_match(self) -> None:
        value = self.new_value()
        with suppress(ObjectNotFoundError):
            info = await self.store.head("data", "key")
            await self.change(value, self.store.put("data", "key", value, if_match=info))

    async def put_if_none_match(self) -> None:
        value, existed = self.new_value(), self.states[-1] is not None

        async def put() -> None:
            try:
                await self.store.put("data", "key", value, if_none_match="*")
            except ObjectExistsError:
                assert existed
                raise
            # The put may succeed if a job has moved the object away after its backend was asked.

        await self.change(value, put())

    async def delete(self) -> None:
        await self.change(None, self.store.delete("data", "key"))

    async def delete_if_match(self) -> None:
        with suppress(ObjectNotFoundError):
            info = await self.store.head("data", "key")
            await self.change(None, self.store.delete("data", "key", if_match=info))

    async def delete_many(self) -> None:
        async def delete() -> None:
            await self.store.delete_many("data", ["key", "other"])

        await self.change(None, delete())

    async def rename(self) -> None:
        await self.change(None, self.store.move("data", "key", "data", "renamed"))

    # -- the readers ----------------------------------------------------------------------------------

    async def read(self) -> None:
        reads: list[Callable[[], Awaitable[bytes | None]]] = [
            self.read_whole, self.read_ranges, self.read_after_open, self.read_copy,
        ]  # fmt: skip
        while not self.ended:
            before, moves = self.finished, self.finished_moves
            try:
                value = await self.source.choice(reads)()
            except ObjectNotFoundError:
                value = None
            except ObjectChangedError:
                # A move back and forth makes a new version of the same object.
                assert self.started > before or self.started_moves >= moves + 2, (
                    "nothing has changed"
                )
                continue
            allowed = self.states[before : self.started + 1]
            assert value in allowed, (value, allowed)
            self.reads += 1

    async def read_whole(self) -> bytes:
        return await self.store.read("data", "key")

    async def read_ranges(self) -> bytes:
        return b"".join(await self.store.get_ranges("data", "key", [(0, 3), (3, None)]))

    async def read_after_open(self) -> bytes:
        async with self.store.get("data", "key") as reader:
            return await reader.read()

    async def read_copy(self) -> bytes:
        name = f"copy-{self.source.random()}"
        await self.store.copy("data", "key", "data", name)
        return await self.store.read("data", name)

    # -- the jobs -------------------------------------------------------------------------------------

    async def move_home(self) -> None:
        await self.repeat(lambda: self.store.move("data", "key", "data", "key"))

    async def move_away(self) -> None:
        away = self.store.backend("default")
        await self.repeat(lambda: away.move("data", "key", "data", "key", source_backend="cold"))

    async def repeat(self, move: Callable[[], Awaitable[object]]) -> None:
        while not self.ended:
            await asyncio.sleep(0)
            self.started_moves += 1
            with suppress(*MOVE_ERRORS):
                await move()
            self.finished_moves += 1


async def check_end(schedule: Schedule) -> None:
    """Check the state after all actors have ended, and after a rebalance."""
    store, value = schedule.store, schedule.states[-1]
    for _ in range(2):
        assert await store.exists("data", "key") is (value is not None)
        listed = [info for info in await store.list("data", page_size=2).all() if info.key == "key"]
        assert len(listed) == (value is not None)
        if value is not None:
            assert await store.read("data", "key") == value
            assert listed[0].etag == (await store.head("data", "key")).etag
            assert (await store.move("data", "key", "data", "key")).backend == "cold"
        for item in await store.misplaced("data").all():
            assert item.info.key != "key" or item.shadowed is not False
    await store.delete("data", "key")
    remaining = await store.list("data", include_shadowed=True).all()
    assert "key" not in {info.key for info in remaining}


CONFIGURATIONS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ordered": (Interleaved, {}),
    "unordered": (InterleavedUnordered, {}),
    "compressed": (Interleaved, {"middleware": [Compression(frame_size=64 * 1024)]}),
}


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("name", CONFIGURATIONS)
async def test_every_read_returns_a_value_of_its_time(name: str, block: int) -> None:
    kind, arguments = CONFIGURATIONS[name]
    reads = 0
    for seed in range(block * SCHEDULES, (block + 1) * SCHEDULES):
        source = random.Random(seed)
        default, cold = Interleaved(), kind()
        default.source = cold.source = source
        async with single_attempt_store(
            default,
            backends={"cold": cold},
            routes=[("key", "cold"), Route.prefix("copy-", "cold")],
            locate="anywhere",
            **arguments,
        ) as store:
            await store.create_bucket("data", backends="all")
            schedule = Schedule(store, source)
            try:
                await schedule.run()
                default.source = cold.source = None
                await check_end(schedule)
            except BaseException as error:
                error.add_note(f"schedule {seed}")
                raise
            placement = store._core.placement
            assert placement is not None
            assert not placement._held
            assert not placement._watches
            reads += schedule.reads
    assert reads > 5 * SCHEDULES
