"""Checks the locations of a copy or a move before anything is written."""

from __future__ import annotations

from contextlib import suppress

from trove_async.driver import check_deletable
from trove_async.errors import NotFoundError, NotSupportedError

from . import backend_checks
from .copy import has_source
from .locations import Location, located


def check_copy_writable(origin: Location, destination: Location, *, moves: bool) -> None:
    """Raise NotSupportedError if a backend is read-only, or a move would delete its own copy."""
    if moves:
        backend_checks.check_writable(origin.backend, "delete the source of a move")
    backend_checks.check_writable(destination.backend, "store a copy")
    if moves and not origin.is_same(destination) and origin.is_written_by(destination):
        raise _member_error(origin, destination)


async def check_source_deletable(source: Location) -> None:
    """Raise the error of a deletion that a layer would refuse, before anything is done."""
    with located(source), suppress(NotFoundError):  # the copy finds that out
        await check_deletable(source.backend.driver, source.bucket, source.key)


async def is_elsewhere(source: Location, target: Location) -> bool:
    """Return whether the object would be at a different place after a relocation.

    Raises:
        NotSupportedError: One of the locations is a layer with the other one as a member that lacks the object.
    """
    if source.is_same(target):
        return False
    if not source.overlaps(target):
        return True
    # The destination's readers find the source there already, unless a member lacks it.
    if source.is_within(target) or await has_source(source, target):
        return False
    raise _member_error(source, target)


def _member_error(source: Location, target: Location) -> NotSupportedError:
    """Return the error of a move between a layer of several drivers and one of its members."""
    reason = (
        "the destination is a member of the source's layer"
        if target.is_within(source)
        else "the source is a member of the destination's layer"
        if source.is_within(target)
        else "both layers have a member in common"
    )
    return NotSupportedError(
        f"{reason}: deleting the source could delete the copy, so nothing was done; copy the object, or"
        " move it between the members themselves",
        backend=target.backend.name,
    )
