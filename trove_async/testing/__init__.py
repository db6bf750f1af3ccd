"""Conformance suites, fault injection and test servers: ``pip install trove-async[testing]``.

`DriverSuite` tests the driver contract, except presigned URLs. A driver or a layer must pass it::

    class TestMyDriver(DriverSuite):
        @pytest.fixture
        def driver(self) -> AsyncDriver:
            return MyDriver(...)

`StoreSuite` tests what a store promises to its users, with any drivers and layers::

    class TestMyStore(StoreSuite):
        @pytest_asyncio.fixture
        async def store(self) -> AsyncIterator[Trove]:
            async with Trove(MyDriver(...)) as store:
                yield store

`MiddlewareSuite` tests the contract of middlewares::

    class TestMyMiddleware(MiddlewareSuite):
        @pytest.fixture
        def middleware(self) -> Middleware:
            return MyMiddleware(...)

The suites of drivers and stores follow the driver's `Capabilities`. If a capability is not claimed,
`DriverSuite` skips its tests, and `StoreSuite` asserts that the store refuses the calls that need it.

A test class may inherit from a single topic (`DriverListing`, …) instead of the whole suite. To fit
its backend, it may override `bucket_name`, `refused_keys` and `storage_class`. Most tests of versions
run only if it overrides `DriverVersions.keep_versions`. For a middleware that does not encode every
body, it may override `body` and `context`. For a format without authentication, it must set
`MiddlewareIntegrity.binds_blocks` to False.

`Faulty` wraps any driver and can make its calls fail, hang or return damaged bodies.

`trove_async.testing.servers` starts real servers.

Only the suites need pytest and pytest-asyncio, and import them when a suite is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trove_async.testing._harness import opened
    from trove_async.testing.driver import (
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
        DriverVersions,
    )
    from trove_async.testing.faults import Call, Hang, Operation
    from trove_async.testing.faulty import Faulty
    from trove_async.testing.middleware import (
        MiddlewareIntegrity,
        MiddlewareRanges,
        MiddlewareRoundTrips,
        MiddlewareSharing,
        MiddlewareSuite,
    )
    from trove_async.testing.store import (
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
    "DriverVersions",
    "Faulty",
    "Hang",
    "MiddlewareIntegrity",
    "MiddlewareRanges",
    "MiddlewareRoundTrips",
    "MiddlewareSharing",
    "MiddlewareSuite",
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

_MODULES = {
    "Call": "faults",
    "Faulty": "faulty",
    "Hang": "faults",
    "Operation": "faults",
    "opened": "_harness",
}

_SUITES = ("driver", "middleware", "store")
"""The modules of the topics. The names of their classes begin with the name of the module."""

if "pytest" in sys.modules:
    # pytest rewrites an assert only in modules that are registered before their import. Without
    # this, a failed assert in a suite would not show its values.
    sys.modules["pytest"].register_assert_rewrite(
        f"{__name__}._harness",
        f"{__name__}.driver",
        f"{__name__}.middleware",
        f"{__name__}.store",
    )


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name) or next(
        suite for suite in _SUITES if name.lower().startswith(suite)
    )
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
