"""How fast is the GCS driver, compared with gcloud-aio-storage, gcsfs and obstore?

In each round, the contenders do the same work in turn, in separate processes, on one fake-gcs-server. The
server shares the machine and is often the bottleneck, so the table has the CPU time as well as the rates.
trove_async runs through a `Trove` with a pool of 64 MiB and otherwise with its defaults: verification, timeouts
and retries. obstore writes through an API that this server lacks, so it reads what the others have written.

    python benchmarks/gcs_vs_peers.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Awaitable

from _gcs_contenders import CONTENDERS, Contender
from _harness import (
    Measurement,
    Memory,
    MiB,
    concurrently,
    in_fresh_process,
    machine,
    median_ratio,
    once,
    table,
)

from trove_async import Trove
from trove_async.drivers import GCSDriver
from trove_async.testing.servers import fake_gcs

SIZES = {"4 KiB": 4 * 1024, "64 KiB": 64 * 1024}
COUNTS = {1: 150, 32: 600}  # the number of operations, by concurrency
LARGE_MIB = 256
BUCKET = "benchmark"
OURS = "trove_async"

Figures = dict[str, dict[str, float]]


def figures(measured: Measurement, memory: Memory | None = None) -> dict[str, float]:
    """Return the figures of a piece of work."""
    values = {"rate": measured.rate, "cpu": measured.cpu / measured.amount}
    return values if memory is None else {**values, "rss": memory.peak}


async def small(name: str, contender: Contender) -> Figures:
    """Put, get and head small objects."""
    results: Figures = {}
    writes = name != "obstore"
    for size_name, size in SIZES.items():
        body = os.urandom(size)
        for limit, count in COUNTS.items():
            keys = [f"small/{limit}/{size}/{n}" for n in range(count)]

            async def put(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                await contender.put(keys[n], body)

            async def get(n: int, keys: list[str] = keys, size: int = size) -> None:
                assert await contender.get(keys[n]) == size  # noqa: S101

            async def head(n: int, keys: list[str] = keys, size: int = size) -> None:
                assert await contender.head(keys[n]) == size  # noqa: S101

            if writes:
                await concurrently(limit, limit, put)  # opens the connections
                measured = await concurrently(count, limit, put)
                results[f"put {size_name}, {limit} at once"] = figures(measured)
            await concurrently(limit, limit, get)
            for operation, work in (("get", get), ("head", head)):
                measured = await concurrently(count, limit, work)
                results[f"{operation} {size_name}, {limit} at once"] = figures(measured)
    return results


async def large(name: str, contender: Contender) -> Figures:
    """Put and get one large object."""
    results: Figures = {}
    if name != "obstore":
        await contender.put_large("large", bytes(MiB), 16)
        piece = os.urandom(MiB)
        memory = Memory()
        measured = await once(LARGE_MIB, contender.put_large("large", piece, LARGE_MIB))
        results[f"put {LARGE_MIB} MiB"] = figures(measured, memory)
    memory = Memory()
    results[f"get {LARGE_MIB} MiB"] = figures(await once(LARGE_MIB, _get_large(contender)), memory)
    return results


async def _get_large(contender: Contender) -> None:
    assert await contender.get_large("large") == LARGE_MIB * MiB  # noqa: S101


async def child(name: str, url: str) -> None:
    """Do all the work with one contender, and print the figures."""
    async with CONTENDERS[name](url, BUCKET) as contender:
        results = {**await small(name, contender), **await large(name, contender)}
    print(json.dumps(results))


async def create_bucket(url: str) -> None:
    """Create the bucket."""
    async with Trove(GCSDriver(endpoint_url=url)) as store:
        await store.create_bucket(BUCKET)


def run(work: Awaitable[None]) -> None:
    """Run an awaitable to its end."""

    async def main() -> None:
        await work

    asyncio.run(main())


def report(rounds: list[dict[str, Figures]]) -> str:
    """Return the table: medians, the maximum memory, and the median ratio of rates to each peer."""
    names = list(CONTENDERS)
    rows = []
    for work in rounds[0][OURS]:
        cells = [work]
        for name in names:
            results = [round_[name][work] for round_ in rounds if work in round_[name]]
            if not results:
                cells.append("")
                continue
            rate, cpu = (
                statistics.median(result[figure] for result in results)
                for figure in ("rate", "cpu")
            )
            rss = max((result["rss"] for result in results if "rss" in result), default=None)
            unit = "MiB/s" if "MiB" in work else "/s"
            cell = f"{rate:,.0f} {unit}, {cpu * 1e6:,.0f} µs"
            cells.append(cell if rss is None else f"{cell}, {rss:,.0f} MiB")
        for name in names[1:]:
            ratios = [
                [round_[contender][work]["rate"] for round_ in rounds if work in round_[name]]
                for contender in (OURS, name)
            ]
            cells.append(f"{median_ratio(*ratios):.2f}x" if ratios[1] else "")
        rows.append(cells)
    return table(["", *names, *(f"over {name}" for name in names[1:])], rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "URL"))
    arguments = parser.parse_args()
    if arguments.child:
        run(child(*arguments.child))
        return
    rounds = []
    for _ in range(arguments.rounds):
        with fake_gcs() as server:  # a new server for each round: it keeps all objects in memory
            run(create_bucket(server.endpoint_url))
            rounds.append(
                {
                    name: in_fresh_process(__file__, "--child", name, server.endpoint_url)
                    for name in CONTENDERS
                }
            )
    print("The rate, the client's CPU per operation or MiB, and its peak growth of memory.\n")
    print(report(rounds))
    print(f"\n{machine('aiohttp', 'gcloud-aio-storage', 'gcsfs', 'obstore')}")


if __name__ == "__main__":
    main()
