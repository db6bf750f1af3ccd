"""One version of a transformed object: loads its decoders, and opens ranges of its decoded body."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from types import TracebackType
from typing import Final

from trove_async._concurrency import Entered, shielded
from trove_async._version_identity import can_prove, is_same
from trove_async.errors import (
    IntegrityError,
    NotFoundError,
    NotSupportedError,
    ObjectChangedError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
)
from trove_async.middleware import Plan, Span
from trove_async.models import ByteRange, MiB, ObjectInfo

from .backends import Backend
from .checked_decoder import CheckedDecoder
from .decoding import Body, DecodedBody
from .index_cache import Address, KnownObject
from .locations import context_of_stored
from .pinning import pinned_options
from .records import parse_records
from .transforms import Transforms, decoded_info
from .verified import VerifiedBody

MAX_ATTEMPTS: Final = 3
"""Maximum number of attempts if an object is replaced between the requests for one version."""

_LARGE_INDEX: Final = 4 * MiB
"""Size of the largest index of an object that may have fewer stored bytes: that of 512 GiB in frames of 1 MiB."""


class OpenedBody:
    """An open body. Leaving the context closes its connection.

    Attributes:
        body: The decoded body, or the stored one if the get does not decode.
        info: The public metadata of the object (`decoded_info`), or the stored one if the get does not
            decode.
    """

    __slots__ = ("_context", "_decoded", "body", "info")

    def __init__(
        self,
        context: Entered,
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


def is_transformed(info: ObjectInfo) -> bool:
    """Return whether an object must be decoded."""
    return info.records is not None and any(
        record is not None for _, record in parse_records(info.records)
    )


def known_object(transforms: Transforms, backend: Backend, info: ObjectInfo) -> KnownObject | None:
    """Return what the store remembers of this version of a transformed object. Sends no request."""
    known = transforms.indexes.get((backend.name, info.bucket, info.key))
    return known if known is not None and _is_same_version(known.info, info) else None


class ReplacedError(ObjectChangedError):
    """The object was replaced between the requests of one get, which has returned no bytes yet."""


async def describe(
    transforms: Transforms, backend: Backend, info: ObjectInfo, version_id: str | None = None
) -> ObjectInfo:
    """Return the public metadata of an object, with its decoded size, which may take a request.

    If the object is replaced before that request, the new version is described instead. If the object cannot
    be decoded, or the backend has no ranges, the info has the stored size and is not complete.
    """
    for _ in range(MAX_ATTEMPTS):
        public = transforms.public(info)
        if public.complete:
            return public
        if (known := known_object(transforms, backend, info)) is not None:
            return decoded_info(info, known.decoded_size)
        if not backend.capabilities.ranges:
            return public
        decoded = DecodedObject(transforms, backend, info, version_id)
        try:
            await decoded.load(for_ranges=False)
        except ReplacedError:
            info = await backend.driver.head(info.bucket, info.key, version_id)
        except (IntegrityError, NotSupportedError, PermissionDeniedError):
            return public  # reading the object raises the error
        else:
            return decoded_info(info, decoded.size)
    return transforms.public(info)


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
        self._decoders: list[CheckedDecoder] = []  # in the order of decoding
        self._tail: Body | None = None
        self.size = info.stored_size

    async def load(
        self,
        *,
        for_ranges: bool,
        tail: Body | None = None,
    ) -> None:
        """Make the decoders, and load their indexes as far as they are needed.

        The indexes are those of an earlier read, or are requested and remembered.

        Args:
            for_ranges: Whether ranges will be opened. Otherwise only the size is needed.
            tail: The open last bytes of the stored object, which an index may be read from.

        Raises:
            ObjectChangedError: The object was replaced.
            DecryptionError: The key is unknown.
            IntegrityError: A record or an index is malformed.
        """
        try:
            await self._load(for_ranges=for_ranges, tail=tail)
        except IntegrityError:
            self._transforms.indexes.drop(self._address)  # what is remembered may be damaged
            raise

    async def _load(self, *, for_ranges: bool, tail: Body | None) -> None:
        context = context_of_stored(self._info, self._backend)
        self._tail = tail
        remembered = known_object(self._transforms, self._backend, self._info)
        indexes = remembered.indexes if remembered is not None else ()
        is_new = for_ranges and remembered is None
        applied = parse_records(self._info.records)
        loaded: list[list[bytes]] = []
        for position in reversed(range(len(applied))):
            if applied[position].record is None:
                continue
            decoder = await self._transforms.decoder(context, applied, position, self.size)
            level = len(loaded)
            known = iter(indexes[level]) if level < len(indexes) else iter(())
            pieces: list[bytes] = []
            while (for_ranges or decoder.size is None) and decoder.index is not None:
                data = next(known, None)
                if data is None:
                    is_new = True
                    data = await self._read(*self._checked_index(decoder.index))
                await decoder.load_index(data, self._transforms.workers)
                pieces.append(data)
            assert decoder.size is not None  # noqa: S101 - known once the index is loaded
            self.size = decoder.size
            self._decoders.append(decoder)
            loaded.append(pieces)
        self._tail = None
        if is_new and self._version_id is None and can_prove(self._info):
            entry = KnownObject(self._info, loaded, self.size)
            self._transforms.indexes.put(self._address, entry)

    @property
    def _address(self) -> Address:
        return self._backend.name, self._info.bucket, self._info.key

    def resolve(self, range: ByteRange) -> Span:
        """Return the absolute range in the decoded object.

        Raises:
            RangeError: The range starts at or after the end of the object.
        """
        try:
            return range.resolve(self.size)
        except RangeError as error:
            error.info = decoded_info(self._info, self.size).located(backend=self._backend.name)
            raise

    async def open_whole(self, context: Entered, stored: Body) -> OpenedBody:
        """Decode the whole object from an open response.

        Raises:
            IntegrityError: The object was altered, and is empty now. A body that is not empty raises the
                error when it is read.
        """
        opened = self._decode(
            context,
            stored,
            [(None, (0, self._size_of(decoder))) for decoder in self._decoders],
        )
        if not opened.body.remaining:
            # Most callers read nothing if nothing remains, which would not verify the empty block.
            await opened.body.read(1)
        return opened

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
        context: Entered,
        stored: Body,
        steps: Sequence[tuple[Plan | None, Span]],
    ) -> OpenedBody:
        body = stored
        decoded: list[DecodedBody] = []
        for decoder, (plan, span) in zip(self._decoders, steps, strict=True):
            body = DecodedBody(body, decoder, span, plan, self._transforms.workers)
            decoded.append(body)
        opened = OpenedBody(context, body, decoded)
        opened.info = decoded_info(self._info, self.size)
        return opened

    async def _load_index_of(self, decoder: CheckedDecoder) -> None:
        """Load the index of a decoder that the index of a later decoder is read through."""
        while decoder.index is not None:
            level = self._decoders.index(decoder)
            below = DecodedObject(self._transforms, self._backend, self._info, self._version_id)
            below._decoders = self._decoders[:level]
            data = await below._read(*self._checked_index(decoder.index))
            await decoder.load_index(data, self._transforms.workers)

    def _checked_index(self, span: Span) -> Span:
        """Return the range of an index, unless it is far larger than what is stored.

        An index is held in memory. If forged records state that an object was compressed twice, a few
        stored bytes decode to any number of them.
        """
        if span[1] - span[0] > max(_LARGE_INDEX, self._info.stored_size):
            raise IntegrityError(
                f"the object has an index of {span[1] - span[0]} bytes, but {self._info.stored_size}"
                " stored bytes: it was altered"
            )
        return span

    async def _read(self, start: int, end: int) -> bytes:
        """Read a range of the output of the decoders made so far."""
        async with await self.open_range(start, end) as body:
            return await read_all(body)

    def _size_of(self, decoder: CheckedDecoder) -> int:
        assert decoder.size is not None  # noqa: S101 - known once `load` has returned
        return decoder.size

    async def _open_stored(self, start: int, end: int) -> tuple[Entered, Body]:
        """Open a range of the stored bytes of this version."""
        backend, info = self._backend, self._info
        tail, self._tail = self._tail, None
        if tail is not None and start >= tail.range[0]:
            data = await read_all(tail)
            offset = start - tail.range[0]
            return nullcontext(), _Held(info, start, data[offset : offset + end - start])
        whole = (start, end) == (0, info.stored_size)
        if not (whole or backend.capabilities.ranges):
            # Reading the object as a whole may need its index, even if the user requests no range.
            return await self._open_section(start, end)
        byte_range = None if whole else ByteRange(start, end)
        options = pinned_options(backend, info, range=byte_range, version_id=self._version_id)
        context = backend.driver.get(info.bucket, info.key, options)
        try:
            reader = await context.__aenter__()
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            raise _replaced_error() from error
        if not _is_same_version(info, reader.info) or reader.range != (start, end):
            await context.__aexit__(None, None, None)
            raise _replaced_error()
        return context, VerifiedBody(reader)

    async def _open_section(self, start: int, end: int) -> tuple[Entered, Body]:
        """Open a range of the stored bytes on a backend without ranges: read and drop the bytes before it."""
        context, stored = await self._open_stored(0, self._info.stored_size)
        try:
            while stored.range[1] - stored.remaining < start:
                await stored.read(min(MiB, start - (stored.range[1] - stored.remaining)))
        except BaseException:
            with shielded():
                await context.__aexit__(None, None, None)
            raise
        return context, _Section(stored, start, end)


class _Section:
    """The next bytes of a body, up to the end of a range."""

    def __init__(self, body: Body, start: int, end: int) -> None:
        self.info = body.info
        self.range = start, end
        self._body = body

    @property
    def remaining(self) -> int:
        return self._body.remaining - (self._body.range[1] - self.range[1])

    async def read(self, size: int) -> bytes:
        return await self._body.read(min(size, self.remaining)) if self.remaining else b""


class _Held:
    """A range of a body that is in memory."""

    def __init__(self, info: ObjectInfo, start: int, data: bytes) -> None:
        self.info = info
        self.range = (start, start + len(data))
        self._data = data

    @property
    def remaining(self) -> int:
        return len(self._data)

    async def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


def _is_same_version(info: ObjectInfo, later: ObjectInfo) -> bool:
    """Return whether two responses describe one version, as far as this can be decided.

    Without proof, equal records are enough: those of an encrypted object contain a random salt, and every
    block of a compressed one is verified. With proof, the records must be equal nevertheless: an etag may be a
    checksum of the stored bytes, which does not depend on the metadata.
    """
    if info.records != later.records:
        return False
    if can_prove(info):
        return is_same(info, later)
    return (info.stored_size, info.last_modified, info.write_id) == (
        later.stored_size,
        later.last_modified,
        later.write_id,
    )


def _replaced_error() -> ReplacedError:
    return ReplacedError(
        "the object was replaced or deleted while it was being opened: read it again"
    )
