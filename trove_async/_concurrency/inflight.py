"""Work that is cancelled, and has rolled back, before what it needs is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trove_async.errors import ClosedError

from .cancellation import OwnCancel


class InFlight:
    """The work of users' tasks that is in flight. Used on one event loop."""

    def __init__(self) -> None:
        self._works: dict[OwnCancel, asyncio.Event] = {}

    @contextmanager
    def track(self) -> Iterator[None]:
        """Do some work of this task's; it is cancelled if `cancel_all` is called meanwhile.

        Raises:
            ClosedError: It was.
        """
        cancel, ended = OwnCancel(), asyncio.Event()
        self._works[cancel] = ended
        try:
            yield
        except asyncio.CancelledError:
            if cancel.take_back():
                raise ClosedError("the store was closed meanwhile") from None
            raise
        except BaseException:
            cancel.take_back()
            raise
        else:
            cancel.take_back()  # the work ended although it was cancelled
        finally:
            del self._works[cancel]
            ended.set()

    async def cancel_all(self) -> None:
        """Cancel all of it, and wait until it has rolled back: cleanups have limits of their own."""
        here = asyncio.current_task()
        works = [
            (cancel, ended) for cancel, ended in self._works.items() if cancel.task is not here
        ]
        for cancel, _ in works:
            cancel.request()
        for _, ended in works:
            await ended.wait()
