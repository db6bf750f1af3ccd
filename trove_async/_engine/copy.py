"""Copies within a backend and between two: one pinned version, verified.

Everything is decided by physical places, not by names: two backends, or two buckets of a mapped one,
may be the same place under two names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, cast

from trove_async._checksums import CRC32C, compare, compare_stored
from trove_async._concurrency import shielded
from trove_async._version_identity import can_prove, is_same
from trove_async.driver import CannotCopyError, Copying
from trove_async.errors import (
    BucketNotFoundError,
    IntegrityError,
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, PutOptions

from .backends import Backend
from .media_types import type_of
from .sources import source_of
from .upload import Progress, Put
from .verified import VerifiedBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """An object's address: a backend, and the names by which it knows the object.

    Attributes:
        version_id: One version of the object; None: the latest.
    """

    backend: Backend
    bucket: str
    key: str
    version_id: str | None = None

    def is_same(self, other: Location) -> bool:
        """Tell whether both are one object, physically."""
        mine = self.backend.driver.place(self.bucket, self.key)
        return mine == other.backend.driver.place(other.bucket, other.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOverrides:
    """What the destination gets that the source does not have.

    None keeps what the source has, an empty value (``""``, ``{}``) removes it.

    Attributes:
        put: The same as put takes it, without what is kept or removed, with the conditions and the
            write_id: what can be refused before the source is looked at.
    """

    metadata: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    content_type: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    expires: datetime | Literal[""] | None = None
    put: PutOptions

    def applied_to(self, source: ObjectInfo) -> PutOptions:
        """Return the options that put the source's content at the destination."""
        put = self.put
        kept = {name: getattr(source, name) for name in _KEPT if getattr(self, name) is None}
        return replace(put, size=source.stored_size, checksums=source.checksums, **kept)

    @property
    def none(self) -> bool:
        """Whether the destination is to be just what the source is."""
        return self.put.storage_class is None and all(getattr(self, name) is None for name in _KEPT)


_KEPT = (
    "metadata",
    "tags",
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
    "expires",
)
"""What a copy takes from its source unless it was given: options of a put and facts of an object. The
storage class is not among them: the destination's backend has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """A copy that was made, and what is known of it.

    Attributes:
        source: The version that was copied.
        stored: The destination, as its backend answered. What it repeats of the request (on S3 the
            size and the write's id) proves nothing.
        checksums: Of the bytes that were copied, by kind.
        write_id: The id that the destination was written with.
    """

    source: ObjectInfo
    stored: ObjectInfo
    checksums: Mapping[str, str]
    write_id: str | None


async def copy(
    source: Location,
    target: Location,
    overrides: CopyOverrides,
    *,
    look: Callable[[Location], Awaitable[ObjectInfo]],
    check: Callable[[PutOptions], None],
    carry: Callable[[PutOptions], PutOptions],
    put: Callable[[PutOptions], Put],
    missing: Callable[[BucketNotFoundError], Awaitable[None]],
    progress: Progress | None,
) -> CopyResult:
    """Copy one version of the source.

    Args:
        source: What to copy.
        target: Where to.
        overrides: What to change on the way.
        look: Heads an object that has to be there.
        check: Refuses what the target's backend cannot honour, before anything is written.
        carry: Returns what is carried over as a put takes it, or refuses it.
        put: Begins a put at the target.
        missing: Makes the target's missing bucket, or raises.
        progress: The user's callback.
    """
    with located(target):
        check(overrides.put)
    onto_itself = source.is_same(target)
    if onto_itself:
        # One object under two names: its own backend can change it alone.
        source = replace(target, version_id=source.version_id)
    with located(source):
        info = await look(source)
    checksums, write_id = info.checksums, overrides.put.write_id
    with located(target):
        options = _options(source, target, info, overrides)
        copied: ObjectInfo | None = None
        if onto_itself and overrides.none and source.version_id is None:
            _check_conditions(info, overrides)
            copied = info
        elif _is_left_to_server(source, target, info, options):
            # What the service keeps already it takes back as it is, whatever it is.
            check(options if overrides.metadata is not None else replace(options, metadata={}))
            with suppress(CannotCopyError):
                copied = await _on_server(source, target, info, options, missing)
        if copied is None:
            options = _carried(source, info, options, carry)
            check(options)
            if onto_itself:
                options = _pinned_to_itself(source, info, options)
            kinds = target.backend.capabilities.checksums
            with _pinned(source, pinned=options.if_match != overrides.put.if_match):
                copied, checksums = await _through_here(source, target, info, put(options), kinds)
            progress = None  # it was told by the put
    if progress is not None:
        progress(info.stored_size, info.stored_size)  # nothing is left to do but to tell
    return CopyResult(source=info, stored=copied, checksums=checksums, write_id=write_id)


def _options(
    source: Location, target: Location, info: ObjectInfo, overrides: CopyOverrides
) -> PutOptions:
    """Return the options that put the source's content at the target."""
    can = target.backend.capabilities
    options = overrides.applied_to(info)
    if (
        not can.headers
        and overrides.content_type is None
        and info.content_type == type_of(target.key)
    ):
        options = replace(options, content_type=None)  # a put would guess it, and leave it out
    if can.storage_class and options.storage_class is None and source.is_same(target):
        options = replace(options, storage_class=info.storage_class)
    return options


def _is_left_to_server(
    source: Location, target: Location, info: ObjectInfo, options: PutOptions
) -> bool:
    """Tell whether the service can copy, be told which version, and honour all options."""
    can = target.backend.capabilities
    return (
        source.backend.driver is target.backend.driver
        and can.server_copy
        and (can.copy_conditions or not options.conditional)
        and (can.copy_tags or not options.tags)
        and (options.size or 0) <= can.max_copy
        and can_prove(info)
    )


def _carried(
    source: Location,
    info: ObjectInfo,
    options: PutOptions,
    carry: Callable[[PutOptions], PutOptions],
) -> PutOptions:
    try:
        return carry(options)
    except InvalidNameError as error:
        raise InvalidNameError(
            f"{error.message}: what is kept with {info.bucket}/{info.key} on backend"
            f" {source.backend.name!r} cannot be carried over as it is, and nothing was stored;"
            " give the copy its own"
        ) from error


async def _on_server(
    source: Location,
    target: Location,
    info: ObjectInfo,
    options: PutOptions,
    missing: Callable[[BucketNotFoundError], Awaitable[None]],
) -> ObjectInfo:
    driver = cast("Copying", source.backend.driver)
    request = CopyOptions(source=info, put=options, version_id=source.version_id)
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
        with shielded(), suppress(TroveError):
            await _discard(source, target, info, copied)
        raise
    return copied


async def _discard(
    source: Location, target: Location, info: ObjectInfo, copied: ObjectInfo
) -> None:
    """Delete a copy that went wrong, unless it may be all that is left of its source.

    The service may have stored it over its source, if it takes both names for one.
    """
    conditional = target.backend.capabilities.delete_if_match and copied.etag is not None
    if not conditional or source.is_same(target):
        return
    current = await source.backend.driver.head(source.bucket, source.key, source.version_id)
    if current.write_id == info.write_id and is_same(info, current):
        options = DeleteOptions(if_match=copied.etag)
        await target.backend.driver.delete(target.bucket, target.key, options)


async def _through_here(
    source: Location, target: Location, info: ObjectInfo, put: Put, kinds: Collection[str]
) -> tuple[ObjectInfo, Mapping[str, str]]:
    """Copy the body; return what was stored, and the checksums of the bytes in the given kinds."""
    can = source.backend.capabilities
    pin = info.etag if can.get_conditions else None
    version_id = source.version_id or (info.version_id if can.versions and pin is None else None)
    options = GetOptions(if_match=pin, version_id=version_id)
    async with AsyncExitStack() as stack:
        try:
            reader = await stack.enter_async_context(
                source.backend.driver.get(source.bucket, source.key, options)
            )
        except (PreconditionFailedError, NotFoundError) as error:
            raise _source_changed(source) from error
        if not (is_same(info, reader.info) or _is_alike(info, reader.info)):
            raise _source_changed(source)
        # VerifiedBody against the source's checksum on its way out, against the target's on its
        # way in: the last bytes are sent only if the whole was right.
        body = VerifiedBody(reader, {CRC32C, *kinds})
        stored = await put.run(source_of(body))
    checksums = body.checksums
    try:
        compare(checksums, stored.checksums, "what was stored is not what was read")
    except IntegrityError:
        with shielded(), suppress(TroveError):
            await _discard(source, target, info, stored)
        raise
    return stored, checksums


def _is_alike(info: ObjectInfo, opened: ObjectInfo) -> bool:
    """Tell whether an object that nothing pins was opened with the facts that are carried over.

    Body and facts are then of one response; which version it is of does not matter. Tags come in
    a response of their own, so they are not compared.
    """
    return not can_prove(info) and replace(info, tags={}) == replace(opened, tags={})


def _pinned_to_itself(source: Location, info: ObjectInfo, options: PutOptions) -> PutOptions:
    """Return options that put an object's own body back over no version but the one that was read."""
    latest = source.version_id is None
    if latest and source.backend.capabilities.put_if_match and not options.conditional:
        return replace(options, if_match=info.etag)
    return options


@contextmanager
def _pinned(source: Location, *, pinned: bool) -> Iterator[None]:
    """Explain what the service answers to a condition that the user has not given."""
    try:
        yield
    except PreconditionFailedError as error:
        if pinned:
            raise _source_changed(source) from error
        raise
    except NotSupportedError as error:
        if pinned:
            raise NotSupportedError(
                "the object cannot be put back over none but the version that was read, so nothing was"
                f" changed ({error.message})"
            ) from error
        raise


@contextmanager
def located(place: Location) -> Iterator[None]:
    """Say in an error which of the two objects it concerns, if it does not say so itself."""
    try:
        yield
    except TroveError as error:
        error.located(backend=place.backend.name, bucket=place.bucket, key=place.key)
        raise


def _check_conditions(info: ObjectInfo, overrides: CopyOverrides) -> None:
    if overrides.put.if_none_match is not None:
        raise ObjectExistsError("the object exists", bucket=info.bucket, key=info.key)
    if overrides.put.if_match not in {None, info.etag}:
        raise PreconditionFailedError(
            "the object is another version", bucket=info.bucket, key=info.key
        )


def _source_changed(source: Location) -> ObjectChangedError:
    return ObjectChangedError(
        "the source was replaced or deleted while it was being copied: nothing was stored",
        operation="copy",
        backend=source.backend.name,
        bucket=source.bucket,
        key=source.key,
    )
