"""Verifies a body against the object's recorded checksums while it is read."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol, cast

from crc32c import crc32c

from trove_async._checksums import CRC32C, Crc32c, crc32c_text
from trove_async._concurrency import Turns, in_thread
from trove_async.driver import DriverReader, FileSpan, ReadsInto, file_span_of, saves_copy
from trove_async.errors import IntegrityError
from trove_async.models import KiB, ObjectInfo

_TAIL: Final = 64 * KiB
"""Bytes at the end of a body that are never part of a `FileSpan`. Reading them verifies the body, so they are
sent only if the bytes before them were right."""

_INLINE_HASH: Final = 256 * KiB
"""Maximum number of bytes hashed on the event loop. Hashing more takes longer than a thread hop (200 µs)."""


class _Hash(Protocol):
    """A running hash with the interface of hashlib."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    """A running CRC-32 (ISO 3309), as in S3's x-amz-checksum-crc32."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_HASHES: Final[Mapping[str, Callable[[], _Hash]]] = {
    "crc32": _Crc32,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
}
"""The supported kinds of checksum besides CRC-32C, in order of preference: shortest first."""

VERIFIED_KINDS: Final = frozenset({CRC32C, *_HASHES})
"""The kinds of checksum that a read of a whole object verifies."""


class WholeBody:
    """A body in memory that has been verified.

    A whole object is verified against its recorded CRC-32C, if it has one. Use `VerifiedBody` for other
    kinds of checksums.

    Args:
        reader: The open body. Its range and its bytes have the same length.
        data: Its bytes.

    Attributes:
        data: The bytes.
        remaining: The number of bytes that `read` has not returned yet.

    Raises:
        IntegrityError: The bytes differ from those that were stored.
    """

    __slots__ = ("data", "info", "range", "remaining")

    def __init__(self, reader: DriverReader, data: bytes) -> None:
        self.info = info = reader.info
        self.range = reader.range
        self.remaining = len(data)
        self.data = data
        recorded = info.checksums.get(CRC32C)
        if recorded is not None and self.range == (0, info.stored_size):
            checksum = crc32c_text(crc32c(data))
            if checksum != recorded:
                raise _checksum_error(info, CRC32C, checksum)

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        start = len(self.data) - self.remaining
        self.remaining = max(self.remaining - size, 0)
        return self.data[start : start + size]  # the same object, if it is the whole


class VerifiedBody:
    """A body whose last chunk is returned only after the body is verified.

    A whole object is verified against its recorded CRC-32C or, without one, the first kind of `_HASHES`
    that was recorded. Every body is verified against its length.

    Args:
        reader: An open body, at its start.
        kinds: Additional kinds of checksum to compute of a whole object, for `checksums`. Kinds that
            are not supported are ignored.
    """

    __slots__ = ("_crc", "_hashes", "_pending", "_position", "_reader", "_turns", "info", "range")

    def __init__(self, reader: DriverReader, kinds: Collection[str] = ()) -> None:
        self._reader = reader
        self.info = reader.info
        self.range = reader.range
        self._position = self.range[0]
        self._turns = Turns()
        self._crc: Crc32c | None = None
        self._hashes: dict[str, _Hash] | None = None
        self._pending = b""  # hashed but not returned: its read was cancelled
        recorded = self.info.checksums
        if not (recorded or kinds) or self.range != (0, self.info.stored_size):
            return
        if CRC32C in recorded or CRC32C in kinds:
            self._crc = Crc32c()
        if kinds or CRC32C not in recorded:
            needed = set(kinds)
            if CRC32C not in recorded:
                needed.update([kind for kind in _HASHES if kind in recorded][:1])
            self._hashes = {kind: new() for kind, new in _HASHES.items() if kind in needed}

    @property
    def remaining(self) -> int:
        """The number of bytes not returned yet."""
        return self.range[1] - self._position

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of the bytes so far, by kind. Empty unless a whole object is read."""
        checksums = {} if self._crc is None else {CRC32C: self._crc.digest()}
        for kind, hasher in (self._hashes or {}).items():
            checksums[kind] = b64encode(hasher.digest()).decode("ascii")
        return checksums

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end.

        Raises:
            IntegrityError: The bytes differ from those that were stored, or there are fewer or more.
        """
        if not self.remaining:
            return b""
        size = min(size, self.remaining)
        if self._position > self.range[0] and self._turns.is_due:
            await self._turns.give()
        data = await self._reader.read(size) if not self._pending else b""
        if not (self._pending or 0 < len(data) <= size):
            raise self._wrong_size_error(len(data))
        if self._crc is not None:
            self._crc.update(data)
        if self._hashes:
            data = await self._hashed(data, size)
        if len(data) == self.remaining and (self._crc is not None or self._hashes):
            self._compare()
        self._position += len(data)
        return data

    @property
    def reads_into(self) -> bool:
        """Whether `readinto` saves a copy."""
        return not self._hashes and saves_copy(self._reader)

    async def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into `buffer`. Return their number, 0 at the end. Call it if `reads_into`.

        Raises:
            IntegrityError: As `read`.
        """
        if not self.remaining:
            return 0
        buffer = buffer[: self.remaining]
        if self._position > self.range[0] and self._turns.is_due:
            await self._turns.give()
        count = await cast("ReadsInto", self._reader).readinto(buffer)
        if not 0 < count <= len(buffer):
            raise self._wrong_size_error(count)
        if self._crc is not None:
            self._crc.update(buffer[:count])
            if count == self.remaining:
                self._compare()
        self._position += count
        return count

    async def file_span(self, size: int) -> FileSpan | None:
        """Return the next bytes as a range of a file, to be closed by the caller. None: call `read`.

        They are hashed as by `read`. Nothing of the end of the body is returned in this way.
        """
        size = min(size, self.remaining - _TAIL)
        if size <= 0 or self._hashes or self._pending:
            return None
        crc = self._crc
        span = await file_span_of(self._reader, size, None if crc is None else crc.value)
        if span is not None:
            if crc is not None and span.crc32c is not None:
                crc.value = span.crc32c
            self._position += span.size
        return span

    def _wrong_size_error(self, received: int) -> IntegrityError:
        problem = "has too many bytes" if received else "ended early"
        return _integrity_error(
            self.info,
            f"the body {problem}: {self.remaining} more bytes were expected; read it again",
        )

    async def _hashed(self, data: bytes, size: int) -> bytes:
        """Hash the received bytes, in a thread if there are many; return at most `size` bytes."""
        if len(data) > _INLINE_HASH:
            # A cancel is raised once the thread has ended. The next read then returns these bytes
            # without hashing them again.
            self._pending = data
            await in_thread(self._update, data)
        elif data:
            self._update(data)
            return data
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def _update(self, data: bytes) -> None:
        for hasher in (self._hashes or {}).values():
            hasher.update(data)

    def _compare(self) -> None:
        recorded = self.info.checksums
        for kind, checksum in self.checksums.items():
            if recorded.get(kind, checksum) != checksum:
                raise _checksum_error(self.info, kind, checksum)


def _checksum_error(info: ObjectInfo, kind: str, checksum: str) -> IntegrityError:
    return _integrity_error(
        info,
        f"the {kind} of the body must be {info.checksums[kind]} as recorded, got {checksum}: read it again",
    )


def _integrity_error(info: ObjectInfo, message: str) -> IntegrityError:
    return IntegrityError(
        message, operation="get", backend=info.backend, bucket=info.bucket, key=info.key
    )
