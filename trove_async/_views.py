"""Views of bytes: what a body's chunks are, and how views are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview


def trimmed(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return the first `size` bytes of `views`, as views."""
    kept: list[memoryview] = []
    for view in views:
        if size <= 0:
            break
        kept.append(view[:size])
        size -= len(kept[-1])
    return kept


def without(views: Sequence[memoryview], size: int) -> list[memoryview]:
    """Return `views` without their first `size` bytes, as views."""
    kept: list[memoryview] = []
    for view in views:
        if size < len(view):
            kept.append(view[size:])
        size = max(0, size - len(view))
    return kept


def bytes_of(view: memoryview) -> memoryview:
    """Return a view of single bytes, whatever the layout; a copy where there is no other way."""
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if view.nbytes and view.c_contiguous:
        return view.cast("B")
    return memoryview(view.tobytes())


def view_of_chunk(chunk: object) -> memoryview:
    """Return a view of what a body yielded.

    Raises:
        TypeError: It is not bytes.
    """
    if isinstance(chunk, str):
        raise TypeError("the body yielded str: encode its chunks")
    try:
        view = memoryview(chunk)  # type: ignore[arg-type]  # what else it is, is told below
    except TypeError:
        raise TypeError(f"the body yielded {type(chunk).__name__}, not bytes") from None
    return bytes_of(view)
