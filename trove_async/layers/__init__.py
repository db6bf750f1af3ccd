"""Layers: drivers that wrap other drivers. A layer can be a backend, and layers can be nested."""

from __future__ import annotations

from trove_async.driver import AsyncDriver
from trove_async.drivers import address_from_url

from .mapped import Mapped

__all__ = ["Mapped"]


def driver_from_url(url: str) -> AsyncDriver:
    """Create the driver for a URL. If the URL names a bucket, map all buckets into it.

    Raises:
        ConfigError: As `trove_async.drivers.address_from_url`.
    """
    # `Mapped` wraps drivers, so `trove_async.drivers` cannot import it.
    address = address_from_url(url)
    if address.into is None:
        return address.driver
    return Mapped(address.driver, into=address.into, prefix=address.prefix)
