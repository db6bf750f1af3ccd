"""Opens the bodies of objects, decoded by their records.

The first request of a get is that of a plain object. If the response has records, a range takes more
requests: one or two for the index of a compressed object, and one for the blocks of the range. A later range
of the same object takes one request, because `IndexCache` keeps the records and the index.

A get without decoding returns the response to the first request as it is. A `Decode` function decides this
from the metadata of that response.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from trove_async._checksums import CRC32C
from trove_async.errors import (
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
    TroveError,
)
from trove_async.models import ByteRange, ObjectInfo
from trove_async.options import GetOptions

from .backends import Backend
from .decoded_objects import MAX_ATTEMPTS, DecodedObject, OpenedBody, ReplacedError, is_transformed
from .decoding import Body
from .transforms import Transforms
from .verified import VerifiedBody, WholeBody

Decode: TypeAlias = bool | Callable[[ObjectInfo], bool]
"""Whether a transformed object is decoded, or a function that decides it from the object's metadata."""

_MAY_BE_OUTDATED: Final = (
    PreconditionFailedError,
    NotFoundError,
    RangeError,
    IntegrityError,  # the key of the remembered version may no longer exist
    PermissionDeniedError,  # or may no longer be used
)
"""The errors of a range planned from a remembered version that may not apply to the current one."""


class OpenBody(NamedTuple):
    """An open body and the functions that its reader needs.

    Attributes:
        context: The open body's context manager. Leaving it closes the connection.
        body: The body, verified before its last byte is read, and decoded unless the get does not decode.
        info: The version that the body belongs to.
        check_usable: Raises ClosedError if the store is not open.
        emit: Emits the event of a body that was read, from the backend's name and the number of
            bytes. None if there are no listeners.
    """

    context: OpenedBody
    body: Body
    info: ObjectInfo
    check_usable: Callable[[], None]
    emit: Callable[[str, int], None] | None

    async def aclose(self) -> None:
        """Close a body that no reader was made for."""
        await self.context.__aexit__(None, None, None)


async def open_body(
    transforms: Transforms,
    backend: Backend,
    bucket: str,
    key: str,
    options: GetOptions,
    *,
    decode: Decode = True,
) -> OpenedBody:
    """Open the body of an object, or a range of it.

    Without decoding, the range is one of the stored bytes, and the info has their size. The transforms
    that a scope requires are required in either case.

    Raises:
        TroveError: As `AsyncDriver.get`.
        DecryptionError: The key is unknown, or the object must be encrypted and is not.
        IntegrityError: The records or the index of the object are malformed.
    """
    try:
        # 1. The response to a plain get is used as it is, unless the object is transformed.
        if options.range is None:
            opened = await _request(backend, bucket, key, options)
            if opened.info.records is None and not transforms.has_required:
                return opened
            with suppress(ReplacedError):
                decoded = await _decode_whole(transforms, backend, opened, options, decode)
                if decoded is not None:
                    return decoded
        return await _open_latest(transforms, backend, bucket, key, options, decode)
    except TroveError as error:
        error.located(backend=backend.name)  # a middleware does not know it
        raise


async def _open_latest(  # noqa: PLR0917 - as `open_body`
    transforms: Transforms,
    backend: Backend,
    bucket: str,
    key: str,
    options: GetOptions,
    decode: Decode,
) -> OpenedBody:
    """Open a body, again if it is replaced between the requests that are needed."""
    attempt = 1
    while True:
        try:
            return await _open(transforms, backend, bucket, key, options, decode)
        except ReplacedError as error:
            if attempt == MAX_ATTEMPTS:
                raise ObjectChangedError(error.message, backend=backend.name) from error
        attempt += 1


async def _open(  # noqa: PLR0917 - as `open_body`
    transforms: Transforms,
    backend: Backend,
    bucket: str,
    key: str,
    options: GetOptions,
    decode: Decode,
) -> OpenedBody:
    # 1. A range of an object that was read recently is planned at once.
    if options.range is not None:
        address = (backend.name, bucket, key)
        known = transforms.indexes.get(address)
        if (
            known is not None
            and _may_be_of(known.info, options)
            and _must_decode(known.info, backend, decode)
        ):
            try:
                await transforms.check_read(known.info, backend)
                decoded = DecodedObject(transforms, backend, known.info)
                await decoded.load(for_ranges=True)
                return await decoded.open_range(*decoded.resolve(options.range))
            except _MAY_BE_OUTDATED:
                transforms.indexes.drop(address)
    # 2. Send the request of a plain object.
    try:
        opened = await _request(backend, bucket, key, options)
    except RangeError as error:
        if decode is False:
            raise
        # The range is outside the stored bytes, but may be inside the decoded ones.
        found = await _look_up(transforms, backend, bucket, key, options, decode)
        if isinstance(found, ObjectInfo):
            error.info = found.located(backend=backend.name)
            raise
        decoded = found
    else:
        if opened.info.records is None and not transforms.has_required:
            return opened
        whole = await _decode_whole(transforms, backend, opened, options, decode)
        if whole is not None:
            return whole
        decoded = DecodedObject(transforms, backend, opened.info, options.version_id)
        await decoded.load(for_ranges=True)
    # 3. A range needs a different range of the stored bytes.
    assert options.range is not None  # noqa: S101 - otherwise the whole object was opened
    return await decoded.open_range(*decoded.resolve(options.range))


async def _look_up(  # noqa: PLR0917 - as `open_body`
    transforms: Transforms,
    backend: Backend,
    bucket: str,
    key: str,
    options: GetOptions,
    decode: Decode,
) -> DecodedObject | ObjectInfo:
    """Return the current object: what users see of it if it is not decoded, else loaded for ranges."""
    if transforms:
        # The object is probably transformed. Its last bytes often contain its index, which saves a request.
        tail = replace(options, range=ByteRange.last(transforms.tail_size))
        with suppress(RangeError):  # an empty object has no last bytes
            async with backend.driver.get(bucket, key, tail) as reader:
                await transforms.check_read(reader.info, backend)
                if not _must_decode(reader.info, backend, decode):
                    return reader.info
                decoded = DecodedObject(transforms, backend, reader.info, options.version_id)
                await decoded.load(for_ranges=True, tail=VerifiedBody(reader))
                return decoded
    info = await backend.driver.head(bucket, key, options.version_id)
    _check_conditions(info, options)
    await transforms.check_read(info, backend)
    if not _must_decode(info, backend, decode):
        return info
    decoded = DecodedObject(transforms, backend, info, options.version_id)
    await decoded.load(for_ranges=True)
    return decoded


async def _request(backend: Backend, bucket: str, key: str, options: GetOptions) -> OpenedBody:
    """Send the request of a plain object. Return its body, not decoded."""
    if backend.fetch is None:
        context = backend.driver.get(bucket, key, options)
        return OpenedBody(context, VerifiedBody(await context.__aenter__()))
    reader = await backend.fetch(bucket, key, options)
    if reader.whole is not None:
        checksums = reader.info.checksums
        if not checksums or CRC32C in checksums:
            return OpenedBody(reader, WholeBody(reader, reader.whole))
    return OpenedBody(reader, VerifiedBody(reader))


async def _decode_whole(
    transforms: Transforms,
    backend: Backend,
    opened: OpenedBody,
    options: GetOptions,
    decode: Decode,
) -> OpenedBody | None:
    """Use the response to a get of the stored bytes. Return None if a range needs different bytes.

    Unless a body is returned, the response is closed.
    """
    result: OpenedBody | None = None
    try:
        info = opened.info
        await transforms.check_read(info, backend)
        if not _must_decode(info, backend, decode):
            result = opened
        elif options.range is None:
            decoded = DecodedObject(transforms, backend, info, options.version_id)
            await decoded.load(for_ranges=False)
            result = await decoded.open_whole(opened, opened.body)
    finally:
        if result is None:
            await opened.__aexit__(None, None, None)
    return result


def _check_conditions(info: ObjectInfo, options: GetOptions) -> None:
    """Raise PreconditionFailedError if the version of a HEAD does not meet the conditions of a get."""
    if options.if_match not in {None, info.etag}:
        raise PreconditionFailedError("if_match: the current version has a different etag")
    if options.if_none_match is not None and options.if_none_match == info.etag:
        raise PreconditionFailedError("if_none_match: the current version has this etag")


def _may_be_of(known: ObjectInfo, options: GetOptions) -> bool:
    """Return whether a get of the version that was the latest one, pinned to it, meets its conditions."""
    return options.version_id is options.if_none_match is None and options.if_match in {
        None,
        known.etag,
    }


def _must_decode(info: ObjectInfo, backend: Backend, decode: Decode) -> bool:
    """Return whether the object is transformed, and is to be decoded.

    Raises:
        IntegrityError: It is to be decoded, and its records are malformed.
    """
    if info.records is None:
        return False
    if not isinstance(decode, bool):
        decode = decode(info.located(backend=backend.name))
    return decode and is_transformed(info)
