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
refuses, a storage class. How a bucket comes to keep versions is for it to say, in
`DriverVersions.keep_versions`.

`trove_async.testing.servers` starts real servers to test against. It needs no pytest, and so neither
does this package, until one of its names is used.
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
    # Before the suites are imported, so that a failed assert of theirs tells its values.
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
