"""How fast is the local driver, compared with obstore, OpenDAL, aiofiles and synchronous calls?

In each round, the contenders do the same work in turn, in separate processes, on the same file system.
trove_async runs with its defaults, through a `Trove`, with checks, routing and checksums,
except that fsync is off, because the others do not call it.

    python benchmarks/local_vs_peers.py [--rounds 5] [--dir DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiofiles
import obstore
import opendal
from _harness import (
    Measurement,
    MiB,
    concurrently,
    in_fresh_process,
    machine,
    median_ratio,
    once,
    peak_rss,
    table,
)
from obstore.store import LocalStore

from trove_async import Trove
from trove_async.drivers import LocalDriver

SMALL = 4096
COUNT = 2000
LARGE = 256 * MiB
STREAMS = 8  # reads of the large object: a single one takes 50 ms, too short to measure reliably
PUTS = 4  # of the large object: the first ones of a process wait for memory, which the kernel takes from others
DIRECTORIES = 100
FILES = 1000  # in each directory


class Contender(Protocol):
    """One library, opened for one directory."""

    async def put(self, key: str, body: bytes) -> object:
        """Store bytes."""
        ...

    async def get(self, key: str) -> bytes:
        """Return a small object."""
        ...

    async def stream(self, key: str) -> int:
        """Read a large object in chunks, and return its size."""
        ...

    async def list(self, prefix: str) -> int:
        """List the keys below a directory with their sizes, and return their number."""
        ...


class TroveAsync:
    """trove_async, through a store."""

    def __init__(self, store: Trove) -> None:
        self._store = store

    async def put(self, key: str, body: bytes) -> object:
        return await self._store.put("bench", key, body)

    async def get(self, key: str) -> bytes:
        return await self._store.read("bench", key)

    async def stream(self, key: str) -> int:
        size = 0
        async with self._store.get("bench", key) as reader:
            async for chunk in reader:
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for entry in self._store.list("bench", prefix=prefix):
            count += entry.size >= 0
        return count


class Obstore:
    """obstore's LocalStore, which wraps Rust's object_store."""

    def __init__(self, root: Path) -> None:
        self._store = LocalStore(root / "bench")

    async def put(self, key: str, body: bytes) -> object:
        return await obstore.put_async(self._store, key, body)

    async def get(self, key: str) -> bytes:
        return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def stream(self, key: str) -> int:
        size = 0
        async for chunk in (await obstore.get_async(self._store, key)).stream():
            size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for batch in obstore.list(self._store, prefix=prefix, chunk_size=1000):
            for meta in batch:
                count += meta["size"] >= 0
        return count


class OpenDAL:
    """OpenDAL's fs service."""

    def __init__(self, root: Path) -> None:
        self._operator = opendal.AsyncOperator("fs", root=str(root / "bench"))

    async def put(self, key: str, body: bytes) -> object:
        await self._operator.write(key, body)
        return None

    async def get(self, key: str) -> bytes:
        return bytes(await self._operator.read(key))

    async def stream(self, key: str) -> int:
        size = 0
        file = await self._operator.open(key, "rb")
        while chunk := await file.read(MiB):
            size += len(chunk)
        await file.close()
        return size

    async def list(self, prefix: str) -> int:
        count = 0
        async for entry in await self._operator.list(prefix, recursive=True):
            if not entry.path.endswith("/"):
                count += (await self._operator.stat(entry.path)).content_length >= 0
        return count


class Aiofiles:
    """aiofiles, as most services use it: files are written in place, without a rename or metadata."""

    def __init__(self, root: Path) -> None:
        self._root = root / "bench"

    async def put(self, key: str, body: bytes) -> object:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        async with aiofiles.open(path, "wb") as file:
            for start in range(0, len(body), MiB):
                await file.write(body[start : start + MiB])
        return None

    async def get(self, key: str) -> bytes:
        async with aiofiles.open(self._root / key, "rb") as file:
            return await file.read()

    async def stream(self, key: str) -> int:
        size = 0
        async with aiofiles.open(self._root / key, "rb") as file:
            while chunk := await file.read(MiB):
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        return await asyncio.to_thread(_walk, str(self._root / prefix))


class Synchronous:
    """Synchronous calls, which block the event loop: the lowest cost, but unusable in a service."""

    def __init__(self, root: Path) -> None:
        self._root = str(root / "bench")

    async def put(self, key: str, body: bytes) -> object:
        path = f"{self._root}/{key}"
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb", buffering=0) as file:  # noqa: ASYNC230, PTH123
            return file.write(body)

    async def get(self, key: str) -> bytes:
        with open(f"{self._root}/{key}", "rb", buffering=0) as file:  # noqa: ASYNC230, PTH123
            return file.read()

    async def stream(self, key: str) -> int:
        size = 0
        with open(f"{self._root}/{key}", "rb", buffering=0) as file:  # noqa: ASYNC230, PTH123
            while chunk := file.read(MiB):
                size += len(chunk)
        return size

    async def list(self, prefix: str) -> int:
        return _walk(f"{self._root}/{prefix}")


def _walk(path: str) -> int:
    count = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                count += _walk(entry.path)
            else:
                count += entry.stat(follow_symlinks=False).st_size >= 0
    return count


@asynccontextmanager
async def opened(name: str, root: Path) -> AsyncIterator[Contender]:
    """Open a contender."""
    if name == "trove_async":
        async with Trove(LocalDriver(root, fsync=False)) as store:
            yield TroveAsync(store)
    else:
        peers: dict[str, Callable[[Path], Contender]] = {
            "obstore": Obstore,
            "OpenDAL": OpenDAL,
            "aiofiles": Aiofiles,
            "synchronous": Synchronous,
        }
        yield peers[name](root)


NAMES = ["trove_async", "obstore", "OpenDAL", "aiofiles", "synchronous"]


async def work(name: str, root: Path) -> dict[str, Measurement]:
    """Do all the work once with one contender."""
    pid = os.getpid()
    small = os.urandom(SMALL)
    large = os.urandom(MiB) * (LARGE // MiB)
    results: dict[str, Measurement] = {}
    async with opened(name, root) as contender:

        async def warm(number: int) -> None:
            await contender.put(f"{name}-{pid}/warm/{number}", small)
            await contender.get(f"{name}-{pid}/warm/{number}")

        # OpenDAL's listing has no sizes, and requesting all of them takes a minute. So it lists a tenth.
        prefix, directories = ("listed/00", 10) if name == "OpenDAL" else ("listed/", DIRECTORIES)

        async def list_all() -> None:
            assert await contender.list(prefix) == directories * FILES  # noqa: S101

        async def put_large() -> None:
            await put_repeatedly(contender, f"{name}-large", large)

        async def stream_large() -> None:
            await stream(contender, f"{name}-large")

        await concurrently(200, 32, warm)  # starts threads, creates directories, fills caches
        for limit in (1, 32):
            # New keys in each round, because a file system is slow for a while after files are replaced.
            keys = [f"{name}-{pid}/{limit}/{number}" for number in range(COUNT)]

            def put(number: int, keys: list[str] = keys) -> Awaitable[object]:
                return contender.put(keys[number], small)

            def get(number: int, keys: list[str] = keys) -> Awaitable[object]:
                return contender.get(keys[number])

            results[f"put 4 KiB, {limit} at once"] = await concurrently(COUNT, limit, put)
            results[f"get 4 KiB, {limit} at once"] = await concurrently(COUNT, limit, get)
        for amount, step_name, step in (
            (PUTS * LARGE / MiB, "put 256 MiB", put_large),
            (STREAMS * LARGE / MiB, "get 256 MiB, streamed", stream_large),
            (directories * FILES, "list 100,000 keys with sizes", list_all),
        ):
            # The listing needs no warm-up: the kernel has cached the directories since their creation.
            if step is not list_all:
                await step()
            results[step_name] = await once(amount, step())
    return results


async def put_repeatedly(contender: Contender, key: str, body: bytes) -> None:
    """Store the large object several times."""
    for _ in range(PUTS):
        await contender.put(key, body)


async def stream(contender: Contender, key: str) -> None:
    """Read the large object several times."""
    for _ in range(STREAMS):
        assert await contender.stream(key) == LARGE  # noqa: S101


def prepare(root: Path) -> None:
    """Create the files to list. All contenders list the same ones."""
    for directory in range(DIRECTORIES):
        path = root / "bench" / "listed" / f"{directory:03}"
        path.mkdir(parents=True, exist_ok=True)
        for number in range(FILES):
            (path / f"{number:05}.txt").touch()


TARGETS = [
    ("get 4 KiB, 32 at once", "obstore", 2.0),
    ("put 4 KiB, 32 at once", "obstore", 1.2),
    ("get 256 MiB, streamed", "obstore", 5.0),
    ("get 256 MiB, streamed", "aiofiles", 0.95),
    ("put 256 MiB", "obstore", 1.0),
    ("put 256 MiB", "OpenDAL", 1.0),
    ("list 100,000 keys with sizes", "obstore", 1.4),
]
"""The targets: the work, the peer, and the lowest ratio of trove_async's rate to the peer's."""


def main() -> int:
    """Measure in rounds, and print a table. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--dir", type=Path, help="the directory for the files; default: a temporary one"
    )
    parser.add_argument("--child", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, root = arguments.child
        results = asyncio.run(work(name, Path(root)))
        figures = {
            work_name: {"rate": result.rate, "cpu": result.cpu / result.amount}
            for work_name, result in results.items()
        }
        print(json.dumps({**figures, "peak": {"rss": peak_rss()}}))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        prepare(Path(directory))
        rounds = [
            {name: measure(name, directory) for name in (NAMES if number % 2 else NAMES[::-1])}
            for number in range(arguments.rounds)
        ]
    return report(rounds)


def measure(name: str, directory: str) -> dict[str, dict[str, float]]:
    """Measure one contender, after a pause for the file system.

    ext4 does not reuse an inode in the first five seconds after its deletion (fs/ext4/ialloc.c,
    `recently_deleted`), and examines all such inodes whenever a file is created.
    """
    time.sleep(6)
    return in_fresh_process(__file__, "--child", name, directory)


def report(rounds: list[dict[str, dict[str, dict[str, float]]]]) -> int:
    """Print the results. Return 1 if a target was missed."""

    def series(name: str, work_name: str, figure: str) -> list[float]:
        return [round_[name][work_name][figure] for round_ in rounds]

    print(
        f"Medians of {len(rounds)} interleaved rounds; {machine('obstore', 'opendal', 'aiofiles')}."
    )
    print("Ratios are those of trove_async to the peer: above 1.00, trove_async is faster.\n")
    rows = []
    missed = 0
    for work_name in (work_name for work_name in rounds[0]["trove_async"] if work_name != "peak"):
        rate = statistics.median(series("trove_async", work_name, "rate"))
        cpu = statistics.median(series("trove_async", work_name, "cpu")) * 1e6
        ratios = [
            median_ratio(series("trove_async", work_name, "rate"), series(peer, work_name, "rate"))
            for peer in NAMES[1:]
        ]
        rows.append(
            [work_name, f"{rate:,.0f}/s", f"{cpu:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        )
        for _, peer, target in (target for target in TARGETS if target[0] == work_name):
            ratio = ratios[NAMES.index(peer) - 1]
            if ratio < target:
                missed += 1
                print(
                    f"missed: {work_name} must reach {target} times the rate of {peer}, got {ratio:.2f}"
                )
    header = ["work", "trove_async", "CPU µs each", *(f"to {peer}" for peer in NAMES[1:])]
    print(table(header, rows))
    peaks = ", ".join(
        f"{name} {statistics.median(series(name, 'peak', 'rss')):.0f}" for name in NAMES
    )
    print(f"\nPeak memory in MiB, including the 256 MiB body of the put: {peaks}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
