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
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes; return their number, or 0 at the end."""
        ...

    def close(self) -> None:
        """Release the connection. Idempotent."""
        ...


class GetResult(NamedTuple):
    """The response to a get. Its head has arrived, but its body has not been read.

    Attributes:
        info: The object. Its size is that of the whole object, not of the range.
        range: The range of the object that the body contains: ``(start, end)``.
        body: The body.
    """

    info: ObjectInfo
    range: tuple[int, int]
    body: Body


SendGet: TypeAlias = "Callable[[str, str, GetOptions], Awaitable[GetResult]]"
"""Sends a get for a bucket and a key. The options select the range and the version."""


class Reader:
    """A DriverReader over the body of a response.

    Args:
        send_get: Sends the request.
        bucket: The bucket.
        key: The key.
        options: The range and the version.
    """

    __slots__ = ("_body", "_bucket", "_key", "_options", "_remaining", "_send_get", "info", "range")

    info: ObjectInfo
    range: tuple[int, int]

    def __init__(self, send_get: SendGet, bucket: str, key: str, options: GetOptions) -> None:
        self._send_get = send_get
        self._bucket = bucket
        self._key = key
        self._options = options
        self._body: Body | None = None
        self._remaining = 0

    async def __aenter__(self) -> Self:
        self.info, self.range, body = await self._send_get(self._bucket, self._key, self._options)
        try:
            self._check()
        except BaseException:
            body.close()
            raise
        self._remaining = self.range[1] - self.range[0]
        self._body = body
        return self

    def _check(self) -> None:
        """Check the range of the response, and the checksum of an empty object.

        Raises:
            BackendError: The range is not the requested one.
            IntegrityError: The object is empty, but its checksum is not that of an empty body.
        """
        requested, size = self._options.range, self.info.size
        expected = (0, size) if requested is None else requested.resolve(size)
        if self.range != expected:
            raise BackendError(
                f"requested bytes {expected[0]} to {expected[1]}, "
                f"but the service sent bytes {self.range[0]} to {self.range[1]}"
            )
        # The engine verifies checksums when it reads the last byte, which an empty body lacks.
        if not size and self.info.checksums.get("crc32c", _EMPTY_CRC32C) != _EMPTY_CRC32C:
            raise IntegrityError(
                "the body is empty, but the recorded crc32c is not that of an empty body"
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
        body = self._open_body()
        if not self._remaining:
            return b""
        data = await body.read(min(size, self._remaining))
        self._count_received(len(data))
        return data

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer. See `ReadsInto.readinto`."""
        body = self._open_body()
        if not self._remaining or not buffer:
            return 0
        count = await body.readinto(buffer[: self._remaining])
        self._count_received(count)
        return count

    def _open_body(self) -> Body:
        if self._body is None:
            raise ClosedError("the reader is closed", bucket=self._bucket, key=self._key)
        return self._body

    def _count_received(self, count: int) -> None:
        if not count:
            raise UnavailableError(f"the body ended {self._remaining} bytes early")
        self._remaining -= count
