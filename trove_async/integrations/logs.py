"""Logs the operations of a store with the standard library's `logging`.

No operation is logged until `log` is called, and nothing is printed until the program configures
logging: the logger ``trove_async`` has a NullHandler.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from trove_async import Event, Trove

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_BREAKER_LEVELS = {"open": logging.WARNING, "closed": logging.INFO}


def log(store: Trove, logger: logging.Logger | None = None) -> Callable[[], None]:
    """Log the operations of a store; return a function that stops the logging.

    * DEBUG: operations that succeeded or were cancelled, the ends of bodies, idle readers that
      release their connection, downloads that resume after an error, slow requests that are sent a
      second time, and probes of a circuit breaker.
    * INFO: failed operations, and circuit breakers that close. Failed operations are not logged at a
      higher level because the caller gets the error.
    * WARNING: failed attempts that may be retried, waits for a connection or for memory, parts
      buffered in a file, and circuit breakers that open.

    Args:
        store: The store. Its handles (`Trove.backend`) are included.
        logger: The logger. Default: ``trove_async.store``.
    """
    target = logger or logging.getLogger("trove_async.store")

    def listen(event: Event) -> None:
        level = _level(event)
        if level and target.isEnabledFor(level):
            target.log(level, _message(event), extra={"trove": event})

    return store.events.subscribe(listen)


def _level(event: Event) -> int:
    """Return the level at which to log an event, or 0 not to log it."""
    if event.kind == "operation":
        failed = isinstance(event.error, Exception)
        return logging.INFO if failed else logging.DEBUG
    if event.kind == "attempt":
        # Any other failed attempt ends its operation, which is logged anyway.
        return logging.WARNING if getattr(event.error, "retryable", False) else 0
    if event.kind in {"wait", "spill"}:
        return logging.WARNING
    if event.kind == "breaker":
        return _BREAKER_LEVELS.get(event.state, logging.DEBUG)
    return logging.DEBUG if event.kind in {"park", "resume", "body", "hedge"} else 0


def _message(event: Event) -> str:
    name = "/".join(part for part in (event.bucket, event.key) if part is not None)
    parts = [event.operation, name, f"on {event.backend}" if event.backend else ""]
    if event.kind == "breaker":
        parts.insert(1, event.state)
    elif event.kind != "operation":
        is_attempt = event.kind == "attempt"
        parts.insert(0, f"attempt {event.attempt} of" if is_attempt else event.kind)
    if event.size:
        parts.append(f"{event.size} bytes")
    if event.duration:
        parts.append(f"in {event.duration * 1000:.1f} ms")
    line = " ".join(part for part in parts if part)
    if event.error is not None:
        line = f"{line}: {type(event.error).__name__}: {event.error}"
    # Clients may choose keys, and a line break in a key would let them forge log lines.
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], line)
