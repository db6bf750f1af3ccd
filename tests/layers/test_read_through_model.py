"""`ReadThrough` against a model, with an origin that changes behind it, on a clock of its own."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

import pytest

from tests.layers.cached import BLOCK, Cache, Origin, cached
from trove_async._concurrency import task_group
from trove_async.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageFullError,
    UnavailableError,
)
from trove_async.models import ByteRange, MiB
from trove_async.options import GetOptions
from trove_async.pool import BufferPool
from trove_async.testing._harness import content, delete, read_to_end, upload, write

if TYPE_CHECKING:
    from trove_async.driver import AsyncDriver

KEYS = ("a", "b", "c")
REVALIDATE = 10.0


class World:
    """The origin's history, and the operations of a random schedule.

    Attributes:
        history: For each key, all versions: when the write began, when it ended, and the body. None: deleted.
        own_write: For each key, the index of the last version whose write through the layer has returned.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.origin = Origin()
        self.cache = Cache()
        self.history: dict[str, list[tuple[float, float, bytes | None]]] = {
            key: [(0.0, 0.0, None)] for key in KEYS
        }
        self.own_write: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.writers: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.reads = 0
        self.number = 0
        # The response may arrive long after the origin has done its work. Writes overtake it.
        for step in ("get.done", "head.done", "put.done", "delete.done"):
            self.origin.before[step] = self.delay

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def delay(self) -> None:
        if self.rng.random() < 0.3:
            await asyncio.sleep(self.rng.random())

    def body(self) -> bytes:
        self.number += 1
        size = self.rng.choice((0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK - 5, 5 * BLOCK))
        return content(size, str(self.number))

    async def change(self, driver: AsyncDriver, key: str, *, own: bool) -> None:
        """Change an object, at the origin or through the layer."""
        if self.writers[key]:
            return  # the order of concurrent writes of one object is not known
        self.writers[key] += 1
        try:
            body = None if self.rng.random() < 0.25 else self.body()
            # It may be seen from now on, and the version before it until the write has ended.
            self.history[key].append((self.now(), math.inf, body))
            if body is None:
                await delete(driver, "bucket", key)
            elif self.rng.random() < 0.3 and body:
                await upload(driver, "bucket", key, body)
            else:
                await write(driver, "bucket", key, body)
            self.history[key][-1] = (self.history[key][-1][0], self.now(), body)
            if own:
                self.own_write[key] = len(self.history[key]) - 1
        finally:
            self.writers[key] -= 1

    async def read(self, layer: AsyncDriver, key: str) -> None:
        """Read an object, and check that the body is a version that was current recently."""
        started = self.now()
        own_write = self.own_write[key]
        kind = self.rng.random()
        options = GetOptions()
        start = 0
        if kind < 0.3:
            start = self.rng.randrange(3 * BLOCK)
            options = GetOptions(range=ByteRange(start, start + self.rng.choice((1, 1000, BLOCK))))
        got: bytes | None
        try:
            async with layer.get("bucket", key, options) as reader:
                size = reader.info.size
                if kind > 0.8:
                    await asyncio.sleep(self.rng.random() * 3)
                got = await read_to_end(reader, self.rng.choice((1000, 50_000, MiB)))
                span = reader.range
        except ObjectNotFoundError:
            got, span, size = None, (0, 0), 0
        except (ObjectChangedError, UnavailableError):
            return
        except Exception as error:
            if type(error).__name__ == "RangeError":
                return
            raise
        self.reads += 1
        # A write through the layer that returned before this read began is seen by it, at once.
        history = self.history[key]
        possible = [
            body
            for index, (_, _, body) in enumerate(history)
            if index >= own_write
            and (index + 1 == len(history) or history[index + 1][1] >= started - REVALIDATE)
        ]
        expected = [
            None if body is None else body[slice(*span)]
            for body in possible
            if body is None or len(body) == size
        ]
        assert got in expected, (key, started, [times[:2] for times in history])


@pytest.mark.idle_time
@pytest.mark.parametrize("write", ["around", "through"])
@pytest.mark.parametrize("seed", range(30))
async def test_every_body_is_one_version_that_was_current_within_revalidate(
    seed: int, write: str
) -> None:
    world = World(seed)
    pool = BufferPool(16 * MiB)
    async with cached(
        world.origin,
        world.cache,
        pool=pool,
        max_bytes=world.rng.choice((3, 10, 40)) * BLOCK,
        revalidate=REVALIDATE,
        write=write,
    ) as setup:

        async def act() -> None:
            for _ in range(40):
                key = world.rng.choice(KEYS)
                action = world.rng.random()
                if action < 0.6:
                    await world.read(setup.layer, key)
                elif action < 0.72:
                    await world.change(setup.layer, key, own=True)
                elif action < 0.84:
                    await world.change(world.origin, key, own=False)
                elif action < 0.86:
                    world.cache.fail(
                        world.rng.choice(("put", "put.done", "get", "read", "delete")),
                        world.rng.choice((StorageFullError("full"), UnavailableError("no"))),
                    )
                elif action < 0.88:
                    world.origin.cuts.append(world.rng.randrange(3 * BLOCK))
                elif action < 0.9:
                    await asyncio.sleep(world.rng.random() * REVALIDATE)
                else:
                    await asyncio.sleep(world.rng.random())

        async with task_group() as group:
            for _ in range(4):
                group.start_soon(act)
        await setup.settle()
        assert pool.statistics().leased == 0
        assert world.origin.open_readers == world.cache.open_readers == 0
        assert world.reads > 20
