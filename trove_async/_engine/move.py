"""The second half of a move: delete the source, once nothing can be lost by it.

Three things are shown first, and what a response has shown already is not asked again:

1. *The destination holds what was copy.* A checksum in the response to the copy proves it, or, for
   a copy within one service, the etag that source and copy share. Otherwise the destination is headed:
   its size, and its checksum or the id of our write, have to be right.
2. *The destination is not the source under another name.* Services fold keys (``a//b`` and ``a/b``),
   and two drivers may reach one service by two addresses. The source is headed: had the copy been
   written over it, it would show the id of our write. Within one bucket of a service whose keys are
   exact (`Capabilities.exact_keys`) this is not asked.
3. *The source is still the version that was copy.* The deletion is conditional where the backend
   can; otherwise the source is headed, and a version that is put between that and the deletion is
   deleted unseen: the window is one request long.

So a move costs no request more on Amazon S3 and Google Cloud Storage within a bucket or between the two,
one more elsewhere, and two where a service reports no checksums or an object has no id of ours. When
something cannot be shown, both objects stay.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from trove_async._checksums import compare_stored
from trove_async._version_identity import is_same
from trove_async.errors import NotFoundError, ObjectChangedError, PreconditionFailedError
from trove_async.models import ObjectInfo
from trove_async.options import DeleteOptions

from .copy import CopyResult, Location, located

_TICK: Final = timedelta(seconds=1)
"""How far two drivers' dates of one object may be apart: HTTP dates are whole seconds."""


async def remove_source(source: Location, target: Location, copy: CopyResult) -> None:
    """Delete the version that was copied, and no other; one that has gone meanwhile is no error.

    Args:
        source: Where it was copied from.
        target: Where it was copied to: another place, by its name.
        copy: The result of the copy.

    Raises:
        ObjectChangedError: The source is another version by now, the destination is not what was
            copied or is the source itself, or one of these cannot be excluded. Both stay.
        IntegrityError: The destination has other bytes. Both stay.
    """
    there = None
    if not _is_proved(source, target, copy):
        with located(target):
            there = await _looked_at(target, copy)
    if source.version_id is not None:
        await _delete_version(source, copy)
        return
    with located(source):
        conditional = source.backend.capabilities.delete_if_match and copy.source.etag is not None
        if not (conditional and _is_elsewhere(source, target)):
            current = await _current(source)
            if current is None:
                return
            _check_version(source, target, copy, current)
            if not _is_elsewhere(source, target):
                await _check_apart(source, target, copy, current, there)
        await _delete(source, target, copy, conditional=conditional)


async def _delete_version(source: Location, copy: CopyResult) -> None:
    """Delete a version by its id: a copy that was written over its key is another version."""
    with located(source):
        if copy.stored.version_id == source.version_id:
            raise _unproven("the copy has the id of the version that it was made of")
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
            _check_version(source, target, copy, current)
            raise _replaced() from error


async def _current(source: Location) -> ObjectInfo | None:
    """Return what is at the source by now, None if that is nothing."""
    try:
        return await source.backend.driver.head(source.bucket, source.key)
    except NotFoundError:
        return None


# -- 1. what is at the destination -----------------------------------------------------------------


def _is_proved(source: Location, target: Location, copy: CopyResult) -> bool:
    """Tell whether the response to the copy shows that it stored what was copy."""
    stored = copy.stored
    if copy.checksums.keys() & stored.checksums.keys():
        return True  # they were compared
    one_service = source.backend.driver is target.backend.driver
    return one_service and stored.etag is not None and stored.etag == copy.source.etag


async def _looked_at(target: Location, copy: CopyResult) -> ObjectInfo:
    """Return what is at the destination, if that is what was copy."""
    try:
        there = await target.backend.driver.head(target.bucket, target.key)
    except NotFoundError as error:
        raise _unproven("nothing is at the destination") from error
    if there.write_id not in {None, copy.write_id}:
        raise _unproven("another object is at the destination by now")
    compare_stored(copy.checksums, copy.source.stored_size, there)
    if copy.checksums.keys() & there.checksums.keys() or there.write_id == copy.write_id:
        return there
    etag = copy.stored.etag
    if target.backend.capabilities.metadata or etag is None or etag != there.etag:
        raise _unproven("nothing proves that the destination holds what was copied")
    return there


# -- 2. whether it is another object ---------------------------------------------------------------


def _is_elsewhere(source: Location, target: Location) -> bool:
    """Tell whether the two cannot be one object, by all that is known of their services.

    Names of buckets may have aliases (S3's access points), so exact keys say nothing of two buckets.
    """
    one, other = source.backend, target.backend
    if not (one.capabilities.exact_keys and other.capabilities.exact_keys):
        return False
    if one.driver is other.driver:
        return source.bucket == target.bucket
    return one.driver.name != other.driver.name


async def _check_apart(
    source: Location,
    target: Location,
    copy: CopyResult,
    current: ObjectInfo,
    there: ObjectInfo | None,
) -> None:
    """Raise if the source, as it is by now, may be what was written as the destination."""
    if current.write_id is not None:
        return  # it is of another write: ours would have replaced its id
    if there is None:
        with located(target):
            there = await _looked_at(target, copy)
    if there.write_id == copy.write_id:
        return  # the service keeps ids, and the source has none
    one_service = source.backend.driver is target.backend.driver
    if one_service and current.etag != there.etag:
        return
    if abs(current.last_modified - there.last_modified) < _TICK:
        raise _unproven("nothing proves that the destination is not the source under another name")


# -- 3. which version the source is ----------------------------------------------------------------


def _check_version(
    source: Location, target: Location, copy: CopyResult, current: ObjectInfo
) -> None:
    """Raise if the source is no longer the version that was copy."""
    if current.write_id == copy.write_id:
        raise ObjectChangedError(
            f"the service takes {target.key!r} and {source.key!r} for one object: the copy was"
            " written over its source, and nothing was deleted"
        )
    if not is_same(copy.source, current):
        raise _replaced()


def _replaced() -> ObjectChangedError:
    return ObjectChangedError(
        "the source was replaced while it was being moved, or nothing proves that it was not: what"
        " was copied is at the destination, and the source is where it was"
    )


def _unproven(why: str) -> ObjectChangedError:
    return ObjectChangedError(f"{why}: nothing was deleted, and the source is where it was")
