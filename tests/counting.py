"""A driver that counts the requests and the bytes that a store receives."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from trove_async.testing import Call, Faulty

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from trove_async.driver import AsyncDriver, DriverReader
    from trove_async.options import GetOptions


class Counting(Faulty):
    """Wraps a driver, and counts.

    Attributes:
        requests: The operations so far.
        received: The number of bytes of bodies so far.
    """

    def __init__(self, driver: AsyncDriver, **arguments: Any) -> None:
        super().__init__(driver, **arguments)
        self.requests: list[str] = []
        self.received = 0

    def reset(self) -> None:
        """Count from zero."""
        self.requests.clear()
        self.received = 0

    async def begin(self, call: Call) -> None:
        if call.operation not in {"read", "open", "send", "commit"}:
            self.requests.append(call.operation)
        await super().begin(call)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        return self._counted(super().get(bucket, key, options))

    @asynccontextmanager
    async def _counted(
        self, context: AbstractAsyncContextManager[DriverReader]
    ) -> AsyncIterator[DriverReader]:
        async with context as reader:
            yield _Reader(self, reader)


class _Reader:
    def __init__(self, counting: Counting, reader: DriverReader) -> None:
        self._counting = counting
        self._reader = reader
        self.info = reader.info
        self.range = reader.range

    async def read(self, size: int) -> bytes:
        data = await self._reader.read(size)
        self._counting.received += len(data)
        return data
