"""Logging of a store's operations with the standard library, under ``trove_async``.

Nothing is logged until `log` is called. Nothing is printed until the program configures logging,
because the library's root logger has a NullHandler.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from trove_async import Event, Trove

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def log(store: Trove, logger: logging.Logger | None = None) -> Callable[[], None]:
    """Log a store's operations; return a function that stops it.

    The levels are DEBUG for operations, INFO for failed ones (the caller gets the error), and
    WARNING for failed attempts that may be retried and for waits and spills to disk for lack of
    memory.

    Args:
        store: The store. Its handles (`Trove.backend`) are included.
        logger: The logger; None uses ``trove_async.store``.
    """
    out = logger or logging.getLogger("trove_async.store")

    def listen(event: Event) -> None:
        level = _level(event)
        if level and out.isEnabledFor(level):
            out.log(level, _told(event), extra={"trove": event})

    return store.events.subscribe(listen)


def _level(event: Event) -> int:
    if event.kind == "operation":
        failed = isinstance(event.error, Exception)
        return logging.INFO if failed else logging.DEBUG
    if event.kind == "attempt":
        return logging.WARNING if getattr(event.error, "retryable", False) else 0
    if event.kind in {"wait", "spill"}:
        return logging.WARNING
    return logging.DEBUG if event.kind in {"park", "resume", "body"} else 0


def _told(event: Event) -> str:
    where = "/".join(part for part in (event.bucket, event.key) if part is not None)
    words = [event.operation, where, f"on {event.backend}" if event.backend else ""]
    if event.kind != "operation":
        words.insert(0, f"{event.kind} {event.attempt}" if event.kind == "attempt" else event.kind)
        if event.kind == "attempt":
            words[0] += " of"
    if event.size:
        words.append(f"{event.size} bytes")
    if event.duration:
        words.append(f"in {event.duration * 1000:.1f} ms")
    line = " ".join(word for word in words if word)
    if event.error is not None:
        line = f"{line}: {type(event.error).__name__}: {event.error}"
    # Clients often choose the keys; a key must not be able to start a new line in the log.
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)
