"""Tracks whether a write may have succeeded without its response arriving, for its retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from trove_async.errors import TroveError
from trove_async.options import CopyOptions, DeleteOptions, PutOptions

T = TypeVar("T")


class LostResponse:
    """Records whether an attempt of one write may have succeeded without its response arriving.

    The backend may have applied such an attempt (`TroveError.maybe_done`), and another client may
    have written the object since. So the options of every later attempt carry the time at which the
    first such attempt was sent, as ``in_doubt_since``. See `Capabilities.settles_doubt`.

    Args:
        clock: The event loop's clock; None: the driver does not use ``in_doubt_since``.

    Attributes:
        since: The time at which the first attempt that may have succeeded was sent; None: there was
            none.
    """

    __slots__ = ("_clock", "since")

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = clock
        self.since: float | None = None

    def watch(self, attempt: Awaitable[T]) -> Awaitable[T]:
        """Await an attempt and record whether it may have succeeded although it raised."""
        if self._clock is None or self.since is not None:
            return attempt
        return self._record(attempt, self._clock)

    def record(self, maybe_done: bool, started: float) -> None:  # noqa: FBT001 - of an error
        """Record the first attempt, which failed."""
        if maybe_done and self._clock is not None:
            self.since = started

    async def _record(self, attempt: Awaitable[T], clock: Callable[[], float]) -> T:
        started = clock()
        try:
            return await attempt
        except TroveError as error:
            if error.maybe_done:
                self.since = started
            raise

    def put_options(self, options: PutOptions) -> PutOptions:
        """Return the options of the next attempt of a put."""
        return options if self.since is None else replace(options, in_doubt_since=self.since)

    def delete_options(self, options: DeleteOptions) -> DeleteOptions:
        """Return the options of the next attempt of a deletion."""
        return options if self.since is None else replace(options, in_doubt_since=self.since)

    def copy_options(self, options: CopyOptions) -> CopyOptions:
        """Return the options of the next attempt of a copy."""
        return (
            options if self.since is None else replace(options, put=self.put_options(options.put))
        )
