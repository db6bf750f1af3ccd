"""How fast do pyarrow, zarr and cat read through fsspec, compared with peers?

All contenders read the same objects from SeaweedFS, in turn within each round:

- parquet: 2 of 32 columns of a file of 256 MiB, by `pyarrow.parquet.read_table`, beside pyarrow's own
  S3FileSystem, s3fs and obstore.fsspec.
- zarr: an array of 1,000 chunks of 64 KiB, beside obstore.fsspec and s3fs.
- cat: `cat` of the 1,000 chunks, beside an event loop that reads them from a store, 64 at a time.

pyarrow reads its own filesystem from several threads at once, but takes turns in reading a file that is
written in Python, which is every file of fsspec. So its reading of one parquet file through fsspec waits for
one request after the other.

The requests are those of one more reading, counted by a proxy.

    python benchmarks/fsspec_vs_peers.py [--rounds 7] [--only parquet zarr cat]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs  # type: ignore[import-untyped]  # has no types
import zarr
from _counting_proxy import counting_proxy
from _harness import (
    Measurement,
    MiB,
    compare,
    concurrently,
    machine,
    measured,
    median_ratio,
    print_comparisons,
    table,
)
from obstore.fsspec import FsspecStore as ObstoreFileSystem
from pyarrow.fs import S3FileSystem
from zarr.storage import FsspecStore

from trove_async import Trove
from trove_async.integrations.fsspec import TroveFileSystem
from trove_async.testing.servers import S3Server, seaweedfs

BUCKET = "bench"
COLUMNS = ["c3", "c17"]
ROWS = 256 * MiB // 32 // 8  # of 32 columns with 8 bytes
CHUNKS, CHUNK = 1000, 64 * 1024
KEYS = [f"{BUCKET}/array/c/{number}/0" for number in range(CHUNKS)]

OURS = "trove_async"
OWN_LOOP = "own loop"
TARGETS: Mapping[str, Mapping[str, float]] = {
    "parquet": {"pyarrow": 1.1},
    "zarr": {"obstore.fsspec": 1.0},
    "cat": {OWN_LOOP: 1.2},
}
"""The greatest ratios of our wall time (parquet: and CPU time) to that of a peer."""

Work: TypeAlias = Callable[[], object]
FileSystem: TypeAlias = Any  # of fsspec or pyarrow, which have no types


def trove_url(server: S3Server) -> str:
    """Return the URL of a backend."""
    keys = f"{server.access_key_id}:{server.secret_access_key}"
    return f"s3://{keys}@{server.region}/?{urlencode({'endpoint': server.endpoint_url})}"


def trove(server: S3Server, *, asynchronous: bool = False) -> TroveFileSystem:
    """Return our filesystem."""
    return TroveFileSystem(
        backend=trove_url(server), asynchronous=asynchronous, skip_instance_cache=True
    )


def s3fs_of(server: S3Server, *, asynchronous: bool = False) -> FileSystem:
    """Return s3fs's filesystem."""
    return s3fs.S3FileSystem(
        key=server.access_key_id,
        secret=server.secret_access_key,
        endpoint_url=server.endpoint_url,
        skip_instance_cache=True,
        asynchronous=asynchronous,
    )


def obstore_of(server: S3Server, *, asynchronous: bool = False) -> FileSystem:
    """Return obstore's filesystem."""
    make: Any = ObstoreFileSystem
    return make(
        "s3",
        endpoint=server.endpoint_url,
        region=server.region,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        skip_instance_cache=True,
        asynchronous=asynchronous,
    )


def pyarrow_of(server: S3Server) -> FileSystem:
    """Return pyarrow's own filesystem."""
    return S3FileSystem(
        access_key=server.access_key_id,
        secret_key=server.secret_access_key,
        region=server.region,
        scheme="http",
        endpoint_override=urlsplit(server.endpoint_url).netloc,
    )


def fill(server: S3Server) -> None:
    """Store the objects that the contenders read."""
    fs = trove(server)
    fs.makedirs(BUCKET, exist_ok=True)
    random = np.random.default_rng(0)
    data = pa.table({f"c{number}": random.random(ROWS) for number in range(32)})
    body = io.BytesIO()
    pq.write_table(data, body, row_group_size=ROWS // 8, compression="none", use_dictionary=False)
    fs.pipe(f"{BUCKET}/table.parquet", body.getbuffer())
    array = zarr.create_array(
        FsspecStore(trove(server, asynchronous=True), path=f"{BUCKET}/array"),
        shape=(CHUNKS, CHUNK // 8),
        chunks=(1, CHUNK // 8),
        dtype="f8",
        compressors=None,
    )
    array[:] = random.random((CHUNKS, CHUNK // 8))
    fs.close()


# -- the works of the contenders -------------------------------------------------------------------


def parquet_works(server: S3Server) -> dict[str, Work]:
    """Return one reading of two columns for each contender."""
    filesystems = {
        OURS: trove(server),
        "pyarrow": pyarrow_of(server),
        "obstore.fsspec": obstore_of(server),
        "s3fs": s3fs_of(server),
    }

    def reading(filesystem: FileSystem) -> Work:
        def read() -> None:
            read_table = pq.read_table(
                f"{BUCKET}/table.parquet", columns=COLUMNS, filesystem=filesystem
            )
            assert read_table.num_rows == ROWS  # noqa: S101 - a check of the benchmark itself

        return read

    return {name: reading(filesystem) for name, filesystem in filesystems.items()}


def zarr_works(server: S3Server) -> dict[str, Work]:
    """Return one reading of the array for each contender."""
    filesystems = {
        OURS: trove(server, asynchronous=True),
        "obstore.fsspec": obstore_of(server, asynchronous=True),
        "s3fs": s3fs_of(server, asynchronous=True),
    }

    def reading(filesystem: FileSystem) -> Work:
        store = FsspecStore(filesystem, path=f"{BUCKET}/array", read_only=True)
        array = zarr.open_array(store, mode="r")

        def read() -> None:
            assert np.asarray(array[:]).nbytes == CHUNKS * CHUNK  # noqa: S101

        return read

    return {name: reading(filesystem) for name, filesystem in filesystems.items()}


class OwnLoop:
    """An event loop with an open store, which reads the chunks without fsspec."""

    def __init__(self, server: S3Server) -> None:
        self._loop = asyncio.new_event_loop()
        self._store = Trove(trove_url(server))
        self._loop.run_until_complete(self._store.open())

    def read(self) -> None:
        """Read all chunks, 64 at a time."""
        keys = [key.partition("/")[2] for key in KEYS]
        contents: list[bytes] = [b""] * CHUNKS

        async def read(number: int) -> None:
            contents[number] = await self._store.read(BUCKET, keys[number])

        self._loop.run_until_complete(concurrently(CHUNKS, 64, read))
        assert sum(map(len, contents)) == CHUNKS * CHUNK  # noqa: S101


def cat_works(server: S3Server) -> dict[str, Work]:
    """Return one reading of the chunks for each contender."""
    filesystems = {
        OURS: trove(server),
        "obstore.fsspec": obstore_of(server),
        "s3fs": s3fs_of(server),
    }

    def reading(filesystem: FileSystem) -> Work:
        def read() -> None:
            contents = filesystem.cat(KEYS)
            assert sum(map(len, contents.values())) == CHUNKS * CHUNK  # noqa: S101

        return read

    own_loop = OwnLoop(server)
    works = {name: reading(filesystem) for name, filesystem in filesystems.items()}
    return {OURS: works[OURS], OWN_LOOP: own_loop.read, **works}


SCENES: Mapping[str, Callable[[S3Server], dict[str, Work]]] = {
    "parquet": parquet_works,
    "zarr": zarr_works,
    "cat": cat_works,
}


# -- measuring and printing ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of one reading, after a first one that opens connections."""

    gets: int
    others: int
    received: int


@contextmanager
def proxied(server: S3Server) -> Iterator[tuple[S3Server, Any]]:
    """Return the server behind a proxy that counts requests, and the proxy."""
    with counting_proxy(server.endpoint_url) as proxy:
        yield S3Server(endpoint_url=proxy.endpoint_url), proxy


def count_requests(server: S3Server, scene: str) -> dict[str, Requests]:
    """Return the requests of one reading of each contender."""
    counted: dict[str, Requests] = {}
    with proxied(server) as (behind, proxy):
        for name, work in SCENES[scene](behind).items():
            work()
            proxy.reset()
            work()
            counted[name] = Requests(gets=proxy.gets, others=proxy.others, received=proxy.received)
    return counted


def measure(server: S3Server, scene: str, rounds: int) -> dict[str, list[Measurement]]:
    """Return the measurements of each contender, which take turns in every round."""
    works = SCENES[scene](server)
    for work in works.values():
        work()
    results: dict[str, list[Measurement]] = {name: [] for name in works}
    for number in range(rounds):
        order = list(works) if number % 2 else list(reversed(works))
        for name in order:
            results[name].append(measured(1, works[name]))
    return results


def report(
    scene: str, results: Mapping[str, Sequence[Measurement]], requests: Mapping[str, Requests]
) -> bool:
    """Print a table. Return whether the targets are met."""
    ours = results[OURS]
    rows, met = [], True
    for name, theirs in results.items():
        wall = median_ratio([one.seconds for one in ours], [one.seconds for one in theirs])
        cpu = median_ratio([one.cpu for one in ours], [one.cpu for one in theirs])
        target = TARGETS[scene].get(name)
        if target is not None:
            met = met and wall <= target and (scene != "parquet" or cpu <= target)
        rows.append(
            [
                name,
                f"{1000 * statistics.median(one.seconds for one in theirs):.0f} ms",
                f"{1000 * statistics.median(one.cpu for one in theirs):.0f} ms",
                f"{wall:.2f}",
                f"{cpu:.2f}",
                "" if target is None else f"≤ {target}",
                str(requests[name].gets),
                str(requests[name].others),
                f"{requests[name].received / MiB:.1f} MiB",
            ]
        )
    header = [scene, "wall", "CPU", "our wall / its", "our CPU / its", "target"]
    print(table([*header, "GETs", "others", "received"], rows), end="\n\n")
    peers = [name for name in results if name not in {OURS, OWN_LOOP}]
    print_comparisons(compare(scene, peer, ours, results[peer]) for peer in peers)
    return met


def main() -> int:
    """Return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=SCENES, default=list(SCENES))
    arguments = parser.parse_args()
    missed = []
    with seaweedfs() as server:
        fill(server)
        packages = machine("fsspec", "s3fs", "obstore", "pyarrow", "zarr")
        print(f"Medians of {arguments.rounds} interleaved rounds; {packages}.\n")
        for scene in arguments.only:
            requests = count_requests(server, scene)
            if not report(scene, measure(server, scene, arguments.rounds), requests):
                missed.append(scene)
    print(f"targets missed: {', '.join(missed)}" if missed else "all targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
