"""The conformance suite for drivers. It tests the contract of `trove_async.driver` by topic."""

from __future__ import annotations

from trove_async.testing.driver.buckets import DriverBuckets
from trove_async.testing.driver.cancellation import DriverCancellation
from trove_async.testing.driver.conditions import DriverConditions
from trove_async.testing.driver.copies import DriverCopies
from trove_async.testing.driver.listing import DriverListing
from trove_async.testing.driver.metadata import DriverMetadata
from trove_async.testing.driver.objects import DriverObjects
from trove_async.testing.driver.odd_keys import DriverOddKeys
from trove_async.testing.driver.ranges import DriverRanges
from trove_async.testing.driver.uploads import DriverUploads
from trove_async.testing.driver.versions import DriverVersions


class DriverSuite(
    DriverObjects,
    DriverRanges,
    DriverListing,
    DriverUploads,
    DriverConditions,
    DriverCopies,
    DriverMetadata,
    DriverVersions,
    DriverOddKeys,
    DriverBuckets,
    DriverCancellation,
):
    """All topics: what the driver contract promises to the store, except presigned URLs.

    Tests of capabilities that the driver does not claim are skipped.
    """


__all__ = [
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
]
