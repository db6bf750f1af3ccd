"""Cancels that we request ourselves, told apart from everybody else's."""

from __future__ import annotations

import asyncio


class OwnCancel:
    """A cancel of the current task that we may request, and then take back.

    `asyncio.Task.cancelling` counts the requests. Ours is the reason of a CancelledError only if no
    more of them are left without it than there were at first: otherwise the caller was cancelled as
    well, and its cancel must pass.
    """

    __slots__ = ("_before", "requested", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines are run by tasks
        self.task = task
        self.requested = False
        self._before = task.cancelling()

    def request(self) -> None:
        """Cancel the task, once."""
        if not self.requested:
            self.requested = True
            self.task.cancel()

    def take_back(self) -> bool:
        """Take the request back, if there was one; return whether it was the only one.

        Call it exactly once, however the work has ended.
        """
        return self.requested and self.task.uncancel() <= self._before
