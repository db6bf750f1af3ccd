"""S3 over https, where the signature leaves the bodies to TLS, on either loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from trove_async import Trove
from trove_async._concurrency import task_group
from trove_async.drivers.s3 import S3Driver
from trove_async.testing import StoreBodies, StoreCopies, StoreReading

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from trove_async.testing.servers import S3Server

pytestmark = pytest.mark.uvloop


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

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=shown)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class TestOverTLS(StoreBodies, StoreReading, StoreCopies):
    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest fills in what it asks for
        self, seaweed: S3Server, tls: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> AsyncIterator[Trove]:
        shown, trusted = tls
        async with behind_tls(seaweed.endpoint_url, shown) as url:
            driver = S3Driver(
                region=seaweed.region,
                endpoint_url=url,
                access_key_id=seaweed.access_key_id,
                secret_access_key=seaweed.secret_access_key,
                tls=trusted,
            )
            async with Trove(driver) as store:
                yield store
