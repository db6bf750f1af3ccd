"""How fast is the GCS driver, compared with obstore, gcsfs and gcloud-aio-storage?

In each round, the contenders do the same work in turn, in separate processes. The scenes use:

- a server that discards bodies and serves zeros, so that the client is the bottleneck: small and large
  objects, small ones also with one core for the client and another for the server;
- fake-gcs-server, which stores objects, and is the bottleneck of most work. obstore writes through an API that
  it lacks, so there it reads what the others have written.

trove_async runs through a `Trove` with a pool of 64 MiB and otherwise with its defaults: verification, timeouts
and retries.

    python benchmarks/gcs_vs_peers.py [--rounds 3] [--scenes NAME …] [--part N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import uvloop
from _gcs_contenders import CONTENDERS, Contender
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
from _servers import discarding_server, discarding_server_language

from trove_async import Trove
from trove_async.drivers import GCSDriver
from trove_async.testing.servers import fake_gcs

SIZES = {"1 KiB": 1024, "64 KiB": 64 * 1024}
COUNTS = {1: 200, 32: 1000}  # the number of operations, by concurrency
LARGE_MIB = 256
BUCKET = "benchmark"

# -- works -------------------------------------------------------------------------------------------


async def small(contender: Contender, *, writes: bool, part: int) -> Figures:
    """Put, get, head and delete small objects, or only get and head what another contender has put."""
    results: Figures = {}
    for size_name, size in SIZES.items():
        body = os.urandom(size)
        for limit, count in COUNTS.items():
            keys = [f"small/{limit}/{n}-{size}" for n in range(max(limit, count // part))]

            async def put(n: int, keys: list[str] = keys, body: bytes = body) -> None:
                await contender.put(keys[n], body)

            async def get(n: int, keys: list[str] = keys, size: int = size) -> None:
                assert await contender.get(keys[n]) == size  # noqa: S101

            async def head(n: int, keys: list[str] = keys, size: int = size) -> None:
                assert await contender.head(keys[n]) == size  # noqa: S101

            await concurrently(limit, limit, put if writes else get)  # opens the connections
            for operation, work in (("put", put), ("get", get), ("head", head)):
                if writes or operation != "put":
                    measured = await concurrently(len(keys), limit, work)
                    results[f"{operation} {size_name}, {limit} at once"] = figures(measured)
    return results


async def large(contender: Contender, *, writes: bool, part: int) -> Figures:
    """Put and get one large object, or only get what another contender has put."""
    results: Figures = {}
    count = LARGE_MIB // part
    key = f"large-{count * MiB}"
    if writes:
        await contender.put_large(f"warm-{16 * MiB}", bytes(MiB), 16)
        piece = os.urandom(MiB)
        memory = Memory()
        measured = await once(count, contender.put_large(key, piece, count))
        results[f"put {LARGE_MIB} MiB"] = figures(measured, memory)

    async def get() -> None:
        assert await contender.get_large(key) == count * MiB  # noqa: S101

    memory = Memory()
    results[f"get {LARGE_MIB} MiB"] = figures(await once(count, get()), memory)
    return results


# -- scenes ------------------------------------------------------------------------------------------

WORKS = {"small": small, "large": large}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One kind of work against one server.

    Attributes:
        against: The server: "zeros" or "fake-gcs-server".
        work: A key of `WORKS`.
        one_core: Whether the contenders share one core, and the server has another.
    """

    against: str
    work: str
    one_core: bool = False


SCENES = {
    "small, zeros": Scene(against="zeros", work="small"),
    "small, one core": Scene(against="zeros", work="small", one_core=True),
    "large, zeros": Scene(against="zeros", work="large"),
    "small": Scene(against="fake-gcs-server", work="small"),
    "large": Scene(against="fake-gcs-server", work="large"),
}


def targets(scene: str) -> Iterator[Target]:
    """Yield the targets of a scene."""
    if scene in {"small, zeros", "small, one core"}:
        for operation in ("put", "get", "head"):
            for size in SIZES:
                for limit in COUNTS:
                    target = Target(work=f"{operation} {size}, {limit} at once", peer="gcsfs")
                    yield replace(target, minimum=1.5)
                    yield replace(target, peer="obstore", minimum=1.3)


@contextmanager
def serving(scene: Scene) -> Iterator[str]:
    """Run the server of a scene, and bind this process to a core if the scene requires it. Yield the URL."""
    if scene.against == "fake-gcs-server":
        with fake_gcs() as server:  # a new server for each round: it keeps all objects in memory
            asyncio.run(create_bucket(server.endpoint_url))
            yield server.endpoint_url
    elif scene.one_core:
        with on_one_core() as other, discarding_server(other) as port:
            yield f"http://127.0.0.1:{port}"
    else:
        with discarding_server() as port:
            yield f"http://127.0.0.1:{port}"


async def create_bucket(url: str) -> None:
    """Create the bucket."""
    async with Trove(GCSDriver(endpoint_url=url)) as store:
        await store.create_bucket(BUCKET)


# -- running and printing ----------------------------------------------------------------------------


def main() -> int:
    """Measure in rounds, and print tables. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument(
        "--part", type=int, default=1, help="do only 1/PART of the work, to try the program"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scene, name, url = options.child
        work = child(SCENES[scene], name, url, options.part)
        results = uvloop.run(work) if name.endswith("uvloop") else asyncio.run(work)
        print(json.dumps(results), flush=True)
        os._exit(0)  # obstore's threads sometimes abort the interpreter when it exits
    packages = ("aiohttp", "gcloud-aio-storage", "gcsfs", "obstore", "uvloop")
    language = discarding_server_language()
    print(
        f"Medians of {options.rounds} interleaved rounds; {machine(*packages)};"
        f" server of zeros: {language}."
    )
    missed = 0
    for name in options.scenes:
        scene = SCENES[name]
        if scene.against == "zeros" and language != "C":
            print(f"\n### {name}\n\nNot measured: the server in Python does not speak this API.")
        elif scene.one_core and not can_choose_cores():
            print(f"\n### {name}\n\nNot measured: processes cannot be bound to cores here.")
        else:
            rounds = [run_scene(name, options.part) for _ in range(options.rounds)]
            missed += report(name, rounds)
    return 1 if missed else 0


async def child(scene: Scene, name: str, url: str, part: int) -> Figures:
    """Do the work of a scene with one contender."""
    writes = scene.against == "zeros" or not name.startswith("obstore")
    async with CONTENDERS[name](url, BUCKET) as contender:
        return await WORKS[scene.work](contender, writes=writes, part=part)


def run_scene(name: str, part: int) -> dict[str, Figures]:
    """Run a scene once with each contender in turn."""
    results: dict[str, Figures] = {}
    with serving(SCENES[name]) as url:
        for contender in CONTENDERS:
            print(f"{name} by {contender}", file=sys.stderr, flush=True)
            results[contender] = in_fresh_process(
                __file__, "--part", str(part), "--child", name, contender, url
            )
    return results


def report(name: str, results: Sequence[dict[str, Figures]]) -> int:
    """Print the results of one scene. Return the number of missed targets."""
    scene = SCENES[name]
    is_large = scene.work == "large"
    unit, cpu_unit = ("MiB/s", "s/GiB") if is_large else ("operations/s", "µs")
    rounds = Rounds(results, unit=unit, cpu_unit=cpu_unit)
    cores = ", which has the other core" if scene.one_core else ""
    growth = ", and its peak growth of memory" if is_large else ""
    print(
        f"\n### {name}\n\nAgainst {scene.against}{cores}: {unit} (lowest-highest), the client's CPU"
        f" per {'GiB' if is_large else 'operation'}{growth}.\n"
    )
    print(rounds.table())
    text, missed = rounds.check(list(targets(name)))
    if text:
        print(f"\n{text}")
    print_comparisons(
        rounds.comparisons(name if scene.against == "zeros" else f"{name}, {scene.against}")
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
