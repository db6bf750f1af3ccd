"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`hedged`        `Hedged`: sends a slow read a second time
`read_only`     `ReadOnly`: refuses every write
`_attachment`   opens the wrapped drivers of a layer
`_forwarding`   forwards every call to one wrapped driver
`_latencies`    the quantile of recent latencies, for `Hedged`
`_namespaces`   the two mappings of `Mapped`
`_urls`         drivers from URLs
"""

from __future__ import annotations

from ._urls import driver_from_url
from .hedged import Hedged
from .mapped import Mapped
from .read_only import ReadOnly

__all__ = ["Hedged", "Mapped", "ReadOnly", "driver_from_url"]
