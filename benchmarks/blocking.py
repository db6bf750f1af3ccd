"""What do blocking calls cost, beside our own async calls, s3fs and obstore?

Every round runs all contenders in turn, in one process, and the ratios are medians over the rounds. One thread is
compared with async calls one after another, and 16 threads with 16 concurrent ones. A server uses the same
cores.

    python benchmarks/blocking.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import s3fs  # type: ignore[import-untyped]  # has no types
from _harness import (
    Comparison,
    Measurement,
    compare,
    concurrently,
    machine,
    measured,
    median_ratio,
    memory_folder,
    print_comparisons,
    table,
)
from _servers import discarding_server, discarding_server_language
from obstore.store import LocalStore, S3Store

from trove_async import Trove, blocking
from trove_async.driver import AsyncDriver
from trove_async.drivers import LocalDriver, S3Driver
from trove_async.testing.servers import S3Server, seaweedfs

KiB = 1024
BUCKET = "bench"
THREADS = 16
CALLS = 960
"""Calls in one measurement."""

BODIES = {"get 8 KiB": bytes(8 * KiB), "put 4 KiB": bytes(4 * KiB)}
Calls = dict[str, Callable[[int], object]]
"""The calls of one contender by name; each takes a number."""


@dataclass
class Backend:
    """One place of objects, with the contenders that use it.

    Attributes:
        name: The name of the place.
        driver: Makes a driver of ours.
        peers: The calls of other libraries, by the name of the library.
    """

    name: str
    driver: Callable[[], AsyncDriver]
    peers: dict[str, Calls]
    results: dict[tuple[str, str, int], list[Measurement]] = field(default_factory=dict)

    def seconds(self, contender: str, name: str, count: int) -> list[float]:
        """Return the seconds of all rounds."""
        return [result.seconds for result in self.results.get((contender, name, count), [])]


def s3(name: str, server: S3Server) -> Backend:
    """Return a backend on an S3 server."""
    fs = s3fs.S3FileSystem(
        key=server.access_key_id,
        secret=server.secret_access_key,
        endpoint_url=server.endpoint_url,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"max_pool_connections": 64},
    )
    store = S3Store(
        BUCKET,
        endpoint=server.endpoint_url,
        region=server.region,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    peers: dict[str, Calls] = {
        "s3fs": {
            "get 8 KiB": lambda _: fs.cat_file(f"{BUCKET}/get-8192"),
            "put 4 KiB": lambda n: fs.pipe_file(f"{BUCKET}/put-{n}", BODIES["put 4 KiB"]),
        },
        "obstore": obstore_calls(store),
    }

    def driver() -> AsyncDriver:
        return S3Driver(
            endpoint_url=server.endpoint_url,
            region=server.region,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )

    return Backend(name, driver, peers)


def local(folder: str) -> Backend:
    """Return a backend in a folder in memory."""
    path = Path(folder) / "peer"
    path.mkdir()
    return Backend(
        "local directory",
        lambda: LocalDriver(Path(folder) / "ours"),
        {"obstore": obstore_calls(LocalStore(path))},
    )


def obstore_calls(store: Any) -> Calls:  # noqa: ANN401 - any store of obstore
    """Return the blocking calls of obstore."""
    obstore.put(store, "get-8192", BODIES["get 8 KiB"])
    return {
        "get 8 KiB": lambda _: obstore.get(store, "get-8192").bytes().to_bytes(),
        "put 4 KiB": lambda n: obstore.put(store, f"put-{n}", BODIES["put 4 KiB"]),
    }


@contextmanager
def backends() -> Iterator[list[Backend]]:
    """Start the servers."""
    with ExitStack() as stack:
        weed = stack.enter_context(seaweedfs())
        with blocking.Trove(
            S3Driver(
                endpoint_url=weed.endpoint_url,
                region=weed.region,
                access_key_id=weed.access_key_id,
                secret_access_key=weed.secret_access_key,
            )
        ) as store:
            store.create_bucket(BUCKET)
        port = stack.enter_context(discarding_server())
        folder = stack.enter_context(memory_folder())
        Path(folder, "ours").mkdir()
        yield [
            s3("SeaweedFS", weed),
            s3("discarding server", S3Server(endpoint_url=f"http://127.0.0.1:{port}")),
            local(folder),
        ]


def run(backend: Backend, rounds: int) -> None:
    """Measure all contenders of a backend in turn, several times."""
    with (
        asyncio.Runner() as runner,
        ThreadPoolExecutor(THREADS) as threads,
        blocking.Trove(backend.driver()) as store,
    ):
        if backend.name == "local directory":
            store.create_bucket(BUCKET)
        store.put(BUCKET, "get-8192", BODIES["get 8 KiB"])
        async_store = runner.run(Trove(backend.driver()).open())
        works = [
            *async_works(runner, async_store),
            *thread_works(threads, "blocking", calls_of(store.bucket(BUCKET))),
        ]
        for peer, calls in backend.peers.items():
            works += thread_works(threads, peer, calls)
        for number in range(rounds + 1):  # the first round warms up
            for contender, name, count, work in works:
                result = measured(CALLS, work)
                if number:
                    backend.results.setdefault((contender, name, count), []).append(result)
        runner.run(async_store.aclose())


Work = tuple[str, str, int, Callable[[], object]]
"""A contender, the name of a call, the number of threads, and what is measured."""


def async_works(runner: asyncio.Runner, store: Trove) -> Iterator[Work]:
    """Yield the works of our async store."""
    bucket = store.bucket(BUCKET)
    calls: dict[str, Callable[[int], Awaitable[object]]] = {
        "get 8 KiB": lambda _: bucket.read("get-8192"),
        "put 4 KiB": lambda n: bucket.put(f"put-{n}", BODIES["put 4 KiB"]),
    }
    for name, call in calls.items():
        for count in (1, THREADS):

            def work(
                count: int = count, call: Callable[[int], Awaitable[object]] = call
            ) -> Measurement:
                return runner.run(concurrently(CALLS, count, call))

            yield "async", name, count, work


def calls_of(bucket: blocking.Bucket) -> Calls:
    """Return our blocking calls."""
    return {
        "get 8 KiB": lambda _: bucket.read("get-8192"),
        "put 4 KiB": lambda n: bucket.put(f"put-{n}", BODIES["put 4 KiB"]),
    }


def thread_works(threads: ThreadPoolExecutor, contender: str, calls: Calls) -> Iterator[Work]:
    """Yield the works of a blocking contender, in this thread and in many threads."""
    for name, call in calls.items():
        yield contender, name, 1, partial(call_all, call, range(CALLS))
        parts = [range(start, CALLS, THREADS) for start in range(THREADS)]

        def work(call: Callable[[int], object] = call, parts: list[range] = parts) -> list[None]:
            return list(threads.map(partial(call_all, call), parts))

        yield contender, name, THREADS, work


def call_all(call: Callable[[int], object], numbers: range) -> None:
    """Call a function for each number."""
    for number in numbers:
        call(number)


def report(backend: Backend) -> str:
    """Return a table of the microseconds of each call, and our rate divided by each peer's."""
    rows = []
    for name in BODIES:
        for count in (1, THREADS):
            ours = backend.seconds("blocking", name, count)
            cells = [name, str(count), f"{statistics.median(ours) / CALLS * 1e6:.0f}"]
            for peer in ("async", "s3fs", "obstore"):
                theirs = backend.seconds(peer, name, count)
                median = statistics.median(theirs) / CALLS * 1e6 if theirs else 0
                cells.append(f"{median:.0f} ({median_ratio(theirs, ours):.2f})" if theirs else "")
            rows.append(cells)
    header = [
        backend.name,
        "threads",
        "blocking, µs",
        *(f"{peer}, µs" for peer in ("async", "s3fs", "obstore")),
    ]
    return table(header, rows)


def comparisons(backend: Backend) -> Iterator[Comparison]:
    """Yield our blocking calls beside those of each peer."""
    for peer in backend.peers:
        for name in BODIES:
            for count in (1, THREADS):
                yield compare(
                    f"{backend.name}: {name}, threads: {count}",
                    peer,
                    backend.results["blocking", name, count],
                    backend.results[peer, name, count],
                )


def opening_seconds() -> float:
    """Return how long a new process takes to import the facade and open a store."""
    code = "from trove_async import blocking\nwith blocking.Trove('s3://us-east-1/?endpoint=http://127.0.0.1:9'): pass"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own program
    return time.perf_counter() - started


TARGETS = [("async", 1, 1 / 1.1), ("s3fs", THREADS, 5.0), ("obstore", THREADS, 0.8)]
"""The minimum rate on SeaweedFS, as a multiple of a peer's rate: the peer, the threads, the multiple."""


def verdicts(backend: Backend) -> list[tuple[str, bool]]:
    """Return a line for each target, and whether it is met."""
    lines = []
    for name in BODIES:
        for peer, count, target in TARGETS:
            ours, theirs = (backend.seconds(who, name, count) for who in ("blocking", peer))
            ratio = median_ratio(theirs, ours)
            met = ratio >= target
            text = f"{name}, threads: {count}: {ratio:.2f} times the rate of {peer} (at least {target:.2f}:"
            lines.append((f"{text} {'met' if met else 'missed'})", met))
    return lines


def main() -> int:
    """Run everything. Return 1 if a target is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    language = discarding_server_language()
    print(
        f"Medians of {rounds} interleaved rounds; {machine('trove_async', 's3fs', 'obstore')};"
        f" discarding server: {language}."
    )
    print("Microseconds of a call, and in parentheses our blocking rate divided by the peer's.\n")
    all_met = True
    with backends() as places:
        for backend in places:
            run(backend, rounds)
            print(report(backend), "\n", flush=True)
            print_comparisons(comparisons(backend))
            if backend.name == "SeaweedFS":
                for line, met in verdicts(backend):
                    print(f"- {line}")
                    all_met &= met
                print()
    print(f"A process that imports the facade, opens a store and ends: {opening_seconds():.2f} s")
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
