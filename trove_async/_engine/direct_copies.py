"""Copies on a server, and from one driver directly to another: when they are possible."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from trove_async._own_methods import defines
from trove_async._version_identity import can_prove
from trove_async.driver import Capabilities, CopyingFrom, Origin, Unwrapping
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, PutOptions

from .locations import Location

DriverCopy: TypeAlias = Callable[[CopyOptions], Awaitable[ObjectInfo]]
"""A copy that a driver makes."""


def keeps_options(capabilities: Capabilities, info: ObjectInfo, options: PutOptions) -> bool:
    """Return whether a server-side copy of this version is possible, and keeps all options."""
    return (
        capabilities.server_copy
        and _keeps_conditions(capabilities, options)
        and (capabilities.copy_tags or not options.tags)
        and (options.size or 0) <= capabilities.max_copy
        and can_prove(info)
    )


def _keeps_conditions(capabilities: Capabilities, options: PutOptions) -> bool:
    """Return whether a server-side copy honours the conditions of the destination."""
    if not options.conditional:
        return True
    # A copy that is too large for one request is an upload in parts, which ends in a commit.
    in_one_request = (options.size or 0) <= capabilities.max_put
    return capabilities.copy_conditions and (capabilities.commit_conditions or in_one_request)


def direct_copy(
    source: Location, target: Location, info: ObjectInfo, options: PutOptions
) -> DriverCopy | None:
    """Return the copy from the source's driver to the target's, or None if it is not possible."""
    # 1. Check the destination.
    driver = target.backend.driver
    if (
        source.version_id is not None
        or not defines(driver, "copies_from")
        or not keeps_options(target.backend.capabilities, info, options)
    ):
        return None
    # 2. Find the driver below the layers of the source.
    origin = Origin(source.backend.driver, source.bucket, source.key)
    while defines(origin.driver, "unwrap"):
        origin = cast("Unwrapping", origin.driver).unwrap(origin.bucket, origin.key)
    copying = cast("CopyingFrom", driver)
    if not copying.copies_from(origin.driver):
        return None
    return lambda copy_options: copying.copy_from(origin, target.bucket, target.key, copy_options)
