"""A worker process for tests with many processes: ``python worker.py WORKLOAD ROOT JSON``.

It prints its result as JSON on its last line.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from trove_async.driver import DriverContext
from trove_async.drivers.local import LocalDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from trove_async.events import Events
from trove_async.models import Timeout
from trove_async.options import DeleteOptions, GetOptions, ListOptions, PutOptions
from trove_async.pool import BufferPool

Settings = dict[str, bool]

NEW = "new/k"
KEYS = ["a", "a/b", "a/b/c", "dir/", "plain", "x/y/z"]


def context() -> DriverContext:
    return DriverContext(
        backend="local",
        pool=BufferPool(),
        events=Events(),
        timeout=Timeout(),
        attach=lambda _: NotImplemented,
    )


def local(root: str, settings: Settings) -> LocalDriver:
    lacking = dict(settings)
    driver = LocalDriver(root, fsync=lacking.pop("fsync"))
    return driver._without(**lacking)


async def read(driver: LocalDriver, key: str) -> bytes:
    chunks = []
    async with driver.get("b", key, GetOptions()) as reader:
        while chunk := await reader.read(1 << 20):
            chunks.append(chunk)
    return b"".join(chunks)


def version(number: int, seed: int) -> bytes:
    """Return a body that contains its number and its size, so that a torn body is detected."""
    rng = random.Random(seed)
    size = rng.choice([0, 1, 10, 5000, 300_000])
    return b"%d:%d:" % (number, size) + bytes([number % 256]) * size


def number_of(body: bytes) -> int:
    """Return the number of a body. Assert that the body is complete."""
    number, size, rest = body.split(b":", 2)
    assert rest == bytes([int(number) % 256]) * int(size), (
        "a body of two versions, or of half of one"
    )
    return int(number)


def metadata_of(number: int) -> dict[str, str]:
    return {"number": str(number), "long": "x" * (number % 3 * 3000)}


async def create(driver: LocalDriver, keys: list[str]) -> list[str]:
    """Attempt to create each key. Return the keys that this process created."""
    won = []
    for key in keys:
        try:
            await driver.put(
                "b", key, [memoryview(str(os.getpid()).encode())], PutOptions(if_none_match="*")
            )
            won.append(key)
        except ObjectExistsError:
            pass
    return won


async def count(driver: LocalDriver, key: str, times: int) -> int:
    """Increment a number by compare-and-swap, `times` times. Return how many attempts lost."""
    lost = 0
    while times:
        info = await driver.head("b", key)
        async with driver.get("b", key, GetOptions()) as reader:
            info = reader.info
            value = int(await reader.read(100))
        try:
            body = str(value + 1).encode()
            await driver.put("b", key, [memoryview(body)], PutOptions(if_match=info.etag))
            times -= 1
        except PreconditionFailedError:
            lost += 1
    return lost


async def conflict(driver: LocalDriver, seed: int, rounds: int) -> int:
    """Put, delete and read keys that conflict as paths. Assert that each body read is complete."""
    rng = random.Random(seed)
    for number in range(rounds):
        key = rng.choice(KEYS)
        match rng.randrange(4):
            case 0 | 1:
                body = version(number, rng.random().__hash__())
                await driver.put(
                    "b", key, [memoryview(body)], PutOptions(metadata=metadata_of(number))
                )
            case 2:
                await driver.delete("b", key, DeleteOptions())
            case _:
                try:
                    async with driver.get("b", key, GetOptions()) as reader:
                        body = b""
                        while chunk := await reader.read(1 << 20):
                            body += chunk
                        assert reader.info.metadata == metadata_of(number_of(body))
                except ObjectNotFoundError:
                    pass
    return rounds


async def stay(driver: LocalDriver, key: str, rounds: int) -> int:
    """Replace a key that always exists. Assert that each read and each listing finds it."""
    for number in range(rounds):
        await driver.put("b", key, [memoryview(version(number, number))], PutOptions())
        number_of(await read(driver, key))
        page = await driver.list_page("b", ListOptions())
        assert key in {entry.key for entry in page.entries}, "a key that exists was not listed"
    return rounds


async def rebucket(driver: LocalDriver, rounds: int) -> int:
    """Delete and create the bucket that others put into. Return the number of deletions."""
    deleted = 0
    for _ in range(rounds):
        try:
            await driver.delete_bucket("c")
            deleted += 1
        except (BucketNotEmptyError, BucketNotFoundError):
            pass
        with suppress(BucketExistsError):
            await driver.create_bucket("c")
    return deleted


async def lodge(driver: LocalDriver, key: str, rounds: int) -> int:
    """Put into a bucket that is deleted while empty. Assert that each acknowledged put exists."""
    stored = 0
    for _ in range(rounds):
        try:
            await driver.put("c", key, [memoryview(b"x")], PutOptions())
        except BucketNotFoundError:
            with suppress(BucketExistsError):
                await driver.create_bucket("c")
            continue
        stored += 1
        await driver.head("c", key)
        await driver.delete("c", key, DeleteOptions())
    return stored


async def put_for_ever(driver: LocalDriver, key: str, start: int, tell: int) -> None:
    """Put one version after the other until killed. Report each before and after its put."""
    number = start
    while True:
        number += 1
        os.write(tell, b"%d " % number)
        body = version(number, number)
        options = PutOptions(metadata=metadata_of(number))
        await driver.put("b", key, [memoryview(body)], options)
        os.write(tell, b"%d! " % number)


async def check_after_kill(root: str, key: str, old: int, told: str, settings: Settings) -> int:
    """Open the root after a kill. Assert that the key has a whole version, old or new."""
    begun = [int(word) for word in told.split() if not word.endswith("!")]
    ended = [int(word[:-1]) for word in told.split() if word.endswith("!")]
    least = max(ended, default=old)
    most = max(begun, default=old)
    staging = Path(root) / ".trove/staging"
    driver = local(root, settings)
    await driver.open(context())
    try:
        for entry in (await driver.list_page("b", ListOptions())).entries:
            assert entry.key in {*KEYS, NEW}, f"{entry.key} is listed"
            if entry.key == NEW:
                assert number_of(await read(driver, NEW)) == 1
                assert (await driver.head("b", NEW)).metadata == metadata_of(1)
        info = await driver.head("b", key)
        number = number_of(await read(driver, key))
        assert least <= number <= most, f"version {number}, not {least} to {most}"
        assert info.metadata == metadata_of(number), "the metadata of another version"
        assert not list(staging.glob("*/*")), "staged files are left"
    finally:
        await driver.aclose()
    assert not list(staging.iterdir()), "staging is not swept"
    return number


def kill(root: str, kills: int, seed: int, settings: Settings) -> int:
    """Fork a process that puts, kill it at a random moment and check the root, `kills` times."""
    rng = random.Random(seed)
    numbers = dict.fromkeys(KEYS, 0)
    for _ in range(kills):
        key = rng.choice(KEYS)
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(told)
            child = _put_in_child(root, key, numbers[key], tell, settings)
            asyncio.run(child)
        os.close(tell)
        os.read(told, 1)  # the driver is open and about to put
        time.sleep(rng.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(told) as pipe:
            said = pipe.read()
        numbers[key] = asyncio.run(check_after_kill(root, key, numbers[key], said, settings))
    return sum(numbers.values())


async def _put_in_child(root: str, key: str, start: int, tell: int, settings: Settings) -> None:
    driver = local(root, settings)
    await driver.open(context())
    os.write(tell, b" ")
    await put_for_ever(driver, key, start, tell)


async def prepare(root: str, settings: Settings) -> None:
    driver = local(root, settings)
    await driver.open(context())
    await driver.create_bucket("b")
    for key in KEYS:
        options = PutOptions(metadata=metadata_of(0))
        await driver.put("b", key, [memoryview(version(0, 0))], options)
    await driver.aclose()


async def put_once(root: str, settings: Settings) -> None:
    """Put version 1 of every key and of a new one. A test kills it at each system call."""
    driver = local(root, settings)
    await driver.open(context())
    views = [memoryview(version(1, 4))]
    for key in KEYS:
        await driver.put("b", key, views, PutOptions(metadata=metadata_of(1)))
    options = PutOptions(metadata=metadata_of(1), if_none_match="*")
    await driver.put("b", NEW, views, options)
    await driver.aclose()


async def check_once(root: str, settings: Settings) -> None:
    """Assert that every key is version 0 or 1."""
    for key in KEYS:
        await check_after_kill(root, key, 0, "1", settings)


async def _run(workload: str, root: str, arguments: dict[str, Any]) -> object:
    driver = local(root, {"fsync": False} | arguments.pop("settings", {}))
    await driver.open(context())
    try:
        work: Any = globals()[workload]
        return await work(driver, **arguments)
    finally:
        await driver.aclose()


def main() -> None:
    workload, root, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if workload == "kill":
        asyncio.run(prepare(root, arguments["settings"]))
        result: object = kill(root, **arguments)
    elif workload in {"prepare", "put_once", "check_once"}:
        work: Any = globals()[workload]
        result = asyncio.run(work(root, **arguments))
    else:
        result = asyncio.run(_run(workload, root, arguments))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
