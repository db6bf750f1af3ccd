"""``cat`` and ``head``."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from ._command import Session, UsageProblem, command
from ._listing import named_objects
from ._options import Location, Locations
from ._places import Object
from ._work import for_arguments

_CHUNK = 1024 * 1024


@command
async def cat(session: Session, locations: Locations) -> None:
    """Write objects to standard output, one after the other. A key may have wildcards."""
    places = [await session.locate_object(location) for location in locations]
    for place in places:
        if place.is_folder:
            raise UsageProblem(f"{place} is no object: name one, or use a pattern")

    async def write(place: Object) -> None:
        async with aclosing(named_objects(place)) as objects:
            async for info in objects:
                await _write(place, info.key, None)

    await for_arguments(places, write, session.output)


@command
async def head(
    session: Session,
    location: Location,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines.")] = 10,
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="Number of bytes, instead of lines.")
    ] = None,
) -> None:
    """Write the beginning of an object to standard output. Only that much is read."""
    place = await session.locate_object(location)
    if place.is_folder:
        raise UsageProblem(f"{place} is no object: name one")
    if count is not None:
        await _write(place, place.key, count)
        return
    async with place.bucket.get(place.key) as reader:
        while lines > 0 and (chunk := await reader.read(64 * 1024)):
            end = -1
            while lines > 0 and (found := chunk.find(b"\n", end + 1)) >= 0:
                lines -= 1
                end = found
            sys.stdout.buffer.write(chunk if lines > 0 else chunk[: end + 1])
    sys.stdout.buffer.flush()


async def _write(place: Object, key: str, count: int | None) -> None:
    sys.stdout.flush()  # text that was printed before comes first
    async with place.bucket.get(key) as reader:
        left = reader.info.size if count is None else count
        while left > 0 and (chunk := await reader.read(min(left, _CHUNK))):
            left -= len(chunk)
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
