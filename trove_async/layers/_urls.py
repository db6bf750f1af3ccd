"""Drivers from URLs."""

from __future__ import annotations

from trove_async.driver import AsyncDriver
from trove_async.drivers import address_from_url

from .mapped import Mapped


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


def as_driver(driver: AsyncDriver | str) -> AsyncDriver:
    """Return the driver, or a new one if it is a URL.

    Raises:
        ConfigError: As `driver_from_url`.
    """
    return driver_from_url(driver) if isinstance(driver, str) else driver
