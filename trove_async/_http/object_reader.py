"""One get over HTTP: its context manager and its reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

from trove_async.errors import BackendError, ClosedError, IntegrityError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions

_OF_NOTHING: Final = "AAAAAA=="
"""The CRC-32C of no bytes, in base64."""


class Body(Protocol):
    """The bytes of an answer. See `Response`."""

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end."""
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes; return how many."""
        ...

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        ...


class Opened(NamedTuple):
    """An object whose body has begun.

    Attributes:
        info: The object; its size is the whole object's.
        range: What of it the body is: ``(start, end)``.
        body: The bytes.
    """

    info: ObjectInfo
    range: tuple[int, int]
    body: Body


Ask: TypeAlias = "Callable[[str, str, GetOptions], Awaitable[Opened]]"
"""Asks for an object: bucket, key, and which bytes of which version."""


class Reader:
    """A DriverReader over an answer's body.

    Args:
        ask: Asks for the object.
        bucket: The bucket.
        key: The key.
        options: Which bytes of which version.
    """

    __slots__ = ("_ask", "_body", "_bucket", "_key", "_left", "_options", "info", "range")

    info: ObjectInfo
    range: tuple[int, int]

    def __init__(self, ask: Ask, bucket: str, key: str, options: GetOptions) -> None:
        self._ask = ask
        self._bucket = bucket
        self._key = key
        self._options = options
        self._body: Body | None = None
        self._left = 0

    async def __aenter__(self) -> Self:
        self.info, self.range, body = await self._ask(self._bucket, self._key, self._options)
        try:
            self._check()
        except BaseException:
            body.close()
            raise
        self._left = self.range[1] - self.range[0]
        self._body = body
        return self

    def _check(self) -> None:
        """Raise if the service sends other bytes than were asked for; nobody asked for those."""
        asked, size = self._options.range, self.info.size
        wanted = (0, size) if asked is None else asked.resolve(size)
        if self.range != wanted:
            raise BackendError(
                f"bytes {wanted} were asked for, and the service sends bytes {self.range}"
            )
        # The engine compares a checksum with the last byte: here there is none.
        if not size and self.info.checksums.get("crc32c", _OF_NOTHING) != _OF_NOTHING:
            raise IntegrityError(
                "the body is empty, and its recorded crc32c is not that of nothing"
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
