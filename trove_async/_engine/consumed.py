"""Remembers which bodies a put has read, so that no later put takes what is left for the whole.

A body that can be read once looks empty when it was read to its end, and is shorter when a put failed
midway. Neither shows on an iterator, a pipe or a file: only having read it tells.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from trove_async.errors import BodyConsumedError

_HELD: Final = 16
"""Bodies that are kept alive to be remembered: iterators of Python's own, such as `map` and `zip`,
take no weak references. A program that puts one again does so at once, most often."""


class _Reference(weakref.ref[object]):
    """A body, which this does not keep alive, and its id."""

    __slots__ = ("number",)

    number: int


class _Holder:
    """A body that takes no weak references, kept alive."""

    __slots__ = ("_body",)

    def __init__(self, body: object) -> None:
        self._body = body

    def __call__(self) -> object:
        return self._body


class _Mark(NamedTuple):
    """How a put has left a body.

    Attributes:
        body: Returns the body; None: it is gone.
        position: Where it stood then; None: it has no position.
        whole: Whether it was read to its end.
    """

    body: Callable[[], object | None]
    position: int | None
    whole: bool


_marks: dict[int, _Mark] = {}
"""By the body's id: bodies need not be hashable. A mark goes when its body does."""

_held: dict[int, None] = {}
"""The ids of the bodies that are kept alive, the oldest first."""


def note(body: object, position: int | None = None, *, whole: bool) -> None:
    """Note that a put has read from a body.

    Of those that take no weak references the last few are remembered, and kept alive.

    Args:
        body: What its user gave.
        position: Where it stands now, if it has a position.
        whole: Whether it was read to its end.
    """
    try:
        reference = _Reference(body, _forget)
    except TypeError:
        _hold(body, position, whole=whole)
        return
    reference.number = id(body)
    _marks[reference.number] = _Mark(reference, position, whole)


def _hold(body: object, position: int | None, *, whole: bool) -> None:
    number = id(body)
    _held.pop(number, None)
    _held[number] = None
    _marks[number] = _Mark(_Holder(body), position, whole)
    while len(_held) > _HELD:
        oldest = next(iter(_held))
        _held.pop(oldest, None)  # another thread may have done so
        _marks.pop(oldest, None)


def _forget(reference: weakref.ref[object]) -> None:
    number = cast("_Reference", reference).number
    mark = _marks.get(number)
    if mark is not None and mark.body is reference:
        del _marks[number]


def check(body: object, position: int | None = None, *, empty: bool) -> None:
    """Raise if an earlier put has read from the body, and it stands where that put left it.

    Args:
        body: What its user gave.
        position: Where it stands, if it has a position.
        empty: Whether it is known to have no more bytes.

    Raises:
        BodyConsumedError: A put that failed has read some of it; or a put has read all of it, and
            there is nothing more.
    """
    mark = _marks.get(id(body))
    if mark is None or mark.body() is not body or mark.position != position:
        return
    if not mark.whole:
        raise BodyConsumedError(
            "a put that failed has read some of this body: what is left is not the whole, make the"
            " body anew"
        )
    if empty:
        raise BodyConsumedError(
            "an earlier put has read this body to its end: seek back, or make it anew"
        )
