"""What every topic of the store's suite needs: an open store, and a bucket of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from trove_async import Trove
from trove_async.driver import Capabilities


class StoreTopic:
    """Tests of a store. A binding overrides `store`, and what else does not suit its backends."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        """The store under test, open."""
        raise NotImplementedError(
            "bind the suite: override the fixture `store` to yield your store, open"
        )
        yield  # what makes it the generator that its overrides are

    def bucket_name(self) -> str:
        """Return a bucket's name that nobody has used before."""
        return f"suite-{uuid4().hex[:20]}"

    @pytest_asyncio.fixture
    async def bucket(self, store: Trove) -> AsyncIterator[str]:
        """A bucket of this test's own; after the test, none of the store's memory is held."""
        name = self.bucket_name()
        await store.create_bucket(name)
        yield name
        assert_nothing_held(store)
        await _remove(store, name)

    @pytest_asyncio.fixture
    async def other_bucket(self, store: Trove) -> AsyncIterator[str]:
        """A second bucket of this test's own."""
        name = self.bucket_name()
        await store.create_bucket(name)
        yield name
        await _remove(store, name)


async def _remove(store: Trove, bucket: str) -> None:
    shown = await store.list(bucket, include_shadowed=True).all()
    for backend in {info.backend for info in shown}:
        keys = [info.key for info in shown if info.backend == backend]
        await store.backend(backend).delete_many(bucket, keys)
    await store.delete_bucket(bucket)


def assert_nothing_held(store: Trove) -> None:
    """Assert that no transfer holds memory, waits for some, or lies in a file."""
    held = store.pool.statistics()
    assert (held.leased, held.waiting, held.spilled) == (0, 0, 0)


async def claims(store: Trove, bucket: str, key: str = "key") -> Capabilities:
    """Return what the backend of a key claims."""
    backend = (await store.explain(bucket, key)).backend
    return store._core.backends[backend].capabilities  # noqa: SLF001 - no user needs to know
