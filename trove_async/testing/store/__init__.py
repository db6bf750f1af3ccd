"""What users are promised, as tests: `trove_async.Trove` over any backends, topic by topic."""

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
    """Everything that a store promises to its users, whatever drivers and layers it is made of.

    What a backend's capabilities exclude is asserted to be refused, with nothing done.
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
