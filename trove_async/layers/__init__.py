"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`fallback`      `Fallback`: reads from further drivers what the first cannot give
`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`mirrored`      `Mirrored`: copies of every object on several drivers
`_members`      the drivers of a layer with several: reads that fail over, values of one member
`_combined`     the capabilities that several drivers have in common
`_merging`      merges listings of several drivers
`_replicas`     runs the copies of a write on replicas
`_mirrored_upload`  an upload to a primary and its replicas
`_repairs`      finds and repairs differences between replicas
`_transfer`     copies an object to another driver, and compares copies
`_attachment`   opens the wrapped drivers of a layer
`_forwarding`   forwards every call to one wrapped driver
`_namespaces`   the two mappings of `Mapped`
`_urls`         drivers from URLs
"""

from __future__ import annotations

from ._urls import driver_from_url
from .fallback import Fallback
from .mapped import Mapped
from .mirrored import Mirrored

__all__ = ["Fallback", "Mapped", "Mirrored", "driver_from_url"]
