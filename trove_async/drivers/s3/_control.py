"""The SDK's client beside the lean data plane: made when it is first asked for, closed with the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from trove_async.errors import ClosedError

if TYPE_CHECKING:
    from ._sdk_client import SdkClient


class ControlPlane:
    """What aiobotocore does for one driver.

    Args:
        make: Makes its client, open. The SDK takes long to import, and most drivers never need it.
    """

    def __init__(self, make: Callable[[], Awaitable[SdkClient]]) -> None:
        self._make = make
        self._lock = asyncio.Lock()
        self._client: SdkClient | None = None
        self._closed = False

    async def client(self) -> SdkClient:
        """Return the client.

        Raises:
            ClosedError: It is closed.
        """
        async with self._lock:
            if self._closed:
                raise ClosedError("the driver is not open")
            if self._client is None:
                self._client = await self._make()
            return self._client

    async def aclose(self) -> None:
        """Close all its connections; one that is just being made is waited for. Idempotent."""
        async with self._lock:
            self._closed = True
            if self._client is not None:
                await self._client.aclose()
