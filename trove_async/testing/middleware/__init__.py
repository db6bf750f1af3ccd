"""The conformance suite for middlewares. It tests the contract of `trove_async.middleware` by topic."""

from __future__ import annotations

from trove_async.testing.middleware.integrity import MiddlewareIntegrity
from trove_async.testing.middleware.ranges import MiddlewareRanges
from trove_async.testing.middleware.round_trips import MiddlewareRoundTrips
from trove_async.testing.middleware.sharing import MiddlewareSharing


class MiddlewareSuite(
    MiddlewareRoundTrips,
    MiddlewareRanges,
    MiddlewareIntegrity,
    MiddlewareSharing,
):
    """All topics of the contract of middlewares."""


__all__ = [
    "MiddlewareIntegrity",
    "MiddlewareRanges",
    "MiddlewareRoundTrips",
    "MiddlewareSharing",
    "MiddlewareSuite",
]
