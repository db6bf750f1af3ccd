"""Base class of the store topics, with fixtures for an open store and for new buckets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import uuid4

import anyio
import pytest
import pytest_asyncio

from trove_async import Trove
from trove_async.driver import Capabilities
from trove_async.testing._harness import repeat_while_not_empty

_BACKGROUND_SECONDS = 10.0


class StoreTopic:
    """Tests of a store.

    A test class must override the fixture `store`. It may override anything else that does not fit
    its backends.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        """The store under test, open."""
        raise NotImplementedError(
            "override the fixture `store`: yield your store inside `async with`"
        )
        yield  # makes this an async generator, as the overriding fixtures are

    def bucket_name(self) -> str:
        """Return a bucket name that has not been used before."""
        return f"suite-{uuid4().hex[:20]}"

    @pytest_asyncio.fixture
    async def bucket(self, store: Trove) -> AsyncIterator[str]:
        """A new bucket, removed after the test. By then the store must hold no memory."""
        name = self.bucket_name()
        await store.create_bucket(name)
        yield name
        await assert_nothing_held(store)
        await _remove(store, name)

    @pytest_asyncio.fixture
    async def other_bucket(self, store: Trove) -> AsyncIterator[str]:
        """A second new bucket, removed after the test."""
        name = self.bucket_name()
        await store.create_bucket(name)
        yield name
        await _remove(store, name)


async def _remove(store: Trove, bucket: str) -> None:
    async def remove() -> None:
        # Objects that routing hides must be removed as well: a bucket with objects cannot be deleted.
        entries = await store.list(bucket, include_shadowed=True).all()
        for backend in {info.backend for info in entries}:
            keys = [info.key for info in entries if info.backend == backend]
            await store.backend(backend).delete_many(bucket, keys)
        await store.delete_bucket(bucket)

    await repeat_while_not_empty(remove)


async def assert_nothing_held(store: Trove) -> None:
    """Assert that no memory is leased, no transfer waits for memory and no bytes are spilled.

    A layer may complete in the background what a reader has begun, such as a block of a cache. It is given
    some time for that.
    """
    with anyio.move_on_after(_BACKGROUND_SECONDS):
        while store.pool.statistics().leased:  # noqa: ASYNC110 - a pool has no event
            await asyncio.sleep(0.001)
    statistics = store.pool.statistics()
    assert (statistics.leased, statistics.waiting, statistics.spilled) == (0, 0, 0)


async def capabilities_of(store: Trove, bucket: str, key: str = "key") -> Capabilities:
    """Return the capabilities of the backend that a key is routed to."""
    backend = (await store.explain(bucket, key)).backend
    return store._core.backends[backend].capabilities  # noqa: SLF001 - not public: users do not need it
