"""The reader of one object over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Protocol, TypeAlias

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
        whole: All bytes of the body, if they have arrived with the head.
    """

    info: ObjectInfo
    range: tuple[int, int]
    body: Body
    whole: bytes | None = None


class Reader:
    """An `OpenReader` over the body of a response.

    Args:
        result: The response. It is closed if this raises.
        options: The options of the get.

    Raises:
        BackendError: The range of the response is not the requested one.
        IntegrityError: The object is empty, but its checksum is not that of an empty body.
    """

    __slots__ = ("_body", "_remaining", "info", "range", "whole")

    def __init__(self, result: GetResult, options: GetOptions) -> None:
        self.info, self.range, _, self.whole = result
        start, end = self.range
        size = self.info.size
        try:
            if options.range is not None or end - start != size:
                self._check_range(options)
            # The engine verifies checksums when it reads the last byte, which an empty body lacks.
            if not size and self.info.checksums.get("crc32c", _EMPTY_CRC32C) != _EMPTY_CRC32C:
                raise IntegrityError(  # noqa: TRY301 - closes the response
                    "the body is empty, but the recorded crc32c is not that of an empty body"
                )
        except BaseException:
            result.body.close()
            raise
        self._body: Body | None = result.body
        self._remaining = end - start
        if self.whole is not None and len(self.whole) != end - start:
            self.whole = None  # `read` returns at most the range, and raises if the body is shorter

    def _check_range(self, options: GetOptions) -> None:
        size, requested = self.info.size, options.range
        expected = (0, size) if requested is None else requested.resolve(size)
        if self.range != expected:
            raise BackendError(
                f"requested bytes {expected[0]} to {expected[1]}, "
                f"but the service sent bytes {self.range[0]} to {self.range[1]}"
            )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection. Idempotent."""
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
            raise ClosedError("the reader is closed", bucket=self.info.bucket, key=self.info.key)
        return self._body

    def _count_received(self, count: int) -> None:
        if not count:
            raise UnavailableError(f"the body ended {self._remaining} bytes early")
        self._remaining -= count


Fetch: TypeAlias = "Callable[[str, str, GetOptions], Awaitable[Reader]]"
"""Sends a get for a bucket and a key, and returns its open body."""


class Opening:
    """The context manager of `AsyncDriver.get`: it opens a body and closes it.

    Args:
        fetch: Sends the request.
        bucket: The bucket.
        key: The key.
        options: The range and the version.
    """

    __slots__ = ("_fetch", "_name", "_reader")

    def __init__(self, fetch: Fetch, bucket: str, key: str, options: GetOptions) -> None:
        self._fetch = fetch
        self._name = (bucket, key, options)
        self._reader: Reader | None = None

    async def __aenter__(self) -> Reader:
        self._reader = await self._fetch(*self._name)
        return self._reader

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reader is not None:
            self._reader.close()
