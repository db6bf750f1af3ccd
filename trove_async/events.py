"""The seam that logging, tracing and tests hang on: what the library does, as it does it.

Nothing is built while nobody listens, so a store without listeners pays one truth test an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

EventKind = Literal["operation", "attempt", "part", "wait", "spill", "park", "resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``operation``: a call of a user's ended. ``attempt``: one try of a driver's call
            ended. ``part``: one part of an upload was taken by the driver. ``wait``: memory or a
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
        """Call `listener` with every event from now on; return what ends that.

        A listener runs on the event loop, inside the operation: it must be quick. What it raises
        is raised from the operation.
        """
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            listener(event)
