"""The second half of a move: deletes the source once that is safe.

Three conditions are proved first. A request is sent only if earlier responses do not prove them:

1. *The destination has the copied bytes.* A checksum in the response to the copy proves it, or, within
   one service, an etag that source and copy share. Otherwise a HEAD of the destination proves it,
   by its size and its checksum or write_id or, on a service without metadata, the etag that the copy
   returned.
2. *The destination is not the source under another name.* Some services store two keys (``a//b`` and
   ``a/b``) as one object, and two drivers may reach one service by two addresses. The source is
   headed: if the copy has replaced it, the HEAD returns the write_id of the copy. No request is needed
   if both services have exact keys (`Capabilities.exact_keys`), and the copy is within one bucket or
   between two different services.
3. *The source is still the version that was copied.* The deletion is conditional if the backend
   supports that. Otherwise the source is headed. A version that is put between the HEAD and the
   deletion is lost: the window is one request long.

A move therefore takes no extra request within a bucket of Amazon S3 or Google Cloud Storage or between
the two services, one elsewhere, and two where a service reports no checksums or the source has no
write_id. If a condition cannot be proved, both objects stay.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from trove_async._checksums import compare_stored
from trove_async._version_identity import is_same
from trove_async.errors import NotFoundError, ObjectChangedError, PreconditionFailedError
from trove_async.models import ObjectInfo
from trove_async.options import DeleteOptions

from .copy import CopyResult
from .locations import Location, located

_DATE_RESOLUTION: Final = timedelta(seconds=1)
"""The dates that two drivers report for one object differ by less than this: HTTP dates are whole seconds."""


async def remove_source(source: Location, target: Location, copy: CopyResult) -> None:
    """Delete the copied version of the source, and no other. A missing source is not an error.

    Args:
        source: The location of the source.
        target: The location of the copy. It is the source's location only if an older version of an
            object was copied onto its own key.
        copy: The result of the copy.

    Raises:
        ObjectChangedError: The source is now a different version, the destination is not the copy or
            is the source itself, or one of these cannot be ruled out. Neither object is deleted.
        IntegrityError: The destination has different bytes. Neither object is deleted.
    """
    # 1. Prove that the destination has the copied bytes.
    destination = None
    if not is_proved(source, target, copy):
        with located(target):
            destination = await head_copy(target, copy)
    if source.version_id is not None:
        await _delete_version(source, copy)
        return
    # 2. and 3. Head the source, unless a conditional deletion on a distinct object is enough.
    with located(source):
        conditional = source.backend.capabilities.delete_if_match and copy.source.etag is not None
        if not (conditional and are_distinct(source, target)):
            current = await _current(source)
            if current is None:
                return
            check_version(source, target, copy, current)
            if not are_distinct(source, target):
                await check_not_the_copy(source, target, copy, current, destination)
        await _delete(source, target, copy, conditional=conditional)


async def _delete_version(source: Location, copy: CopyResult) -> None:
    """Delete a version by its id. A copy with the same key must be a different version."""
    with located(source):
        if copy.stored.version_id == source.version_id:
            raise _unproven_error("the copy has the same version id as its source")
        options = DeleteOptions(version_id=source.version_id)
        await source.backend.driver.delete(source.bucket, source.key, options)


async def _delete(
    source: Location, target: Location, copy: CopyResult, *, conditional: bool
) -> None:
    options = DeleteOptions(if_match=copy.source.etag if conditional else None)
    try:
        await source.backend.driver.delete(source.bucket, source.key, options)
    except PreconditionFailedError as error:
        current = await _current(source)
        if current is not None:
            check_version(source, target, copy, current)
            raise _replaced_error() from error


async def _current(source: Location) -> ObjectInfo | None:
    """Return the current object at the source, or None if there is none."""
    try:
        return await source.backend.driver.head(source.bucket, source.key)
    except NotFoundError:
        return None


# -- 1. the destination has the copied bytes -------------------------------------------------------


def is_proved(source: Location, target: Location, copy: CopyResult) -> bool:
    """Return whether the response to the copy proves that the copied bytes were stored."""
    stored = copy.stored
    if copy.checksums.keys() & stored.checksums.keys():
        return True  # `copy` has compared them
    same_driver = source.backend.driver is target.backend.driver
    return same_driver and stored.etag is not None and stored.etag == copy.source.etag


async def head_copy(target: Location, copy: CopyResult) -> ObjectInfo:
    """Return the object at the destination, after proving that it is the copy."""
    try:
        destination = await target.backend.driver.head(target.bucket, target.key)
    except NotFoundError as error:
        raise _unproven_error("the destination has no object") from error
    if destination.write_id not in {None, copy.write_id}:
        raise _unproven_error("the destination was replaced by a different object")
    compare_stored(copy.checksums, copy.size, destination)
    if (
        copy.checksums.keys() & destination.checksums.keys()
        or destination.write_id == copy.write_id
    ):
        return destination
    etag = copy.stored.etag
    if target.backend.capabilities.metadata or etag is None or etag != destination.etag:
        raise _unproven_error(
            "the service gives no proof that the destination has the copied bytes"
        )
    return destination


# -- 2. the destination is not the source under another name --------------------------------------


def are_distinct(source: Location, target: Location) -> bool:
    """Return whether the services' capabilities rule out that both locations are one object.

    Buckets may have aliases (S3 access points), so exact keys prove nothing across two buckets.
    """
    if not (source.backend.capabilities.exact_keys and target.backend.capabilities.exact_keys):
        return False
    source_driver, target_driver = source.backend.driver, target.backend.driver
    if source_driver is target_driver:
        return source.bucket == target.bucket
    return source_driver.name != target_driver.name


async def check_not_the_copy(
    source: Location,
    target: Location,
    copy: CopyResult,
    current: ObjectInfo,
    destination: ObjectInfo | None,
) -> None:
    """Raise if the current object at the source may be the copy itself."""
    if current.write_id is not None:
        return  # written by another put: the copy would have replaced its write_id
    if destination is None:
        with located(target):
            destination = await head_copy(target, copy)
    if destination.write_id == copy.write_id:
        return  # the service records write_ids, and the source has none
    same_driver = source.backend.driver is target.backend.driver
    if same_driver and current.etag != destination.etag:
        return
    if abs(current.last_modified - destination.last_modified) < _DATE_RESOLUTION:
        raise _unproven_error("the destination may be the source under another name")


# -- 3. the source is the copied version ----------------------------------------------------------


def check_version(
    source: Location, target: Location, copy: CopyResult, current: ObjectInfo
) -> None:
    """Raise if the source is no longer the version that was copied."""
    if current.write_id == copy.write_id:
        raise ObjectChangedError(
            f"the service stores {target.key!r} and {source.key!r} as one object: the copy has"
            " replaced its source, and nothing was deleted"
        )
    if not is_same(copy.source, current):
        raise _replaced_error()


def _replaced_error() -> ObjectChangedError:
    return ObjectChangedError(
        "the source was replaced during the move, or the service gives no proof that it was not:"
        " the copy is at the destination, and the source was not deleted"
    )


def _unproven_error(reason: str) -> ObjectChangedError:
    return ObjectChangedError(f"{reason}: the source was not deleted; compare the two objects")
