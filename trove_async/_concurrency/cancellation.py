"""Cancels that the library requests itself, distinguished from those of the caller."""

from __future__ import annotations

import asyncio


class OwnCancel:
    """A revocable cancel of the current task.

    `asyncio.Task.cancelling` counts the pending cancel requests. A CancelledError is due to this
    request alone if no more requests remain without it than there were at first. Otherwise the
    caller was cancelled as well, and its cancel must propagate.
    """

    __slots__ = ("_before", "requested", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines are run by tasks
        self.task = task
        self.requested = False
        self._before = task.cancelling()

    def request(self) -> None:
        """Cancel the task. Idempotent."""
        if not self.requested:
            self.requested = True
            self.task.cancel()

    def revoke(self) -> bool:
        """Revoke the request, if any. Return whether it was the only one.

        Call it exactly once, however the work has ended.
        """
        return self.requested and self.task.uncancel() <= self._before
