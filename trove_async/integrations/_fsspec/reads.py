"""Reads of one or many objects, with byte ranges as fsspec's users write them: like the bounds of a slice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from trove_async import ByteRange, RangeError, Trove
from trove_async._concurrency import for_each
from trove_async._engine.ranges import coalesce

T = TypeVar("T")

Slice: TypeAlias = tuple[int | None, int | None]
"""The bounds ``start`` and ``end``, which may be negative."""


async def read_slice(
    store: Trove, bucket: str, key: str, start: int | None, end: int | None
) -> bytes:
    """Return ``object[start:end]`` by one request, or by two if a negative bound needs the size.

    Bounds outside the object are clamped.
    """
    if _needs_size(start, end):
        size = (await store.head(bucket, key)).size
        start, end, _ = slice(start, end).indices(size)
    if end is not None and (start or 0) >= end:
        return b""
    try:
        return await store.read(bucket, key, range=_range_of(start, end))
    except RangeError:
        return b""  # it starts after the end


async def read_slices(
    store: Trove, bucket: str, key: str, slices: Sequence[Slice]
) -> Sequence[bytes] | None:
    """Return many slices of one version of an object, and fetch neighbours together.

    One request suffices if all are neighbours. Otherwise the store requests the metadata of the version first.

    None: a slice is empty, or needs the size, so each must be read on its own.
    """
    if any(_needs_size(start, end) for start, end in slices):
        return None
    spans = [(start or 0, end) for start, end in slices if end is not None and (start or 0) >= 0]
    try:
        if len(spans) == len(slices) and len(joined := coalesce(spans)) == 1:
            (first, last), _ = joined[0]
            data = await store.read(bucket, key, range=(first, last))
            return [data[start - first : end - first] for start, end in spans]
        ranges = [_range_of(start, end) or ByteRange(0) for start, end in slices]
        return await store.get_ranges(bucket, key, ranges)
    except RangeError:
        return None


def group_slices(
    paths: list[str],
    starts: Any,  # noqa: ANN401 - one bound for all, or a list
    ends: Any,  # noqa: ANN401
) -> dict[str, list[tuple[int, Slice]]]:
    """Return the slices of each path, with their positions in `paths`.

    Raises:
        TypeError: `paths` is no list.
        ValueError: The lists have different lengths.
    """
    if not isinstance(paths, list):
        raise TypeError(f"paths must be a list, got {type(paths).__name__}")
    starts, ends = (
        list(bounds) if isinstance(bounds, Iterable) else [bounds] * len(paths)
        for bounds in (starts, ends)
    )
    if not len(starts) == len(ends) == len(paths):
        raise ValueError("paths, starts and ends must have the same length")
    grouped: dict[str, list[tuple[int, Slice]]] = {}
    for position, (path, start, end) in enumerate(zip(paths, starts, ends, strict=True)):
        grouped.setdefault(path, []).append((position, (start, end)))
    return grouped


async def collect(
    items: Sequence[T], read: Callable[[T], Awaitable[bytes]], *, raises: bool, limit: int
) -> list[bytes | Exception]:
    """Return what `read` returns for each item. Exceptions are returned as well, unless `raises`."""
    results: list[bytes | Exception] = [b""] * len(items)

    async def run(numbered: tuple[int, T]) -> None:
        number, item = numbered
        try:
            results[number] = await read(item)
        except Exception as error:
            if raises:
                raise
            results[number] = error

    await for_each(list(enumerate(items)), run, limit=limit)
    return results


def _needs_size(start: int | None, end: int | None) -> bool:
    if start is not None and start < 0:
        return end is not None
    return end is not None and end < 0


def _range_of(start: int | None, end: int | None) -> ByteRange | None:
    """Return the range of a slice whose bounds do not depend on the size. None: the whole object."""
    if start is not None and start < 0:
        return ByteRange.last(-start)
    if not start and end is None:
        return None
    return ByteRange(start or 0, end)
