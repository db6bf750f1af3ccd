"""Imports the modules that use aiobotocore's client when they are first needed.

The import is slow and reads files, so it runs in a worker thread. Most drivers never need the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trove_async._concurrency import in_thread
from trove_async.errors import ClosedError

if TYPE_CHECKING:
    from ._sdk import SdkPlane
    from ._sdk_client import SdkClient


class LazySdkClient:
    """aiobotocore's client of one driver, created on first use.

    Args:
        open_client: Creates and opens the client.
    """

    def __init__(self, open_client: Callable[[], Awaitable[SdkClient]]) -> None:
        self._open_client = open_client
        self._lock = asyncio.Lock()
        self._client: SdkClient | None = None
        self._closed = False

    async def client(self) -> SdkClient:
        """Return the client, after creating it if necessary.

        Raises:
            ClosedError: `aclose` was called.
        """
        # Concurrent first uses share one client, and `aclose` waits for it.
        async with self._lock:
            if self._closed:
                raise ClosedError("the driver is not open")
            if self._client is None:
                self._client = await self._open_client()
            return self._client

    async def sdk(self) -> Any:  # noqa: ANN401 - the SDK has no types
        """Return the SDK's own client object."""
        return (await self.client()).sdk

    async def aclose(self) -> None:
        """Close all connections. If the client is being created, wait for it first. Idempotent."""
        async with self._lock:
            self._closed = True
            if self._client is not None:
                await self._client.aclose()


async def open_sdk_client(
    *args: Any,  # noqa: ANN401 - see `SdkClient`
    proxy: str | None,
    trust_env: bool,
    **options: Any,  # noqa: ANN401 - see `SdkClient`
) -> SdkClient:
    """Return an open client.

    Args:
        *args: As for `SdkClient`.
        proxy: The URL of the proxy.
        trust_env: Whether to use the environment's proxies if `proxy` is None.
        **options: As for `SdkClient`.
    """
    module = await in_thread(import_module, f"{__package__}._sdk_client")
    proxies: dict[str, str] | None = None if trust_env else {}
    if proxy is not None:
        proxies = dict.fromkeys(("http", "https"), proxy)
    client: SdkClient = module.SdkClient(*args, proxies=proxies, **options)
    await client.open()
    return client


async def make_sdk_plane(*args: Any, **options: Any) -> SdkPlane:  # noqa: ANN401 - see `SdkPlane`
    """Return an `SdkPlane`, created with these arguments."""
    module = await in_thread(import_module, f"{__package__}._sdk")
    plane: SdkPlane = module.SdkPlane(*args, **options)
    return plane
