"""Events about the progress of operations, for logging, tracing and tests.

Without listeners no `Event` is created, and a store pays only for one truth test per event.
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
    "start",
    "operation",
    "attempt",
    "part",
    "body",
    "wait",
    "spill",
    "park",
    "resume",
    "breaker",
    "hedge",
    "missed",
    "fallback",
]

_logger = logging.getLogger("trove_async")

_operation_ids = count(1)
_current_operation_id: ContextVar[int] = ContextVar("trove_async_operation", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    Attributes:
        kind: The kind of event:

            * ``start``: an operation of the store has begun.
            * ``operation``: an operation of the store has ended.
            * ``attempt``: one attempt of a driver's call has ended.
            * ``part``: the driver has stored one part of an upload, or the body of a put in one
              request.
            * ``body``: reading a body has ended, completely or not.
            * ``wait``: a request or a transfer had to wait for a connection or for memory.
            * ``spill``: a part, or the body of a put in one request, was buffered in a file.
            * ``park``: an idle reader released its connection.
            * ``resume``: a download resumes at its offset.
            * ``breaker``: the circuit breaker of a driver changed its `state`.
            * ``hedge``: the layer `Hedged` sends a slow request a second time.
            * ``missed``: a replica of a `layers.Mirrored` has missed a write, named by `member`.
            * ``fallback``: a read was answered by another member of a layer, named by `member`,
              because the primary was not available.
        operation: The operation: ``"put"``, ``"get"``, ``"head"``, …
        backend: The backend's name.
        bucket: The bucket, if the event concerns one.
        key: The key, if the event concerns one.
        duration: The duration in seconds.
        attempt: The number of the attempt, from 1.
        size: The number of bytes.
        error: The exception on failure, else None. Of a circuit breaker that opened: the last failure.
        state: Of a ``breaker`` event: the new state, ``"closed"``, ``"half-open"`` or ``"open"``.
        operation_id: A number that all events of one operation share, from ``start`` to
            ``operation``; 0 if no operation was started in this context.
        member: For ``missed`` and ``fallback``: the member of the layer.
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
    state: str = ""
    operation_id: int = field(default_factory=_current_operation_id.get)
    member: str = ""


class Events:
    """The listeners of one store.

    Attributes:
        listeners: The functions that are called with every event. Change them with `subscribe`.

    Example:
        >>> events = Events()
        >>> stop = events.subscribe(print)
        >>> stop()
    """

    __slots__ = ("listeners",)

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[Event], None], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there are listeners. Check this before creating an `Event`."""
        return bool(self.listeners)

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on.

        A listener runs on the event loop, as part of the operation, so it must be fast. An exception
        that it raises is logged to ``trove_async`` with its traceback. It affects neither the operation
        nor the other listeners.

        Args:
            listener: A plain function or another callable that is not async.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: `listener` is async or not callable.
        """
        _check_listener(listener)
        # A new tuple, because a listener may subscribe or unsubscribe while `emit` iterates.
        self.listeners = (*self.listeners, listener)
        is_subscribed = True

        def unsubscribe() -> None:
            nonlocal is_subscribed
            if is_subscribed:
                is_subscribed = False
                # Only one occurrence, because the listener may be subscribed more than once.
                index = [other is listener for other in self.listeners].index(True)
                self.listeners = self.listeners[:index] + self.listeners[index + 1 :]

        return unsubscribe

    def start(self, operation: str, bucket: str | None, key: str | None) -> int:
        """Emit the ``start`` event of an operation. Later events in this context belong to it.

        Returns:
            The id of the enclosing operation of this context, for `end`.
        """
        # A context variable, because tasks started by the operation inherit its id.
        outer = _current_operation_id.get()
        _current_operation_id.set(next(_operation_ids))
        self.emit(Event(kind="start", operation=operation, bucket=bucket, key=key))
        return outer

    def end(self, event: Event, outer: int) -> None:
        """Emit the ``operation`` event of an operation and restore the enclosing one."""
        self.emit(event)
        _current_operation_id.set(outer)

    def emit(self, event: Event) -> None:
        """Call every listener. Exceptions of listeners are logged, including CancelledError."""
        for listener in self.listeners:
            try:
                result: object = listener(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - logged
                _log_failure(listener, event, error)
            else:
                if inspect.iscoroutine(result):  # from a lambda, which `subscribe` cannot detect
                    result.close()
                    _log_failure(
                        listener, event, TypeError("a listener must not return a coroutine")
                    )


def _check_listener(listener: object) -> None:
    if not callable(listener):
        raise TypeError(f"listener must be callable, got {type(listener).__name__}")
    function: object = listener
    while isinstance(function, partial):
        function = function.func
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004 - the method itself is inspected
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(
                "listener must be a plain function, got an async one: listeners are not awaited;"
                " to handle events in a task, put them into an asyncio.Queue"
            )


def _log_failure(listener: Callable[[Event], None], event: Event, error: BaseException) -> None:
    with suppress(Exception):  # a filter or handler of the application may raise as well
        _logger.error(
            "event listener %r failed on the %s event of %s; the operation continues",
            listener,
            event.kind,
            event.operation,
            exc_info=error,
        )
