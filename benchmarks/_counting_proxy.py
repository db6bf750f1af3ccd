"""A proxy in a process of its own that counts the requests and the bytes of the responses."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

PIECE = 1 << 18


class CountingProxy:
    """The counters of a running proxy.

    Attributes:
        endpoint_url: The URL of the proxy.
    """

    def __init__(self, counters: Any, port: int) -> None:  # noqa: ANN401 - a shared array
        self._counters = counters
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def reset(self) -> None:
        """Count from zero."""
        self._counters[0] = self._counters[1] = self._counters[2] = 0

    @property
    def gets(self) -> int:
        """The number of GET requests."""
        return int(self._counters[0])

    @property
    def others(self) -> int:
        """The number of other requests."""
        return int(self._counters[1])

    @property
    def received(self) -> int:
        """The bytes of all responses."""
        return int(self._counters[2])


@contextmanager
def counting_proxy(endpoint_url: str) -> Iterator[CountingProxy]:
    """Run a proxy in front of a server."""
    context = multiprocessing.get_context("spawn")
    counters, port = context.Array("Q", 3, lock=False), context.Queue()
    address = urlsplit(endpoint_url)
    process = context.Process(
        target=_run, args=(address.hostname, address.port, counters, port), daemon=True
    )
    process.start()
    try:
        yield CountingProxy(counters, port.get(timeout=20))
    finally:
        process.terminate()
        process.join()


def _run(host: str, port: int, counters: Any, bound: Any) -> None:  # noqa: ANN401 - as above
    asyncio.run(_serve(host, port, counters, bound))


async def _serve(host: str, port: int, counters: Any, bound: Any) -> None:  # noqa: ANN401 - as above
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, port, limit=PIECE)

        async def forward_requests() -> None:
            while data := await reader.read(PIECE):
                # A request of a read has no body, so it begins a piece.
                if data.startswith(b"GET "):
                    counters[0] += 1
                elif data.startswith((b"HEAD ", b"POST ", b"PUT ", b"DELETE ")):
                    counters[1] += 1
                upstream_writer.write(data)
                await upstream_writer.drain()
            upstream_writer.close()

        async def forward_responses() -> None:
            while data := await upstream_reader.read(PIECE):
                counters[2] += len(data)
                writer.write(data)
                await writer.drain()
            writer.close()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(forward_requests())
                group.create_task(forward_responses())
        except* OSError:
            writer.close()
            upstream_writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=PIECE)
    bound.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()
