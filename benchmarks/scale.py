"""Does the cost of a unit of work stay flat as the number of units grows?

Each case does the same work at several scales: concurrent streaming puts and gets of 1 MiB, small puts, listed keys,
backends in one store, and routes. The table has the elapsed time and CPU time of a unit, its CPU time relative to
the smallest scale, and the peak growth of memory over that of the idle store, whose pool has 64 MiB.

    python benchmarks/scale.py [--rounds 3] [--case puts --case gets]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from _harness import Measurement, Memory, MiB, in_fresh_process, machine, memory_folder, once, table

from trove_async import BufferPool, ObjectInfo, Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.options import ListOptions, Page

POOL = 64 * MiB
CHUNK = bytes(64 * 1024)
SMALL = bytes(1024)
STORED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of work.

    Attributes:
        unit: The unit of work.
        work: Does the work at a scale, and returns the measurement and the peak growth of memory in MiB.
        scales: The scales, the smallest first.
        max_ratio: The highest CPU time of a unit relative to the smallest scale; None: no target.
        max_memory: The highest growth of memory in MiB at a scale; None: no target.
    """

    unit: str
    work: Callable[[int], Awaitable[tuple[Measurement, float]]]
    scales: Sequence[int]
    max_ratio: float | None = 1.3
    max_memory: Callable[[int], float] | None = None


# -- streams -----------------------------------------------------------------------------------------


async def body(size: int) -> AsyncIterator[bytes]:
    """Yield chunks of 64 KiB, and let other tasks run between them, as if received from a network."""
    for _ in range(size // len(CHUNK)):
        yield CHUNK
        await asyncio.sleep(0)


async def all_at_once(count: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Run `work` for all numbers below `count` concurrently. An error of one ends the benchmark."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(_awaited(work(number)))


async def _awaited(work: Awaitable[object]) -> None:
    await work


async def streaming_puts(count: int, size: int = MiB) -> tuple[Measurement, float]:
    """Put streams of unknown size, all at once."""
    with memory_folder() as folder:
        async with Trove(LocalDriver(folder), pool=BufferPool(POOL)) as store:
            await store.create_bucket("bench")
            await store.put("bench", "warm", body(MiB))
            memory = Memory()
            # Few keys: the objects are files in memory, of which there may be less than 10 GiB.
            work = all_at_once(
                count, lambda number: store.put("bench", str(number % 64), body(size))
            )
            return await once(count, work), memory.peak


async def streaming_gets(count: int, size: int = MiB) -> tuple[Measurement, float]:
    """Get objects, all at once. Each reader takes one chunk each time that its task runs."""
    with memory_folder() as folder:
        async with Trove(LocalDriver(folder), pool=BufferPool(POOL)) as store:
            await store.create_bucket("bench")
            for number in range(64):
                await store.put("bench", str(number), body(size))

            async def get(number: int) -> None:
                received = 0
                async with store.get("bench", str(number % 64)) as obj:
                    async for chunk in obj:
                        received += len(chunk)
                        await asyncio.sleep(0)
                if received != size:
                    raise ValueError(f"a get must receive {size} bytes, got {received}")

            await get(0)
            memory = Memory()
            return await once(count, all_at_once(count, get)), memory.peak


async def large_puts(count: int) -> tuple[Measurement, float]:
    """Put streams of 32 MiB, all at once."""
    return await streaming_puts(count, 32 * MiB)


async def large_gets(count: int) -> tuple[Measurement, float]:
    """Get objects of 32 MiB, all at once."""
    return await streaming_gets(count, 32 * MiB)


async def small_puts(count: int) -> tuple[Measurement, float]:
    """Put bodies of 1 KiB, all at once."""
    with memory_folder() as folder:
        async with Trove(LocalDriver(folder), pool=BufferPool(POOL)) as store:
            await store.create_bucket("bench")
            await store.put("bench", "warm", SMALL)
            memory = Memory()
            work = all_at_once(count, lambda number: store.put("bench", str(number), SMALL))
            return await once(count, work), memory.peak


# -- listings ----------------------------------------------------------------------------------------


class NumberedDriver(MemoryDriver):
    """Lists a number of objects that it does not hold in memory."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page."""
        start = int(options.token or 0)
        end = min(start + options.limit, self._count)
        entries = [
            ObjectInfo(
                bucket=bucket,
                key=f"key-{number:09}",
                size=1,
                etag="etag",
                last_modified=STORED,
                backend="default",
                complete=False,
            )
            for number in range(start, end)
        ]
        return Page(entries=entries, token=str(end) if end < self._count else None)


async def _list_all(store: Trove, count: int) -> None:
    listed = 0
    async for _ in store.list("bench"):
        listed += 1
    if listed != count:
        raise ValueError(f"a listing must have {count} keys, got {listed}")


async def listed_keys(count: int) -> tuple[Measurement, float]:
    """List keys."""
    async with Trove(NumberedDriver(count), pool=BufferPool(POOL)) as store:
        await store.create_bucket("bench")
        async for _ in store.list("bench"):
            break
        memory = Memory()
        return await once(count, _list_all(store, count)), memory.peak


async def listed_files(count: int) -> tuple[Measurement, float]:
    """List the files of one directory."""
    with memory_folder() as folder:
        async with Trove(LocalDriver(folder), pool=BufferPool(POOL)) as store:
            await store.create_bucket("bench")
            await asyncio.to_thread(_create_files, f"{folder}/bench", count)
            async for _ in store.list("bench"):
                break
            memory = Memory()
            return await once(count, _list_all(store, count)), memory.peak


def _create_files(folder: str, count: int) -> None:
    for number in range(count):
        with open(f"{folder}/key-{number:09}", "xb"):  # noqa: PTH123 - many files
            pass


# -- stores ------------------------------------------------------------------------------------------

OPERATIONS = 3000


async def _puts_and_gets(store: Trove, prefix: str) -> None:
    for number in range(OPERATIONS // 2):
        key = f"{prefix}/{number % 8}"
        await store.put("bench", key, SMALL)
        await store.read("bench", key)


async def operations_with_backends(count: int) -> tuple[Measurement, float]:
    """Put and read small objects on the last of many backends."""
    backends = {f"backend-{number}": MemoryDriver() for number in range(count)}
    routes = [("last/*", f"backend-{count - 1}")]
    async with Trove(
        MemoryDriver(), backends=backends, routes=routes, pool=BufferPool(POOL)
    ) as store:
        await store.create_bucket("bench", backends="all")
        await store.put("bench", "last/warm", SMALL)
        memory = Memory()
        return await once(OPERATIONS, _puts_and_gets(store, "last")), memory.peak


async def opened_backends(count: int) -> tuple[Measurement, float]:
    """Make, open and close a store of many backends."""

    async def make() -> None:
        backends = {f"backend-{number}": MemoryDriver() for number in range(count)}
        async with Trove(MemoryDriver(), backends=backends, pool=BufferPool(POOL)):
            pass

    await make()
    memory = Memory()
    return await once(count, make()), memory.peak


async def merged_keys(count: int) -> tuple[Measurement, float]:
    """List the keys of many backends, 20 on each, merged."""
    backends = {f"backend-{number}": MemoryDriver() for number in range(count)}
    routes = [(f"{number}/*", f"backend-{number}") for number in range(count)]
    async with Trove(
        MemoryDriver(), backends=backends, routes=routes, pool=BufferPool(POOL)
    ) as store:
        await store.create_bucket("bench", backends="all")
        for number in range(count):
            for key in range(20):
                await store.put("bench", f"{number}/{key}", SMALL)
        memory = Memory()
        return await once(20 * count, _list_all(store, 20 * count)), memory.peak


async def operations_with_routes(count: int) -> tuple[Measurement, float]:
    """Put and read small objects whose keys match the last of many patterns."""
    routes = [(f"folder-{number}/*", "other") for number in range(count)]
    async with Trove(
        MemoryDriver(), backends={"other": MemoryDriver()}, routes=routes, pool=BufferPool(POOL)
    ) as store:
        await store.create_bucket("bench", backends="all")
        await store.put("bench", f"folder-{count - 1}/warm", SMALL)
        memory = Memory()
        return await once(OPERATIONS, _puts_and_gets(store, f"folder-{count - 1}")), memory.peak


# -- cases -------------------------------------------------------------------------------------------


def stream_memory(count: int) -> float:
    """Return the limit for concurrent streams in MiB: the pool, 32 MiB, and 8 KiB a stream."""
    return 64 + 32 + count * 8 / 1024


STREAMS = (1_000, 3_000, 10_000)
CASES = {
    "puts": Case(
        unit="concurrent streaming puts of 1 MiB",
        work=streaming_puts,
        scales=STREAMS,
        max_memory=stream_memory,
    ),
    "gets": Case(
        unit="concurrent gets of 1 MiB, a chunk a tick",
        work=streaming_gets,
        scales=STREAMS,
        max_memory=stream_memory,
    ),
    "large puts": Case(
        unit="concurrent streaming puts of 32 MiB",
        work=large_puts,
        scales=(64,),
        max_memory=lambda _: 64 + 32,
    ),
    "large gets": Case(
        unit="concurrent gets of 32 MiB",
        work=large_gets,
        scales=(64,),
        max_memory=lambda _: 48,
    ),
    "small puts": Case(unit="concurrent puts of 1 KiB", work=small_puts, scales=STREAMS),
    "listing": Case(
        unit="listed keys",
        work=listed_keys,
        scales=(10_000, 100_000, 1_000_000),
        max_memory=lambda _: 32,
    ),
    "directory": Case(
        unit="listed files of one directory", work=listed_files, scales=(10_000, 100_000)
    ),
    "backends": Case(
        unit="backends: an operation", work=operations_with_backends, scales=(1, 100, 1_000)
    ),
    "opening": Case(
        unit="backends: opening and closing one", work=opened_backends, scales=(10, 100, 1_000)
    ),
    "merging": Case(
        unit="backends: a key of a merged listing",
        work=merged_keys,
        scales=(10, 100, 1_000),
        max_ratio=None,
    ),
    "routes": Case(
        unit="routes: an operation", work=operations_with_routes, scales=(10, 1_000, 10_000)
    ),
}


async def measure(name: str, scale: int) -> dict[str, float]:
    """Run one case at one scale, and return the figures of a unit."""
    measured, memory = await CASES[name].work(scale)
    return {
        "seconds": measured.seconds / measured.amount,
        "cpu": measured.cpu / measured.amount,
        "memory": memory,
    }


def main() -> int:
    """Measure in rounds, and print a table. Return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, scale = arguments.child
        print(json.dumps({"figures": asyncio.run(measure(name, int(scale)))}))
        return 0
    names = arguments.case or list(CASES)
    runs = [(name, scale) for name in names for scale in CASES[name].scales]
    rounds = [
        {run: in_fresh_process(__file__, "--child", run[0], str(run[1]))["figures"] for run in runs}
        for _ in range(arguments.rounds)
    ]
    rows, missed = [], 0
    for name, scale in runs:
        case = CASES[name]
        figures = {
            figure: statistics.median(round_[name, scale][figure] for round_ in rounds)
            for figure in ("seconds", "cpu", "memory")
        }
        ratio = statistics.median(
            round_[name, scale]["cpu"] / round_[name, case.scales[0]]["cpu"] for round_ in rounds
        )
        limit = None if case.max_memory is None else case.max_memory(scale)
        too_slow = case.max_ratio is not None and ratio > case.max_ratio
        too_large = limit is not None and figures["memory"] > limit
        missed += too_slow + too_large
        rows.append(
            [
                f"{scale:,} {case.unit}",
                f"{figures['seconds'] * 1e6:,.1f}",
                f"{figures['cpu'] * 1e6:,.1f}",
                f"{ratio:.2f}" + (" missed" if too_slow else ""),
                f"{figures['memory']:.0f}" + (" missed" if too_large else ""),
                "" if limit is None else f"{limit:.0f}",
            ]
        )
    print(f"Medians of {arguments.rounds} interleaved rounds; {machine()}.\n")
    header = ["work", "µs", "CPU µs", "ratio (at most 1.3)", "MiB over idle", "limit"]
    print(table(header, rows))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
