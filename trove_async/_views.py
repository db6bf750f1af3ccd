"""Functions that slice sequences of memoryviews, and that view the chunks of a body as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview


def take(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return the first `size` bytes of `views`, as views."""
    selected: list[memoryview] = []
    for view in views:
        if size <= 0:
            break
        selected.append(view[:size])
        size -= len(selected[-1])
    return selected


def drop(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return `views` without their first `size` bytes, as views."""
    remaining: list[memoryview] = []
    for view in views:
        if size < len(view):
            remaining.append(view[size:])
        size = max(0, size - len(view))
    return remaining


def byte_view(view: memoryview) -> memoryview:
    """Return a one-dimensional view of single bytes. It is a copy if the memory is not C-contiguous.

    Raises:
        TypeError: The items are references to Python objects, so their bytes are addresses.
    """
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if view.format.endswith("O"):
        raise TypeError("a body must be bytes, got an array of Python objects")
    if view.nbytes and view.c_contiguous:  # a view with a zero in its shape cannot be cast
        return view.cast("B")
    return memoryview(view.tobytes())


def view_of_chunk(chunk: object) -> memoryview:
    """Return a view of a chunk that a body yielded.

    Raises:
        TypeError: The chunk is not bytes-like.
    """
    if isinstance(chunk, str):
        raise TypeError("the body yielded a str: encode its chunks")
    try:
        view = memoryview(chunk)  # type: ignore[arg-type]  # checked by memoryview itself
    except TypeError:
        raise TypeError(f"the body yielded {type(chunk).__name__}, not bytes") from None
    return byte_view(view)
