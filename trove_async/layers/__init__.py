"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`fallback`      `Fallback`: reads from further drivers what the first cannot give
`hedged`        `Hedged`: sends a slow read a second time
`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`mirrored`      `Mirrored`: copies of every object on several drivers
`read_only`     `ReadOnly`: refuses every write
`read_through`  `ReadThrough`: a cache in front of a driver
`_attachment`   opens the wrapped drivers of a layer
`_combined`     the capabilities that several drivers have in common
`_forwarding`   forwards every call to one wrapped driver
`_latencies`    the quantile of recent latencies, for `Hedged`
`_members`      the drivers of a layer with several: reads that fail over, values of one member
`_merging`      merges listings of several drivers
`_mirrored_upload`  an upload to a primary and its replicas
`_namespaces`   the two mappings of `Mapped`
`_repairs`      finds and repairs differences between replicas
`_replicas`     runs the copies of a write on replicas
`_transfer`     copies an object to another driver, and compares copies
`_urls`         drivers from URLs

The parts of `ReadThrough`:

`_read_core`      the state that all its readers share, and requests for the current version
`_versions`       the versions that the origin has confirmed
`_cached_reader`  the body of one get
`_fills`          requests to the origin whose bodies go to the cache
`_responses`      responses of the origin
`_block_store`    reads, stores and evicts blocks
`_blocks`         the index of the blocks
`_written`        bodies that are written through the layer
`_sieve`          the order of eviction
`_ledger`         the shares of several processes in one cache
`_cache_calls`    calls with a deadline, and pauses after failures
"""

from __future__ import annotations

from ._read_core import CacheStatistics
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
