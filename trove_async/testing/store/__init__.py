"""The conformance suite for stores. It tests what `Trove` promises to users, by topic."""

from __future__ import annotations

from trove_async.testing.store.bodies import StoreBodies
from trove_async.testing.store.buckets import StoreBuckets
from trove_async.testing.store.cancellation import StoreCancellation
from trove_async.testing.store.conditions import StoreConditions
from trove_async.testing.store.copies import StoreCopies
from trove_async.testing.store.listing import StoreListing
from trove_async.testing.store.names import StoreNames
from trove_async.testing.store.reading import StoreReading


class StoreSuite(
    StoreBodies,
    StoreReading,
    StoreListing,
    StoreConditions,
    StoreCopies,
    StoreBuckets,
    StoreNames,
    StoreCancellation,
):
    """All topics: what a store promises to users, with any drivers and layers.

    If a store cannot do something because a backend does not claim the capability, the tests assert
    that it raises NotSupportedError and changes nothing.
    """


__all__ = [
    "StoreBodies",
    "StoreBuckets",
    "StoreCancellation",
    "StoreConditions",
    "StoreCopies",
    "StoreListing",
    "StoreNames",
    "StoreReading",
    "StoreSuite",
]
