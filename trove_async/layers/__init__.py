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

A layer's module is imported when its name is first used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trove_async import _extras

if TYPE_CHECKING:
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

_MODULES: Final = {
    "CacheStatistics": "_cache.core",
    "Fallback": "fallback",
    "Hedged": "hedged",
    "Mapped": "mapped",
    "Mirrored": "mirrored",
    "ReadOnly": "read_only",
    "ReadThrough": "read_through",
    "driver_from_url": "_urls",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _extras.load(f"{__name__}.{_MODULES[name]}", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
