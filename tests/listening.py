"""Servers that a test makes for itself, which leave no task and no connection behind."""

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
    """Serve every connection to the port that is yielded, until this is left.

    What `serve` raises, such as what a test asserts there, is raised when it is left.

    The tasks are held, as asyncio holds none of them: one that waits for what only it knows would be
    collected at any time, with a warning in whichever test is running then.
    """
    tasks: set[asyncio.Task[object]] = set()
    failures: list[Exception] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        except asyncio.CancelledError:
            writer.transport.abort()  # nobody is there any more who reads what was written
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 24, ssl=tls)
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
async def behind_tls(url: str, shown: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve what is at `url` under another one, over https."""
    to = urlsplit(url)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # the other side hears of it
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(to.hostname, to.port)
        async with task_group() as group:
            group.start_soon(pass_on, reader, requests)
            group.start_soon(pass_on, answers, writer)

    async with listening(relay, tls=shown) as port:
        yield f"https://127.0.0.1:{port}"
