"""A write whose answer was lost may have been done: what its next try has to know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from trove_async.errors import TroveError
from trove_async.options import CopyOptions, DeleteOptions, PutOptions

T = TypeVar("T")


class WriteAttempts:
    """Whether an earlier try of a write may have been done unheard, and since when.

    Args:
        clock: The loop's; None: the driver makes nothing of it.
    """

    __slots__ = ("_clock", "since")

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = clock
        self.since: float | None = None

    def watch(self, work: Awaitable[T]) -> Awaitable[T]:
        """Note how this try ends."""
        return work if self._clock is None or self.since is not None else self._noting(work)

    async def _noting(self, work: Awaitable[T]) -> T:
        assert self._clock is not None  # noqa: S101 - asked by `watch`
        begun = self._clock()
        try:
            return await work
        except TroveError as error:
            if error.maybe_done:
                self.since = begun
            raise

    def put(self, options: PutOptions) -> PutOptions:
        """Tell the next try of a put."""
        return options if self.since is None else replace(options, in_doubt_since=self.since)

    def delete(self, options: DeleteOptions) -> DeleteOptions:
        """Tell the next try of a deletion."""
        return options if self.since is None else replace(options, in_doubt_since=self.since)

    def copy(self, options: CopyOptions) -> CopyOptions:
        """Tell the next try of a copy."""
        return options if self.since is None else replace(options, put=self.put(options.put))
