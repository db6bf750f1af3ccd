"""Conformance suites, fault injection and test servers: ``pip install trove-async[testing]``.

`DriverSuite` tests the driver contract. A driver or a layer is complete when it passes::

    class TestMyDriver(DriverSuite):
        @pytest.fixture
        def driver(self) -> AsyncDriver:
            return MyDriver(...)

`StoreSuite` tests what users are promised, through a store on top of the driver::

    class TestMyStore(StoreSuite):
        @pytest_asyncio.fixture
        async def store(self) -> AsyncIterator[Trove]:
            async with Trove(MyDriver(...)) as store:
                yield store

The suites follow the driver's `Capabilities`: `DriverSuite` skips what is not claimed, `StoreSuite`
asserts that it is refused. A test class may use a single topic (`DriverListing`, …) instead of the
whole suite. It overrides what does not fit its backend: `DriverTopic.bucket_name`, `refused_keys`,
`storage_class`. Tests of versions run only if it overrides `DriverVersions.keep_versions`.

`Faulty` wraps any driver and makes its calls fail, hang or return damaged bodies.

`trove_async.testing.servers` starts real servers. It does not need pytest; this package imports
pytest only when one of its own names is used.
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

if "pytest" in sys.modules:
    # pytest rewrites an assert only in modules that are registered before their import. Without
    # this, a failed assert in a suite would not show its values.
    sys.modules["pytest"].register_assert_rewrite(
        f"{__name__}._harness", f"{__name__}.driver", f"{__name__}.store"
    )


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    suites = "driver" if name.startswith("Driver") else "store"
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, suites)}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
