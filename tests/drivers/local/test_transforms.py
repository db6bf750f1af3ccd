"""Killed processes that put transformed objects."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from trove_async import Trove
from trove_async.drivers import LocalDriver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.middleware import Middleware

pytestmark = pytest.mark.timeout(180)  # a test starts many interpreters, on a slow machine

RING = Keyring({"key": bytes(range(32))})
STACK: list[Middleware] = [Compression(level=1), Encryption(RING)]

PUTTING_PROGRAM = """
import asyncio, sys
from trove_async import Trove
from trove_async.drivers import LocalDriver
from trove_async.middlewares import Compression, Encryption, Keyring

async def chunks(number):
    for _ in range(12):
        yield b"%08d" % number * 16 * 1024

async def main(root, first):
    stack = [Compression(level=1), Encryption(Keyring({"key": bytes(range(32))}))]
    async with Trove(LocalDriver(root, fsync=False), middleware=stack) as store:
        for number in range(first, first + 10_000):
            body = b"".join([chunk async for chunk in chunks(number)]) if number % 2 else chunks(number)
            await store.put("bucket", "key", body, metadata={"number": str(number)})
            print(number, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def check_and_return_number(root: Path) -> int:
    """Return the number of the stored object. Assert that it is complete."""
    async with Trove(LocalDriver(root, fsync=False), middleware=STACK) as store:
        async with store.get("bucket", "key") as obj:
            body = await obj.read()
            number = int(obj.info.metadata["number"])
        assert body == b"%08d" % number * (12 * 16 * KiB)
        assert obj.info.transforms == ("zstd", "aes256-gcm-hkdf")
        assert [info.key for info in await store.list("bucket").all()] == ["key"]
        bounds = 700_000, 700_123
        assert await store.read("bucket", "key", range=bounds) == body[slice(*bounds)]
        return number


async def kill_repeatedly(root: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    async with Trove(LocalDriver(root, fsync=False), middleware=STACK) as store:
        await store.create_bucket("bucket")
    number = 0
    for _ in range(kills):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PUTTING_PROGRAM,
            str(root),
            str(number + 1),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 8)):  # at least one put has ended
            acknowledged = int(await process.stdout.readline())
        await asyncio.sleep(rng.random() * 0.03)  # the moment of the kill is random
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        await process.wait()
        acknowledged = int(rest.split()[-1]) if rest.split() else acknowledged
        number = await check_and_return_number(root)
        assert number in {acknowledged, acknowledged + 1}


async def test_kill_leaves_old_or_new_object_decodable(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path, 6, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_hundreds_of_kills_leave_old_or_new_object_decodable(tmp_path: Path) -> None:
    await kill_repeatedly(tmp_path, 300, seed=2)
