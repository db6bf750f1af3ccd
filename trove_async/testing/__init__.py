"""The contract as tests, and a driver that fails on demand: ``pip install trove-async[testing]``.

A driver, and a layer alike, is done when it passes `DriverSuite`, bound in a few lines::

    class TestMyDriver(DriverSuite):
        @pytest.fixture
        def driver(self) -> AsyncDriver:
            return MyDriver(...)

and, so that its users get what they are promised through it, `StoreSuite`::

    class TestMyStore(StoreSuite):
        @pytest_asyncio.fixture
        async def store(self) -> AsyncIterator[Trove]:
            async with Trove(MyDriver(...)) as store:
                yield store

The suites go by what `Capabilities` claim: `DriverSuite` skips what is
not claimed, `StoreSuite` asserts that it is refused. A topic can be bound alone (`DriverListing`, …), and a
binding may override whatever does not suit its backend: `DriverTopic.bucket_name`, the keys that it
refuses, a storage class.
"""

from __future__ import annotations

import pytest

# Before anything below is imported, so that a failed assert of a suite tells its values.
pytest.register_assert_rewrite(
    "trove_async.testing._driving", "trove_async.testing.driver", "trove_async.testing.store"
)

from trove_async.testing._driving import opened  # noqa: E402 - see above
from trove_async.testing.driver import (  # noqa: E402
    DriverBuckets,
    DriverCancellation,
    DriverConditions,
    DriverCopies,
    DriverListing,
    DriverMetadata,
    DriverObjects,
    DriverOddKeys,
    DriverRanges,
    DriverSuite,
    DriverUploads,
)
from trove_async.testing.faults import Call, Hang, Operation  # noqa: E402
from trove_async.testing.faulty import Faulty  # noqa: E402
from trove_async.testing.store import (  # noqa: E402
    StoreBodies,
    StoreBuckets,
    StoreCancellation,
    StoreConditions,
    StoreCopies,
    StoreListing,
    StoreNames,
    StoreReading,
    StoreSuite,
)

__all__ = [
    "Call",
    "DriverBuckets",
    "DriverCancellation",
    "DriverConditions",
    "DriverCopies",
    "DriverListing",
    "DriverMetadata",
    "DriverObjects",
    "DriverOddKeys",
    "DriverRanges",
    "DriverSuite",
    "DriverUploads",
    "Faulty",
    "Hang",
    "Operation",
    "StoreBodies",
    "StoreBuckets",
    "StoreCancellation",
    "StoreConditions",
    "StoreCopies",
    "StoreListing",
    "StoreNames",
    "StoreReading",
    "StoreSuite",
    "opened",
]
