"""Records which bodies a put has read, so that a later put does not store only the rest of one.

A single-use body looks empty after a put has read it, and is shorter after a put that failed midway. An
iterator, a pipe or a file does not show that it has been read, so this module records it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from trove_async.errors import BodyConsumedError

_MAX_KEPT_ALIVE: Final = 16
"""Maximum number of recorded bodies that are kept alive. Some built-in iterators, such as `map` and `zip`, do
not support weak references. A few suffice: a program that puts such a body again mostly does so soon."""


class _Reference(weakref.ref[object]):
    """A weak reference to a body, and its id."""

    __slots__ = ("body_id",)

    body_id: int


class _StrongReference:
    """A strong reference to a body that does not support weak references."""

    __slots__ = ("_body",)

    def __init__(self, body: object) -> None:
        self._body = body

    def __call__(self) -> object:
        return self._body


class _Record(NamedTuple):
    """The state of a body after a put.

    Attributes:
        body: Returns the body, or None once it is garbage-collected.
        position: The position of the body, or None if it is not seekable.
        to_end: Whether the put read the body to its end.
    """

    body: Callable[[], object | None]
    position: int | None
    to_end: bool


_records: dict[int, _Record] = {}
"""The records by the id of the body, which need not be hashable. A record is removed with its body."""

_kept_alive: dict[int, None] = {}
"""The ids of the bodies kept alive, oldest first."""


def record(body: object, position: int | None = None, *, to_end: bool) -> None:
    """Record that a put has read from a body.

    Of the bodies that do not support weak references, only the last few stay recorded. They are kept
    alive.

    Args:
        body: The user's object.
        position: The body's current position, or None if it is not seekable.
        to_end: Whether the body was read to its end.
    """
    try:
        reference = _Reference(body, _forget)
    except TypeError:
        _record_kept_alive(body, position, to_end=to_end)
        return
    reference.body_id = id(body)
    _records[reference.body_id] = _Record(reference, position, to_end)


def _record_kept_alive(body: object, position: int | None, *, to_end: bool) -> None:
    body_id = id(body)
    _kept_alive.pop(body_id, None)
    _kept_alive[body_id] = None
    _records[body_id] = _Record(_StrongReference(body), position, to_end)
    while len(_kept_alive) > _MAX_KEPT_ALIVE:
        oldest = next(iter(_kept_alive))
        _kept_alive.pop(oldest, None)  # another thread may have removed it
        _records.pop(oldest, None)


def _forget(reference: weakref.ref[object]) -> None:
    body_id = cast("_Reference", reference).body_id
    entry = _records.get(body_id)
    if entry is not None and entry.body is reference:
        del _records[body_id]


def check(body: object, position: int | None = None, *, empty: bool) -> None:
    """Raise if the body is where an earlier put left it: partly read, or at its end without new bytes.

    Args:
        body: The user's object.
        position: The body's current position, or None if it is not seekable.
        empty: Whether the body is known to have no unread bytes.

    Raises:
        BodyConsumedError: A failed put has read part of the body; or a put has read it to its
            end, and it has no new bytes.
    """
    entry = _records.get(id(body))
    if entry is None or entry.body() is not body or entry.position != position:
        return
    if not entry.to_end:
        raise BodyConsumedError(
            "the body must be complete, but a failed put has read some of this body: create a new one"
        )
    if empty:
        raise BodyConsumedError(
            "the body must have unread bytes, but an earlier put has read it to its end: seek back, or create a new one"
        )
