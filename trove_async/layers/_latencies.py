"""A quantile of recent latencies."""

from __future__ import annotations

import math
from collections import deque

WINDOW = 1000
"""Number of latencies that are kept, in 32 KiB. 0.999 is the largest quantile that can be computed from them."""

MIN_SAMPLES = 50
"""Minimum number of latencies from which a quantile is computed. A large quantile requires more: of 20
latencies, the quantile 0.95 would be the second largest, which is too uncertain."""

_RECOMPUTE_EVERY = 50
"""Number of latencies after which the quantile is computed again. Sorting a full window takes 60 µs,
so each latency costs about 1 µs."""


class Latencies:
    """A quantile of the latest latencies. It is exact, and changes when the service becomes slower or faster.

    Args:
        quantile: The quantile, more than 0 and at most 0.999.

    Attributes:
        threshold: The quantile in seconds; None: there are not enough latencies.
    """

    __slots__ = ("_added", "_min_samples", "_quantile", "_window", "threshold")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._min_samples = max(MIN_SAMPLES, min(math.ceil(1 / (1 - quantile)), WINDOW))
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._added = 0  # since the quantile was computed
        self.threshold: float | None = None

    def add(self, seconds: float) -> None:
        """Add a latency."""
        self._window.append(seconds)
        self._added += 1
        count = len(self._window)
        if count < self._min_samples:
            return
        if self.threshold is None or self._added >= _RECOMPUTE_EVERY:
            self._added = 0
            self.threshold = sorted(self._window)[math.ceil(self._quantile * count) - 1]
