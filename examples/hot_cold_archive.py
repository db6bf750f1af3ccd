"""Store a tree of real files on a hot, a cold and an archive backend, and verify it.

    python examples/hot_cold_archive.py [TREE] [--root DIRECTORY] [--limit FILES]

Stores the files of TREE (by default Python's standard library), except symlinks and installed packages.
Source files are compressed, and the archive is compressed and encrypted. Shows which backend has each file
and how many bytes it stores, reads all files back and verifies them, and moves some of them to the archive. Then
a rule changes, and a job moves the files concerned while they are read. The backends are three directories in
DIRECTORY, by default a temporary one.

With TROVE_DEMO=s3 in the environment, the cold backend is a local S3 server, SeaweedFS (pip install
trove-async[demo-s3]). With TROVE_DEMO=cloud, the cold backend is the same, and the archive is a
GCS emulator (pip install trove-async[demo-cloud]).
"""

import argparse
import asyncio
import os
import random
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

from trove_async import Middleware, ObjectInfo, Route, Scope, Trove
from trove_async.driver import AsyncDriver
from trove_async.drivers import LocalDriver
from trove_async.jobs import JobProgress, rebalance
from trove_async.middlewares import Compression, Encryption, Keyring

T = TypeVar("T")

BUCKET = "stdlib"
CONCURRENCY = 32
KINDS = 5  # the file extensions shown per backend; one more row sums up the others
MiB = 1024 * 1024

console = Console()


def compiled(_bucket: str, key: str) -> str:
    """Route compiled files to the cold backend. Written as patterns, this rule would be longer."""
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

NEW_ROUTES = [Route.suffix(".py", "cold"), *ROUTES]
"""The rules of the last act: Python sources belong to the cold backend, wherever they are now."""

ARCHIVE = Scope.backends("archive")
SOURCES = Scope.keys("**/*.py", "**/*.c", "**/*.h")


@contextmanager
def backends(root: Path) -> Iterator[Callable[[], dict[str, AsyncDriver]]]:
    """Run the servers of the demo. Yield a function that makes the drivers of cold and archive."""
    demo = os.environ.get("TROVE_DEMO", "")
    if demo not in {"", "s3", "cloud"}:
        raise SystemExit(f"TROVE_DEMO must be s3, cloud or empty, got {demo!r}")
    make: dict[str, Callable[[], AsyncDriver]] = {
        "cold": lambda: LocalDriver(root / "cold"),
        "archive": lambda: LocalDriver(root / "archive"),
    }
    with ExitStack() as stack:
        if demo:
            from trove_async.drivers import S3Driver  # noqa: PLC0415 - needs aiobotocore
            from trove_async.testing.servers import seaweedfs  # noqa: PLC0415

            s3 = stack.enter_context(seaweedfs())
            console.print(f"cold is SeaweedFS at {s3.endpoint_url}")
            make["cold"] = lambda: S3Driver(
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
            make["archive"] = lambda: GCSDriver(endpoint_url=gcs.endpoint_url, project=gcs.project)
        yield lambda: {name: make_driver() for name, make_driver in make.items()}


async def main(
    tree: Path, root: Path, drivers: Callable[[], dict[str, AsyncDriver]], limit: int | None
) -> None:
    """Store the files, list them, read them back, move some, change a rule, and print the results."""
    # 1. Find the files.
    files = sorted(path for path in tree.rglob("*") if is_included(path, tree))[:limit]
    sizes = {path.relative_to(tree).as_posix(): path.stat().st_size for path in files}
    total = sum(sizes.values())
    console.print(f"{len(files):,} files, {total / MiB:.1f} MiB, from {tree}")

    middleware: list[tuple[Middleware, Scope]] = [
        (Compression(), SOURCES | ARCHIVE),
        (Encryption(Keyring({"demo": Keyring.generate_key()})), ARCHIVE),
    ]
    async with Trove(
        LocalDriver(root / "hot"),
        backends=drivers(),
        routes=ROUTES,
        route_functions=[compiled],
        middleware=middleware,
    ) as store:
        # 2. Store them, and list them.
        await store.create_bucket(BUCKET)

        async def put(path: Path) -> int:
            return (await store.put(BUCKET, path.relative_to(tree).as_posix(), path)).size

        stored_rate = await for_each("storing", files, put, total)

        placed = await store.list(BUCKET, details=True).all()  # details: sizes of the bodies
        console.print(table_of(placed))
        if {obj.key: obj.size for obj in placed} != sizes:
            raise SystemExit("the listing differs from the stored files")

        # 3. Read them back.
        async def read_back(obj: ObjectInfo) -> int:
            return await read_verified(store, obj, tree)

        read_rate = await for_each("reading back, verified", placed, read_back, total)

        # 4. Move some of them to the archive, and list again.
        retired = [obj for obj in placed if obj.key.startswith("test/") and obj.backend != "cold"]
        retired = (
            retired or [obj for obj in placed if obj.backend == "default"][: len(placed) // 10]
        )

        async def retire(obj: ObjectInfo) -> int:
            moved = await store.move(BUCKET, obj.key, BUCKET, f"retired/{obj.key}")
            return moved.size

        size = sum(obj.size for obj in retired)
        moved_rate = await for_each("moving to the archive", retired, retire, size)
        after = await store.list(BUCKET, details=True).all()
        console.print(table_of(after))
        if len(after) != len(placed):
            raise SystemExit("a move lost or duplicated an object")

        pool = store.pool.statistics()
        console.print(
            f"stored {stored_rate:.1f}, read {read_rate:.1f}, moved {moved_rate:.1f} MiB/s; the pool held at most"
            f" {pool.peak / MiB:.0f} of {pool.max_bytes / MiB:.0f} MiB"
        )

    # 5. A rule changes. The store finds the objects wherever they are, and a job moves them.
    async with Trove(
        LocalDriver(root / "hot"),
        backends=drivers(),
        routes=NEW_ROUTES,
        route_functions=[compiled],
        middleware=middleware,
        locate="anywhere",
    ) as store:
        misplaced = await store.misplaced(BUCKET).all()
        size = sum(item.info.stored_size for item in misplaced)
        console.print(
            f"a rule has changed: {len(misplaced):,} objects misplaced, {size / MiB:.2f} MiB;"
            " without locate='anywhere' they would be hidden"
        )
        reads = await rebalance_while_reading(store, after, tree)
        console.print(f"{reads:,} reads meanwhile, all verified")
        console.print(table_of(await store.list(BUCKET, details=True).all()))
        if await store.misplaced(BUCKET).all():
            raise SystemExit("some objects are still misplaced")


async def rebalance_while_reading(store: Trove, objects: Sequence[ObjectInfo], tree: Path) -> int:
    """Move the misplaced objects, with a progress bar. Read and verify random objects meanwhile."""
    reads, moving = 0, True

    async def read_on() -> None:
        nonlocal reads
        while moving:
            await read_verified(store, random.choice(objects), tree)  # noqa: S311 - no secret
            reads += 1

    with Progress(
        TextColumn(f"{'rebalancing, while reading':32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("rebalancing", total=len(objects))

        def show(progress: JobProgress) -> None:
            bar.update(task, completed=progress.examined)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(read_on())
            try:
                report = await rebalance(store, BUCKET, progress=show)
            finally:
                moving = False
    console.print(str(report))
    if not report.ok:
        raise SystemExit("some objects could not be moved")
    return reads


def is_included(path: Path, tree: Path) -> bool:
    """Return whether a path is a regular file and not in a directory of installed packages."""
    installed = {"site-packages", "dist-packages"} & set(path.relative_to(tree).parts)
    return not installed and path.is_file() and not path.is_symlink()


async def for_each(
    label: str, items: Sequence[T], work: Callable[[T], Awaitable[int]], total: int
) -> float:
    """Run `work` on all items concurrently, with a progress bar. Return MiB per second."""
    started = time.perf_counter()
    queue = iter(items)
    with Progress(
        TextColumn(f"{label:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(label, total=len(items))

        async def run_worker() -> int:
            size = 0
            for item in queue:
                size += await work(item)
                progress.advance(task)
            return size

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(run_worker()) for _ in range(CONCURRENCY)]
    if sum(worker.result() for worker in workers) != total:
        raise SystemExit(f"{label}: some bytes are missing")
    return total / MiB / (time.perf_counter() - started)


async def read_verified(store: Trove, obj: ObjectInfo, tree: Path) -> int:
    """Read an object, which verifies its stored bytes, and compare its body with the file."""
    async with store.get(BUCKET, obj.key) as reader:
        body = await reader.read()
    path = tree / obj.key.removeprefix("retired/")
    if body != await asyncio.to_thread(path.read_bytes):
        raise SystemExit(f"{obj.key} differs from its file")
    return len(body)


def table_of(objects: Iterable[ObjectInfo]) -> Table:
    """Return a table of the objects on each backend, by file extension."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    stored: Counter[tuple[str, str]] = Counter()
    for obj in objects:
        group = obj.backend, Path(obj.key).suffix or "(none)"
        counts[group] += 1
        sizes[group] += obj.size
        stored[group] += obj.stored_size
    columns = ("backend", "kind", "objects", "MiB", "MiB stored")
    table = Table(*columns, title="objects by backend")
    for backend in sorted({backend for backend, _ in counts}):
        groups = sorted(
            (group for group in counts if group[0] == backend), key=lambda group: -counts[group]
        )
        rows = [(group[1], [group]) for group in groups[:KINDS]]
        if others := groups[KINDS:]:
            rows.append((f"{len(others)} others", others))
        rows.append(("all", groups))
        for kind, members in rows:
            count, size, stored_size = (
                sum(counter[group] for group in members) for counter in (counts, sizes, stored)
            )
            table.add_row(
                backend, kind, f"{count:,}", f"{size / MiB:.2f}", f"{stored_size / MiB:.2f}"
            )
        table.add_section()
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument(
        "--root", type=Path, help="the directory of the backends; it is not removed"
    )
    parser.add_argument("--limit", type=int, help="the maximum number of files")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        root = arguments.root
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        drivers = stack.enter_context(backends(root))
        asyncio.run(main(arguments.tree, root, drivers, arguments.limit))
