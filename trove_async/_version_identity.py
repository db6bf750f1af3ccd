"""Which responses describe one version of an object, and what can prove it.

A body is often read over several responses: after a break, beside itself, range by range. Joining them
is safe only if all of them are of one version. Proof is, in this order:

1. the etag, a strong validator (RFC 9110, section 8.8.1);
2. the id of the version, where the backend keeps versions;
3. the date of its last change together with its size, compared on both responses. A date of whole
   seconds names one version only if the first response was sent at least a second later: until then
   another write in the same second would have the same date (RFC 9110, section 8.8.2.2). The id of
   the write, where this library wrote the object, tells such writes apart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from .driver import Capabilities
from .models import ObjectInfo

_REUSED: Final = "null"
"""The id of whatever is written while a bucket keeps no versions: S3 User Guide, "Adding objects to
versioning-suspended buckets". It names no single version."""

_TICK: Final = timedelta(seconds=1)
"""What HTTP dates are rounded to."""


def is_same(first: ObjectInfo, later: ObjectInfo) -> bool:
    """Tell whether two responses are proved to describe one version.

    Args:
        first: The facts that the bytes so far belong to.
        later: The facts of another response.
    """
    if first.etag is not None or later.etag is not None:
        return first.etag == later.etag
    if _names_version(first) or _names_version(later):
        return first.version_id == later.version_id
    return (
        _is_dated(first)
        and first.last_modified == later.last_modified
        and first.stored_size == later.stored_size
        and first.write_id == later.write_id
    )


def can_prove(info: ObjectInfo) -> bool:
    """Tell whether any later response can be proved to be of the same version."""
    return info.etag is not None or _names_version(info) or _is_dated(info)


def can_pin(info: ObjectInfo, can: Capabilities) -> bool:
    """Tell whether a request can ask for this version and no other."""
    by_etag = can.get_conditions and info.etag is not None
    return by_etag or (can.versions and _names_version(info))


def _names_version(info: ObjectInfo) -> bool:
    return info.version_id is not None and info.version_id != _REUSED


def _is_dated(info: ObjectInfo) -> bool:
    if info.write_id is not None:
        return True
    return info.as_of is not None and info.as_of - info.last_modified >= _TICK
