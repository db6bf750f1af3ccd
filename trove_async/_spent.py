"""Remembers which bodies a put has read, so that no later put takes what is left for the whole.

A body that can be read once looks empty when it was read to its end, and is shorter when a put failed
midway. Neither shows on an iterator, a pipe or a file: only having read it tells.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple, cast

from .errors import BodyConsumedError


class _Reference(weakref.ref[object]):
    """A body, which this does not keep alive, and its id."""

    __slots__ = ("number",)

    number: int


class _Mark(NamedTuple):
    """How a put has left a body.

    Attributes:
        body: The body.
        position: Where it stood then; None: it has no position.
        whole: Whether it was read to its end.
    """

    body: _Reference
    position: int | None
    whole: bool


_marks: dict[int, _Mark] = {}
"""By the body's id: bodies need not be hashable. A mark goes when its body does."""


def note(body: object, position: int | None = None, *, whole: bool) -> None:
    """Note that a put has read from a body. One that takes no weak references is not remembered.

    Args:
        body: What its user gave.
        position: Where it stands now, if it has a position.
        whole: Whether it was read to its end.
    """
    try:
        reference = _Reference(body, _forget)
    except TypeError:
        return
    reference.number = id(body)
    _marks[reference.number] = _Mark(reference, position, whole)


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
