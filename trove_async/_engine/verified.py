"""A body that is compared with the checksums that its object was stored with, while it is read."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol

from trove_async._checksums import CRC32C, Crc32c
from trove_async._concurrency import in_thread
from trove_async.driver import DriverReader
from trove_async.errors import IntegrityError
from trove_async.models import KiB

_INLINE_HASH: Final = 256 * KiB
"""Bytes that are hashed on the loop by one of the slow kinds: as long as a thread hop takes."""


class _Hash(Protocol):
    """A running hash, as hashlib has it."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    """A running CRC-32 (ISO 3309), as S3's x-amz-checksum-crc32 has it."""

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
"""The kinds of checksum that can be computed here beside CRC-32C, the cheapest first."""


class VerifiedBody:
    """A body whose last chunk is handed out only once all of it was right.

    The whole of an object is checked against its recorded CRC-32C or, without that, the cheapest
    recorded checksum that can be computed here. Every body is checked against its length.

    Args:
        reader: An open body, from its start.
        kinds: Kinds of checksum that are wanted of the whole object as well, for `checksums`.
    """

    __slots__ = ("_crc", "_hashes", "_pending", "_position", "_reader", "info", "range")

    def __init__(self, reader: DriverReader, kinds: Collection[str] = ()) -> None:
        self._reader = reader
        self.info = reader.info
        self.range = reader.range
        self._position = self.range[0]
        self._crc: Crc32c | None = None
        self._hashes: dict[str, _Hash] | None = None
        self._pending = b""  # hashed, and not handed out: the read that received it was cancelled
        recorded = self.info.checksums
        if not (recorded or kinds) or self.range != (0, self.info.stored_size):
            return
        if CRC32C in recorded or CRC32C in kinds:
            self._crc = Crc32c()
        if kinds or CRC32C not in recorded:
            wanted = set(kinds)
            if CRC32C not in recorded:
                wanted.update([kind for kind in _HASHES if kind in recorded][:1])
            self._hashes = {kind: make() for kind, make in _HASHES.items() if kind in wanted}

    @property
    def remaining(self) -> int:
        """Bytes not handed out yet."""
        return self.range[1] - self._position

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of the bytes so far, by kind: of the whole object only."""
        told = {} if self._crc is None else {CRC32C: self._crc.digest()}
        for kind, running in (self._hashes or {}).items():
            told[kind] = b64encode(running.digest()).decode("ascii")
        return told

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end.

        Raises:
            IntegrityError: The bytes are not those that were stored.
        """
        if not self.remaining:
            return b""
        size = min(size, self.remaining)
        data = await self._reader.read(size) if not self._pending else b""
        if not (self._pending or 0 < len(data) <= size):
            what = "has more bytes than it was to have" if data else "ended early"
            raise self._integrity_error(f"the body {what}, {self.remaining} bytes before its end")
        if self._crc is not None:
            self._crc.update(data)
        if self._hashes:
            data = await self._hashed(data, size)
        if len(data) == self.remaining and (self._crc is not None or self._hashes):
            self._compare()
        self._position += len(data)
        return data

    async def _hashed(self, data: bytes, size: int) -> bytes:
        """Hash what was received, in a thread if that takes long; return what is to be handed out."""
        if len(data) > _INLINE_HASH:
            # A cancel is raised once the thread has ended: the next read hands this out, unhashed.
            self._pending = data
            await in_thread(self._update, data)
        elif data:
            self._update(data)
            return data
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def _update(self, data: bytes) -> None:
        for running in (self._hashes or {}).values():
            running.update(data)

    def _compare(self) -> None:
        recorded = self.info.checksums
        for kind, checksum in self.checksums.items():
            if recorded.get(kind, checksum) != checksum:
                raise self._integrity_error(f"the bytes do not have the recorded {kind}")

    def _integrity_error(self, message: str) -> IntegrityError:
        info = self.info
        return IntegrityError(
            message, operation="get", backend=info.backend, bucket=info.bucket, key=info.key
        )
