"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested.

`mapped`        `Mapped`: buckets under different names, or all buckets inside one
`_namespaces`   the two mappings of `Mapped`
"""

from __future__ import annotations

from trove_async.driver import AsyncDriver
from trove_async.drivers import address_from_url

from .mapped import Mapped

__all__ = ["Mapped"]


def driver_from_url(url: str) -> AsyncDriver:
    """Create the driver for a URL. If the URL names a bucket, all buckets are mapped into it.

    Raises:
        ConfigError: As `trove_async.drivers.address_from_url`.
    """
    # `trove_async.drivers` cannot do this, because layers import drivers.
    address = address_from_url(url)
    if address.into is None:
        return address.driver
    return Mapped(address.driver, into=address.into, prefix=address.prefix)
