"""What does a cache in front of S3 save, and what does a miss cost, beside other caches?

The origin is SeaweedFS behind a proxy that counts requests, with one object of 256 MiB. The cache is a directory,
in memory if possible: writing 64 MiB to a disk may take four times the CPU time of receiving them.
The peers are fsspec's blockcache and filecache, diskcache with a loop around it, and
``rclone serve http --vfs-cache-mode full``, which is measured if it is installed.

    python benchmarks/layers.py [--rounds 5] [--size 256]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from unittest.mock import patch

import diskcache  # type: ignore[import-untyped]  # has no types
import fsspec
from _counting_proxy import CountingProxy, counting_proxy
from _harness import (
    Comparison,
    Measurement,
    MiB,
    machine,
    memory_folder,
    once,
    print_comparisons,
    table,
)

from trove_async import Trove
from trove_async.drivers import LocalDriver, MemoryDriver, S3Driver
from trove_async.layers import ReadThrough
from trove_async.testing.servers import S3Server, seaweedfs

KiB = 1024
BLOCK = 4 * MiB
BUCKET, KEY = "bench", "object"
Read = Callable[[int, int], bytes]
"""Reads the bytes from a start to an end."""


class Bench:
    """The origin of all measurements."""

    def __init__(self, server: S3Server, proxy: CountingProxy, folder: Path, body: bytes) -> None:
        self.server = server
        self.proxy = proxy
        self.body = body
        self._folder = folder
        self._folders = 0

    def folder(self) -> Path:
        """Return a new empty folder."""
        self._folders += 1
        path = self._folder / str(self._folders)
        path.mkdir()
        return path

    def driver(self) -> S3Driver:
        """Return a driver of the origin."""
        return S3Driver(
            region=self.server.region,
            endpoint_url=self.proxy.endpoint_url,
            access_key_id=self.server.access_key_id,
            secret_access_key=self.server.secret_access_key,
        )

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Trove]:
        """Open a store without a cache."""
        async with Trove(self.driver()) as store:
            await store.head(BUCKET, KEY)  # opens a connection
            yield store

    @asynccontextmanager
    async def cached(self, *, warm: bool = False, max_bytes: int = 1 << 40) -> AsyncIterator[Trove]:
        """Open a store with an empty or a full cache."""
        folder = self.folder()
        layer = ReadThrough(self.driver(), f"file://{folder}", max_bytes=max_bytes)
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, folder)
            store = await stack.enter_async_context(Trove(layer))
            await layer.wait_until_ready()
            if warm:
                async with store.get(BUCKET, KEY) as reader:
                    async for _ in reader:
                        pass
                await stored(layer, len(self.body))
            else:
                await store.exists(BUCKET, "missing")  # opens a connection
            self.proxy.reset()
            yield store


async def stored(layer: ReadThrough, size: int) -> None:
    """Wait until the cache has `size` bytes."""
    while layer.statistics().stored_bytes < size:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.001)


# -- peers -------------------------------------------------------------------------------------------


def fsspec_reads(bench: Bench, protocol: str) -> Callable[[], Read]:
    """Return a function that opens an empty cache of fsspec."""

    def open_cache() -> Read:
        options = {
            "key": bench.server.access_key_id,
            "secret": bench.server.secret_access_key,
            "client_kwargs": {"endpoint_url": bench.proxy.endpoint_url, "region_name": "us-east-1"},
            "skip_instance_cache": True,
        }
        fs = fsspec.filesystem(
            protocol,
            target_protocol="s3",
            target_options=options,
            cache_storage=str(bench.folder()),
            skip_instance_cache=True,
        )

        def read(start: int, end: int) -> bytes:
            with fs.open(f"{BUCKET}/{KEY}", "rb", block_size=BLOCK) as file:
                file.seek(start)
                data: bytes = file.read(end - start)
                return data

        return read

    return open_cache


def diskcache_reads(bench: Bench) -> Callable[[], Read]:
    """Return a function that opens an empty diskcache, filled block by block over HTTP by s3fs."""

    def open_cache() -> Read:
        fs = fsspec.filesystem(
            "s3",
            key=bench.server.access_key_id,
            secret=bench.server.secret_access_key,
            client_kwargs={"endpoint_url": bench.proxy.endpoint_url, "region_name": "us-east-1"},
            skip_instance_cache=True,
        )
        cache = diskcache.Cache(str(bench.folder()), size_limit=1 << 40)

        def read(start: int, end: int) -> bytes:
            pieces = []
            for number in range(start // BLOCK, -(-end // BLOCK)):
                block = cache.get(number)
                if block is None:
                    first = number * BLOCK
                    block = fs.cat_file(f"{BUCKET}/{KEY}", start=first, end=first + BLOCK)
                    cache.set(number, block)
                pieces.append(block)
            offset = start // BLOCK * BLOCK
            data: bytes = b"".join(pieces)[start - offset : end - offset]
            return data

        return read

    return open_cache


@contextmanager
def rclone(bench: Bench, max_size: str = "off") -> Iterator[tuple[Read, Path]]:
    """Run ``rclone serve http`` with an empty cache."""
    folder = bench.folder()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        # rclone 1.60 cannot use AWS_CA_BUNDLE.
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENDPOINT": bench.proxy.endpoint_url,
        "RCLONE_S3_ACCESS_KEY_ID": bench.server.access_key_id,
        "RCLONE_S3_SECRET_ACCESS_KEY": bench.server.secret_access_key,
        "RCLONE_S3_FORCE_PATH_STYLE": "true",
    }
    command = ["rclone", "serve", "http", f":s3:{BUCKET}", "--addr", f"127.0.0.1:{port}"]
    command += ["--vfs-cache-mode", "full", "--cache-dir", str(folder)]
    command += ["--vfs-cache-max-size", max_size, "--vfs-cache-poll-interval", "1s"]
    process = subprocess.Popen(  # noqa: S603 - a command of this benchmark
        command, env=environment, stderr=subprocess.DEVNULL
    )
    local = threading.local()

    def read(start: int, end: int) -> bytes:
        connection = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/{KEY}", headers={"Range": f"bytes={start}-{end - 1}"})
        data: bytes = connection.getresponse().read()
        return data

    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield read, folder
    finally:
        process.terminate()
        process.wait()


@contextmanager
def peers(bench: Bench) -> Iterator[dict[str, Read]]:
    """Open all peers that are installed, each with an empty cache."""
    with ExitStack() as stack:
        reads = {
            "fsspec blockcache": fsspec_reads(bench, "blockcache")(),
            "fsspec filecache": fsspec_reads(bench, "filecache")(),
            "diskcache": diskcache_reads(bench)(),
        }
        if shutil.which("rclone"):
            reads["rclone"] = stack.enter_context(rclone(bench))[0]
        yield reads


# -- measurements ------------------------------------------------------------------------------------


async def microseconds(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """Return the median duration of `work`."""
    times = []
    for number in range(count + count // 5):
        started = time.perf_counter()
        await work()
        if number >= count // 5:
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def blocking_microseconds(count: int, read: Read, size: int, offset: Callable[[int], int]) -> float:
    """Return the median duration of a blocking read of `size` bytes."""
    times = []
    for _ in range(count):
        start = offset(size)
        started = time.perf_counter()
        read(start, start + size)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


async def compare_hits(bench: Bench) -> bool:
    """Read ranges that the caches have."""
    sizes = (4 * KiB, MiB)
    rng = random.Random(1)
    rows: list[list[str]] = []
    comparisons: list[Comparison] = []

    def offset(size: int) -> int:
        return rng.randrange((len(bench.body) - size) // size) * size

    results = []
    async with bench.cached(warm=True) as store:
        for size in sizes:

            async def read(size: int = size) -> None:
                start = offset(size)
                await store.read(BUCKET, KEY, range=(start, start + size))

            results.append(await microseconds(500, read))
        requests = bench.proxy.gets + bench.proxy.others
    rows.append(["ReadThrough", *(f"{value:.0f}" for value in results), str(requests)])
    met = results[0] <= 60 and results[1] <= 200 and not requests
    rows.append(["target", "60", "200", "0"])

    path = bench.folder() / "file"
    path.write_bytes(bench.body)
    with path.open("rb") as file:
        descriptor = file.fileno()

        def pread(start: int, end: int) -> bytes:
            return os.pread(descriptor, end - start, start)

        bare = [blocking_microseconds(500, pread, size, offset) for size in sizes]
    rows.append(["a bare pread", *(f"{value:.0f}" for value in bare), "0"])
    path.unlink()

    def measure_peers() -> None:
        with peers(bench) as reads:
            for name, read in reads.items():
                for start in range(0, len(bench.body), 4 * MiB):
                    read(start, start + 4 * MiB)
                bench.proxy.reset()
                figures = [blocking_microseconds(100, read, size, offset) for size in sizes]
                requests = bench.proxy.gets + bench.proxy.others
                rows.append([name, *(f"{value:.0f}" for value in figures), str(requests)])
                for work, ours, theirs in zip(("4 KiB", "1 MiB"), results, figures, strict=True):
                    comparisons.append(
                        Comparison(work=f"hit of {work}", peer=name, rate=theirs / ours)
                    )

    await asyncio.to_thread(measure_peers)
    print("### Hits, µs\n")
    print(table(["", "4 KiB", "1 MiB", "requests to the origin"], rows) + "\n")
    print_comparisons(comparisons)
    return met


async def read_range(store: Trove, start: int, end: int) -> None:
    """Read a range, in chunks."""
    async with store.get(BUCKET, KEY, range=(start, end)) as reader:
        async for _ in reader:
            pass


async def compare_misses(bench: Bench, rounds: int) -> bool:
    """Read ranges that the cache does not have, and the same ranges without a cache.

    A miss fetches whole blocks, so it is also compared with a get of these blocks without a cache: the time
    until the range has arrived, the CPU time of the get, and that of the get and a bare write of the blocks
    to files, which no cache can be below.

    Between two reads the cache has time to complete its block, so that a read is not slowed down by the
    one before. The CPU time includes the time after the read, in which the block is completed and stored.
    """
    rows = []
    met = True
    whole = len(bench.body)
    cases = {
        "4 KiB, at the start of a block": (16, 4 * KiB, 0),
        "4 KiB, anywhere": (16, 4 * KiB, None),
        "1 MiB, at the start of a block": (16, MiB, 0),
        "a block of 4 MiB": (16, 4 * MiB, 0),
        f"the whole object of {whole // MiB} MiB": (1, whole, 0),
    }
    rng = random.Random(2)
    for name, (count, size, fixed) in cases.items():
        misses: list[Miss] = []
        received = 0.0
        for _ in range(rounds):
            async with bench.plain() as store, bench.cached() as cached:
                await cached.head(BUCKET, KEY)
                bench.proxy.reset()
                for block in rng.sample(range(whole // BLOCK), count) if count > 1 else [0]:
                    start = block * BLOCK + (
                        rng.randrange(BLOCK - size) if fixed is None else fixed
                    )
                    plain = await timed(store, start, start + size)
                    blocks = await timed_blocks(store, start, start + size)
                    write = await timed_write(bench, blocks.amount)
                    before = bench.proxy.received
                    missed = await timed(cached, start, start + size)
                    misses.append(Miss(plain, blocks, write, missed))
                    received += bench.proxy.received - before
        ratios = [
            statistics.median(getattr(miss, ratio) for miss in misses)
            for ratio in ("wall", "wall_of_blocks", "cpu", "cpu_of_blocks", "cpu_of_floor")
        ]
        plain_ms = statistics.median(miss.plain.seconds for miss in misses) * 1e3
        missed_ms = statistics.median(miss.missed.seconds for miss in misses) * 1e3
        cells = [f"{plain_ms:.1f}", f"{missed_ms:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append([name, *cells, f"{received / len(misses) / MiB:.1f}"])
        met = met and ratios[0] <= 1.15 and ratios[2] <= 1.5
    rows.append(["target", "", "", "1.15", "", "1.5", "", "", ""])
    print("### Misses, beside the same gets without the cache\n")
    header = ["", "plain ms", "miss ms", "wall ratio", "to the blocks", "CPU ratio"]
    header += ["to the blocks", "to get and write", "MiB received, each"]
    print(table(header, rows) + "\n")
    return met


@dataclass(frozen=True)
class Miss:
    """A miss, and what it is compared with.

    Attributes:
        plain: The same range without a cache.
        blocks: A get of its blocks without a cache. `seconds` is the time until the range has arrived.
        write: A write of as many bytes to files.
        missed: The miss.
    """

    plain: Measurement
    blocks: Measurement
    write: Measurement
    missed: Measurement

    @property
    def wall(self) -> float:
        return self.missed.seconds / self.plain.seconds

    @property
    def wall_of_blocks(self) -> float:
        return self.missed.seconds / self.blocks.seconds

    @property
    def cpu(self) -> float:
        return self.missed.cpu / self.plain.cpu

    @property
    def cpu_of_blocks(self) -> float:
        return self.missed.cpu / self.blocks.cpu

    @property
    def cpu_of_floor(self) -> float:
        return self.missed.cpu / (self.blocks.cpu + self.write.cpu)


async def timed(store: Trove, start: int, end: int) -> Measurement:
    """Read a range, and measure the time of the read and the CPU time until everything is idle."""
    cpu = time.process_time()
    read = await once(1, read_range(store, start, end))
    await asyncio.sleep(0.05)
    return Measurement(amount=1, seconds=read.seconds, cpu=time.process_time() - cpu)


async def timed_blocks(store: Trove, start: int, end: int) -> Measurement:
    """Read the blocks of a range, and measure the time until the range has arrived."""
    first, last = start // BLOCK * BLOCK, -(-end // BLOCK) * BLOCK
    cpu, started = time.process_time(), time.perf_counter()
    seconds = 0.0
    async with store.get(BUCKET, KEY, range=(first, last)) as reader:
        position = first
        while position < last:
            size = min(MiB, end - position) if position < end else MiB
            position += len(await reader.read(size))
            seconds = seconds or (time.perf_counter() - started if position >= end else 0)
    await asyncio.sleep(0.05)
    return Measurement(amount=last - first, seconds=seconds, cpu=time.process_time() - cpu)


async def timed_write(bench: Bench, size: float) -> Measurement:
    """Write blocks to files, in a thread."""
    block = memoryview(bench.body)[:BLOCK]
    folder = bench.folder()

    def write() -> None:
        for number in range(int(size) // BLOCK):
            descriptor = os.open(folder / str(number), os.O_CREAT | os.O_WRONLY)
            try:
                os.write(descriptor, block)
            finally:
                os.close(descriptor)

    measurement = await once(size, asyncio.to_thread(write))
    shutil.rmtree(folder)
    return measurement


async def compare_concurrent(bench: Bench) -> bool:
    """Let many readers miss one block."""
    rows = []
    met = True

    def row(name: str, seconds: float, wrong: int) -> list[str]:
        proxy = bench.proxy
        cells = [str(proxy.gets), str(proxy.others), f"{proxy.received / MiB:.1f}"]
        return [name, *cells, f"{seconds * 1e3:.0f}", str(wrong)]

    for readers in (16, 1000):
        async with bench.cached() as store:
            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(readers):
                    group.create_task(store.read(BUCKET, KEY, range=(0, 4 * KiB)))
            seconds = time.perf_counter() - started
            await asyncio.sleep(0.2)
            rows.append(row(f"ReadThrough, {readers} readers", seconds, wrong=0))
            met = met and bench.proxy.gets == 1

    def measure_peers() -> None:
        with peers(bench) as reads, ThreadPoolExecutor(16) as executor:
            for name, read in reads.items():
                bench.proxy.reset()
                started = time.perf_counter()
                futures = [executor.submit(read, 0, 4 * KiB) for _ in range(16)]
                wrong = sum(is_wrong(future, bench.body[: 4 * KiB]) for future in futures)
                seconds = time.perf_counter() - started
                rows.append(row(f"{name}, 16 readers", seconds, wrong))

    await asyncio.to_thread(measure_peers)
    header = ["", "GETs", "other requests", "MiB received", "ms", "errors or wrong bytes"]
    print("### Concurrent misses of one block (target: 1 GET)\n")
    print(table(header, rows) + "\n")
    return met


def is_wrong(future: Future[bytes], expected: bytes) -> bool:
    """Return whether a read failed or returned wrong bytes."""
    return future.exception() is not None or future.result() != expected


class DiskUsage:
    """The peak size of the files in a folder, sampled in a thread."""

    def __init__(self, folder: Path) -> None:
        self.peak = 0
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            size = 0
            for root, _, files in os.walk(self._folder):
                for name in files:
                    try:
                        status = (Path(root) / name).stat()
                    except OSError:
                        continue
                    size += min(status.st_size, status.st_blocks * 512)  # rclone's are sparse
            self.peak = max(self.peak, size)


async def compare_limits(bench: Bench) -> bool:
    """Read the object through caches of a quarter of its size."""
    limit = len(bench.body) // 4
    rows = []
    folder = bench.folder()
    layer = ReadThrough(bench.driver(), f"file://{folder}", max_bytes=limit)
    async with Trove(layer) as store:
        await layer.wait_until_ready()
        with DiskUsage(folder) as usage:
            for _ in range(3):
                await read_range(store, 0, len(bench.body))
    rows.append(["ReadThrough", f"{usage.peak / limit:.2f}"])
    met = usage.peak <= limit

    def measure_rclone() -> None:
        with rclone(bench, f"{limit}b") as (read, cache), DiskUsage(cache) as used:
            for _ in range(3):
                for start in range(0, len(bench.body), 4 * MiB):
                    read(start, start + 4 * MiB)
        rows.append(["rclone", f"{used.peak / limit:.2f}"])

    if shutil.which("rclone"):
        await asyncio.to_thread(measure_rclone)
    print("### Bytes on disk / max_bytes, at the peak (the object has 4 times max_bytes)\n")
    print(table(["", "ratio"], rows) + "\n")
    return met


@contextmanager
def loop_steps() -> Iterator[list[float]]:
    """Record the CPU times of all steps of the event loop. A collection of garbage is part of some step."""
    steps: list[float] = []
    run: Callable[[asyncio.Handle], None] = vars(asyncio.Handle)["_run"]

    def timed_run(handle: asyncio.Handle) -> None:
        started = time.thread_time()
        run(handle)
        steps.append(time.thread_time() - started)

    with patch.object(asyncio.Handle, "_run", timed_run):
        yield steps


async def measure_opening(bench: Bench, count: int = 100_000) -> bool:
    """Open a cache of many blocks."""
    folder = bench.folder()
    blocks = folder / "trove-cache" / "dead"
    blocks.mkdir(parents=True)

    def create() -> None:
        for number in range(count):
            name = f"{number:016x}{number:032x}-0-1-00000000"
            (blocks / name).write_bytes(b"x")

    await asyncio.to_thread(create)
    layer = ReadThrough(MemoryDriver(), LocalDriver(folder, fsync=False), max_bytes=1 << 30)
    with loop_steps() as steps:
        started, cpu = time.perf_counter(), time.process_time()
        async with Trove(layer):
            opened = time.perf_counter() - started
            stall, last = 0.0, time.perf_counter()
            while not layer.statistics().is_ready:
                await asyncio.sleep(0.001)  # a loop without a pause would compete with the listing
                now = time.perf_counter()
                stall, last = max(stall, now - last - 0.001), now
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            found = layer.statistics().blocks
    steps.sort()
    print(f"### Opening a cache of {count:,} blocks\n")
    rows = [
        ["open() returns after, ms", f"{opened * 1e3:.0f}", ""],
        ["index complete after, s", f"{seconds:.2f}", "1"],
        ["CPU time of that, s", f"{cpu:.2f}", ""],
        ["longest stall of the loop, ms", f"{stall * 1e3:.0f}", "50"],
        ["longest step of the loop, CPU ms", f"{steps[-1] * 1e3:.1f}", ""],
        ["second longest, CPU ms", f"{steps[-2] * 1e3:.1f}", ""],
        ["blocks found", f"{found:,}", f"{count:,}"],
    ]
    print(table(["", "figure", "target"], rows) + "\n")
    return seconds <= 1 and found == count and stall <= 0.05


async def run(bench: Bench, rounds: int) -> bool:
    """Run all measurements. Return whether all targets are met."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Trove(bench.driver()))
        await store.create_bucket(BUCKET, exist_ok=True)
        await store.put(BUCKET, KEY, bench.body)
    results = [
        await compare_hits(bench),
        await compare_misses(bench, rounds),
        await compare_concurrent(bench),
        await compare_limits(bench),
        await measure_opening(bench),
    ]
    return all(results)


def main() -> int:
    """Run the benchmark. Return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="MiB of the object")
    arguments = parser.parse_args()
    print(f"Medians; {machine('fsspec', 's3fs', 'diskcache')}.\n")
    with (
        seaweedfs() as server,
        counting_proxy(server.endpoint_url) as proxy,
        memory_folder() as folder,
    ):
        body = os.urandom(arguments.size * MiB)
        bench = Bench(server, proxy, Path(folder), body)
        return 0 if asyncio.run(run(bench, arguments.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
