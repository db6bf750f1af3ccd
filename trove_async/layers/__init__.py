"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`fallback`      `Fallback`: reads from further drivers what the first cannot give
`hedged`        `Hedged`: sends a slow read a second time
`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`mirrored`      `Mirrored`: copies of every object on several drivers
`read_only`     `ReadOnly`: refuses every write
`read_through`  `ReadThrough`: a cache in front of a driver
`_attachment`   opens the wrapped drivers of a layer
`_cache`        the parts of `ReadThrough`
`_copies`       the parts of `Mirrored` and `Fallback`
`_forwarding`   forwards every call to one wrapped driver
`_latencies`    the quantile of recent latencies, for `Hedged`
`_namespaces`   the two mappings of `Mapped`
`_urls`         drivers from URLs
"""

from __future__ import annotations

from ._cache.core import CacheStatistics
from ._urls import driver_from_url
from .fallback import Fallback
from .hedged import Hedged
from .mapped import Mapped
from .mirrored import Mirrored
from .read_only import ReadOnly
from .read_through import ReadThrough

__all__ = [
    "CacheStatistics",
    "Fallback",
    "Hedged",
    "Mapped",
    "Mirrored",
    "ReadOnly",
    "ReadThrough",
    "driver_from_url",
]
