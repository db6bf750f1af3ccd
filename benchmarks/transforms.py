"""What do compression and encryption cost, compared with the same transfers without them and with peers?

In each round the contenders do the same work in turn. The puts go to a driver that drops them and the gets
come from memory, so that only the work of the library is measured. The peers are Tink's streaming AEAD in
Python, pyrage (age in Rust), the crypt remote of rclone, the Amazon S3 Encryption Client, zstandard, and the
commands ``zstd`` and ``age`` in a pipe. A command that is not installed is not measured, and neither is the
Amazon S3 Encryption Client without ``.venv-s3-encryption``, which ``make bench`` creates.

    python benchmarks/transforms.py [--rounds 3] [--size 1024]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import zstandard
from _encryption_peers import encryption_peers
from _harness import (
    Comparison,
    Measurement,
    MiB,
    compare,
    machine,
    measured,
    median_ratio,
    memory_folder,
    once,
    print_comparisons,
    table,
)
from _sink_driver import SinkDriver

from trove_async import Event, Middleware, Trove
from trove_async.drivers import LocalDriver, S3Driver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.testing import servers

KiB = 1024
KEY = bytes(range(32))
CHUNKS = [os.urandom(MiB) for _ in range(16)]
MAX_EXTRA_CPU = 0.15  # seconds per GiB
MAX_STALL = 0.010  # seconds


def encryption(segment_size: int = MiB) -> Encryption:
    """Return the encryption of all measurements."""
    return Encryption(Keyring({"key": KEY}), segment_size=segment_size)


async def chunks(size: int) -> AsyncIterator[bytes]:
    """Yield `size` MiB in chunks of 1 MiB."""
    for number in range(size):
        yield CHUNKS[number % len(CHUNKS)]


@asynccontextmanager
async def opened(*middleware: Middleware, keep: bool = False) -> AsyncIterator[Trove]:
    """Open a store over a sink."""
    async with Trove(SinkDriver(keep=keep), middleware=middleware) as store:
        yield store


async def put(store: Trove, size: int) -> Measurement:
    """Put `size` MiB from memory, in chunks."""
    return await once(size, store.put("bucket", "key", chunks(size), size=size * MiB))


async def get(store: Trove, size: int) -> Measurement:
    """Read the object in chunks, and drop them."""

    async def read() -> None:
        async with store.get("bucket", "key") as reader:
            async for _ in reader:
                pass

    return await once(size, read())


class Stalls:
    """The longest time in seconds for which the event loop ran no other task."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Wake up every millisecond until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before - 0.001)

    async def during(self, work: Awaitable[Measurement]) -> Measurement:
        """Await `work`, and watch the loop meanwhile."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.watch())
            await asyncio.sleep(0)  # `watch` starts before work that never waits
            measurement = await work
            await asyncio.sleep(0.01)  # and wakes up after it
            task.cancel()
        return measurement


# -- encryption ------------------------------------------------------------------------------------


async def compare_encryption(rounds: int, size: int) -> bool:
    """Print what encryption costs. Return whether the targets are met."""
    writes: dict[str, list[Measurement]] = {}
    reads: dict[str, list[Measurement]] = {}
    stalls, plain_stalls = Stalls(), Stalls()
    body = [CHUNKS[number % len(CHUNKS)] for number in range(size)]
    async with AsyncExitStack() as stack:
        peers, notes = stack.enter_context(encryption_peers(KEY, body))
        plain = await stack.enter_async_context(opened())
        encrypted = await stack.enter_async_context(opened(encryption()))
        kept = await stack.enter_async_context(opened(keep=True))
        kept_encrypted = await stack.enter_async_context(opened(encryption(), keep=True))
        await put(kept, size)
        await put(kept_encrypted, size)
        for _ in range(rounds):
            for name, measurement in (
                ("plain", await plain_stalls.during(put(plain, size))),
                ("encrypted", await stalls.during(put(encrypted, size))),
                *((peer.name, peer.write()) for peer in peers),
            ):
                writes.setdefault(name, []).append(measurement)
            for name, measurement in (
                ("plain", await plain_stalls.during(get(kept, size))),
                ("encrypted", await stalls.during(get(kept_encrypted, size))),
                *((peer.name, peer.read()) for peer in peers),
            ):
                reads.setdefault(name, []).append(measurement)
    print(f"### Encryption of {size} MiB\n")
    rows = [
        [
            name,
            *(
                f"{statistics.median(m.rate for m in series[name]) * MiB / 1e6:,.0f}"
                for series in (writes, reads)
            ),
            *(f"{cpu_per_gib(series[name]):.3f}" for series in (writes, reads)),
        ]
        for name in writes
    ]
    header = ["", "write MB/s", "read MB/s", "write CPU s/GiB", "read CPU s/GiB"]
    print(table(header, rows) + "\n")
    for note in notes:
        print(f"- {note}")
    extra = [
        statistics.median(
            (encrypted.cpu - plain.cpu) / encrypted.amount * KiB
            for encrypted, plain in zip(series["encrypted"], series["plain"], strict=True)
        )
        for series in (writes, reads)
    ]
    print(
        f"\nEncryption adds {extra[0]:.3f} CPU s/GiB to a write and {extra[1]:.3f} to a read"
        f" (target {MAX_EXTRA_CPU}). The longest stall of the loop was {stalls.longest * 1e3:.1f} ms"
        f" (target {MAX_STALL * 1e3:.0f}), and {plain_stalls.longest * 1e3:.1f} ms without encryption."
    )
    encrypting = [peer.name for peer in peers if peer.encrypts]
    lowest = []
    for work, series in (("writes", writes), ("reads", reads)):
        rates = {name: [m.rate for m in values] for name, values in series.items()}
        ratio, peer = min((median_ratio(rates["encrypted"], rates[p]), p) for p in encrypting)
        print(f"The lowest ratio of {work} to a peer is {ratio:.2f} ({peer}; target 1.0).")
        lowest.append(ratio)
    print()
    print_comparisons(
        compare(f"encrypted {work} of {size} MiB", peer, series["encrypted"], series[peer])
        for work, series in (("write", writes), ("read", reads))
        for peer in encrypting
    )
    return min(lowest) >= 1 and max(extra) <= MAX_EXTRA_CPU and stalls.longest <= MAX_STALL


def cpu_per_gib(measurements: Sequence[Measurement]) -> float:
    """Return the median CPU seconds per GiB."""
    return statistics.median(m.cpu / m.amount * KiB for m in measurements)


# -- compression -----------------------------------------------------------------------------------


def source_tree() -> bytes:
    """Return the sources of Python's standard library as a tar archive."""
    archive = io.BytesIO()
    library = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(library.rglob("*.py")):
            if "site-packages" not in path.parts:
                tar.add(path)
    return archive.getvalue()


def source_text(size: int) -> bytes:
    """Return `size` MiB of Python sources: the archive again and again."""
    text = source_tree()
    return (text * (size * MiB // len(text) + 1))[: size * MiB]


def compress_in_threads(blocks: Sequence[bytes]) -> None:
    """Compress all blocks with the library on two threads, each with a compressor of its own."""

    def work(offset: int) -> None:
        compressor = zstandard.ZstdCompressor(3, write_checksum=True)
        for block in blocks[offset::2]:
            compressor.compress(block)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))


async def compare_compression(rounds: int, text: bytes) -> bool:
    """Print how fast compression is, compared with the library that it uses, on one thread."""
    size = len(text) // MiB
    blocks = [text[start : start + MiB] for start in range(0, len(text), MiB)]
    compressor = zstandard.ZstdCompressor(3, write_checksum=True)
    decompressor = zstandard.ZstdDecompressor()
    frames = [compressor.compress(block) for block in blocks]
    series: dict[str, list[Measurement]] = {}
    async with opened(Compression()) as store, opened(Compression(), keep=True) as kept:
        await kept.put("bucket", "key", text)
        for _ in range(rounds):
            for name, measurement in (
                ("zstandard", measured(size, lambda: [compressor.compress(b) for b in blocks])),
                ("zstandard, two threads", measured(size, lambda: compress_in_threads(blocks))),
                ("trove_async", await once(size, store.put("bucket", "key", text))),
                (
                    "zstandard, read",
                    measured(size, lambda: [len(decompressor.decompress(f)) for f in frames]),
                ),
                ("trove_async, read", await get(kept, size)),
            ):
                series.setdefault(name, []).append(measurement)
        tree = source_tree()  # not repeated, which would hide what small frames lose
        stored = (await store.put("bucket", "key", tree)).stored_size
    one_frame = len(compressor.compress(tree))
    print(f"### Compression of {size} MiB of source text, level 3\n")
    rows = [
        [
            name,
            f"{statistics.median(m.rate for m in values) * MiB / 1e6:,.0f}",
            f"{statistics.median(m.amount / m.cpu for m in values) * MiB / 1e6:,.0f}",
        ]
        for name, values in series.items()
    ]
    print(table(["", "MB/s", "MB per CPU s"], rows))
    per_cpu = median_ratio(
        [m.amount / m.cpu for m in series["trove_async"]],
        [m.amount / m.cpu for m in series["zstandard"]],
    )
    rates = {name: [m.rate for m in values] for name, values in series.items()}
    parallel = median_ratio(rates["trove_async"], rates["zstandard"])
    of_two = median_ratio(rates["trove_async"], rates["zstandard, two threads"])
    print(
        f"\nThe put does {per_cpu:.2f} times the work of the library per CPU second (target 0.95), and"
        f" {parallel:.2f} times its rate on {os.cpu_count()} cores (target 1.8): {of_two:.2f} times the rate"
        f" of the library on two threads. Frames of 1 MiB are {stored / one_frame - 1:.1%} larger than one"
        " frame (target 2 %).\n"
    )
    print_comparisons(
        compare(
            f"{ours.replace('trove_async', 'compression')}, level 3",
            peer,
            series[ours],
            series[peer],
        )
        for ours, peer in (
            ("trove_async", "zstandard"),
            ("trove_async", "zstandard, two threads"),
            ("trove_async, read", "zstandard, read"),
        )
    )
    return per_cpu >= 0.95 and parallel >= 1.8 and stored <= 1.02 * one_frame


# -- both ------------------------------------------------------------------------------------------


def pipeline(command: str) -> float:
    """Run a shell pipeline, and return its seconds."""
    started = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", command], check=True)  # noqa: S603 - a fixed command
    return time.perf_counter() - started


def prepare(source: Path, text: bytes, key: Path) -> str:
    """Write the text and a new key of age, and return its recipient."""
    source.write_bytes(text)
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)  # noqa: S603, S607
    return next(line.split()[-1] for line in key.read_text().splitlines() if "public key" in line)


async def compare_both(rounds: int, text: bytes) -> bool:
    """Print how fast compression and encryption together are, compared with ``zstd | age``."""
    if not (shutil.which("zstd") and shutil.which("age")):
        print("### Both\n\nNot measured: the commands zstd and age are not installed.\n")
        return True
    with memory_folder() as directory:
        folder = Path(directory)
        source, stored, key = folder / "text", folder / "text.zst.age", folder / "key"
        recipient = prepare(source, text, key)
        encode = f"zstd -q -3 -T2 -c {source} | age -r {recipient}"
        pipeline(f"{encode} > {stored}")
        figures: dict[str, list[float]] = {}
        both = Compression(), encryption()
        async with opened(*both) as store, opened(*both, keep=True) as kept:
            await kept.put("bucket", "key", source)
            for _ in range(rounds):
                for name, seconds in (
                    ("zstd | age", pipeline(f"{encode} > /dev/null")),
                    ("trove_async", (await once(1, store.put("bucket", "key", source))).seconds),
                    (
                        "age | zstd",
                        pipeline(f"age -d -i {key} {stored} | zstd -q -d -c > /dev/null"),
                    ),
                    ("trove_async, read", (await get(kept, 1)).seconds),
                ):
                    figures.setdefault(name, []).append(len(text) / 1e6 / seconds)
    print(f"### Both, {len(text) // MiB} MiB of source text\n")
    print(
        table(
            ["", "MB/s"],
            [[name, f"{statistics.median(values):,.0f}"] for name, values in figures.items()],
        )
    )
    write = median_ratio(figures["trove_async"], figures["zstd | age"])
    read = median_ratio(figures["trove_async, read"], figures["age | zstd"])
    print(f"\nRatios: write {write:.2f} (target 1.4), read {read:.2f} (target 1.0).\n")
    print_comparisons(
        [
            Comparison(work="compressed and encrypted write", peer="zstd and age", rate=write),
            Comparison(work="compressed and encrypted read", peer="age and zstd", rate=read),
        ]
    )
    return write >= 1.4 and read >= 1.0


# -- ranges ----------------------------------------------------------------------------------------


async def milliseconds(count: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Return the median time of `count` calls, after one that is not counted."""
    await work(0)
    times = []
    for number in range(count):
        started = time.perf_counter()
        await work(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


async def compare_local_ranges(text: bytes) -> bool:
    """Print the time for 4 KiB of a local object through both transforms."""
    rows, met = [], True
    for block_size, target in ((MiB, 3.5), (64 * KiB, 0.4)):
        stack: list[Middleware] = [Compression(frame_size=block_size), encryption(block_size)]
        with tempfile.TemporaryDirectory() as directory:
            driver = LocalDriver(directory)
            async with Trove(driver, middleware=stack) as store:
                await store.create_bucket("bucket")
                await store.put("bucket", "key", text)
                last = len(text) - 4 * KiB

                async def read(number: int, store: Trove = store, last: int = last) -> None:
                    start = number * 1_000_003 % last
                    await store.read("bucket", "key", range=(start, start + 4 * KiB))

                taken = await milliseconds(200, read)
        rows.append([f"{block_size // KiB} KiB", f"{taken:.2f}", f"{target}"])
        met = met and taken <= target
    print("### 4 KiB of a local object through both\n")
    print(table(["frames and segments", "ms", "target"], rows) + "\n")
    return met


def s3_driver(server: servers.S3Server) -> S3Driver:
    """Return a driver for a server."""
    return S3Driver(
        region=server.region,
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        addressing_style="path",
    )


async def compare_s3_ranges(size: int) -> bool:
    """Print the cost of 1 MiB of a large S3 object through both transforms."""
    text = source_text(min(size, 64))
    body = [text] * -(-size * MiB // len(text))
    with servers.seaweedfs() as server:
        driver = s3_driver(server)
        async with Trove(driver, middleware=[Compression(), encryption()]) as store:
            await store.create_bucket("bucket")
            await store.put("bucket", "encoded", body)
            events: list[Event] = []
            stop = store.events.subscribe(events.append)
            latencies = {}
            span = (size // 2 * MiB + 12_345, size // 2 * MiB + 12_345 + MiB)
            await store.read("bucket", "encoded", range=span)
            cold = sum(event.kind == "attempt" for event in events)
            events.clear()
            await store.read("bucket", "encoded", range=span)
            warm = sum(event.kind == "attempt" for event in events)
            stop()

            async def read(number: int) -> None:
                start = number * 7_000_003 % (len(body) * len(text) - MiB)
                await store.read("bucket", "encoded", range=(start, start + MiB))

            latencies["encoded"] = await milliseconds(30, read)
        async with Trove(s3_driver(server)) as store:
            await store.put("bucket", "plain", body)

            async def read_plain(number: int) -> None:
                start = number * 7_000_003 % (len(body) * len(text) - MiB)
                await store.read("bucket", "plain", range=(start, start + MiB))

            latencies["plain"] = await milliseconds(30, read_plain)
    ratio = latencies["encoded"] / latencies["plain"]
    print(f"### 1 MiB of an S3 object of {size} MiB (SeaweedFS) through both\n")
    rows = [
        ["requests, cold", f"{cold}", "3"],
        ["requests, warm", f"{warm}", "1"],
        ["latency / plain latency", f"{ratio:.2f}", "3"],
    ]
    print(table(["", "figure", "target"], rows) + "\n")
    return cold <= 3 and warm <= 1 and ratio <= 3


async def run(rounds: int, size: int) -> bool:
    """Run all comparisons. Return whether all targets are met."""
    text = source_text(size)
    results = [
        await compare_encryption(rounds, size),
        await compare_compression(rounds, text[: 256 * MiB]),
        await compare_both(rounds, text),
        await compare_local_ranges(text[: 64 * MiB]),
        await compare_s3_ranges(size),
    ]
    return all(results)


def main() -> int:
    """Run the benchmark. Return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large bodies")
    arguments = parser.parse_args()
    print(
        f"Medians of {arguments.rounds} interleaved rounds; {machine('cryptography', 'zstandard')}.\n"
    )
    return 0 if asyncio.run(run(arguments.rounds, arguments.size)) else 1


if __name__ == "__main__":
    sys.exit(main())
