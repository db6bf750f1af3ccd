"""What does a listing cost that is merged over two S3 backends, compared with one backend and obstore?

Both backends list the same 10,000 keys, in pages of 1,000, and the routes send each key to one of them. So a
merged listing parses two keys for each one that it returns. The server has its pages in memory, and the
figure is the client's CPU time for each returned key. The contenders take turns, in separate processes.

With obstore, the two listings are merged by hand: sorted, with a prefix as the only rule.

    python benchmarks/merged_listing.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import obstore
from _harness import in_fresh_process, machine, median_ratio, table
from obstore.store import S3Store

from trove_async import Route, Trove
from trove_async.drivers import S3Driver
from trove_async.testing.servers import S3Server

KEYS = 10_000
REPEATS = 5
PREFIX = "listed/"
COLD = "listed/0000"  # a tenth of the keys, which are in 100 folders: listed/00042/0004242.bin

List = Callable[[], Awaitable[int]]
"""Lists all keys, and returns their number."""


def by_prefix(_bucket: str, key: str) -> str:
    """Return the backend of a key: the route function of one case."""
    return "cold" if key.startswith(COLD) else ""


ROUTINGS: Mapping[str, Mapping[str, Any]] = {
    "one backend": {},
    "two, by a prefix": {"routes": [Route.prefix(COLD, "cold")]},
    "two, by a pattern": {"routes": [(f"{COLD}?/*", "cold")]},
    "two, by a suffix of many": {
        "routes": [
            *(Route.suffix(f".{number}.bin", "cold") for number in range(100)),
            Route.suffix("00.bin", "cold"),
        ]
    },
    "two, by 10,000 prefixes": {
        "routes": [Route.prefix(f"{PREFIX}{10 * number:05}/", "cold") for number in range(10_000)]
    },
    "two, by a function": {"route_functions": [by_prefix]},
}
OBSTORE = "obstore, one bucket"
OBSTORE_MERGED = "obstore, two buckets merged by hand"
CASES = (*ROUTINGS, OBSTORE, OBSTORE_MERGED)

MAX_SINGLE = 1.0
"""The highest acceptable ratio of the CPU time with one backend to obstore's with one bucket."""

MAX_MERGED = 6e-6
"""The highest acceptable CPU time for a returned key with two backends and a prefix, in seconds."""


async def measure(name: str, server: S3Server) -> float:
    """Return the CPU seconds for a returned key."""
    if name == OBSTORE:
        return await cpu_time(lambda: list_with_obstore(obstore_at(server)))
    if name == OBSTORE_MERGED:
        return await cpu_time(lambda: merge_with_obstore(obstore_at(server), obstore_at(server)))
    routing = ROUTINGS[name]
    backends = {"cold": driver_at(server)} if routing else {}
    async with Trove(driver_at(server), backends=backends, **routing) as store:

        async def list_all() -> int:
            return sum([entry.size >= 0 async for entry in store.list("bench", prefix=PREFIX)])

        return await cpu_time(list_all)


async def cpu_time(list_all: List) -> float:
    """Return the median CPU seconds for a key."""
    seconds = []
    for _ in range(2 + REPEATS):
        started = time.process_time()
        count = await list_all()
        seconds.append((time.process_time() - started) / count)
        assert count == KEYS  # noqa: S101 - else something else was measured
    return statistics.median(seconds[2:])


def driver_at(server: S3Server) -> S3Driver:
    """Return a driver for the server."""
    return S3Driver(
        endpoint_url=server.endpoint_url,
        region=server.region,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )


def obstore_at(server: S3Server) -> S3Store:
    """Return an obstore for the server."""
    return S3Store(
        "bench",
        endpoint=server.endpoint_url,
        region=server.region,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


async def list_with_obstore(store: S3Store) -> int:
    """List one bucket, as batches of dictionaries."""
    count = 0
    async for batch in obstore.list(store, prefix=PREFIX, chunk_size=1000):
        for meta in batch:
            count += meta["size"] >= 0
    return count


async def merge_with_obstore(default: S3Store, cold: S3Store) -> int:
    """List two buckets, sort their keys, and keep each key of the bucket that it is routed to."""
    entries = []
    for name, store in (("", default), ("cold", cold)):
        async for batch in obstore.list(store, prefix=PREFIX, chunk_size=1000):
            entries += [(meta["path"], name, meta["size"]) for meta in batch]
    entries.sort(key=itemgetter(0))
    count = 0
    for key, group in groupby(entries, itemgetter(0)):
        backend = by_prefix("bench", key)
        count += sum(name == backend and size >= 0 for _, name, size in group)
    return count


@contextmanager
def serving() -> Iterator[str]:
    """Run the server; yield its URL."""
    with subprocess.Popen(  # noqa: S603 - a script in this folder
        [sys.executable, str(Path(__file__).parent / "_s3_discarding_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None  # noqa: S101 - it is a pipe
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.communicate()


def main() -> int:
    """Measure in rounds, and print a table. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, url = arguments.child
        cpu = asyncio.run(measure(name, S3Server(endpoint_url=url)))
        print(json.dumps({"figures": {"cpu": cpu}}), flush=True)
        os._exit(0)  # obstore's threads sometimes abort the interpreter when it exits
    series: dict[str, list[float]] = {name: [] for name in CASES}
    with serving() as url:
        for _ in range(arguments.rounds):
            for name in CASES:
                result = in_fresh_process(__file__, "--child", name, url)
                series[name].append(result["figures"]["cpu"])
    print(f"Medians of {arguments.rounds} interleaved rounds; {machine('obstore')}.\n")
    print("The CPU time for a returned key, and its ratio to that of obstore with one bucket.\n")
    rows = [
        [
            name,
            f"{statistics.median(values) * 1e6:.2f} µs",
            f"{min(values) * 1e6:.2f} to {max(values) * 1e6:.2f} µs",
            f"{median_ratio(values, series[OBSTORE]):.2f}",
        ]
        for name, values in series.items()
    ]
    print(table(["listing", "CPU", "range", "ratio"], rows))
    failed = False
    single = median_ratio(series["one backend"], series[OBSTORE])
    if single > MAX_SINGLE:
        failed = True
        print(
            f"\nMissed: one backend must cost at most {MAX_SINGLE:g} times obstore, got {single:.2f}"
        )
    merged = statistics.median(series["two, by a prefix"])
    if merged > MAX_MERGED:
        failed = True
        print(
            f"\nMissed: a key of two backends must cost at most {MAX_MERGED * 1e6:g} µs,"
            f" got {merged * 1e6:.2f}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
