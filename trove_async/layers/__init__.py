"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`read_through`  `ReadThrough`: a cache in front of a driver
`_attachment`   opens the wrapped drivers of a layer
`_forwarding`   forwards every call to one wrapped driver
`_namespaces`   the two mappings of `Mapped`
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
from .mapped import Mapped
from .read_through import ReadThrough

__all__ = ["CacheStatistics", "Mapped", "ReadThrough", "driver_from_url"]
