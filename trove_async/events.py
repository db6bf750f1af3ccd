"""The seam that logging, tracing and tests hang on: what the library does, as it does it.

Nothing is built while nobody listens, so a store without listeners pays one truth test an event.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Literal

EventKind = Literal[
    "start", "operation", "attempt", "part", "body", "wait", "spill", "park", "resume"
]

_logger = logging.getLogger("trove_async")

_numbers = count(1)
_current: ContextVar[int] = ContextVar("trove_async_operation", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``start``: a call of a user's began. ``operation``: it ended. ``attempt``: one try of a driver's call
            ended. ``part``: one part of an upload was taken by the driver. ``body``: a body was read, to its end or not. ``wait``: memory or a
            connection was waited for. ``spill``: a part was filled on disk. ``park``: an idle
            reader gave its connection up. ``resume``: a download went on at its offset.
        operation: What was being done: ``"put"``, ``"get"``, ``"head"``, …
        backend: The backend's name.
        bucket: The bucket concerned.
        key: The key concerned.
        duration: Seconds that it took.
        attempt: Which try it was, from 1.
        size: Bytes concerned.
        error: What it failed with; None: it went well.
        operation_id: The number of the user's call that it is part of, the same from its ``start``
            to its ``operation``; 0: it is part of none that was told of.
    """

    kind: EventKind
    operation: str
    backend: str = ""
    bucket: str | None = None
    key: str | None = None
    duration: float = 0.0
    attempt: int = 1
    size: int = 0
    error: BaseException | None = None
    operation_id: int = field(default_factory=_current.get)


class Events:
    """The listeners of one store.

    Example:
        >>> events = Events()
        >>> stop = events.subscribe(print)
        >>> stop()
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()

    def __bool__(self) -> bool:
        """Whether anybody listens: ask before an `Event` is built."""
        return bool(self._listeners)

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on.

        A listener runs on the event loop, inside the operation: it must be quick. What it raises is
        logged under ``trove_async``, with its traceback, and changes nothing: the operation goes on
        as though nobody listened, and so do the other listeners.

        Args:
            listener: A plain function, or another callable that returns at once.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: `listener` is async, or cannot be called.
        """
        _check_listener(listener)
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    def start(self, operation: str, bucket: str | None, key: str | None) -> int:
        """Tell that a user's call begins: what is told in this context belongs to it from now on.

        Returns:
            The call that this context belonged to before, for `end`.
        """
        outer = _current.get()
        _current.set(next(_numbers))
        self.emit(Event(kind="start", operation=operation, bucket=bucket, key=key))
        return outer

    def end(self, event: Event, outer: int) -> None:
        """Tell that it has ended."""
        self.emit(event)
        _current.set(outer)

    def emit(self, event: Event) -> None:
        """Call every listener. Raises nothing of theirs, a CancelledError included."""
        for listener in self._listeners:
            try:
                result: object = listener(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is logged
                _log_failure(listener, event, error)
            else:
                if inspect.iscoroutine(result):  # of a lambda, which no check sees through
                    result.close()
                    _log_failure(listener, event, TypeError("it returned a coroutine"))


def _check_listener(listener: object) -> None:
    if not callable(listener):
        raise TypeError(f"a listener is a function, not {type(listener).__name__}")
    called: object = listener
    while isinstance(called, partial):
        called = called.func
    for one in (called, getattr(called, "__call__", None)):  # noqa: B004 - the method is looked at
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(
                "a listener is called on the event loop and not awaited: pass a plain function,"
                " which may put the event into an asyncio.Queue"
            )


def _log_failure(listener: Callable[[Event], None], event: Event, error: BaseException) -> None:
    with suppress(Exception):  # a filter or a handler of the program's may raise, too
        _logger.error(
            "a listener of events failed, %r, at the %s event of %s: the operation goes on",
            listener,
            event.kind,
            event.operation,
            exc_info=error,
        )
