"""How fast is the S3 driver, compared with obstore, OpenDAL, s3fs, aiobotocore and bare aiohttp?

Every contender does the same work in a process of its own, in turn, for several rounds, in scenes:

- against SeaweedFS, a real server: small objects, large objects, many at once, a listing. On a machine
  with few cores the server is often the bottleneck;
- against a server that discards bodies and serves zeros, so that the client is the bottleneck;
- over a link with 40 MB/s per connection and 20 ms round trip, where parallel streams matter.

Ours runs as shipped, through a `Trove`, with verification, timeouts, retries and the pool. The program
checks that before it measures.

    python benchmarks/s3_vs_peers.py [--rounds 3] [--scenes NAME …] [--contenders NAME …] [--gib]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
from _harness import (
    Measured,
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

from trove_async import IntegrityError
from trove_async.testing.servers import S3Server, seaweedfs

HERE = Path(__file__).parent
KiB = 1024
SIZES = {"1 KiB": KiB, "64 KiB": 64 * KiB}
COUNTS = {1: 200, 32: 1000}  # operations, and how many at a time
LARGE = 256 * MiB
MANY = 64
EACH = 32 * MiB
LISTED = 10_000
POOL = 64 * MiB

Figures = dict[str, dict[str, float]]
Work = Callable[[str, Contender, argparse.Namespace], Awaitable[Figures]]


# -- scenes ------------------------------------------------------------------------------------------


async def small(name: str, contender: Contender, options: argparse.Namespace) -> Figures:
    """Put, get, head and delete small objects."""
    found: Figures = {}
    for size_name, size in SIZES.items():
        body = os.urandom(size)
        for limit, count in COUNTS.items():
            keys = [
                f"{name}/{os.getpid()}/{limit}/{n}-{size}" for n in range(count // options.part)
            ]

            async def put(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                await contender.put(keys[n], body)

            async def get(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                assert len(await contender.get(keys[n])) == len(body)  # noqa: S101

            async def head(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                assert await contender.head(keys[n]) == len(body)  # noqa: S101

            async def delete(n: int, keys: list[str] = keys) -> None:
                await contender.delete(keys[n])

            await concurrently(limit, limit, put)  # connections
            for what, work in (("put", put), ("get", get), ("head", head), ("delete", delete)):
                measured = await concurrently(len(keys), limit, work)
                found[f"{what} {size_name}, {limit} at once"] = figures(measured)
    return found


async def large(name: str, contender: Contender, options: argparse.Namespace) -> Figures:
    """Put and get one or two large objects."""
    found: Figures = {}
    for size_name, size in {"256 MiB": LARGE, "1 GiB": 4 * LARGE}.items():
        if size > LARGE and not options.gib:
            continue
        body = os.urandom(MiB) * (size // MiB // options.part)
        key = f"{name}/large-{len(body)}"
        await contender.put(f"{name}/warm-{16 * MiB}", body[: 16 * MiB])
        memory = Memory()
        put = await once(len(body) / MiB, contender.put(key, body))
        found[f"put {size_name}"] = figures(put, memory)

        async def get(key: str = key, size: int = len(body)) -> None:
            assert await contender.stream(key) == size  # noqa: S101

        del body
        memory = Memory()
        found[f"get {size_name}"] = figures(await once(size / options.part / MiB, get()), memory)
    return found


def _many(name: str) -> list[str]:
    return [f"{name}/many/{n}-{EACH}" for n in range(MANY)]


async def many_puts(name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """Put many files concurrently."""
    keys = _many(name)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(EACH)
        path = Path(file.name)
        await contender.put(f"{name}/warm-{KiB}", bytes(KiB))
        memory = Memory()
        done = await concurrently(MANY, MANY, lambda n: contender.put_file(keys[n], path))
    measured = replace(done, amount=MANY * EACH / MiB)
    return {f"put {MANY} x 32 MiB at once": figures(measured, memory)}


async def many_gets(name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """Get many objects concurrently."""
    keys = _many(name)

    async def get(n: int) -> None:
        assert await contender.stream(keys[n]) == EACH  # noqa: S101

    await contender.head(keys[0])
    memory = Memory()
    measured = replace(await concurrently(MANY, MANY, get), amount=MANY * EACH / MiB)
    return {f"get {MANY} x 32 MiB at once": figures(measured, memory)}


async def listing(_name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """List ten thousand keys."""

    async def listed() -> None:
        assert await contender.list("listed/") == LISTED  # noqa: S101

    await listed()  # warms the server's caches
    memory = Memory()
    return {"list 10,000 keys": figures(await once(LISTED, listed()), memory)}


def figures(measured: Measured, memory: Memory | None = None) -> dict[str, float]:
    """Return the figures of one piece of work."""
    found = {"rate": measured.rate, "cpu": measured.cpu / measured.amount}
    return found if memory is None else {**found, "rss": memory.peak}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Some work against one kind of server.

    Attributes:
        against: The server.
        works: The pieces of work, each in a process of its own.
        unit: The unit of the amounts.
        per: The amount that the CPU time is given for.
        fill: Whether the keys to list are created first.
        contenders: The contenders.
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
    "small": Scene(against="SeaweedFS", works=["small"], unit="/s"),
    "large": Scene(against="SeaweedFS", works=["large"], unit=" MiB/s", per=1024, contenders=NAMES),
    "many": Scene(
        against="SeaweedFS",
        works=["many_puts", "many_gets"],
        unit=" MiB/s",
        per=1024,
        contenders=["trove_async", "trove_async, uvloop", "obstore", "s3fs", "aiobotocore"],
    ),
    "list": Scene(against="SeaweedFS", works=["listing"], unit=" keys/s", fill=True),
    "small, swallowed": Scene(against="zeros", works=["small"], unit="/s"),
    "large, swallowed": Scene(
        against="zeros", works=["large"], unit=" MiB/s", per=1024, contenders=NAMES
    ),
    "list, served": Scene(against="zeros", works=["listing"], unit=" keys/s"),
    "slow link": Scene(against="a slow link", works=["large"], unit=" MiB/s", per=1024),
}


# -- servers -----------------------------------------------------------------------------------------


@contextmanager
def process(script: str, *arguments: str) -> Iterator[int]:
    """Run one of our servers, which prints its port and stops when its input ends."""
    with subprocess.Popen(  # noqa: S603 - the scripts in this folder
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None  # noqa: S101 - it is a pipe
        yield int(running.stdout.readline())
        running.communicate()


@contextmanager
def serving(scene: Scene) -> Iterator[S3Server]:
    """Run the server of a scene."""
    if scene.against == "SeaweedFS":
        with seaweedfs() as server:
            asyncio.run(prepare(server, fill=scene.fill))
            yield server
        return
    with process("_s3_swallower.py") as port:
        if scene.against == "zeros":
            yield S3Server(endpoint_url=f"http://127.0.0.1:{port}")
        else:
            with process("_slow_link.py", "127.0.0.1", str(port)) as slow:
                yield S3Server(endpoint_url=f"http://127.0.0.1:{slow}")


async def prepare(server: S3Server, *, fill: bool) -> None:
    """Create the bucket, and the keys to list."""
    async with plain(server) as client:
        await client.create_bucket()
        if fill:
            await concurrently(
                LISTED, 32, lambda n: client.put(f"listed/{n // 100:03}/{n:06}.bin", b"x")
            )


async def prove(server: S3Server) -> None:
    """Check that ours runs with verification and retries."""
    async with opened(NAMES[0], server) as ours:
        assert len(await ours.get(f"busy-{os.getpid()}-{KiB}")) == KiB, "it retries"  # noqa: S101
        for size in (KiB, 16 * MiB):
            try:
                await ours.stream(f"flipped-{size}")
            except IntegrityError:
                continue
            raise AssertionError(f"a wrong byte of {size} went unnoticed")


# -- targets --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A target for the median ratio of ours to a peer."""

    scene: str
    what: str
    ours: str
    peer: str
    figure: str
    least: float = 0.0
    most: float = float("inf")


ONE_STREAM = "one stream"
"""The rate of bare aiohttp over one connection, as a reference."""


def promises() -> Iterator[Promise]:
    """Yield the targets of the S3 driver."""
    unhurried, fast, unsigned = NAMES[:3]
    for size in SIZES:
        for what, least in (("get", 1.2), ("delete", 1.2), ("put", 1.0), ("head", 1.0)):
            at = Promise(
                scene="small",
                what=f"{what} {size}, 32 at once",
                ours=fast,
                peer="obstore",
                figure="rate",
            )
            yield replace(at, least=least)
            yield replace(at, figure="cpu", most=0.8)
            yield replace(at, figure="cpu", most=0.95, ours=unhurried)
            yield replace(at, peer="aiobotocore, tuned", least=2.5)
            yield replace(at, peer="aiobotocore, tuned", figure="cpu", most=0.25)
    get = Promise(scene="large", what="get 256 MiB", ours=fast, peer="obstore", figure="rate")
    put = replace(get, what="put 256 MiB", figure="cpu")
    yield replace(get, least=1.15)
    yield replace(get, figure="cpu", most=0.8)
    for ours in (fast, unsigned):
        yield replace(put, ours=ours, most=0.9)
        yield replace(put, ours=ours, peer="aiobotocore, tuned", most=0.6)
    listed = replace(get, scene="list", what="list 10,000 keys")
    yield replace(listed, peer="aiobotocore", least=5)
    yield replace(listed, least=0.9)
    yield replace(listed, figure="cpu", most=1.0)
    for what in ("get 256 MiB", "put 256 MiB"):
        link = replace(get, scene="slow link", what=what)
        yield replace(link, peer=ONE_STREAM, least=5)


LIMITS = {f"put {MANY} x 32 MiB at once": 96.0, f"get {MANY} x 32 MiB at once": 48.0}
"""The largest growth of our memory, in MiB."""


# -- running and printing -----------------------------------------------------------------------------


def main() -> int:
    """Measure in rounds, and print tables. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--gib", action="store_true", help="objects of 1 GiB as well")
    parser.add_argument(
        "--part", type=int, default=1, help="do only a part of the work, to try the program"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, name, server = options.child
        print(json.dumps(child(work, name, S3Server(**json.loads(server)), options)), flush=True)
        os._exit(0)  # obstore's threads sometimes abort the interpreter at its exit
    print(
        f"Medians of {options.rounds} interleaved rounds;"
        f" {machine('aiobotocore', 'aiohttp', 'obstore', 'opendal', 's3fs', 'uvloop')}."
    )
    missed = 0
    for name in options.scenes:
        rounds = [played(SCENES[name], options) for _ in range(options.rounds)]
        missed += report(name, rounds)
    return 1 if missed else 0


def child(work: str, name: str, server: S3Server, options: argparse.Namespace) -> Figures:
    """Do one piece of work with one contender, on its loop."""

    async def run() -> Figures:
        pool = POOL if work.startswith("many") else None
        async with opened(name, server, pool) as contender:
            return await WORKS[work](name.replace(", ", "-"), contender, options)

    return uvloop.run(run()) if name.endswith("uvloop") else asyncio.run(run())


def played(scene: Scene, options: argparse.Namespace) -> dict[str, Figures]:
    """Run a scene once with every contender, in turn."""
    contenders = [name for name in scene.contenders if name in options.contenders]
    found: dict[str, Figures] = {name: {} for name in contenders}
    flags = ["--part", str(options.part), *(["--gib"] if options.gib else [])]
    with serving(scene) as server:
        if scene.against == "zeros" and NAMES[0] in contenders:
            asyncio.run(prove(server))
        where = json.dumps(asdict(server))
        for name in contenders:
            for work in scene.works:
                print(f"{scene.against}: {work} by {name}", file=sys.stderr, flush=True)
                found[name] |= in_fresh_process(__file__, *flags, "--child", work, name, where)
    return found


def report(scene_name: str, rounds: list[dict[str, Figures]]) -> int:
    """Print the results of one scene. Return the number of missed targets."""
    scene = SCENES[scene_name]
    names = list(rounds[0])

    def series(name: str, what: str, figure: str) -> list[float]:
        return [one[name][what][figure] for one in rounds]

    def cell(name: str, what: str) -> str:
        rate = statistics.median(series(name, what, "rate"))
        cpu = statistics.median(series(name, what, "cpu")) * scene.per
        spent = f"{cpu:.2f} s/GiB" if scene.per > 1 else f"{cpu * 1e6:,.0f} µs"
        if "rss" not in rounds[0][name][what]:
            return f"{rate:,.0f}, {spent}"
        return f"{rate:,.0f}, {spent}, {statistics.median(series(name, what, 'rss')):,.0f} MiB"

    print(f"\n### {scene_name}\n")
    cost = "CPU a GiB" if scene.per > 1 else "CPU each"
    print(
        f"Against {scene.against}:{scene.unit}, the client's {cost}, its peak over the baseline.\n"
    )
    works = list(rounds[0][names[0]])
    print(table(["work", *names], [[what, *(cell(n, what) for n in names)] for what in works]))
    kept = []
    missed = 0
    for promise in promises():
        peer, of_peer = promise.peer, promise.what
        if peer == ONE_STREAM:
            peer, of_peer = "aiohttp, uvloop", "get 256 MiB"
        if promise.scene != scene_name or not {promise.ours, peer} <= set(names):
            continue
        ratio = median_ratio(
            series(promise.ours, promise.what, promise.figure),
            series(peer, of_peer, promise.figure),
        )
        good = promise.least <= ratio <= promise.most
        missed += not good
        bound = f"≥ {promise.least:g}" if promise.least else f"≤ {promise.most:g}"
        kept.append(
            [
                f"{promise.what}: {promise.figure}, {promise.ours}",
                promise.peer,
                bound,
                f"{ratio:.2f}",
                "" if good else "missed",
            ]
        )
    for what in works:
        for name in set(names) & set(NAMES[:2]) if what in LIMITS else ():
            peak = statistics.median(series(name, what, "rss"))
            good = peak <= LIMITS[what]
            missed += not good
            bound = f"≤ {LIMITS[what]:.0f} MiB"
            kept.append(
                [f"{what}: memory, {name}", "", bound, f"{peak:.0f}", "" if good else "missed"]
            )
    if kept:
        print()
        print(table(["promised", "to", "bound", "found", ""], kept))
    return missed


if __name__ == "__main__":
    sys.exit(main())
