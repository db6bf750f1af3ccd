"""What every topic of the driver's suite needs: an open driver, and a bucket of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio

from trove_async.driver import AsyncDriver, Capabilities
from trove_async.testing._harness import delete, keys, opened


class DriverTopic:
    """Tests of a driver. A binding overrides `driver`, and what else does not suit its backend."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def driver(self) -> AsyncDriver:
        """Return the driver under test, not yet open."""
        raise NotImplementedError(
            "bind the suite: override the fixture `driver` to return your driver, not yet open"
        )

    def bucket_name(self) -> str:
        """Return a bucket's name that nobody has used before."""
        return f"suite-{uuid4().hex[:20]}"

    @pytest_asyncio.fixture
    async def backend(self, driver: AsyncDriver) -> AsyncIterator[AsyncDriver]:
        """The driver, open."""
        async with opened(driver) as backend:
            yield backend

    @pytest_asyncio.fixture
    async def bucket(self, backend: AsyncDriver) -> AsyncIterator[str]:
        """A bucket of this test's own."""
        name = self.bucket_name()
        await backend.create_bucket(name)
        yield name
        await _remove(backend, name)

    @pytest_asyncio.fixture
    async def other_bucket(self, backend: AsyncDriver) -> AsyncIterator[str]:
        """A second bucket of this test's own."""
        name = self.bucket_name()
        await backend.create_bucket(name)
        yield name
        await _remove(backend, name)


async def _remove(backend: AsyncDriver, bucket: str) -> None:
    for key in await keys(backend, bucket):
        await delete(backend, bucket, key)
    await backend.delete_bucket(bucket)


def needs(driver: AsyncDriver, *names: str) -> Capabilities:
    """Skip a test of what the driver does not claim: StoreSuite asserts what comes of that."""
    capabilities = driver.capabilities
    for name in names:
        if not getattr(capabilities, name):
            pytest.skip(
                f"Capabilities.{name} is not claimed: StoreSuite asserts what comes of that"
            )
    return capabilities
