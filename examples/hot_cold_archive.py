"""The main job: a tree of real files over a hot, a cold and an archive backend.

    python examples/hot_cold_archive.py [TREE] [--root DIRECTORY] [--limit FILES]

Stores every file of TREE (by default the running interpreter's standard library) through routes,
shows where it all landed, reads it back with checksums verified, and moves one class of objects to
another backend. The backends are three directories below DIRECTORY, by default a temporary one.

With TROVE_DEMO=s3 in the environment the cold backend is a real S3 server, SeaweedFS, which runs as
long as this does: pip install trove-async[demo-s3]. With TROVE_DEMO=cloud the archive is besides a
server of Google Cloud Storage's API: pip install trove-async[demo-cloud]
"""

import argparse
import asyncio
import os
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from trove_async import ObjectInfo, Route, Trove
from trove_async.driver import AsyncDriver
from trove_async.drivers import LocalDriver

T = TypeVar("T")

BUCKET = "stdlib"
CONCURRENCY = 32
KINDS = 5  # shown of each backend; the rest is summed up
MiB = 1024 * 1024

console = Console()


def compiled(_bucket: str, key: str) -> str:
    """Send what can be made again to the cold backend: a rule that no pattern says as plainly."""
    return "cold" if "__pycache__" in key.split("/") or key.endswith(".so") else ""


ROUTES = [
    Route.suffix(".zip", "cold"),
    Route.suffix(".whl", "cold"),
    Route.suffix(".gz", "cold"),
    Route("**/*.txt", "archive"),
    Route("**/*.rst", "archive"),
    Route("**/*.md", "archive"),
    Route("**/LICENSE*", "archive"),
    Route.prefix("pydoc_data/", "archive"),
    Route.prefix("retired/", "archive"),
]


@contextmanager
def backends(root: Path) -> Iterator[dict[str, AsyncDriver]]:
    """Make the drivers of the cold backend and the archive, and what they talk to."""
    demo = os.environ.get("TROVE_DEMO", "")
    if demo not in {"", "s3", "cloud"}:
        raise SystemExit(f"TROVE_DEMO is s3, cloud or nothing, not {demo!r}")
    made: dict[str, AsyncDriver] = {
        "cold": LocalDriver(root / "cold"),
        "archive": LocalDriver(root / "archive"),
    }
    with ExitStack() as stack:
        if demo:
            from trove_async.drivers import S3Driver  # noqa: PLC0415 - needs aiobotocore
            from trove_async.testing.servers import seaweedfs  # noqa: PLC0415

            s3 = stack.enter_context(seaweedfs())
            console.print(f"cold is SeaweedFS at {s3.endpoint_url}")
            made["cold"] = S3Driver(
                region=s3.region,
                endpoint_url=s3.endpoint_url,
                access_key_id=s3.access_key_id,
                secret_access_key=s3.secret_access_key,
                addressing_style="path",
            )
        if demo == "cloud":
            from trove_async.drivers import GCSDriver  # noqa: PLC0415 - needs gcloud-aio
            from trove_async.testing.servers import fake_gcs  # noqa: PLC0415

            gcs = stack.enter_context(fake_gcs())
            console.print(f"archive is fake-gcs-server at {gcs.endpoint_url}")
            made["archive"] = GCSDriver(endpoint_url=gcs.endpoint_url, project=gcs.project)
        yield made


async def main(tree: Path, root: Path, others: dict[str, AsyncDriver], limit: int | None) -> None:
    """Store, show, read back, move, tell."""
    files = sorted(path for path in tree.rglob("*") if is_ours(path))[:limit]
    sizes = {path.relative_to(tree).as_posix(): path.stat().st_size for path in files}
    total = sum(sizes.values())
    console.print(f"{len(files):,} files, {total / MiB:.1f} MiB, from {tree}")

    async with Trove(
        LocalDriver(root / "hot"),
        backends=others,
        routes=ROUTES,
        route_functions=[compiled],
    ) as store:
        await store.create_bucket(BUCKET)

        async def put(path: Path) -> int:
            return (await store.put(BUCKET, path.relative_to(tree).as_posix(), path)).size

        stored = await each("storing", files, put, total)

        placed = [obj async for obj in store.list(BUCKET) if isinstance(obj, ObjectInfo)]
        console.print(where(placed))
        if {obj.key: obj.size for obj in placed} != sizes:
            raise SystemExit("the listing is not what was stored")

        async def read_back(obj: ObjectInfo) -> int:
            return await verified(store, obj, tree)

        read = await each("reading back, verified", placed, read_back, total)

        retired = [obj for obj in placed if obj.key.startswith("test/") and obj.backend != "cold"]
        retired = (
            retired or [obj for obj in placed if obj.backend == "default"][: len(placed) // 10]
        )

        async def retire(obj: ObjectInfo) -> int:
            moved = await store.move(BUCKET, obj.key, BUCKET, f"retired/{obj.key}")
            return moved.size

        size = sum(obj.size for obj in retired)
        moved = await each("moving sources to the archive", retired, retire, size)
        after = [obj async for obj in store.list(BUCKET) if isinstance(obj, ObjectInfo)]
        console.print(where(after))
        if len(after) != len(placed):
            raise SystemExit("a move lost or doubled an object")

        pool = store.pool.statistics()
        console.print(
            f"stored {stored:.1f}, read {read:.1f}, moved {moved:.1f} MiB/s; the pool held at most"
            f" {pool.peak / MiB:.0f} of {pool.max_bytes / MiB:.0f} MiB"
        )


def is_ours(path: Path) -> bool:
    """Tell whether a path is a plain file of the tree itself, not of what was installed into it."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and path.is_file() and not path.is_symlink()


async def each(
    what: str, items: Sequence[T], work: Callable[[T], Awaitable[int]], total: int
) -> float:
    """Do `work` on every item, some at once, under a progress bar; return MiB a second."""
    started = time.perf_counter()
    queue = iter(items)
    with Progress(
        TextColumn(f"{what:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        count = progress.add_task(what, total=len(items))

        async def worker() -> int:
            size = 0
            for item in queue:
                size += await work(item)
                progress.advance(count)
            return size

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker()) for _ in range(CONCURRENCY)]
    if sum(one.result() for one in workers) != total:
        raise SystemExit(f"{what}: some bytes are missing")
    return total / MiB / (time.perf_counter() - started)


async def verified(store: Trove, obj: ObjectInfo, tree: Path) -> int:
    """Read one object back: its checksum is verified on the way, its bytes against the file."""
    async with store.get(BUCKET, obj.key) as reader:
        body = await reader.read()
    if not reader.info.checksums:
        raise SystemExit(f"{obj.key} has no recorded checksum")
    if body != await asyncio.to_thread((tree / obj.key).read_bytes):
        raise SystemExit(f"{obj.key} came back different")
    return len(body)


def where(objects: Iterable[ObjectInfo]) -> Table:
    """Return a table of what lies on which backend, by kind of file."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for obj in objects:
        place = obj.backend, Path(obj.key).suffix or "(none)"
        counts[place] += 1
        sizes[place] += obj.size
    table = Table("backend", "kind", "objects", "MiB", title="where everything is")
    for backend in sorted({backend for backend, _ in counts}):
        kinds = sorted((one for one in counts if one[0] == backend), key=lambda one: -counts[one])
        for place in kinds[:KINDS]:
            table.add_row(*place, f"{counts[place]:,}", f"{sizes[place] / MiB:.2f}")
        if others := kinds[KINDS:]:
            count = sum(counts[place] for place in others)
            size = sum(sizes[place] for place in others)
            table.add_row(backend, f"{len(others)} others", f"{count:,}", f"{size / MiB:.2f}")
        table.add_section()
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--root", type=Path, help="where the backends are; kept")
    parser.add_argument("--limit", type=int, help="at most so many files")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        root = arguments.root
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        others = stack.enter_context(backends(root))
        asyncio.run(main(arguments.tree, root, others, arguments.limit))
