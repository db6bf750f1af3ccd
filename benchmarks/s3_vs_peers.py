"""How fast is the S3 driver, compared with obstore, OpenDAL, s3fs, aiobotocore and bare aiohttp?

In each round, the contenders do the same work in turn, in separate processes. The scenes use:

- SeaweedFS, a real server: small objects, large objects, many large objects at once, and a listing. On a
  machine with few cores, the server is often the bottleneck;
- a server that discards bodies and serves zeros, so that the client is the bottleneck;
- a link with 40 MB/s per connection and a round trip of 20 ms, where parallel streams matter.

trove_async runs through a `Trove`, with verification, timeouts and retries. Its pool has the default size, but
64 MiB for many large objects at once. Before the scenes with zeros, the program checks that trove_async
verifies and retries.

    python benchmarks/s3_vs_peers.py [--rounds 3] [--scenes NAME …] [--contenders NAME …] [--gib]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
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
from _s3_contenders import NAMES, Contender, opened, plain
from _servers import discarding_server, discarding_server_language, running, script

from trove_async import IntegrityError
from trove_async.testing.servers import S3Server, seaweedfs

KiB = 1024
SIZES = {"1 KiB": KiB, "64 KiB": 64 * KiB}
COUNTS = {1: 200, 32: 1000}  # the number of operations, by concurrency
LARGE = 256 * MiB
FILES = 64  # transferred concurrently
FILE_SIZE = 32 * MiB
LISTED = 10_000
POOL = 64 * MiB  # of trove_async, for many large objects at once

Figures = dict[str, dict[str, float]]
Work = Callable[[str, Contender, argparse.Namespace], Awaitable[Figures]]


# -- scenes ------------------------------------------------------------------------------------------


async def small(name: str, contender: Contender, options: argparse.Namespace) -> Figures:
    """Put, get, head and delete small objects."""
    results: Figures = {}
    for size_name, size in SIZES.items():
        body = os.urandom(size)
        for limit, count in COUNTS.items():
            keys = [
                f"{name}/{os.getpid()}/{limit}/{n}-{size}"
                for n in range(max(limit, count // options.part))
            ]

            async def put(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                await contender.put(keys[n], body)

            async def get(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                assert len(await contender.get(keys[n])) == len(body)  # noqa: S101

            async def head(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                assert await contender.head(keys[n]) == len(body)  # noqa: S101

            async def delete(n: int, keys: list[str] = keys) -> None:
                await contender.delete(keys[n])

            await concurrently(limit, limit, put)  # opens the connections
            for operation, call in (("put", put), ("get", get), ("head", head), ("delete", delete)):
                measured = await concurrently(len(keys), limit, call)
                results[f"{operation} {size_name}, {limit} at once"] = figures(measured)
    return results


async def large(name: str, contender: Contender, options: argparse.Namespace) -> Figures:
    """Put and get an object of 256 MiB, and with ``--gib`` another of 1 GiB."""
    results: Figures = {}
    for size_name, size in {"256 MiB": LARGE, "1 GiB": 4 * LARGE}.items():
        if size > LARGE and not options.gib:
            continue
        body = os.urandom(MiB) * (size // MiB // options.part)
        key = f"{name}/large-{len(body)}"
        await contender.put(f"{name}/warm-{16 * MiB}", body[: 16 * MiB])
        memory = Memory()
        put = await once(len(body) / MiB, contender.put(key, body))
        results[f"put {size_name}"] = figures(put, memory)

        async def get(key: str = key, size: int = len(body)) -> None:
            assert await contender.stream(key) == size  # noqa: S101

        del body
        memory = Memory()
        results[f"get {size_name}"] = figures(await once(size / options.part / MiB, get()), memory)
    return results


def _many(name: str) -> list[str]:
    return [f"{name}/many/{n}-{FILE_SIZE}" for n in range(FILES)]


async def many_puts(name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """Put one file under many keys concurrently."""
    keys = _many(name)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(FILE_SIZE)
        path = Path(file.name)
        await contender.put(f"{name}/warm-{KiB}", bytes(KiB))
        memory = Memory()
        transfers = await concurrently(FILES, FILES, lambda n: contender.put_file(keys[n], path))
    measured = replace(transfers, amount=FILES * FILE_SIZE / MiB)
    return {f"put {FILES} x 32 MiB at once": figures(measured, memory)}


async def many_gets(name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """Get many objects concurrently."""
    keys = _many(name)

    async def get(n: int) -> None:
        assert await contender.stream(keys[n]) == FILE_SIZE  # noqa: S101

    await contender.head(keys[0])
    memory = Memory()
    measured = replace(await concurrently(FILES, FILES, get), amount=FILES * FILE_SIZE / MiB)
    return {f"get {FILES} x 32 MiB at once": figures(measured, memory)}


async def listing(_name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """List ten thousand keys."""

    async def list_all() -> None:
        assert await contender.list("listed/") == LISTED  # noqa: S101

    await list_all()  # warms the server's caches
    memory = Memory()
    return {"list 10,000 keys": figures(await once(LISTED, list_all()), memory)}


def figures(measured: Measurement, memory: Memory | None = None) -> dict[str, float]:
    """Return the figures of one piece of work."""
    values = {"rate": measured.rate, "cpu": measured.cpu / measured.amount}
    return values if memory is None else {**values, "rss": memory.peak}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Some work against one kind of server.

    Attributes:
        against: The kind of server.
        works: The names of the pieces of work. Each runs in its own process.
        unit: The unit of the rates.
        per: The amount of work for which the CPU time is printed.
        fill: Whether the keys that are listed must be created first.
        contenders: The contenders that do the work.
    """

    against: str
    works: Sequence[str]
    unit: str
    per: float = 1
    fill: bool = False
    contenders: Sequence[str] = tuple(name for name in NAMES if "unsigned" not in name)


WORKS: dict[str, Work] = {
    "small": small,
    "large": large,
    "many_puts": many_puts,
    "many_gets": many_gets,
    "listing": listing,
}

SCENES = {
    "small": Scene(against="SeaweedFS", works=["small"], unit="operations/s"),
    "large": Scene(against="SeaweedFS", works=["large"], unit="MiB/s", per=1024, contenders=NAMES),
    "many": Scene(
        against="SeaweedFS",
        works=["many_puts", "many_gets"],
        unit="MiB/s",
        per=1024,
        contenders=["trove_async", "trove_async, uvloop", "obstore", "s3fs", "aiobotocore"],
    ),
    "list": Scene(against="SeaweedFS", works=["listing"], unit="keys/s", fill=True),
    "small, zeros": Scene(against="zeros", works=["small"], unit="operations/s"),
    "large, zeros": Scene(
        against="zeros", works=["large"], unit="MiB/s", per=1024, contenders=NAMES
    ),
    "list, zeros": Scene(against="zeros", works=["listing"], unit="keys/s"),
    "slow link": Scene(against="a slow link", works=["large"], unit="MiB/s", per=1024),
}


# -- servers -----------------------------------------------------------------------------------------


@contextmanager
def serving(scene: Scene) -> Iterator[S3Server]:
    """Run the server of a scene; yield its address."""
    if scene.against == "SeaweedFS":
        with seaweedfs() as server:
            asyncio.run(prepare(server, fill=scene.fill))
            yield server
        return
    with discarding_server() as port:
        if scene.against == "zeros":
            yield S3Server(endpoint_url=f"http://127.0.0.1:{port}")
        else:
            with running(script("_slow_link.py", "127.0.0.1", str(port))) as slow_port:
                yield S3Server(endpoint_url=f"http://127.0.0.1:{slow_port}")


async def prepare(server: S3Server, *, fill: bool) -> None:
    """Create the bucket, and the keys to list."""
    async with plain(server) as client:
        await client.create_bucket()
        if fill:
            await concurrently(
                LISTED, 32, lambda n: client.put(f"listed/{n // 100:03}/{n:06}.bin", b"x")
            )


async def check_defaults(server: S3Server) -> None:
    """Check that trove_async, with its defaults, retries and verifies."""
    async with opened(NAMES[0], server) as client:
        assert len(await client.get(f"busy-{os.getpid()}-{KiB}")) == KiB  # noqa: S101 - after a retry
        for size in (KiB, 16 * MiB):
            try:
                await client.stream(f"flipped-{size}")
            except IntegrityError:
                continue
            raise AssertionError(f"a wrong byte in {size} bytes must raise IntegrityError")


# -- targets --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """Bounds for the median ratio of a figure of trove_async to the peer's.

    Attributes:
        scene: A key of `SCENES`.
        work: The name of the work in the results.
        variant: The variant of trove_async: one of `NAMES`.
        peer: The other contender: one of `NAMES`, or `ONE_STREAM`.
        figure: A key of the figures: ``"rate"`` or ``"cpu"``.
        minimum: The lowest acceptable ratio.
        maximum: The highest acceptable ratio.
    """

    scene: str
    work: str
    variant: str
    peer: str
    figure: str
    minimum: float = 0.0
    maximum: float = float("inf")


ONE_STREAM = "one stream"
"""A peer: bare aiohttp, which gets an object over one connection. Puts are compared with this get, too."""


def targets() -> Iterator[Target]:
    """Yield the targets of the S3 driver."""
    on_asyncio, on_uvloop, unsigned = NAMES[:3]
    for size in SIZES:
        for operation, rate in (("get", 1.2), ("delete", 1.2), ("put", 1.0), ("head", 1.0)):
            target = Target(
                scene="small",
                work=f"{operation} {size}, 32 at once",
                variant=on_uvloop,
                peer="obstore",
                figure="rate",
            )
            yield replace(target, minimum=rate)
            yield replace(target, figure="cpu", maximum=0.8)
            yield replace(target, figure="cpu", maximum=0.95, variant=on_asyncio)
            yield replace(target, peer="aiobotocore, tuned", minimum=2.5)
            yield replace(target, peer="aiobotocore, tuned", figure="cpu", maximum=0.25)
    get = Target(
        scene="large", work="get 256 MiB", variant=on_uvloop, peer="obstore", figure="rate"
    )
    put = replace(get, work="put 256 MiB", figure="cpu")
    yield replace(get, minimum=1.15)
    yield replace(get, figure="cpu", maximum=0.8)
    for variant in (on_uvloop, unsigned):
        yield replace(put, variant=variant, maximum=0.9)
        yield replace(put, variant=variant, peer="aiobotocore, tuned", maximum=0.6)
    listing = replace(get, scene="list", work="list 10,000 keys")
    yield replace(listing, peer="aiobotocore", minimum=5)
    yield replace(listing, minimum=0.9)
    yield replace(listing, figure="cpu", maximum=1.0)
    for work in ("get 256 MiB", "put 256 MiB"):
        link = replace(get, scene="slow link", work=work)
        yield replace(link, peer=ONE_STREAM, minimum=5)


LIMITS = {f"put {FILES} x 32 MiB at once": 96.0, f"get {FILES} x 32 MiB at once": 48.0}
"""The maximum growth of trove_async's memory, in MiB."""


# -- running and printing -----------------------------------------------------------------------------


def main() -> int:
    """Measure in rounds, and print tables. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--gib", action="store_true", help="also transfer objects of 1 GiB")
    parser.add_argument(
        "--part", type=int, default=1, help="do only 1/PART of the work, to try the program"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, name, server = options.child
        print(json.dumps(child(work, name, S3Server(**json.loads(server)), options)), flush=True)
        os._exit(0)  # obstore's threads sometimes abort the interpreter when it exits
    print(
        f"Medians of {options.rounds} interleaved rounds;"
        f" {machine('aiobotocore', 'aiohttp', 'obstore', 'opendal', 's3fs', 'uvloop')};"
        f" server of zeros: {discarding_server_language()}."
    )
    missed = 0
    for name in options.scenes:
        rounds = [run_scene(SCENES[name], options) for _ in range(options.rounds)]
        missed += report(name, rounds)
    return 1 if missed else 0


def child(work: str, name: str, server: S3Server, options: argparse.Namespace) -> Figures:
    """Do one piece of work with one contender, on asyncio's loop or on uvloop."""

    async def run() -> Figures:
        pool = POOL if work.startswith("many") else None
        async with opened(name, server, pool) as contender:
            return await WORKS[work](name.replace(", ", "-"), contender, options)

    return uvloop.run(run()) if name.endswith("uvloop") else asyncio.run(run())


def run_scene(scene: Scene, options: argparse.Namespace) -> dict[str, Figures]:
    """Run a scene once with each contender in turn."""
    contenders = [name for name in scene.contenders if name in options.contenders]
    results: dict[str, Figures] = {name: {} for name in contenders}
    flags = ["--part", str(options.part), *(["--gib"] if options.gib else [])]
    with serving(scene) as server:
        if scene.against == "zeros" and NAMES[0] in contenders:
            asyncio.run(check_defaults(server))
        address = json.dumps(asdict(server))
        for name in contenders:
            for work in scene.works:
                print(f"{scene.against}: {work} by {name}", file=sys.stderr, flush=True)
                results[name] |= in_fresh_process(__file__, *flags, "--child", work, name, address)
    return results


def report(scene_name: str, rounds: list[dict[str, Figures]]) -> int:
    """Print the results of one scene. Return the number of missed targets."""
    scene = SCENES[scene_name]
    names = list(rounds[0])

    def series(name: str, work: str, figure: str) -> list[float]:
        return [round_[name][work][figure] for round_ in rounds]

    def cell(name: str, work: str) -> str:
        rate = statistics.median(series(name, work, "rate"))
        cpu = statistics.median(series(name, work, "cpu")) * scene.per
        cpu_text = f"{cpu:.2f} s/GiB" if scene.per > 1 else f"{cpu * 1e6:,.0f} µs"
        if "rss" not in rounds[0][name][work]:
            return f"{rate:,.0f}, {cpu_text}"
        return f"{rate:,.0f}, {cpu_text}, {statistics.median(series(name, work, 'rss')):,.0f} MiB"

    print(f"\n### {scene_name}\n")
    per = {"MiB/s": "GiB", "keys/s": "key", "operations/s": "operation"}[scene.unit]
    print(
        f"Against {scene.against}: {scene.unit}, the client's CPU per {per}, and its peak growth of memory.\n"
    )
    works = list(rounds[0][names[0]])
    print(table(["work", *names], [[work, *(cell(n, work) for n in names)] for work in works]))
    rows = []
    missed = 0
    # 1. Check the targets of this scene whose contenders were run.
    for target in targets():
        peer, peer_work = target.peer, target.work
        if peer == ONE_STREAM:
            peer, peer_work = "aiohttp, uvloop", "get 256 MiB"
        if target.scene != scene_name or not {target.variant, peer} <= set(names):
            continue
        ratio = median_ratio(
            series(target.variant, target.work, target.figure),
            series(peer, peer_work, target.figure),
        )
        reached = target.minimum <= ratio <= target.maximum
        missed += not reached
        bound = f"≥ {target.minimum:g}" if target.minimum else f"≤ {target.maximum:g}"
        rows.append(
            [
                f"{target.work}: {target.figure}, {target.variant}",
                target.peer,
                bound,
                f"{ratio:.2f}",
                "" if reached else "missed",
            ]
        )
    # 2. Check the limits of memory.
    for work in works:
        for name in set(names) & set(NAMES[:2]) if work in LIMITS else ():
            peak = statistics.median(series(name, work, "rss"))
            reached = peak <= LIMITS[work]
            missed += not reached
            bound = f"≤ {LIMITS[work]:.0f} MiB"
            rows.append(
                [f"{work}: memory, {name}", "", bound, f"{peak:.0f}", "" if reached else "missed"]
            )
    if rows:
        print()
        print(table(["target", "peer", "bound", "measured", ""], rows))
    return missed


if __name__ == "__main__":
    sys.exit(main())
