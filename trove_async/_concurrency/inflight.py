"""Work that ends, and is undone, before what it needs is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trove_async.errors import ClosedError


class UnderWay:
    """The work of users' tasks that is under way. Used on one event loop."""

    def __init__(self) -> None:
        self._works: set[_Work] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Do some work of this task's; it is cancelled if `end` is called meanwhile.

        Raises:
            ClosedError: That was so.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines are run by tasks
        work = _Work(task)
        self._works.add(work)
        before = task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            # Ours, unless somebody else asked for one as well.
            if work.told and task.uncancel() <= before:
                raise ClosedError("the store was closed meanwhile") from None
            raise
        except BaseException:
            if work.told:
                task.uncancel()
            raise
        else:
            if work.told:  # it came to its end all the same
                task.uncancel()
        finally:
            self._works.discard(work)
            work.ended.set()

    async def end(self) -> None:
        """Cancel all of it, and wait until it is undone: cleanups have limits of their own."""
        here = asyncio.current_task()
        works = [work for work in self._works if work.task is not here]
        for work in works:
            if not work.told:
                work.told = True
                work.task.cancel()
        for work in works:
            await work.ended.wait()


class _Work:
    """Whose it is, whether it was told to end, and whether it has."""

    __slots__ = ("ended", "task", "told")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.told = False
        self.ended = asyncio.Event()
