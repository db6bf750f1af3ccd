"""Records which bodies a put has read, so that a later put never stores only the end of one.

A single-use body looks empty after a put has read it, and is shorter after a put that failed midway. An
iterator, a pipe or a file does not show that it has been read, so it is recorded here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from trove_async.errors import BodyConsumedError

_MAX_KEPT_ALIVE: Final = 16
"""Bodies kept alive to be recorded: some built-in iterators, such as `map` and `zip`, support no weak
references. A few suffice: a program that puts such a body again mostly does so soon."""


class _Reference(weakref.ref[object]):
    """A weak reference to a body, and its id."""

    __slots__ = ("number",)

    number: int


class _Holder:
    """A strong reference to a body that supports no weak references."""

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
"""By the id of the body, which need not be hashable. A record is dropped with its body."""

_kept_alive: dict[int, None] = {}
"""The ids of the bodies kept alive, oldest first."""


def record(body: object, position: int | None = None, *, to_end: bool) -> None:
    """Record that a put has read from a body.

    Of the bodies that support no weak references, only the last few are recorded and kept alive.

    Args:
        body: The user's object.
        position: Its current position, or None if it is not seekable.
        to_end: Whether it was read to its end.
    """
    try:
        reference = _Reference(body, _forget)
    except TypeError:
        _record_kept_alive(body, position, to_end=to_end)
        return
    reference.number = id(body)
    _records[reference.number] = _Record(reference, position, to_end)


def _record_kept_alive(body: object, position: int | None, *, to_end: bool) -> None:
    number = id(body)
    _kept_alive.pop(number, None)
    _kept_alive[number] = None
    _records[number] = _Record(_Holder(body), position, to_end)
    while len(_kept_alive) > _MAX_KEPT_ALIVE:
        oldest = next(iter(_kept_alive))
        _kept_alive.pop(oldest, None)  # another thread may have done so
        _records.pop(oldest, None)


def _forget(reference: weakref.ref[object]) -> None:
    number = cast("_Reference", reference).number
    entry = _records.get(number)
    if entry is not None and entry.body is reference:
        del _records[number]


def check(body: object, position: int | None = None, *, empty: bool) -> None:
    """Raise if an earlier put has read from the body, which is still at the same position.

    Args:
        body: The user's object.
        position: Its current position, or None if it is not seekable.
        empty: Whether the body is known to have no unread bytes.

    Raises:
        BodyConsumedError: A failed put has read part of the body; or a put has read all of it, and
            no bytes were added since.
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
