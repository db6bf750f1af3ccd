"""Work in flight that is cancelled and rolled back before a store or driver closes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trove_async.errors import ClosedError

from .cancellation import OwnCancel


class InFlight:
    """The work in flight in callers' tasks. All methods must be called on the same event loop."""

    def __init__(self) -> None:
        self._tracked: dict[OwnCancel, asyncio.Event] = {}

    @contextmanager
    def track(self) -> Iterator[None]:
        """Track a block of the current task, so that `cancel_all` cancels it.

        Raises:
            ClosedError: The block was cancelled by `cancel_all`.
        """
        cancel, ended = OwnCancel(), asyncio.Event()
        self._tracked[cancel] = ended
        try:
            yield
        except asyncio.CancelledError:
            if cancel.revoke():
                raise ClosedError("the store was closed during the operation") from None
            raise
        except BaseException:
            cancel.revoke()
            raise
        else:
            cancel.revoke()  # the block completed although it was cancelled
        finally:
            del self._tracked[cancel]
            ended.set()

    async def cancel_all(self) -> None:
        """Cancel all tracked work and wait until it has rolled back.

        This has no time limit, because each cleanup has its own.
        """
        # A task that closes the store in its own tracked block must not wait for itself.
        current = asyncio.current_task()
        others = [
            (cancel, ended) for cancel, ended in self._tracked.items() if cancel.task is not current
        ]
        for cancel, _ in others:
            cancel.request()
        for _, ended in others:
            await ended.wait()
