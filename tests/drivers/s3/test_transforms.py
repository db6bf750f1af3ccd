"""Encrypted objects over connections that break in mid-body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fakes import assert_idle, content
from tests.fault_proxy import FaultProxy
from tests.http_faults import Cut
from trove_async import BufferPool, RetryPolicy, Trove
from trove_async.drivers import S3Driver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trove_async.middleware import Middleware
    from trove_async.testing.servers import S3Server

RING = Keyring({"key": bytes(range(32))})
TEXT = content(8 * MiB + 12_345).hex().encode()  # compressed, it has two parts
STACKS: dict[str, Sequence[Middleware]] = {
    "aes": [Encryption(RING)],
    "both": [Compression(level=1), Encryption(RING)],
}


@pytest_asyncio.fixture
async def proxy(seaweed: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(seaweed.endpoint_url) as proxy:
        yield proxy
        await proxy.wait_until_disconnected()


def store_at(server: S3Server, proxy: FaultProxy, middleware: Sequence[Middleware]) -> Trove:
    driver = S3Driver(
        region=server.region,
        endpoint_url=proxy.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        dialect="seaweedfs",
    )
    return Trove(
        driver,
        retry=RetryPolicy(base_delay=0),
        pool=BufferPool(40 * MiB, part_size=5 * MiB),
        middleware=middleware,
    )


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 300_000):
        yield body[at : at + 300_000]


@pytest.mark.parametrize("stack", STACKS)
async def test_part_that_breaks_in_its_middle_is_sent_again_with_identical_bytes(
    seaweed: S3Server, proxy: FaultProxy, stack: str
) -> None:
    async with store_at(seaweed, proxy, STACKS[stack]) as store:
        await store.create_bucket("transforms", exist_ok=True)
        proxy.keeps_bodies = True
        for part in (1, 2):
            proxy.arm(
                Cut("request body", 2 * MiB + 77), method="PUT", target=f"*partNumber={part}*"
            )
        await store.put("transforms", stack, chunks(TEXT))
        for part in (1, 2):
            broken, complete = (
                bytes(request.body)
                for request in proxy.requests
                if request.query.get("partNumber") == str(part)
            )
            assert len(broken) > 2 * MiB
            assert complete.startswith(broken)
        assert await store.read("transforms", stack) == TEXT
        assert_idle(store)
        await store.delete("transforms", stack)


@pytest.mark.parametrize("stack", STACKS)
async def test_download_that_breaks_at_the_borders_of_segments_is_resumed(
    seaweed: S3Server, proxy: FaultProxy, stack: str
) -> None:
    body = content(900 * KiB).hex().encode()
    async with store_at(seaweed, proxy, STACKS[stack]) as store:
        await store.create_bucket("transforms", exist_ok=True)
        info = await store.put("transforms", stack, body)
        borders = [at for at in (40, MiB, info.stored_size) if at <= info.stored_size]
        for at in (border + offset for border in borders for offset in (-1, 0, 1)):
            if at < info.stored_size:
                proxy.arm(Cut("response body", at), method="GET")
                assert await store.read("transforms", stack) == body
        assert_idle(store)
        await store.delete("transforms", stack)
