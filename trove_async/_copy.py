"""Copy and move, within a backend and between two: one pinned version, verified, never lost.

Everything is decided by physical places, not by names: two backends, or two buckets of a mapped one,
may be the same place under two names.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from ._concurrency import shielded
from ._download import Verified
from ._pipeline import compare_stored
from ._sources import source_of
from .errors import (
    BucketNotFoundError,
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
    TroveError,
)
from .models import CopyOptions, DeleteOptions, GetOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from ._backends import Backend
    from ._upload import Progress, Put
    from .driver import Copying
    from .models import ObjectInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An object's address: a backend, and the names by which it knows the object."""

    backend: Backend
    bucket: str
    key: str

    def is_same(self, other: Place) -> bool:
        """Tell whether both are one object, physically."""
        mine = self.backend.driver.place(self.bucket, self.key)
        return mine == other.backend.driver.place(other.bucket, other.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the destination gets that the source does not have; None: as in the source."""

    metadata: Mapping[str, str] | None
    storage_class: str | None
    if_match: str | None
    if_none_match: str | None
    write_id: str

    @property
    def asked(self) -> PutOptions:
        """The options that the user gave: what can be refused before the source is looked at."""
        return PutOptions(
            metadata=self.metadata or {},
            storage_class=self.storage_class,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )

    def applied_to(self, source: ObjectInfo) -> PutOptions:
        """Return the options that put the source's content at the destination."""
        return PutOptions(
            size=source.stored_size,
            content_type=source.content_type,
            metadata=source.metadata if self.metadata is None else self.metadata,
            tags=source.tags,
            storage_class=self.storage_class,
            cache_control=source.cache_control,
            content_disposition=source.content_disposition,
            content_encoding=source.content_encoding,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
            checksums=source.checksums,
            write_id=self.write_id,
        )

    @property
    def none(self) -> bool:
        """Whether the destination is to be just what the source is."""
        return self.metadata is None and self.storage_class is None


async def copy(
    source: Place,
    target: Place,
    changes: Changes,
    *,
    look: Callable[[Place], Awaitable[ObjectInfo]],
    check: Callable[[PutOptions], None],
    put: Callable[[PutOptions], Put],
    missing: Callable[[BucketNotFoundError], Awaitable[None]],
    progress: Progress | None,
) -> tuple[ObjectInfo, ObjectInfo]:
    """Copy one version of the source; return its facts, and those of the destination.

    Args:
        source: What to copy.
        target: Where to.
        changes: What to change on the way.
        look: Heads an object that has to be there.
        check: Refuses what the target's backend cannot honour, before anything is written.
        put: Begins a put at the target.
        missing: Makes the target's missing bucket, or raises.
        progress: The user's callback.
    """
    with _located(target):
        check(changes.asked)
    onto_itself = source.is_same(target)
    if onto_itself:
        source = target  # one object under two names: its own backend can change it alone
    with _located(source):
        info = await look(source)
    with _located(target):
        options = changes.applied_to(info)
        if onto_itself and options.storage_class is None and _chooses_class(target):
            options = replace(options, storage_class=info.storage_class)
        check(options)
        if onto_itself and changes.none:
            _check_conditions(info, changes)
            copied = info
        elif source.backend.driver is target.backend.driver and _copies(target, options):
            copied = await _on_server(source, target, info, options, missing)
        elif onto_itself:
            return info, await _rewritten(target, info, options, put)
        else:
            return info, await _through_here(source, info, put(options))
    if progress is not None:
        progress(info.stored_size, info.stored_size)  # nothing is left to do but to tell
    return info, copied


def _chooses_class(place: Place) -> bool:
    return place.backend.capabilities.storage_class


def _copies(place: Place, options: PutOptions) -> bool:
    """Return whether the backend copies by itself and honours all options of this copy."""
    can = place.backend.capabilities
    return (
        can.server_copy
        and (can.copy_conditions or not options.conditional)
        and (can.copy_tags or not options.tags)
        and (options.size or 0) <= can.max_copy
    )


async def remove_source(source: Place, info: ObjectInfo) -> None:
    """Delete the version that was copied, and no other; one that has gone meanwhile is no error.

    Where the backend has no conditional delete, a version that is put between the look and the
    deletion is deleted unseen: the window is one request long.

    Raises:
        ObjectChangedError: Another version is there by now; it stays.
    """
    driver = source.backend.driver
    conditional = source.backend.capabilities.delete_if_match
    if conditional:
        try:
            await driver.delete(source.bucket, source.key, DeleteOptions(if_match=info.etag))
        except PreconditionFailedError:
            pass  # another version is there, or none
        else:
            return
    try:
        current = await driver.head(source.bucket, source.key)
    except NotFoundError:
        return
    if conditional or current.etag != info.etag:
        raise ObjectChangedError(
            "the source was replaced while it was being moved: what was copied is at the"
            " destination, what replaced it is where it was",
            operation="move",
            backend=source.backend.name,
            bucket=source.bucket,
            key=source.key,
        )
    await driver.delete(source.bucket, source.key, DeleteOptions())


async def _on_server(
    source: Place,
    target: Place,
    info: ObjectInfo,
    options: PutOptions,
    missing: Callable[[BucketNotFoundError], Awaitable[None]],
) -> ObjectInfo:
    driver = cast("Copying", source.backend.driver)
    request = CopyOptions(source=info, put=options)
    names = (source.bucket, source.key, target.bucket, target.key)
    try:
        copied = await driver.copy(*names, request)
    except BucketNotFoundError as error:
        if error.bucket == source.bucket != target.bucket:
            raise _source_changed(source) from error
        await missing(error)
        copied = await driver.copy(*names, request)
    try:
        compare_stored(info.checksums, info.stored_size, copied)
    except IntegrityError:
        if target.backend.capabilities.delete_if_match and not source.is_same(target):
            with shielded():  # what is there is ours, and wrong
                await target.backend.driver.delete(
                    target.bucket, target.key, DeleteOptions(if_match=copied.etag)
                )
        raise
    return copied


async def _through_here(source: Place, info: ObjectInfo, put: Put) -> ObjectInfo:
    pinned = source.backend.capabilities.get_conditions
    options = GetOptions(if_match=info.etag if pinned else None)
    async with AsyncExitStack() as stack:
        try:
            reader = await stack.enter_async_context(
                source.backend.driver.get(source.bucket, source.key, options)
            )
        except (PreconditionFailedError, NotFoundError) as error:
            raise _source_changed(source) from error
        if reader.info.etag != info.etag:
            raise _source_changed(source)
        # Verified against the source's checksum on its way out, against the target's on its
        # way in: the last bytes are sent only if the whole was right.
        return await put.run(source_of(Verified(reader)))


async def _rewritten(
    place: Place, info: ObjectInfo, options: PutOptions, put: Callable[[PutOptions], Put]
) -> ObjectInfo:
    """Put an object's own body back with other options; never over a version put meanwhile."""
    pins = place.backend.capabilities.put_if_match and not options.conditional
    if not pins or not info.etag:
        return await _through_here(place, info, put(options))
    try:
        return await _through_here(place, info, put(replace(options, if_match=info.etag)))
    except ObjectChangedError:
        raise
    except PreconditionFailedError as error:
        raise _source_changed(place) from error


@contextmanager
def _located(place: Place) -> Iterator[None]:
    """Say in an error which of the two objects it concerns, if it does not say so itself."""
    try:
        yield
    except TroveError as error:
        error.located(backend=place.backend.name, bucket=place.bucket, key=place.key)
        raise


def _check_conditions(info: ObjectInfo, changes: Changes) -> None:
    if changes.if_none_match is not None:
        raise ObjectExistsError("the object exists", bucket=info.bucket, key=info.key)
    if changes.if_match is not None and changes.if_match != info.etag:
        raise PreconditionFailedError(
            "the object is another version", bucket=info.bucket, key=info.key
        )


def _source_changed(source: Place) -> ObjectChangedError:
    return ObjectChangedError(
        "the source was replaced or deleted while it was being copied: nothing was stored",
        operation="copy",
        backend=source.backend.name,
        bucket=source.bucket,
        key=source.key,
    )
