"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`fallback`      `Fallback`: reads from further drivers what the first cannot give
`hedged`        `Hedged`: sends a slow read a second time
`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`mirrored`      `Mirrored`: copies of every object on several drivers
`read_only`     `ReadOnly`: refuses every write
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
"""

from __future__ import annotations

from ._urls import driver_from_url
from .fallback import Fallback
from .hedged import Hedged
from .mapped import Mapped
from .mirrored import Mirrored
from .read_only import ReadOnly

__all__ = ["Fallback", "Hedged", "Mapped", "Mirrored", "ReadOnly", "driver_from_url"]
