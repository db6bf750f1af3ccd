"""The reader of one object over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

from trove_async.errors import BackendError, ClosedError, IntegrityError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions

_EMPTY_CRC32C: Final = "AAAAAA=="
"""The CRC-32C of no bytes, in base64."""


class Body(Protocol):
    """The body of a response. See `Response`."""

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end."""
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes; return how many."""
        ...

    def close(self) -> None:
        """Release the connection. Idempotent."""
        ...


class GetResult(NamedTuple):
    """The response to a get: its head has arrived, its body has not been read.

    Attributes:
        info: The object. Its size is that of the whole object.
        range: The bytes of the object in the body: ``(start, end)``.
        body: The body.
    """

    info: ObjectInfo
    range: tuple[int, int]
    body: Body


SendGet: TypeAlias = "Callable[[str, str, GetOptions], Awaitable[GetResult]]"
"""Sends a get for a bucket and a key; the options choose the bytes and the version."""


class Reader:
    """A DriverReader over the body of a response.

    Args:
        send_get: Sends the request.
        bucket: The bucket.
        key: The key.
        options: The bytes and the version.
    """

    __slots__ = ("_body", "_bucket", "_key", "_left", "_options", "_send_get", "info", "range")

    info: ObjectInfo
    range: tuple[int, int]

    def __init__(self, send_get: SendGet, bucket: str, key: str, options: GetOptions) -> None:
        self._send_get = send_get
        self._bucket = bucket
        self._key = key
        self._options = options
        self._body: Body | None = None
        self._left = 0

    async def __aenter__(self) -> Self:
        self.info, self.range, body = await self._send_get(self._bucket, self._key, self._options)
        try:
            self._check()
        except BaseException:
            body.close()
            raise
        self._left = self.range[1] - self.range[0]
        self._body = body
        return self

    def _check(self) -> None:
        """Raise if the service sends a different range than the requested one."""
        requested, size = self._options.range, self.info.size
        wanted = (0, size) if requested is None else requested.resolve(size)
        if self.range != wanted:
            raise BackendError(
                f"bytes {wanted} were asked for, but the service sent bytes {self.range}"
            )
        # The engine verifies a checksum with the last byte: an empty body has none.
        if not size and self.info.checksums.get("crc32c", _EMPTY_CRC32C) != _EMPTY_CRC32C:
            raise IntegrityError(
                "the body is empty, but its recorded crc32c is not that of an empty body"
            )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    async def read(self, size: int) -> bytes:
        """Return the next bytes, as they were received. See `DriverReader.read`."""
        body = self._open()
        if not self._left:
            return b""
        data = await body.read(min(size, self._left))
        self._arrived(len(data))
        return data

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer. See `ReadsInto.readinto`."""
        body = self._open()
        if not self._left or not buffer:
            return 0
        count = await body.readinto(buffer[: self._left])
        self._arrived(count)
        return count

    def _open(self) -> Body:
        if self._body is None:
            raise ClosedError("the reader is closed", bucket=self._bucket, key=self._key)
        return self._body

    def _arrived(self, count: int) -> None:
        if not count:
            raise UnavailableError(f"the body ended {self._left} bytes early")
        self._left -= count
