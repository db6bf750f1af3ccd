"""Random schedules: users put, delete and read objects while a job moves them.

Every call of a driver yields to the other tasks a random number of times before and after its work, so that
the seed determines the interleaving.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from tests.fakes import IMMEDIATE_RETRIES, small_pool
from trove_async import ObjectNotFoundError, Route, Trove, UnavailableError
from trove_async.drivers import MemoryDriver
from trove_async.jobs import TierRule, migrate, rebalance, tier
from trove_async.testing import Call, Faulty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from trove_async.jobs import Report

KEYS = [f"{folder}/{number}" for folder in "ab" for number in range(3)]
BUCKET = "bucket"


class Jittery(Faulty):
    """Memory whose calls take a random number of steps, and whose responses may get lost."""

    memory: type[MemoryDriver] = MemoryDriver

    def __init__(self, random: Random, name: str, *, lost: float = 0, **changes: bool) -> None:
        inner = self.memory()
        super().__init__(inner, capabilities=replace(inner.capabilities, **changes))  # type: ignore[arg-type]
        self._random = random
        self._name = name
        self.lost = lost
        self.writes = 0

    @property
    def name(self) -> str:
        return self._name

    async def begin(self, call: Call) -> None:
        if call.operation in {"put", "delete", "copy", "commit", "delete_many"}:
            self.writes += 1
        await self._take_time()

    async def end(self, call: Call) -> None:
        await self._take_time()
        if self._random.random() < self.lost and call.operation in {"put", "delete", "copy"}:
            raise UnavailableError("the response was lost")

    async def _take_time(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 1, 2, 4, 9))):
            await asyncio.sleep(0)


class History:
    """What users have written to one key. None: it was deleted."""

    def __init__(self, content: bytes | None) -> None:
        self.contents = [content]  # of all writes that have started
        self.completed = 0  # the index of the last one that has completed

    def allowed(self, completed_before: int) -> list[bytes | None]:
        """Return what a read may return that started after `completed_before`."""
        return self.contents[completed_before:]


class Users:
    """Users of one store. Each key has one writer, and any number of readers.

    Args:
        store: The store.
        random: The source of randomness.
        keys: The contents of the keys.
        actions: What the writers do.
        revivals: Whether a deleted object may be readable again for a moment, because a job of another
            process has copied it meanwhile and has not removed the copy yet.
    """

    def __init__(
        self,
        store: Trove,
        random: Random,
        keys: dict[str, bytes | None],
        *,
        actions: Sequence[str],
        revivals: bool,
    ) -> None:
        self._store = store
        self._random = random
        self._actions = actions
        self._revivals = revivals
        self.histories = {key: History(content) for key, content in keys.items()}
        self._count = 0

    async def write(self, key: str, times: int) -> None:
        history, random, store = self.histories[key], self._random, self._store
        for _ in range(times):
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            action = random.choice(self._actions)
            if action == "put":
                self._count += 1
                content = f"{key} {self._count} ".encode() * random.choice((1, 40))
                history.contents.append(content)
                await until_done(partial(store.put, BUCKET, key, content))
                history.completed = len(history.contents) - 1
            elif action == "delete":
                history.contents.append(None)
                await until_done(partial(store.delete, BUCKET, key))
                history.completed = len(history.contents) - 1
            elif action == "delete_many":
                history.contents.append(None)
                await until_done(partial(store.delete_many, BUCKET, [key]))
                history.completed = len(history.contents) - 1
            elif action == "move":  # to its routed backend: the content stays
                with suppress(ObjectNotFoundError, UnavailableError):
                    await store.move(BUCKET, key, BUCKET, key)
            else:
                await self.read(key)

    async def read(self, key: str, *, is_last: bool = False) -> None:
        """Read a key, and check that the content is that of a write that may be the latest."""
        history = self.histories[key]
        before = history.completed
        try:
            content: bytes | None = await self._store.read(BUCKET, key)
        except ObjectNotFoundError:
            content = None
        allowed = history.allowed(before)
        if self._revivals and None in allowed and not is_last:
            allowed = history.contents
        assert content in allowed, f"{key}: {content!r} is not one of {allowed}"

    async def read_many(self, times: int) -> None:
        for _ in range(times):
            await self.read(self._random.choice(KEYS))

    async def check(self) -> None:
        """Check that every key has its last content."""
        for key in KEYS:
            history = self.histories[key]
            assert history.completed == len(history.contents) - 1
            await self.read(key, is_last=True)


async def until_done(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a write until its response arrives."""
    while True:
        try:
            await call()
        except UnavailableError:
            continue
        return


def job_of(
    kind: str, store: Trove, random: Random, state: str | None
) -> Callable[[], Coroutine[Any, Any, Report]]:
    """Return a function that runs a job to its end."""
    concurrency = random.choice((1, 2, 6))
    if kind == "rebalance":
        shadowed = random.random() < 0.3
        return lambda: rebalance(
            store, BUCKET, concurrency=concurrency, checkpoint=state, delete_shadowed=shadowed
        )
    if kind == "tier":
        rules = random.choice(
            (
                [TierRule(to="cold", larger_than=100)],
                [TierRule(to="cold", prefix="a/")],
                [TierRule(to="cold", larger_than=100), TierRule(to="default")],
                [TierRule(to="third", prefix="b/"), TierRule(to="cold")],
            )
        )
        return lambda: tier(store, BUCKET, rules, concurrency=concurrency, checkpoint=state)
    delete = random.random() < 0.5
    return lambda: migrate(
        store,
        BUCKET,
        source="default",
        target="cold",
        delete=delete,
        concurrency=concurrency,
        checkpoint=state,
    )


def routes_of(kind: str, random: Random) -> list[Route | tuple[str, str]]:
    """Return the rules of the store while the job runs."""
    if kind == "rebalance":
        return [
            random.choice((("a/*", "cold"), ("*/1", "third"), ("**", "cold"))),
            ("b/2", "third"),
        ]
    if kind == "tier":
        return [("a/*", "third")] if random.random() < 0.5 else []
    return [Route.prefix("", "cold")]


VARIANTS: dict[str, dict[str, bool]] = {
    "all capabilities": {},
    "no conditional delete": {"delete_if_match": False},
    "no conditions": {
        "delete_if_match": False,
        "put_if_match": False,
        "put_if_none_match": False,
        "copy_conditions": False,
        "get_conditions": False,
    },
    "unordered": {"ordered": False},
    "remote": {"embedded": False, "exact_keys": True},
}


async def place(store: Trove, random: Random) -> dict[str, bytes | None]:
    """Put objects on random backends, and return the visible contents."""
    placed: dict[str, bytes | None] = {}
    for key in KEYS:
        placed[key] = None
        routed = (await store.explain(BUCKET, key)).backend
        order = [routed, *(name for name in store.backends if name != routed)]
        count = random.choice((0, 1, 1, 1, 2))
        for name in sorted(random.sample(order, count), key=order.index, reverse=True):
            content = f"{key} on {name} ".encode() * random.choice((1, 40))
            await store.backend(name).put(BUCKET, key, content)
            placed[key] = content
    return placed


async def play(
    seed: int, kind: str, variant: str, *, lost: float = 0, separate: bool = False
) -> None:
    """Play one schedule.

    Args:
        seed: Determines the schedule.
        kind: The job.
        variant: The capabilities of the backends.
        lost: The probability that the response to a write is lost.
        separate: Whether the job has its own store, as in a different process.
    """
    random = Random(seed)
    changes = VARIANTS[variant]
    drivers = {
        name: Jittery(random, name if variant == "remote" else "memory", lost=0, **changes)
        for name in ("default", "cold", "third")
    }
    default = drivers.pop("default")

    def store_of() -> Trove:
        return Trove(
            default,
            backends=drivers,
            routes=routes,
            locate="anywhere",
            pool=small_pool(),
            retry=IMMEDIATE_RETRIES,
        )

    # 1. Place objects on random backends, some of them with hidden older ones behind.
    routes = routes_of(kind, random)
    async with store_of() as store:
        await store.create_bucket(BUCKET, backends="all")
        placed = await place(store, random)
        # 2. Play the users and the job. The job may be cancelled and resumed.
        for driver in (default, *drivers.values()):
            driver.lost = lost
        other = store_of() if separate else store
        actions = ["put", "put", "delete", "delete_many", "move", "read"]
        if separate and kind == "tier":
            # A deletion in another process may delete from the cold backend before the job has stored the
            # copy there, and from the hot one after the job has deleted the source.
            actions = ["put", "put", "move", "read"]
        users = Users(store, random, placed, actions=actions, revivals=separate)
        state = random.choice((None, f"{BUCKET}/state"))
        run = job_of(kind, other, random, state)
        if separate:
            await other.open()
        try:
            async with asyncio.TaskGroup() as group:
                for key in KEYS:
                    group.create_task(users.write(key, random.randrange(5)))
                for _ in range(2):
                    group.create_task(users.read_many(random.randrange(12)))
                if random.random() < 0.3:
                    await cancel_midway(run, random)
                report: Report = await run()
                assert report.failed == 0 or lost, report
            # 3. Every key has its last content, also after the job has run again.
            await users.check()
            await run()
            await users.check()
        finally:
            if separate:
                await other.aclose()


async def cancel_midway(run: Callable[[], Coroutine[Any, Any, Report]], random: Random) -> None:
    task = asyncio.get_running_loop().create_task(run())
    for _ in range(random.randrange(150)):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
