"""Proof that several responses describe the same version of an object.

A body is often read from several responses: after a broken connection, or in concurrent ranges.
Joining them is safe only if all of them belong to one version. The proof is, in this order:

1. the etag, a strong validator (RFC 9110, section 8.8.1);
2. the version id, if the backend keeps versions;
3. last_modified and the size. A date of whole seconds identifies one version only if the first
   response was sent at least a second after that date: two writes in one second get the same date
   (RFC 9110, section 8.8.2.2). If this library wrote the object, the write_id distinguishes such
   writes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from .models import ObjectInfo

NULL_VERSION_ID: Final = "null"
"""The version id of all objects written while a bucket does not keep versions (S3 User Guide, "Adding
objects to versioning-suspended buckets"). It does not identify a version."""

_DATE_RESOLUTION: Final = timedelta(seconds=1)
"""The resolution of HTTP dates."""


def is_same(first: ObjectInfo, later: ObjectInfo) -> bool:
    """Return whether two responses are proved to describe the same version.

    Args:
        first: The object, as described by the response that provided the bytes so far.
        later: The object, as described by a later response.
    """
    # The first kind of proof that either response has decides. If only one of them has it, nothing is
    # proved.
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


def have_same_bytes(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether the checksums prove that two stored objects have the same bytes, encoded alike."""
    return not one.checksums.keys().isdisjoint(other.checksums) and not have_different_bytes(
        one, other
    )


def have_different_bytes(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether the sizes, records or checksums show that two stored objects differ."""
    return (
        one.stored_size != other.stored_size
        or one.records != other.records
        or any(other.checksums.get(kind, value) != value for kind, value in one.checksums.items())
    )


def can_prove(info: ObjectInfo) -> bool:
    """Return whether a later response can be proved to describe the same version."""
    return info.etag is not None or _names_version(info) or _is_dated(info)


def can_pin(info: ObjectInfo, *, get_conditions: bool, versions: bool) -> bool:
    """Return whether a request can be restricted to this version.

    Args:
        info: The metadata of the version.
        get_conditions: Whether a get can have conditions (`Capabilities.get_conditions`).
        versions: Whether a get can have a version_id (`Capabilities.versions`).
    """
    return (get_conditions and info.etag is not None) or (versions and _names_version(info))


def _names_version(info: ObjectInfo) -> bool:
    return info.version_id is not None and info.version_id != NULL_VERSION_ID


def _is_dated(info: ObjectInfo) -> bool:
    if info.write_id is not None:
        return True
    return info.as_of is not None and info.as_of - info.last_modified >= _DATE_RESOLUTION
