"""Copies an object from one driver to another with all of its attributes, and compares copies."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol, cast

from trove_async._checksums import CRC32C, Crc32c, compare, compare_stored
from trove_async._concurrency import Turns, in_thread
from trove_async._version_identity import is_same
from trove_async._views import take
from trove_async.driver import AsyncDriver, Capabilities, DriverReader, Upload, Uploading
from trove_async.errors import (
    NotFoundError,
    NotSupportedError,
    ObjectChangedError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import RECORDS, ObjectInfo
from trove_async.options import GetOptions, Part, PutOptions

_UNTYPED: Final = frozenset({None, "application/octet-stream", "binary/octet-stream"})
"""The content types that services report for an object that has none."""

_HASHES: Final = ("md5", "sha1", "sha256")
"""The kinds of checksum that are verified if an object has no CRC-32C."""


# -- comparing -----------------------------------------------------------------------------------------


def is_copy(original: ObjectInfo, copy: ObjectInfo, *, records_ids: bool) -> bool:
    """Return whether nothing distinguishes an object from its copy on another service.

    Args:
        original: The object of the primary, from a head or a listing.
        copy: The object of a replica.
        records_ids: Whether both services record write_ids, so that an object without one was written by
            another tool.
    """
    if original.stored_size != copy.stored_size:
        return False
    kinds = original.checksums.keys() & copy.checksums.keys()
    if any(original.checksums[kind] != copy.checksums[kind] for kind in kinds):
        return False
    if not (original.complete and copy.complete):
        return None in {original.write_id, copy.write_id} or original.write_id == copy.write_id
    # One write gives all copies the same id and attributes, which services may return slightly changed.
    if original.write_id is not None and copy.write_id is not None:
        return original.write_id == copy.write_id
    if not kinds and records_ids and original.write_id != copy.write_id:
        return False
    return _attributes(original) == _attributes(copy)


def _attributes(info: ObjectInfo) -> tuple[object, ...]:
    return (
        None if info.content_type in _UNTYPED else info.content_type,
        dict(info.metadata),
        dict(info.tags),
        info.records,
        info.cache_control,
        info.content_disposition,
        info.content_encoding,
        info.content_language,
        info.expires,
    )


# -- copying -------------------------------------------------------------------------------------------


def buffer_size(size: int, target: Capabilities, limit: int) -> int:
    """Return the bytes of memory that copying an object takes.

    Args:
        size: The size of the object.
        target: The capabilities of the driver that it is copied to.
        limit: The most that may be used, and the size of a part if the target has no preference.

    Raises:
        NotSupportedError: The target needs larger parts, or cannot store the object in parts.
    """
    if size <= min(limit, target.max_put):
        return size
    if not target.upload:
        raise NotSupportedError(
            f"the target has no uploads in parts, so an object may have at most {limit} bytes to be copied, got {size}"
        )
    multiple = target.part_multiple
    least = max(target.min_part, -(-size // target.max_parts))
    part = max(min(limit, target.max_part) // multiple, -(-least // multiple)) * multiple
    if part > min(limit, target.max_part):
        raise NotSupportedError(
            f"an object of {size} bytes needs parts of {part} bytes to be copied, which must fit in {limit}"
        )
    return part


async def transfer(
    source: AsyncDriver,
    target: AsyncDriver,
    info: ObjectInfo,
    buffer: Sequence[memoryview],
    *,
    same_service: bool,
) -> ObjectInfo:
    """Copy the version that `info` describes to the same name on another driver.

    It becomes visible only after its bytes were compared with its recorded checksum.

    Args:
        source: The driver to read from.
        target: The driver to write to.
        info: The object, as the source's head describes it.
        buffer: Memory for one part, of the size that `buffer_size` returned.
        same_service: Whether a storage class of the source is one of the target.

    Raises:
        ObjectChangedError: The source is now a different version. Nothing was stored.
        IntegrityError: The bytes read, or the bytes stored, differ from those recorded.
        TroveError: A driver failed.
    """
    bucket, key = info.bucket, info.key
    options = _put_options(source, target, info, same_service=same_service)
    async with AsyncExitStack() as stack:
        try:
            reader = await stack.enter_async_context(
                source.get(bucket, key, _pinned(source.capabilities, info))
            )
        except (PreconditionFailedError, NotFoundError) as error:
            raise _changed(info) from error
        if not is_same(info, reader.info):
            raise _changed(info)
        body = _Body(reader, info)
        part = sum(map(len, buffer))
        if info.stored_size <= part:
            views = await body.fill(take(buffer, info.stored_size))
            body.verify()
            stored = await target.put(
                bucket, key, views, options.of_body(body.size, body.checksums)
            )
        else:
            uploading = cast("Uploading", target)
            upload = await stack.enter_async_context(uploading.upload(bucket, key, options))
            await _send_parts(upload, body, buffer, part)
            body.verify()
            stored = await upload.commit(body.checksums)
    compare_stored(body.checksums, body.size, stored)
    return stored


async def _send_parts(
    upload: Upload, body: _Body, buffer: Sequence[memoryview], part_size: int
) -> None:
    size, turns = body.info.stored_size, Turns()
    for number, offset in enumerate(range(0, size, part_size), 1):
        length = min(part_size, size - offset)
        views = await body.fill(take(buffer, length))
        part = Part(number=number, offset=offset, size=length, last=offset + length == size)
        await upload.send(part, views)
        if turns.is_due:
            await turns.give()


def _put_options(
    source: AsyncDriver, target: AsyncDriver, info: ObjectInfo, *, same_service: bool
) -> PutOptions:
    """Return the options that give the copy the attributes of its original.

    A target without a capability lacks the attribute. It also lacks it after every other write, because
    the layer claims only what all members support.
    """
    claimed = target.capabilities
    metadata = dict(info.metadata)
    if info.records is not None:
        metadata[RECORDS] = info.records
    keeps_class = same_service and claimed.storage_class and source.capabilities.storage_class
    return PutOptions(
        size=info.stored_size,
        content_type=info.content_type if claimed.headers else None,
        metadata=metadata if claimed.metadata else {},
        tags=info.tags if claimed.tags else {},
        storage_class=info.storage_class if keeps_class else None,
        cache_control=info.cache_control if claimed.headers else None,
        content_disposition=info.content_disposition if claimed.headers else None,
        content_encoding=info.content_encoding if claimed.headers else None,
        content_language=info.content_language if claimed.headers else None,
        expires=info.expires if claimed.expires else None,
        write_id=info.write_id,
    )


def _pinned(capabilities: Capabilities, info: ObjectInfo) -> GetOptions:
    return GetOptions(if_match=info.etag if capabilities.get_conditions else None)


def _changed(info: ObjectInfo) -> ObjectChangedError:
    return ObjectChangedError(
        "the object was replaced or deleted while it was copied to a replica",
        bucket=info.bucket,
        key=info.key,
    )


class _Hash(Protocol):
    """A running hash with the interface of hashlib."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Body:
    """The body of a copy while it is read, and its running checksums.

    Attributes:
        info: The object, as the source describes it.
        size: The number of bytes so far.
    """

    def __init__(self, reader: DriverReader, info: ObjectInfo) -> None:
        self._reader = reader
        self._crc = Crc32c()
        self._hashes: dict[str, _Hash] = {}
        self.info = info
        self.size = 0
        if CRC32C not in info.checksums:
            for kind in [kind for kind in _HASHES if kind in info.checksums][:1]:
                self._hashes[kind] = hashlib.new(kind, usedforsecurity=False)

    @property
    def checksums(self) -> dict[str, str]:
        """The checksums of the bytes so far, by kind."""
        checksums = {CRC32C: self._crc.digest()}
        for kind, hasher in self._hashes.items():
            checksums[kind] = b64encode(hasher.digest()).decode("ascii")
        return checksums

    async def fill(self, views: Sequence[memoryview]) -> Sequence[memoryview]:
        """Read the next bytes into the views, and return the views.

        Raises:
            UnavailableError: The body ended early.
        """
        for view in views:
            rest = view
            while rest:
                data = await self._reader.read(len(rest))
                if not data:
                    raise UnavailableError(f"the body ended after {self.size} bytes")
                self._crc.update(data)
                for hasher in self._hashes.values():
                    await in_thread(hasher.update, data)
                rest[: len(data)] = data
                rest = rest[len(data) :]
                self.size += len(data)
        return views

    def verify(self) -> None:
        """Compare the checksums with those that were recorded with the object.

        Raises:
            IntegrityError: They differ.
        """
        compare(
            self.info.checksums,
            self.checksums,
            "the bytes that were read differ from those that were stored",
        )
