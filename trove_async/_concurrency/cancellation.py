"""Cancels that the library requests, distinguished from the caller's."""

from __future__ import annotations

import asyncio


class OwnCancel:
    """A revocable cancel of the current task.

    `asyncio.Task.cancelling` counts the pending cancel requests. If the count, without this request,
    is not higher than it was at the start, the CancelledError is due to this request alone.
    Otherwise the caller was cancelled as well, and its cancel must propagate.
    """

    __slots__ = ("_requests_before", "requested", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines are run by tasks
        self.task = task
        self.requested = False
        self._requests_before = task.cancelling()

    def request(self) -> None:
        """Cancel the task. Idempotent."""
        if not self.requested:
            self.requested = True
            self.task.cancel()

    def revoke(self) -> bool:
        """Revoke the request, if any. Return whether it is the only cause of a CancelledError.

        Call this exactly once, however the work has ended.
        """
        return self.requested and self.task.uncancel() <= self._requests_before
