"""Counts the copies that read from a driver's root in the threads of other drivers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._threads import wait_for_close


class Borrowing:
    """The copies in progress that read from one root. Used on one event loop."""

    __slots__ = ("_close", "_count", "_returned")

    def __init__(self) -> None:
        self._count = 0
        self._returned: asyncio.Future[None] | None = None
        self._close: Callable[[], None] | None = None

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Keep the root open during the block."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._return()

    def _return(self) -> None:
        if self._returned is not None:
            self._returned.set_result(None)
            self._returned = None
        if self._close is not None:
            close, self._close = self._close, None
            threading.Thread(target=close, name="trove-local-close", daemon=True).start()

    def close_when_returned(self, close: Callable[[], None]) -> None:
        """Close the root in a thread once no copy reads from it."""
        self._close = close
        if not self._count:
            self._return()

    async def wait_returned(self) -> None:
        """Wait until no copy reads from the root, even if cancelled.

        Raises:
            TimedOutError: A copy is still reading. Call `close_when_returned`.
        """
        while self._count:
            if self._returned is None:
                self._returned = asyncio.get_running_loop().create_future()
            await wait_for_close(self._returned)
