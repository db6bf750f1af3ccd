"""Copy and move, within a backend and between two: one pinned version, verified, never lost.

Everything is decided by physical places, not by names: two backends, or two buckets of a mapped one,
may be the same place under two names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ._download import Verified
from ._pipeline import compare
from ._sources import source_of
from .errors import (
    BucketNotFoundError,
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
)
from .models import CopyOptions, DeleteOptions, GetOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

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
        check: Refuses what the target's backend cannot honour, before anything is written.
        put: Begins a put at the target.
        missing: Makes the target's missing bucket, or raises.
        progress: The user's callback.
    """
    info = await source.backend.driver.head(source.bucket, source.key)
    options = changes.applied_to(info)
    check(options)
    if source.is_same(target) and changes.none:
        _check_conditions(info, changes)
        return info, info
    shared = source.backend.driver is target.backend.driver
    if shared and source.backend.capabilities.server_copy:
        copied = await _on_server(source, target, info, options, missing)
        if progress is not None:
            progress(info.stored_size, info.stored_size)
    else:
        copied = await _through_here(source, info, put(options))
    return info, copied


async def remove_source(source: Place, info: ObjectInfo) -> None:
    """Delete the version that was copied, and no other.

    Where the backend has no conditional delete, a version that is put between the look and the
    deletion is deleted unseen: the window is one request long.

    Raises:
        ObjectChangedError: Another version is there by now; it stays.
    """
    driver = source.backend.driver
    try:
        if source.backend.capabilities.delete_if_match:
            await driver.delete(source.bucket, source.key, DeleteOptions(if_match=info.etag))
            return
        current = await driver.head(source.bucket, source.key)
    except PreconditionFailedError as error:
        raise _source_changed(source) from error
    except NotFoundError:
        return
    if current.etag != info.etag:
        raise _source_changed(source)
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
        # The source's bucket was there a moment ago, so this is the target's.
        await missing(error.located(bucket=target.bucket))
        copied = await driver.copy(*names, request)
    if copied.stored_size != info.stored_size:
        raise IntegrityError(
            f"{info.stored_size} bytes were copied and {copied.stored_size} arrived",
            operation="copy",
            bucket=target.bucket,
            key=target.key,
        )
    compare(info.checksums, copied.checksums, "the copy is not what was copied")
    return copied


async def _through_here(source: Place, info: ObjectInfo, put: Put) -> ObjectInfo:
    pinned = source.backend.capabilities.get_conditions
    options = GetOptions(if_match=info.etag if pinned else None)
    try:
        async with source.backend.driver.get(source.bucket, source.key, options) as reader:
            if reader.info.etag != info.etag:
                raise _source_changed(source)
            # Verified against the source's checksum on its way out, against the target's on its
            # way in: the last bytes are sent only if the whole was right.
            return await put.run(source_of(Verified(reader)))
    except ObjectChangedError:
        raise
    except PreconditionFailedError as error:
        if error.bucket == source.bucket and error.key == source.key and error.operation == "get":
            raise _source_changed(source) from error
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
        "the source was replaced while it was being copied; the new version is untouched",
        operation="copy",
        backend=source.backend.name,
        bucket=source.bucket,
        key=source.key,
    )
