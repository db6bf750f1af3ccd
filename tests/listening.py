"""Small servers for single tests that leave no task and no connection behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trove_async._concurrency import task_group

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Run a server and yield its port.

    An exception from `serve`, for example a failed assert, is raised at the end of the block.

    asyncio holds only weak references to the tasks of its servers. The tasks are kept here, because
    a collected task would emit a warning in whichever test runs at that time.
    """
    tasks: set[asyncio.Task[object]] = set()
    failures: list[Exception] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed the connection
        except asyncio.CancelledError:
            writer.transport.abort()  # the client no longer reads: do not flush
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 24, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
    if failures:
        raise failures[0]


@asynccontextmanager
async def behind_tls(url: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Relay https connections to the server at `url`, and yield the https URL."""
    upstream = urlsplit(url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # closing the writer ends the other direction
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(
            upstream.hostname, upstream.port
        )
        async with task_group() as group:
            group.start_soon(forward, reader, server_writer)
            group.start_soon(forward, server_reader, writer)

    async with listening(relay, tls=context) as port:
        yield f"https://127.0.0.1:{port}"
