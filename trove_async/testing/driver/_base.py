"""Base class of the driver topics, with fixtures for an open driver and for new buckets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, cast
from uuid import uuid4

import pytest
import pytest_asyncio

from trove_async.driver import AsyncDriver, Capabilities, Replicated
from trove_async.errors import BucketNotEmptyError
from trove_async.options import ListOptions
from trove_async.testing._harness import delete, keys, opened, repeat_while_not_empty


class DriverTopic:
    """Tests of a driver.

    A test class must override the fixture `driver`. It may override anything else that does not fit
    its backend.
    """

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def driver(self) -> AsyncDriver:
        """The driver under test. It must not be open."""
        raise NotImplementedError(
            "override the fixture `driver`: return your driver without opening it"
        )

    def bucket_name(self) -> str:
        """Return a bucket name that has not been used before."""
        return f"suite-{uuid4().hex[:20]}"

    @pytest_asyncio.fixture
    async def backend(self, driver: AsyncDriver) -> AsyncIterator[AsyncDriver]:
        """The driver under test, open."""
        async with opened(driver) as backend:
            yield backend

    @pytest_asyncio.fixture
    async def bucket(self, backend: AsyncDriver) -> AsyncIterator[str]:
        """A new bucket, removed after the test."""
        name = self.bucket_name()
        await backend.create_bucket(name)
        yield name
        await _remove(backend, name)

    @pytest_asyncio.fixture
    async def other_bucket(self, backend: AsyncDriver) -> AsyncIterator[str]:
        """A second new bucket, removed after the test."""
        name = self.bucket_name()
        await backend.create_bucket(name)
        yield name
        await _remove(backend, name)


async def _remove(backend: AsyncDriver, bucket: str) -> None:
    async def remove() -> None:
        for key in await keys(backend, bucket):
            await delete(backend, bucket, key)
        try:
            await backend.delete_bucket(bucket)
        except BucketNotEmptyError:
            if backend.capabilities.replicated:
                await _repair(cast("Replicated", backend), bucket)
            raise

    await repeat_while_not_empty(remove)


async def _repair(backend: Replicated, bucket: str) -> None:
    """Delete what only a replica has: it completed a write that was cancelled."""
    for difference in (await backend.compare(bucket, ListOptions())).differences:
        await backend.repair(bucket, difference.key)


def needs(driver: AsyncDriver, *names: str) -> Capabilities:
    """Skip the test if the driver does not claim these capabilities. Return all capabilities."""
    capabilities = driver.capabilities
    for name in names:
        if not getattr(capabilities, name):
            pytest.skip(f"Capabilities.{name} is not claimed")
    return capabilities
