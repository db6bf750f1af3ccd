"""How much does it cost to share one pool between all transfers?

Bodies of 4 MiB are streamed to the memory driver, with several pool sizes and concurrencies. The table has
the rate, also relative to one body at a time with a pool that never fills, and the memory.

    python benchmarks/pool_contention.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator

from _harness import MiB, concurrently, in_fresh_process, machine, median_ratio, peak_rss, table

from trove_async import BufferPool, Trove
from trove_async.drivers import MemoryDriver

BODY = 4 * MiB
COUNT = 256
PIECE = bytes(256 * 1024)
CASES = [(pool, limit) for pool in (256, 64, 8, 2) for limit in (1, 32, 256)]


async def body() -> AsyncIterator[bytes]:
    """Yield 4 MiB in pieces, and let other tasks run between them, as if received from a network."""
    for _ in range(BODY // len(PIECE)):
        yield PIECE
        await asyncio.sleep(0)


async def measure(pool_mib: int, limit: int) -> dict[str, float]:
    """Put all bodies, and return the figures. Two keys are enough, and keep the stored data small."""
    pool = BufferPool(pool_mib * MiB)
    async with Trove(MemoryDriver(), pool=pool) as store:
        await store.create_bucket("bench")
        await store.put("bench", "warm", body())
        rss_before = peak_rss()
        measured = await concurrently(
            COUNT, limit, lambda number: store.put("bench", str(number % 2), body())
        )
    usage = pool.statistics()
    return {
        "rate": measured.amount * BODY / MiB / measured.seconds,
        "rss": peak_rss() - rss_before,
        "peak": usage.peak / MiB,
        "spilled": usage.spilled_total / MiB,
    }


def main() -> int:
    """Measure in rounds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps({"figures": asyncio.run(measure(*arguments.child))}))
        return 0
    rounds = [
        {case: in_fresh_process(__file__, "--child", *map(str, case))["figures"] for case in CASES}
        for _ in range(arguments.rounds)
    ]
    reference = [round_[CASES[0]]["rate"] for round_ in rounds]
    rows = []
    for case in CASES:
        series = {
            figure: [round_[case][figure] for round_ in rounds]
            for figure in ("rate", "rss", "peak", "spilled")
        }
        medians = {figure: statistics.median(values) for figure, values in series.items()}
        rows.append(
            [
                f"pool of {case[0]} MiB, {case[1]} at once",
                f"{medians['rate']:,.0f}",
                f"{median_ratio(series['rate'], reference):.2f}",
                f"{medians['peak']:.0f}",
                f"{medians['spilled']:.0f}",
                f"{medians['rss']:.0f}",
            ]
        )
    print(f"Medians of {arguments.rounds} interleaved rounds; {machine()}.\n")
    print(
        "The ratio compares the rate with that of the first case. The last three columns are in MiB.\n"
    )
    header = ["case", "MiB/s", "ratio", "pool's peak", "spilled", "growth of memory"]
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
