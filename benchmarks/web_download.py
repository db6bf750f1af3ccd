"""How much does a web download cost, compared with FileResponse and with a handler on obstore?

Every contender is a FastAPI or aiohttp service in a separate process. Threads with bare sockets download
small objects and large objects over persistent connections. Then 200 clients request a large object and do
not read its body. The contenders take turns for several rounds. trove_async runs with its defaults: conditions, ranges, headers,
checks, routing and verification. FileResponse only serves local files. The S3 server is SeaweedFS.

    python benchmarks/web_download.py [--rounds 3] [--dir DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import obstore
import uvicorn
from _harness import MiB, machine, median_ratio, table
from aiohttp import web
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from obstore.store import LocalStore, S3Store

from trove_async import Trove
from trove_async.drivers import LocalDriver, S3Driver
from trove_async.integrations import aiohttp as on_aiohttp
from trove_async.integrations import starlette as on_starlette
from trove_async.testing import servers

SMALL, LARGE = 1024, 64 * MiB
SMALL_REQUESTS, SMALL_CLIENTS = 3000, 16
LARGE_REQUESTS, LARGE_CLIENTS = 12, 4
STALLED = 200

OURS = ["trove_async on FastAPI", "trove_async on aiohttp"]
NAMES = {
    "local": [*OURS, "FastAPI FileResponse", "aiohttp FileResponse", "obstore by hand"],
    "s3": [*OURS, "obstore by hand"],
}

MAX_STALLED_MIB = 0.5
"""The maximum memory of a stalled download, in MiB. See `trove_async.integrations._download`."""

MAX_STALLED_FILE_MIB = 0.08
"""The same for a local object on aiohttp, which the kernel sends from its file."""

TARGETS = [
    ("s3", "trove_async on FastAPI", "obstore by hand", 0.9),
    ("local", "trove_async on aiohttp", "aiohttp FileResponse", 1.0),
]
"""The targets: the backend, the contender, the peer, and the lowest ratio of their rates of large objects.

FileResponse verifies nothing. On two cores, the hashes take CPU time from the clients."""


# -- servers -------------------------------------------------------------------------------------------


def usage() -> dict[str, float]:
    """Return the CPU seconds that this process has used, and its resident memory in MiB."""
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"cpu": time.process_time(), "rss": int(resident.split()[1]) / 1024}


def trove(backend: dict[str, str]) -> Trove:
    """Return a store over the backend."""
    if "root" in backend:
        return Trove(LocalDriver(backend["root"], fsync=False))
    driver = S3Driver(
        endpoint_url=backend["endpoint_url"],
        region=backend["region"],
        access_key_id=backend["access_key_id"],
        secret_access_key=backend["secret_access_key"],
    )
    return Trove(driver)


def peer(backend: dict[str, str]) -> LocalStore | S3Store:
    """Return obstore's store for the backend's bucket."""
    if "root" in backend:
        return LocalStore(Path(backend["root"]) / "bench")
    return S3Store(
        "bench",
        endpoint=backend["endpoint_url"],
        region=backend["region"],
        access_key_id=backend["access_key_id"],
        secret_access_key=backend["secret_access_key"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def asgi(name: str, backend: dict[str, str]) -> FastAPI:
    """Return a contender's FastAPI app."""

    async def report_usage() -> Response:
        return JSONResponse(usage())

    async def stored_object(request: Request) -> Response:
        store = on_starlette.get_store(request)
        return await on_starlette.object_response(
            store, "bench", request.path_params["key"], request
        )

    async def file(request: Request) -> Response:
        return FileResponse(Path(backend["root"]) / "bench" / request.path_params["key"])

    async def by_hand(request: Request) -> Response:
        assert bucket is not None  # noqa: S101 - the other contenders do not call it
        result = await obstore.get_async(bucket, request.path_params["key"])

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in result.stream(min_chunk_size=MiB):
                yield bytes(chunk)

        return StreamingResponse(chunks(), headers={"Content-Length": str(result.meta["size"])})

    bucket = peer(backend) if name == "obstore by hand" else None
    endpoint = {
        "trove_async on FastAPI": stored_object,
        "FastAPI FileResponse": file,
        "obstore by hand": by_hand,
    }[name]
    lifespan = on_starlette.lifespan(trove(backend)) if endpoint is stored_object else None
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/usage", report_usage)
    app.add_api_route("/{key:path}", endpoint)
    return app


def aiohttp_app(name: str, backend: dict[str, str]) -> web.Application:
    """Return a contender's aiohttp app."""

    async def report_usage(_: web.Request) -> web.Response:
        return web.json_response(usage())

    async def stored_object(request: web.Request) -> web.StreamResponse:
        store = on_aiohttp.get_store(request)
        return await on_aiohttp.object_response(store, "bench", request.match_info["key"], request)

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(Path(backend["root"]) / "bench" / request.match_info["key"])

    app = web.Application()
    if name in OURS:
        app.cleanup_ctx.append(on_aiohttp.cleanup_ctx(trove(backend)))
    app.router.add_get("/usage", report_usage)
    app.router.add_get("/{key:.+}", stored_object if name in OURS else file)
    return app


def serve(name: str, backend: dict[str, str]) -> None:
    """Run a contender until the process is killed. Print its port first."""
    # asyncio sets TCP_NODELAY only on a socket that was created with an explicit protocol. The sockets
    # that servers create for themselves have one.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(STALLED)
    print(listener.getsockname()[1], flush=True)
    if "aiohttp" in name:
        web.run_app(aiohttp_app(name, backend), sock=listener, access_log=None, print=None)
    else:
        config = uvicorn.Config(asgi(name, backend), log_level="critical", access_log=False)
        asyncio.run(uvicorn.Server(config).serve([listener]))


@contextmanager
def running(name: str, backend: dict[str, str]) -> Iterator[int]:
    """Run a contender in a new process; yield its port."""
    command = [sys.executable, __file__, "--serve", name, json.dumps(backend)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - this script
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield int(process.stdout.readline())
        finally:
            process.kill()


# -- clients -------------------------------------------------------------------------------------------


class Client:
    """One persistent connection."""

    def __init__(self, port: int, buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(60)
        self._socket.connect(("127.0.0.1", port))
        self._memory = bytearray(MiB)

    def begin(self, key: str) -> tuple[int, bytes]:
        """Request an object. Return its size, and the bytes of its body that arrived with the head."""
        self._socket.sendall(f"GET /{key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self._socket.recv(4096)
            if not piece:
                raise ConnectionError("the server closed the connection")
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head  # noqa: S101 - other responses are not measured
        length = next(
            line.split(b":")[1]
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        return int(length), body

    def read(self, key: str) -> bytes:
        """Return a small object."""
        size, body = self.begin(key)
        while len(body) < size:
            received = self._socket.recv(size - len(body))
            if not received:
                raise ConnectionError("the body ended early")
            body += received
        return body

    def get(self, key: str) -> None:
        """Download an object and discard it."""
        size, body = self.begin(key)
        remaining = size - len(body)
        while remaining:
            count = self._socket.recv_into(self._memory, min(remaining, MiB))
            if not count:
                raise ConnectionError("the body ended early")
            remaining -= count

    def close(self) -> None:
        self._socket.close()


def server_usage(port: int) -> dict[str, float]:
    """Return the `usage` of a server's process."""
    client = Client(port)
    figures: dict[str, float] = json.loads(client.read("usage"))
    client.close()
    return figures


def download(port: int, key: str, count: int, clients: int) -> dict[str, float]:
    """Download an object `count` times. Return the seconds, and the server's CPU seconds."""
    numbers = iter(range(count))
    failures: list[Exception] = []

    def work() -> None:
        client = Client(port)
        try:
            for _ in numbers:
                client.get(key)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
        finally:
            client.close()

    before, started = server_usage(port), time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return {"seconds": seconds, "cpu": server_usage(port)["cpu"] - before["cpu"]}


def memory_of_stalled(port: int) -> float:
    """Return the growth of the server's memory in MiB with 200 clients that do not read."""
    before = server_usage(port)["rss"]
    with ExitStack() as stack:
        for _ in range(STALLED):
            client = Client(port, buffer=16 * 1024)
            stack.callback(client.close)
            client.begin("large")
        samples = [before]
        # Wait until the memory is stable.
        while len(samples) < 4 or max(samples[-3:]) - min(samples[-3:]) > 1:
            time.sleep(0.5)
            samples.append(server_usage(port)["rss"])
        return samples[-1] - before


def measure(name: str, backend: dict[str, str]) -> dict[str, float]:
    """Do all the work once with one contender."""
    with running(name, backend) as port:
        download(port, "small", 200, SMALL_CLIENTS)
        download(port, "large", 1, 1)
        small = download(port, "small", SMALL_REQUESTS, SMALL_CLIENTS)
        large = download(port, "large", LARGE_REQUESTS, LARGE_CLIENTS)
        return {
            "requests/s": SMALL_REQUESTS / small["seconds"],
            "CPU µs/request": small["cpu"] / SMALL_REQUESTS * 1e6,
            "MB/s": LARGE_REQUESTS * LARGE / large["seconds"] / 1e6,
            "CPU ms/large": large["cpu"] / LARGE_REQUESTS * 1e3,
            f"MiB for {STALLED} stalled": memory_of_stalled(port),
        }


# -- the table -----------------------------------------------------------------------------------------


async def fill(store: Trove) -> None:
    """Store the objects."""
    async with store:
        await store.create_bucket("bench", exist_ok=True)
        await store.put("bench", "small", os.urandom(SMALL))
        await store.put("bench", "large", os.urandom(MiB) * (LARGE // MiB))


@contextmanager
def backends(directory: str) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the settings of the backends, the disk and an S3 server, filled with the objects."""
    with servers.seaweedfs() as server:
        names = ("endpoint_url", "access_key_id", "secret_access_key", "region")
        s3 = {name: getattr(server, name) for name in names}
        by_kind = {"local": {"root": directory}, "s3": s3}
        for backend in by_kind.values():
            asyncio.run(fill(trove(backend)))
        yield by_kind


def main() -> int:
    """Measure in rounds, and print a table per backend. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dir", type=Path, help="the directory for the objects; default: a temporary one"
    )
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "BACKEND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], json.loads(arguments.serve[1]))
        return 0
    print(
        f"Medians of {arguments.rounds} interleaved rounds; 1 KiB objects to {SMALL_CLIENTS} clients,"
        f" 64 MiB to {LARGE_CLIENTS};\n{machine('fastapi', 'starlette', 'uvicorn', 'aiohttp', 'obstore')}."
    )
    missed = 0
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir) as directory,
        backends(directory) as by_kind,
    ):
        for kind, backend in by_kind.items():
            names = NAMES[kind]
            rounds = [
                {name: measure(name, backend) for name in (names if number % 2 else names[::-1])}
                for number in range(arguments.rounds)
            ]
            missed += report(kind, rounds)
    return 1 if missed else 0


def report(kind: str, rounds: list[dict[str, dict[str, float]]]) -> int:
    """Print the results of one backend. Return the number of missed targets."""

    def series(name: str, figure: str) -> list[float]:
        return [round_[name][figure] for round_ in rounds]

    figures = list(rounds[0][OURS[0]])
    print(f"\n**{kind}**\n")
    print(
        table(
            ["contender", *figures],
            [
                [name, *(f"{statistics.median(series(name, figure)):,.0f}" for figure in figures)]
                for name in NAMES[kind]
            ],
        )
    )
    missed = 0
    for backend, contender, other, target in TARGETS:
        if backend == kind:
            ratio = median_ratio(series(contender, "MB/s"), series(other, "MB/s"))
            print(f"\n{contender} serves large objects at {ratio:.2f} times the rate of {other}.")
            if ratio < target:
                missed += 1
                print(f"missed: the ratio must be at least {target}")
    for contender in OURS:
        is_file = kind == "local" and "aiohttp" in contender
        limit = STALLED * (MAX_STALLED_FILE_MIB if is_file else MAX_STALLED_MIB)
        growth = statistics.median(series(contender, figures[-1]))
        if growth > limit:
            missed += 1
            print(f"\nmissed: {contender} must grow by at most {limit:.0f} MiB, got {growth:.0f}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
