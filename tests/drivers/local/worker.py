"""A worker process for tests with many processes: ``python worker.py WORKLOAD ROOT JSON``.

The last line of its output is the result in JSON.
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

from trove_async.driver import DriverContext, DriverReader
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
from trove_async.models import MiB, Timeout
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


def make_driver(root: str, settings: Settings) -> LocalDriver:
    simulated = dict(settings)
    driver = LocalDriver(root, fsync=simulated.pop("fsync"))
    return driver._simulating(**simulated)


async def read(driver: LocalDriver, key: str) -> bytes:
    async with driver.get("b", key, GetOptions()) as reader:
        return await read_to_end(reader)


async def read_to_end(reader: DriverReader) -> bytes:
    chunks = []
    while chunk := await reader.read(MiB):
        chunks.append(chunk)
    return b"".join(chunks)


def make_body(number: int, seed: int) -> bytes:
    """Return a body that contains its number and its size, so that a mixed body is detected."""
    rng = random.Random(seed)
    size = rng.choice([0, 1, 10, 5000, 300_000])
    return b"%d:%d:" % (number, size) + bytes([number % 256]) * size


def number_of(body: bytes) -> int:
    """Return the number of a body. Assert that the body is complete."""
    number, size, content = body.split(b":", 2)
    expected = bytes([int(number) % 256]) * int(size)
    assert content == expected, "the body must be one complete version"
    return int(number)


def metadata_of(number: int) -> dict[str, str]:
    return {"number": str(number), "long": "x" * (number % 3 * 3000)}


async def create(driver: LocalDriver, keys: list[str]) -> list[str]:
    """Attempt to create each key. Return the keys that this process created."""
    created = []
    for key in keys:
        try:
            await driver.put(
                "b", key, [memoryview(str(os.getpid()).encode())], PutOptions(if_none_match="*")
            )
            created.append(key)
        except ObjectExistsError:
            pass
    return created


async def increment(driver: LocalDriver, key: str, times: int) -> None:
    """Increment a stored number `times` times, by compare-and-swap."""
    while times:
        async with driver.get("b", key, GetOptions()) as reader:
            info = reader.info
            value = int(await reader.read(100))
        try:
            body = str(value + 1).encode()
            await driver.put("b", key, [memoryview(body)], PutOptions(if_match=info.etag))
            times -= 1
        except PreconditionFailedError:
            pass  # another process was faster: read the number again


async def conflict(driver: LocalDriver, seed: int, rounds: int) -> None:
    """Put, delete and read keys that conflict as paths. Assert that each body read is complete."""
    rng = random.Random(seed)
    for number in range(rounds):
        key = rng.choice(KEYS)
        match rng.randrange(4):
            case 0 | 1:
                body = make_body(number, rng.randrange(2**32))
                await driver.put(
                    "b", key, [memoryview(body)], PutOptions(metadata=metadata_of(number))
                )
            case 2:
                await driver.delete("b", key, DeleteOptions())
            case _:
                with suppress(ObjectNotFoundError):
                    async with driver.get("b", key, GetOptions()) as reader:
                        body = await read_to_end(reader)
                        assert reader.info.metadata == metadata_of(number_of(body))


async def replace(driver: LocalDriver, key: str, rounds: int) -> None:
    """Replace one key repeatedly. Assert that each read and each listing finds it."""
    for number in range(rounds):
        await driver.put("b", key, [memoryview(make_body(number, number))], PutOptions())
        number_of(await read(driver, key))
        page = await driver.list_page("b", ListOptions())
        assert key in {entry.key for entry in page.entries}, "an existing key must be listed"


async def delete_and_create_bucket(driver: LocalDriver, rounds: int) -> int:
    """Delete and create the bucket of `put_into_bucket`. Return the number of deletions."""
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


async def put_into_bucket(driver: LocalDriver, key: str, rounds: int) -> int:
    """Put into a bucket that is deleted while it is empty. Return the number of successful puts.

    Assert that each object exists after its put.
    """
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


async def put_until_killed(driver: LocalDriver, key: str, start: int, log: int) -> None:
    """Put versions with increasing numbers until the process is killed.

    Write the number to the pipe `log` before each put, and with an exclamation mark after it.
    """
    number = start
    while True:
        number += 1
        os.write(log, b"%d " % number)
        body = make_body(number, number)
        options = PutOptions(metadata=metadata_of(number))
        await driver.put("b", key, [memoryview(body)], options)
        os.write(log, b"%d! " % number)


async def check_after_kill(root: str, key: str, old: int, log: str, settings: Settings) -> int:
    """Open the root after a kill, and return the number of the key's version.

    Assert that this version is complete. It must not be older than the last put that ended, nor newer
    than the last put that started.

    Args:
        root: The path of the root.
        key: The key that was put.
        old: The number of its version before the puts.
        log: The output of `put_until_killed`.
        settings: The settings of the driver.
    """
    started = [int(item) for item in log.split() if not item.endswith("!")]
    ended = [int(item[:-1]) for item in log.split() if item.endswith("!")]
    oldest, newest = max(ended, default=old), max(started, default=old)
    staging = Path(root) / ".trove/staging"
    driver = make_driver(root, settings)
    await driver.open(context())
    try:
        for entry in (await driver.list_page("b", ListOptions())).entries:
            assert entry.key in {*KEYS, NEW}, f"{entry.key} must not be listed"
            if entry.key == NEW:
                assert number_of(await read(driver, NEW)) == 1
                assert (await driver.head("b", NEW)).metadata == metadata_of(1)
        info = await driver.head("b", key)
        number = number_of(await read(driver, key))
        assert oldest <= number <= newest, f"the version must be {oldest} to {newest}, got {number}"
        assert info.metadata == metadata_of(number), "body and metadata must be of one version"
        assert not list(staging.glob("*/*")), "opening the root must remove staged files"
    finally:
        await driver.aclose()
    assert not list(staging.iterdir()), "closing the driver must remove the staging directory"
    return number


def kill(root: str, kills: int, seed: int, settings: Settings) -> None:
    """Fork a process that puts objects, kill it at a random moment, check the root, and repeat."""
    rng = random.Random(seed)
    numbers = dict.fromkeys(KEYS, 0)
    for _ in range(kills):
        key = rng.choice(KEYS)
        log_reader, log_writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(log_reader)
            asyncio.run(_put_in_child(root, key, numbers[key], log_writer, settings))
        os.close(log_writer)
        os.read(log_reader, 1)  # the driver is open, and the first put is about to start
        time.sleep(rng.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(log_reader) as pipe:
            log = pipe.read()
        numbers[key] = asyncio.run(check_after_kill(root, key, numbers[key], log, settings))


async def _put_in_child(root: str, key: str, start: int, log: int, settings: Settings) -> None:
    driver = make_driver(root, settings)
    await driver.open(context())
    os.write(log, b" ")
    await put_until_killed(driver, key, start, log)


async def prepare(root: str, settings: Settings) -> None:
    """Create the bucket, and version 0 of every key."""
    driver = make_driver(root, settings)
    await driver.open(context())
    await driver.create_bucket("b")
    for key in KEYS:
        options = PutOptions(metadata=metadata_of(0))
        await driver.put("b", key, [memoryview(make_body(0, 0))], options)
    await driver.aclose()


async def put_once(root: str, settings: Settings) -> None:
    """Put version 1 of every key and of a new key. A test kills this process at each system call."""
    driver = make_driver(root, settings)
    await driver.open(context())
    views = [memoryview(make_body(1, 4))]
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
    driver = make_driver(root, {"fsync": False} | arguments.pop("settings", {}))
    await driver.open(context())
    try:
        function: Any = globals()[workload]
        return await function(driver, **arguments)
    finally:
        await driver.aclose()


def main() -> None:
    workload, root, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    result: object = None
    if workload == "kill":
        asyncio.run(prepare(root, arguments["settings"]))
        kill(root, **arguments)
    elif workload in {"prepare", "put_once", "check_once"}:
        function: Any = globals()[workload]
        asyncio.run(function(root, **arguments))
    else:
        result = asyncio.run(_run(workload, root, arguments))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
