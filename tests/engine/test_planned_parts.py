"""Parts of bodies that are encoded: their encoded size is estimated from the size of the body."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from trove_async import BufferPool, Capabilities, NotSupportedError, Trove
from trove_async.drivers import MemoryDriver
from trove_async.middlewares import Compression
from trove_async.models import MiB

TEXT = "".join(map(str, random.Random(1).choices(range(10), k=6 * MiB))).encode()


class FewParts(MemoryDriver):
    """A driver whose uploads have two parts."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, max_parts=2)


async def test_compressed_body_of_known_size_gets_parts_that_are_large_enough() -> None:
    pool = BufferPool(16 * MiB, part_size=1 * MiB)
    async with Trove(FewParts(), middleware=[Compression(level=1)], pool=pool) as store:
        await store.create_bucket("bucket")
        info = await store.put("bucket", "key", TEXT)
        assert info.stored_size > 2 * MiB  # more than two parts of the pool's size
        assert await store.read("bucket", "key") == TEXT


async def test_body_that_would_not_fit_uncompressed_is_not_refused() -> None:
    pool = BufferPool(4 * MiB, part_size=1 * MiB)
    body = bytes(6 * MiB)
    async with Trove(FewParts(), middleware=[Compression(level=1)], pool=pool) as store:
        await store.create_bucket("bucket")
        info = await store.put("bucket", "key", body)
        assert info.stored_size < 10_000
        assert await store.read("bucket", "key") == body
        # Compressible at its start only, so that the estimate is right.
        body = bytes(MiB) + random.Random(1).randbytes(6 * MiB)
        with pytest.raises(NotSupportedError, match="must fit in 2 parts"):
            await store.put("bucket", "too large", body)
        assert [info.key async for info in store.list("bucket")] == ["key"]
