"""How fast is the S3 driver, compared with obstore, OpenDAL, s3fs, aiobotocore and bare aiohttp?

In each round, the contenders do the same work in turn, in separate processes. The scenes use:

- SeaweedFS, a real server: small objects, large objects, many large objects at once, and a listing. On a
  machine with few cores, the server is often the bottleneck;
- a server that discards bodies and serves zeros, so that the client is the bottleneck. It is a C program where there is a compiler. Small objects are
  also measured with one core for the client and another for the server: the CPU time of an operation is what
  a busy service pays;
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
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
from _harness import (
    Memory,
    MiB,
    can_choose_cores,
    concurrently,
    in_fresh_process,
    machine,
    on_one_core,
    once,
    print_comparisons,
)
from _rounds import Figures, Rounds, Target, figures
from _s3_contenders import NAMES, Contender, opened, plain
from _servers import (
    can_run_slow_server,
    discarding_server,
    discarding_server_language,
    slow_server,
)

from trove_async import IntegrityError
from trove_async.testing.servers import S3Server, seaweedfs

KiB = 1024
SIZES = {"1 KiB": KiB, "64 KiB": 64 * KiB}
COUNTS = {1: 1000, 32: 10_000}  # the number of operations, by concurrency: a busy service is warm
LARGE = 256 * MiB
FILES = 64  # transferred concurrently
FILE_SIZE = 32 * MiB
LISTED = 10_000
POOL = 64 * MiB  # of trove_async, for many large objects at once
MANY_PUTS, MANY_GETS = (f"{operation} {FILES} x 32 MiB at once" for operation in ("put", "get"))

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
    return {MANY_PUTS: figures(measured, memory)}


async def many_gets(name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """Get many objects concurrently."""
    keys = _many(name)

    async def get(n: int) -> None:
        assert await contender.stream(keys[n]) == FILE_SIZE  # noqa: S101

    await contender.head(keys[0])
    memory = Memory()
    measured = replace(await concurrently(FILES, FILES, get), amount=FILES * FILE_SIZE / MiB)
    return {MANY_GETS: figures(measured, memory)}


async def listing(_name: str, contender: Contender, _options: argparse.Namespace) -> Figures:
    """List ten thousand keys."""

    async def list_all() -> None:
        assert await contender.list("listed/") == LISTED  # noqa: S101

    await list_all()  # warms the server's caches
    memory = Memory()
    return {"list 10,000 keys": figures(await once(LISTED, list_all()), memory)}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Some work against one kind of server.

    Attributes:
        against: The kind of server.
        works: The names of the pieces of work. Each runs in its own process.
        unit: The unit of the rates.
        cpu_unit: The unit of the CPU times.
        fill: Whether the keys that are listed must be created first.
        contenders: The contenders that do the work.
        one_core: Whether the contenders share one core, and the server has another.
    """

    against: str
    works: Sequence[str]
    unit: str
    cpu_unit: str = "µs"
    fill: bool = False
    contenders: Sequence[str] = tuple(name for name in NAMES if "unsigned" not in name)
    one_core: bool = False


WORKS: dict[str, Work] = {
    "small": small,
    "large": large,
    "many_puts": many_puts,
    "many_gets": many_gets,
    "listing": listing,
}

SCENES = {
    "small": Scene(against="SeaweedFS", works=["small"], unit="operations/s"),
    "large": Scene(
        against="SeaweedFS", works=["large"], unit="MiB/s", cpu_unit="s/GiB", contenders=NAMES
    ),
    "many": Scene(
        against="SeaweedFS",
        works=["many_puts", "many_gets"],
        unit="MiB/s",
        cpu_unit="s/GiB",
        contenders=["trove_async", "trove_async, uvloop", "obstore", "s3fs", "aiobotocore"],
    ),
    "list": Scene(against="SeaweedFS", works=["listing"], unit="keys/s", fill=True),
    "small, zeros": Scene(against="zeros", works=["small"], unit="operations/s"),
    "small, one core": Scene(
        against="zeros",
        works=["small"],
        unit="operations/s",
        contenders=[
            "trove_async",
            "trove_async, uvloop",
            "obstore",
            "obstore, uvloop",
            "OpenDAL",
            "aiobotocore, tuned",
        ],
        one_core=True,
    ),
    "large, zeros": Scene(
        against="zeros", works=["large"], unit="MiB/s", cpu_unit="s/GiB", contenders=NAMES
    ),
    "list, zeros": Scene(against="zeros", works=["listing"], unit="keys/s"),
    "slow link": Scene(against="a slow link", works=["large"], unit="MiB/s", cpu_unit="s/GiB"),
}


# -- servers -----------------------------------------------------------------------------------------


@contextmanager
def serving(scene: Scene) -> Iterator[S3Server]:
    """Run the server of a scene, and bind this process to a core if the scene requires it. Yield the address."""
    if scene.one_core:
        with on_one_core() as other, discarding_server(other) as port:
            yield S3Server(endpoint_url=f"http://127.0.0.1:{port}")
        return
    if scene.against == "SeaweedFS":
        with seaweedfs() as server:
            asyncio.run(prepare(server, fill=scene.fill))
            yield server
        return
    with discarding_server() if scene.against == "zeros" else slow_server() as port:
        yield S3Server(endpoint_url=f"http://127.0.0.1:{port}")


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

ON_ASYNCIO, ON_UVLOOP, _, UNSIGNED = NAMES[:4]


def targets(scene: str) -> Iterator[Target]:
    """Yield the targets of a scene."""
    match scene:
        case "small, zeros" | "small, one core":
            for operation, rate in (("put", 2.0), ("get", 2.0), ("head", 1.8)):
                target = Target(work=f"{operation} 1 KiB, 32 at once", peer="obstore")
                yield replace(target, minimum=rate)
                yield replace(target, figure="cpu", maximum=0.4)
                yield replace(target, ours=ON_UVLOOP, peer="obstore, uvloop", minimum=1.3)
                yield replace(target, work=f"{operation} 64 KiB, 32 at once", minimum=1.3)
                yield replace(target, work=f"{operation} 1 KiB, 1 at once", minimum=1.8)
        case "large, zeros":
            put = Target(work="put 256 MiB", ours=ON_UVLOOP, peer="obstore, uvloop")
            yield replace(put, minimum=1.0)
            yield replace(put, ours=UNSIGNED, minimum=1.2)
            yield replace(put, ours=UNSIGNED, peer=None, figure="cpu", maximum=0.4)
            get = replace(put, work="get 256 MiB")
            yield replace(get, minimum=2.0)
            yield replace(get, figure="cpu", maximum=0.4)
        case "list, zeros":
            yield Target(work="list 10,000 keys", peer="obstore", figure="cpu", maximum=1.0)
        case "slow link":
            link = Target(work="put 256 MiB", ours=ON_UVLOOP, peer="obstore, uvloop")
            yield replace(link, minimum=1.0)
            # Bare aiohttp gets an object over one connection.
            one_stream = replace(link, peer="aiohttp, uvloop", peer_work="get 256 MiB", minimum=5)
            yield one_stream
            yield replace(one_stream, work="get 256 MiB")
        case "many":
            for ours in (ON_ASYNCIO, ON_UVLOOP):
                memory = Target(work=MANY_PUTS, ours=ours, figure="rss", maximum=POOL / MiB + 32)
                yield memory
                yield replace(memory, work=MANY_GETS, maximum=48)


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
        scene = SCENES[name]
        if scene.one_core and not can_choose_cores():
            print(f"\n### {name}\n\nNot measured: processes cannot be bound to cores here.")
            continue
        if scene.against == "a slow link" and not can_run_slow_server():
            print(f"\n### {name}\n\nNot measured: there is no C compiler.")
            continue
        rounds = [run_scene(scene, options) for _ in range(options.rounds)]
        missed += report(name, Rounds(rounds, unit=scene.unit, cpu_unit=scene.cpu_unit))
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


def report(scene_name: str, rounds: Rounds) -> int:
    """Print the results of one scene. Return the number of missed targets."""
    scene = SCENES[scene_name]
    per = {"MiB/s": "GiB", "keys/s": "key", "operations/s": "operation"}[scene.unit]
    cores = ", which has the other core" if scene.one_core else ""
    print(
        f"\n### {scene_name}\n\nAgainst {scene.against}{cores}: {scene.unit} (lowest-highest), the client's"
        f" CPU per {per}, and its peak growth of memory if it was measured.\n"
    )
    print(rounds.table())
    text, missed = rounds.check(list(targets(scene_name)))
    if text:
        print(f"\n{text}")
    label = f"{scene_name}, SeaweedFS" if scene.against == "SeaweedFS" else scene_name
    # Signing concerns only what is sent.
    print_comparisons(
        comparison
        for comparison in rounds.comparisons(label)
        if not ("unsigned" in comparison.work and ": get" in comparison.work)
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
