"""Opens the bodies of objects, decoded by their records.

A get is optimistic: its first request is that of a plain object. Only if the response has records does a
range cost more requests: one for the index of a compressed object, and one for the blocks of the range.
A later range of the same object costs one request, because `IndexCache` remembers both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from types import TracebackType
from typing import Final

from trove_async._version_identity import can_prove, is_same
from trove_async.driver import DriverReader
from trove_async.errors import (
    IntegrityError,
    NotFoundError,
    NotSupportedError,
    ObjectChangedError,
    PreconditionFailedError,
    RangeError,
)
from trove_async.middleware import Decoder, Plan, Span
from trove_async.models import ByteRange, MiB, ObjectInfo
from trove_async.options import GetOptions

from .backends import Backend
from .decoding import Body, DecodedBody
from .index_cache import KnownObject
from .locations import context_of_stored
from .records import parse_records
from .transforms import Transforms, decoded_info
from .verified import VerifiedBody

_MAX_ATTEMPTS: Final = 3
"""Maximum number of attempts if the object is replaced between the requests of one get."""


class OpenedBody:
    """An open body. Leaving the context closes its connection.

    Attributes:
        body: The decoded body.
        info: What users see of the object.
    """

    __slots__ = ("_context", "_decoded", "body", "info")

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        body: Body,
        decoded: Sequence[DecodedBody] = (),
    ) -> None:
        self.body = body
        self.info = body.info
        self._context = context
        self._decoded = decoded

    async def __aenter__(self) -> Body:
        return self.body

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._decoded:
            await self._context.__aexit__(None, None, None)
            return
        async with AsyncExitStack() as stack:  # a cancel keeps none of them open
            stack.push_async_callback(self._context.__aexit__, None, None, None)
            for body in self._decoded:
                stack.push_async_callback(body.aclose)


async def open_body(
    transforms: Transforms, backend: Backend, bucket: str, key: str, options: GetOptions
) -> OpenedBody:
    """Open the body of an object, or a range of it.

    Raises:
        TroveError: As `AsyncDriver.get`.
        DecryptionError: The key is unknown, or the object must be encrypted and is not.
        IntegrityError: The records or the index of the object are malformed.
    """
    # 1. The response to a plain get is used as it is, unless the object is transformed.
    if options.range is None:
        context = backend.driver.get(bucket, key, options)
        reader = await context.__aenter__()
        if reader.info.records is None and not transforms.has_required:
            return OpenedBody(context, VerifiedBody(reader))
        with suppress(_ReplacedError):
            opened = await _decode_whole(transforms, backend, context, reader, options)
            if opened is not None:
                return opened
    # 2. Otherwise several requests may be needed, and the object may be replaced between them.
    for _ in range(_MAX_ATTEMPTS - 1):
        try:
            return await _open(transforms, backend, bucket, key, options)
        except _ReplacedError:
            continue
    try:
        return await _open(transforms, backend, bucket, key, options)
    except _ReplacedError as error:
        raise ObjectChangedError(error.message, backend=backend.name) from error


class _ReplacedError(ObjectChangedError):
    """The object was replaced between the requests of one get, which has returned no bytes yet."""


async def _open(
    transforms: Transforms, backend: Backend, bucket: str, key: str, options: GetOptions
) -> OpenedBody:
    # 1. A range of an object that was read recently is planned at once.
    if options.range is not None and _is_of_latest(options):
        address = (backend.name, bucket, key)
        known = transforms.indexes.get(address)
        if known is not None:
            try:
                await transforms.check_read(known.info, backend.name)
                decoded = DecodedObject(transforms, backend, known.info)
                await decoded.load(for_ranges=True, indexes=known.indexes)
                return await decoded.open_range(*options.range.resolve(decoded.size))
            except (PreconditionFailedError, NotFoundError, RangeError):
                transforms.indexes.drop(address)
    # 2. Send the request of a plain object.
    context = backend.driver.get(bucket, key, options)
    try:
        reader = await context.__aenter__()
    except RangeError:
        # The range is outside the stored bytes, but may be inside the decoded ones.
        info = await backend.driver.head(bucket, key, options.version_id)
        if not is_transformed(info) or options.range is None:
            raise
        await transforms.check_read(info, backend.name)
    else:
        info = reader.info
        opened = await _decode_whole(transforms, backend, context, reader, options)
        if opened is not None:
            return opened
    # 3. A range needs the index, and a different range of the stored bytes.
    assert options.range is not None  # noqa: S101 - otherwise the whole object was opened
    decoded = DecodedObject(transforms, backend, info, options.version_id)
    await decoded.load(for_ranges=True)
    return await decoded.open_range(*options.range.resolve(decoded.size))


async def _decode_whole(
    transforms: Transforms,
    backend: Backend,
    context: AbstractAsyncContextManager[object],
    reader: DriverReader,
    options: GetOptions,
) -> OpenedBody | None:
    """Use the response of a plain object. Return None if a range needs different bytes.

    Unless a body is returned, the response is closed.
    """
    opened = OpenedBody(context, VerifiedBody(reader))
    result: OpenedBody | None = None
    try:
        info = reader.info
        await transforms.check_read(info, backend.name)
        if not is_transformed(info):
            result = opened
        elif options.range is None:
            decoded = DecodedObject(transforms, backend, info, options.version_id)
            await decoded.load(for_ranges=False)
            result = decoded.open_whole(context, opened.body)
    finally:
        if result is None:
            await opened.__aexit__(None, None, None)
    return result


async def read_all(body: Body) -> bytes:
    """Return the remaining bytes of a body.

    Raises:
        ObjectChangedError: The object was replaced while it was read.
    """
    data = await body.read(MiB)
    if not body.remaining:
        return data
    pieces = [data]
    while body.remaining:
        pieces.append(await body.read(MiB))
    return b"".join(pieces)


def _is_of_latest(options: GetOptions) -> bool:
    return options.version_id is options.if_match is options.if_none_match is None


def is_transformed(info: ObjectInfo) -> bool:
    """Return whether an object must be decoded."""
    return info.records is not None and any(
        record is not None for _, record in parse_records(info.records)
    )


async def describe(
    transforms: Transforms, backend: Backend, info: ObjectInfo, version_id: str | None = None
) -> ObjectInfo:
    """Return what users see of a complete object. A request may be needed for its size.

    An object that cannot be decoded has the size of its stored bytes, and is not complete.
    """
    public = transforms.public(info)
    if public.complete:
        return public
    decoded = DecodedObject(transforms, backend, info, version_id)
    try:
        await decoded.load(for_ranges=False)
    except (IntegrityError, NotSupportedError):
        return public  # reading the object raises the error
    return decoded_info(info, decoded.size)


class DecodedObject:
    """One version of a transformed object, and its decoders.

    Args:
        transforms: The middlewares of the store.
        backend: The backend of the object.
        info: The object as its backend describes it.
        version_id: The version that the user has passed, if any.
    """

    def __init__(
        self,
        transforms: Transforms,
        backend: Backend,
        info: ObjectInfo,
        version_id: str | None = None,
    ) -> None:
        self._transforms = transforms
        self._backend = backend
        self._info = info
        self._version_id = version_id
        self._decoders: list[Decoder] = []  # in the order of decoding
        self.size = info.stored_size

    async def load(self, *, for_ranges: bool, indexes: Sequence[Sequence[bytes]] = ()) -> None:
        """Make the decoders, and load their indexes as far as they are needed.

        Args:
            for_ranges: Whether ranges will be opened. Otherwise only the size is needed.
            indexes: The indexes that an earlier read has loaded.

        Raises:
            ObjectChangedError: The object was replaced.
            DecryptionError: The key is unknown.
            IntegrityError: A record or an index is malformed.
        """
        context = context_of_stored(self._info, self._backend.name)
        applied = [item for item in parse_records(self._info.records) if item.record is not None]
        loaded: list[list[bytes]] = []
        for level, item in enumerate(reversed(applied)):
            decoder = await self._transforms.decoder(context, item, self.size)
            known = iter(indexes[level]) if level < len(indexes) else iter(())
            pieces: list[bytes] = []
            while (for_ranges or decoder.size is None) and decoder.index is not None:
                data = next(known, None)
                if data is None:
                    data = await self._read(*decoder.index)
                decoder.load_index(data)
                pieces.append(data)
            assert decoder.size is not None  # noqa: S101 - known once the index is loaded
            self.size = decoder.size
            self._decoders.append(decoder)
            loaded.append(pieces)
        if for_ranges and not indexes and self._version_id is None and can_prove(self._info):
            address = (self._backend.name, self._info.bucket, self._info.key)
            self._transforms.indexes.put(address, KnownObject(self._info, loaded))

    def open_whole(self, context: AbstractAsyncContextManager[object], stored: Body) -> OpenedBody:
        """Decode the whole object from an open response."""
        return self._decode(
            context, stored, [(None, (0, self._size_of(decoder))) for decoder in self._decoders]
        )

    async def open_range(self, start: int, end: int) -> OpenedBody:
        """Open a range of the decoded object. The indexes are loaded.

        Raises:
            ObjectChangedError: The object was replaced.
        """
        # 1. Plan from the decoded range down to the stored one.
        steps: list[tuple[Plan | None, Span]] = []
        span = (start, end)
        for decoder in reversed(self._decoders):
            await self._load_index_of(decoder)
            plan = decoder.plan(*span)
            steps.append((plan, span))
            span = plan.encoded
        steps.reverse()
        # 2. Open the stored range, and decode it.
        context, stored = await self._open_stored(*span)
        return self._decode(context, stored, steps)

    def _decode(
        self,
        context: AbstractAsyncContextManager[object],
        stored: Body,
        steps: Sequence[tuple[Plan | None, Span]],
    ) -> OpenedBody:
        body = stored
        decoded: list[DecodedBody] = []
        for decoder, (plan, span) in zip(self._decoders, steps, strict=True):
            body = DecodedBody(body, decoder, span, plan, self._transforms.spare)
            decoded.append(body)
        opened = OpenedBody(context, body, decoded)
        opened.info = decoded_info(self._info, self.size)
        return opened

    async def _load_index_of(self, decoder: Decoder) -> None:
        """Load the index of a decoder below one whose own index is being loaded."""
        while decoder.index is not None:
            level = self._decoders.index(decoder)
            below = DecodedObject(self._transforms, self._backend, self._info, self._version_id)
            below._decoders = self._decoders[:level]
            decoder.load_index(await below._read(*decoder.index))

    async def _read(self, start: int, end: int) -> bytes:
        """Read a range of the output of the decoders made so far."""
        async with await self.open_range(start, end) as body:
            return await read_all(body)

    def _size_of(self, decoder: Decoder) -> int:
        assert decoder.size is not None  # noqa: S101 - known once `load` has returned
        return decoder.size

    async def _open_stored(
        self, start: int, end: int
    ) -> tuple[AbstractAsyncContextManager[object], Body]:
        """Open a range of the stored bytes of this version."""
        backend, info = self._backend, self._info
        capabilities = backend.capabilities
        whole = (start, end) == (0, info.stored_size)
        if not (whole or capabilities.ranges):
            raise NotSupportedError(
                f"{backend.driver.name} cannot read a range, which this transformed object needs",
                backend=backend.name,
            )
        pin = info.etag if capabilities.get_conditions else None
        options = GetOptions(
            range=None if whole else ByteRange(start, end),
            version_id=self._version_id
            or (info.version_id if capabilities.versions and pin is None else None),
            if_match=pin,
        )
        context = backend.driver.get(info.bucket, info.key, options)
        try:
            reader = await context.__aenter__()
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            raise _replaced_error() from error
        if not _is_same_version(info, reader.info) or reader.range != (start, end):
            await context.__aexit__(None, None, None)
            raise _replaced_error()
        return context, VerifiedBody(reader)


def _is_same_version(info: ObjectInfo, later: ObjectInfo) -> bool:
    """Return whether two responses are of one version, or cannot be told apart.

    Without proof, equal records are enough: those of an encrypted object contain a random salt, and every
    block of a compressed one is verified.
    """
    if can_prove(info):
        return is_same(info, later)
    return (info.stored_size, info.last_modified, info.write_id, info.records) == (
        later.stored_size,
        later.last_modified,
        later.write_id,
        later.records,
    )


def _replaced_error() -> _ReplacedError:
    return _ReplacedError(
        "the object was replaced or deleted while it was being opened: read it again"
    )
