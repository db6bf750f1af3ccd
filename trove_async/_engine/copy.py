"""Copies one pinned version of an object within a backend or between two, and verifies the copy.

The stored bytes are copied, on the server or through this process. If a put to the target would encode the
body differently, it is decoded and encoded again.

Locations are compared as physical places (`AsyncDriver.place`), not by name: two backends, or two
buckets of a `Mapped` layer, may be two names of one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import cast

from trove_async._checksums import CRC32C, compare, compare_stored
from trove_async._concurrency import shielded
from trove_async._version_identity import can_prove, is_same
from trove_async.driver import CannotCopyError, Copying, DriverReader
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
from trove_async.middleware import Middleware, ObjectContext
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, DeleteOptions, PutOptions

from .copy_overrides import CopyOverrides
from .decoded_objects import DecodedObject, known_object
from .direct_copies import DriverCopy, direct_copy, keeps_options
from .locations import Location, context_of, context_of_stored, guessed_type, located
from .media_types import type_of
from .pinning import pinned_options
from .puts import PutBody, PutResult, with_records
from .sources import Source, source_of
from .transforms import Transforms
from .upload import Progress, Put
from .verified import VerifiedBody


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """The result of a copy.

    Attributes:
        source: The version that was copied.
        stored: The destination as its backend reported it. Values that only repeat the request (on
            S3 the size and the write_id) prove nothing.
        size: The number of bytes that were stored.
        checksums: The checksums of these bytes, by kind.
        write_id: The write_id of the destination.
        body_size: The size of the decoded body, if it was encoded for the destination, or if the store
            remembers it of the source. None: it is in the records, or unknown.
    """

    source: ObjectInfo
    stored: ObjectInfo
    size: int
    checksums: Mapping[str, str]
    write_id: str | None
    body_size: int | None = None


async def copy(
    source: Location,
    target: Location,
    overrides: CopyOverrides,
    *,
    transforms: Transforms,
    head: Callable[[Location], Awaitable[ObjectInfo]],
    check: Callable[[PutOptions], None],
    normalize: Callable[[PutOptions], PutOptions],
    put: Callable[[PutOptions], Put],
    put_encoded: PutBody,
    create_bucket: Callable[[BucketNotFoundError], Awaitable[None]],
    progress: Progress | None,
) -> CopyResult:
    """Copy one version of the source.

    The stored bytes are copied if they are encoded as a put would encode them at the target. Otherwise the
    body is decoded and encoded again, which is how objects get a new key.

    Args:
        source: The location of the source.
        target: The location of the copy.
        overrides: The options that differ from the source.
        transforms: The middlewares of the store.
        head: Returns the metadata of an object, or raises if it does not exist.
        check: Raises if the target's backend does not support an option.
        normalize: Checks and normalizes the options inherited from the source.
        put: Returns a put to the target.
        put_encoded: Puts a body to the target through middlewares.
        create_bucket: Creates the target's missing bucket, or raises.
        progress: The user's callback.
    """
    # 1. Check the user's options before any request.
    with located(target):
        check(overrides.put)
    # 2. Head the source.
    onto_itself = source.is_same(target) or await has_source(source, target)
    if onto_itself:
        # The locations are two names of one object: use the target's, so that all requests go to
        # one backend.
        source = replace(target, version_id=source.version_id)
    with located(source):
        info = await head(source)
        await transforms.check_read(info, source.backend)
        known = known_object(transforms, source.backend, info)
    # 3. Copy on the server or through this process, unless nothing would change.
    with located(target):
        options = _target_options(source, target, info, overrides)
        middlewares, context = await _target_middlewares(target, info, options, transforms)
        renamed = (source.bucket, source.key) != (target.bucket, target.key)
        current = context_of_stored(info, source.backend)
        if not await transforms.is_current(
            middlewares, current, context, info.records, renamed=renamed
        ):
            options = _normalized(source, info, options, normalize)
            check(options)
            if onto_itself:
                options = _pinned_to_itself(source, info, options)
            with _translate_pin_errors(source, pinned=options.if_match != overrides.put.if_match):
                return await _encode_again(
                    source,
                    info,
                    options,
                    transforms,
                    lambda body, put_options: put_encoded(
                        target,
                        body,
                        put_options,
                        context=context,
                        middlewares=middlewares,
                        progress=progress,
                    ),
                )
        checksums = info.checksums
        stored: ObjectInfo | None = None
        if onto_itself and overrides.is_empty and source.version_id is None:
            _check_conditions(info, overrides)
            stored = info
        elif _can_copy_on_server(source, target, info, options):
            server_options = with_records(options, info.records)
            # Metadata that the service copies itself needs no check, even if no put could store it.
            inherited = overrides.metadata is None
            check(replace(options, metadata={}) if inherited else server_options)
            driver = cast("Copying", source.backend.driver)
            names = (source.bucket, source.key, target.bucket, target.key)
            with suppress(CannotCopyError):
                stored, checksums = await _copy_on_server(
                    source,
                    target,
                    CopyOptions(source=info, put=server_options, version_id=source.version_id),
                    lambda options: driver.copy(*names, options),
                    create_bucket,
                )
        elif (direct := direct_copy(source, target, info, options)) is not None:
            options = with_records(_normalized(source, info, options, normalize), info.records)
            check(options)
            with suppress(CannotCopyError):
                stored, checksums = await _copy_on_server(
                    source, target, CopyOptions(source=info, put=options), direct, create_bucket
                )
        if stored is None:
            options = with_records(_normalized(source, info, options, normalize), info.records)
            check(options)
            if onto_itself:
                options = _pinned_to_itself(source, info, options)
            kinds = target.backend.capabilities.checksums
            with _translate_pin_errors(source, pinned=options.if_match != overrides.put.if_match):
                stored, checksums = await _copy_through_client(
                    source, target, info, put(options), kinds
                )
            progress = None  # the put has reported the progress
    # 4. Report the progress, unless a put has.
    if progress is not None:
        progress(info.stored_size, info.stored_size)
    return CopyResult(
        source=info,
        stored=stored,
        size=info.stored_size,
        checksums=checksums,
        write_id=options.write_id,
        body_size=known.decoded_size if known is not None else None,
    )


async def has_source(source: Location, target: Location) -> bool:
    """Return whether the source is on a layer, and a put to the target replaces the same object in a member.

    If that member lacks the object, or has a different one, the layer reads another member's: it is copied.
    """
    if source.version_id is not None or not source.overlaps(target):
        return False
    if not source.is_written_by(target):
        return False  # the target is a layer that writes to another member than the source
    infos: list[ObjectInfo] = []
    for location in (source, target):
        with suppress(NotFoundError), located(location):
            infos.append(await location.backend.driver.head(location.bucket, location.key))
    if len(infos) < 2:  # noqa: PLR2004 - the source and the target
        return False
    first, second = infos
    if first.write_id is not None or second.write_id is not None:
        return (first.write_id, first.stored_size) == (second.write_id, second.stored_size)
    return is_same(first, second)


async def is_encoded_as_today(location: Location, info: ObjectInfo, transforms: Transforms) -> bool:
    """Return whether a copy of an object onto itself would leave it as it is."""
    options = CopyOverrides(put=PutOptions()).applied_to(info)
    middlewares, context = await _target_middlewares(location, info, options, transforms)
    current = context_of_stored(info, location.backend)
    return await transforms.is_current(middlewares, current, context, info.records, renamed=False)


async def _target_middlewares(
    target: Location, info: ObjectInfo, options: PutOptions, transforms: Transforms
) -> tuple[Sequence[Middleware], ObjectContext]:
    """Return the middlewares of a put to the target, and its context."""
    content_type = guessed_type(target.backend, target.key, options.content_type)
    context = context_of(target, content_type)
    if transforms or info.records is not None:
        # The size is unknown if the middleware is. The stored bytes may be copied nevertheless.
        with suppress(NotSupportedError):
            context = replace(context, size=transforms.decoded_size(info))
    return await transforms.select(context), context


def _target_options(
    source: Location, target: Location, info: ObjectInfo, overrides: CopyOverrides
) -> PutOptions:
    """Return the put options of the target: the overrides, and the values inherited from the source."""
    capabilities = target.backend.capabilities
    options = overrides.applied_to(info)
    if (
        not capabilities.headers
        and overrides.content_type is None
        and info.content_type == type_of(target.key)
    ):
        # A put would guess the same type, and drop it because the backend cannot store it.
        options = replace(options, content_type=None)
    if capabilities.storage_class and options.storage_class is None and source.is_same(target):
        options = replace(options, storage_class=info.storage_class)
    return options


def _can_copy_on_server(
    source: Location, target: Location, info: ObjectInfo, options: PutOptions
) -> bool:
    """Return whether the service can copy this version with all options."""
    return source.backend.driver is target.backend.driver and keeps_options(
        target.backend.capabilities, info, options
    )


def _normalized(
    source: Location,
    info: ObjectInfo,
    options: PutOptions,
    normalize: Callable[[PutOptions], PutOptions],
) -> PutOptions:
    try:
        return normalize(options)
    except InvalidNameError as error:
        raise InvalidNameError(
            f"{error.message}: the value comes from {info.bucket}/{info.key} on backend"
            f" {source.backend.name!r} and cannot be copied; nothing was stored:"
            " pass a different value for the copy"
        ) from error


async def _copy_on_server(
    source: Location,
    target: Location,
    options: CopyOptions,
    copy: DriverCopy,
    create_bucket: Callable[[BucketNotFoundError], Awaitable[None]],
) -> tuple[ObjectInfo, Mapping[str, str]]:
    """Copy by a driver; return the stored object and the checksums of the copied bytes."""
    info = options.source
    within_driver = source.backend.driver is target.backend.driver
    try:
        stored = await copy(options)
    except BucketNotFoundError as error:
        if within_driver and error.bucket == source.bucket != target.bucket:
            raise _source_changed(source) from error
        await create_bucket(error)
        stored = await copy(options)
    try:
        compare_stored(info.checksums, info.stored_size, stored)
    except IntegrityError:
        with shielded(), suppress(TroveError):
            await _discard(source, target, info, stored)
        raise
    return stored, info.checksums if within_driver else stored.checksums


async def _discard(
    source: Location, target: Location, info: ObjectInfo, stored: ObjectInfo
) -> None:
    """Delete a corrupt copy by its etag, if supported, unless it may have replaced its source.

    A service that treats both names as one object has stored the copy over its source.
    """
    conditional = target.backend.capabilities.delete_if_match and stored.etag is not None
    if not conditional or source.is_same(target):
        return
    current = await source.backend.driver.head(source.bucket, source.key, source.version_id)
    if current.write_id == info.write_id and is_same(info, current):
        options = DeleteOptions(if_match=stored.etag)
        await target.backend.driver.delete(target.bucket, target.key, options)


async def _copy_through_client(
    source: Location, target: Location, info: ObjectInfo, put: Put, kinds: Collection[str]
) -> tuple[ObjectInfo, Mapping[str, str]]:
    """Copy the body through this process; return the stored object and the body's checksums."""
    # 1. Open the version that `info` describes.
    async with AsyncExitStack() as stack:
        reader = await _open_source(source, info, stack)
        # 2. Put the body. It is verified against the source's checksum while it is read, so its last
        # bytes are sent only if it is intact. The checksums that the target's backend reports are
        # computed as well.
        body = VerifiedBody(reader, {CRC32C, *kinds})
        stored = await put.run(source_of(body))
    # 3. Compare the computed checksums with those that the target's backend reports.
    checksums = body.checksums
    try:
        compare(checksums, stored.checksums, "the stored bytes differ from those that were read")
    except IntegrityError:
        with shielded(), suppress(TroveError):
            await _discard(source, target, info, stored)
        raise
    return stored, checksums


async def _encode_again(
    source: Location,
    info: ObjectInfo,
    options: PutOptions,
    transforms: Transforms,
    put: Callable[[Source, PutOptions], Awaitable[PutResult]],
) -> CopyResult:
    """Decode the source, and put its body through the middlewares of the target."""
    async with AsyncExitStack() as stack:
        with located(source):
            stored_body = VerifiedBody(await _open_source(source, info, stack))
            decoded = DecodedObject(transforms, source.backend, info, source.version_id)
            try:
                await decoded.load(for_ranges=False)
            except ObjectChangedError as error:
                raise _source_changed(source) from error
            # Closes the workers only: the stack closes the response.
            opened = await decoded.open_whole(nullcontext(), stored_body)
            body = await stack.enter_async_context(opened)
        # The checksums of the source are those of its encoded form.
        options = replace(options, size=body.remaining, checksums={})
        result = await put(source_of(body), options)
    return CopyResult(
        source=info,
        stored=result.stored,
        size=result.stored_size,
        checksums=result.checksums,
        write_id=options.write_id,
        body_size=result.body_size,
    )


async def _open_source(source: Location, info: ObjectInfo, stack: AsyncExitStack) -> DriverReader:
    """Open the version of the source that `info` describes, until the stack is left."""
    options = pinned_options(source.backend, info, version_id=source.version_id)
    try:
        reader = await stack.enter_async_context(
            source.backend.driver.get(source.bucket, source.key, options)
        )
    except (PreconditionFailedError, NotFoundError) as error:
        raise _source_changed(source) from error
    if not (is_same(info, reader.info) or _has_same_attributes(info, reader.info)):
        raise _source_changed(source)
    return reader


def _has_same_attributes(info: ObjectInfo, opened: ObjectInfo) -> bool:
    """Return whether an object that cannot be pinned was opened with the same attributes.

    The body then belongs to these attributes, although its version is unknown. Tags come in a
    separate response, so they are not compared.
    """
    return not can_prove(info) and replace(info, tags={}) == replace(opened, tags={})


def _pinned_to_itself(source: Location, info: ObjectInfo, options: PutOptions) -> PutOptions:
    """Return options under which the put replaces only the version that was read.

    The options are returned unchanged if an older version was read, the user passed a condition, or the
    backend does not support `if_match`.
    """
    latest = source.version_id is None
    if latest and source.backend.capabilities.put_if_match and not options.conditional:
        return replace(options, if_match=info.etag)
    return options


@contextmanager
def _translate_pin_errors(source: Location, *, pinned: bool) -> Iterator[None]:
    """Translate errors about a condition that the copy has added itself."""
    try:
        yield
    except PreconditionFailedError as error:
        if pinned:
            raise _source_changed(source) from error
        raise
    except NotSupportedError as error:
        if pinned:
            raise NotSupportedError(
                "the backend cannot replace only the version that was read, so nothing was changed"
                f" ({error.message})"
            ) from error
        raise


def _check_conditions(info: ObjectInfo, overrides: CopyOverrides) -> None:
    if overrides.put.if_none_match is not None:
        raise ObjectExistsError("the object already exists", bucket=info.bucket, key=info.key)
    if overrides.put.if_match not in {None, info.etag}:
        raise PreconditionFailedError(
            "if_match: the current version has a different etag",
            bucket=info.bucket,
            key=info.key,
        )


def _source_changed(source: Location) -> ObjectChangedError:
    return ObjectChangedError(
        "the source was replaced or deleted while it was copied; nothing was stored: copy it again",
        operation="copy",
        backend=source.backend.name,
        bucket=source.bucket,
        key=source.key,
    )
