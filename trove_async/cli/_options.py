"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import typer

from trove_async._quantities import parse_duration, parse_size

Location: TypeAlias = Annotated[
    str, typer.Argument(metavar="LOCATION", help="URL, path, or BUCKET[/KEY] with --config.")
]
Locations: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="LOCATION...", help="URLs, paths, or BUCKET/KEY with --config."),
]
BucketName: TypeAlias = Annotated[
    str, typer.Argument(help="BUCKET[/PREFIX] with --config, or a URL.", metavar="BUCKET")
]
Recursive: TypeAlias = Annotated[
    bool, typer.Option("--recursive", "-r", help="Include everything below a folder.")
]
Include: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Only paths that match; * stays in a folder, **/ crosses folders. Repeatable."
    ),
]
Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="No paths that match. Wins over --include, in any order. Repeatable.",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Show what would be done, and change nothing.")
]
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=4096, metavar="N", help="Objects at a time.")
]
NoProgress: TypeAlias = Annotated[bool, typer.Option("--no-progress", help="Show no progress.")]
Exact: TypeAlias = Annotated[bool, typer.Option("--bytes", "-b", help="Show sizes in bytes.")]
Checkpoint: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="File that records the state, so that the same command continues after an interrupt."
    ),
]


def _size(text: str | float) -> float:
    if not isinstance(text, str):
        return text
    try:
        rate = parse_size(text.removesuffix("/s"))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not rate:
        raise typer.BadParameter("must be more than 0")
    return float(rate)


def duration(text: str | float) -> float:
    """Parse the value of an option."""
    if not isinstance(text, str):
        return text
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


LimitRate: TypeAlias = Annotated[
    float | None,
    typer.Option(parser=_size, metavar="SIZE", help="Bytes a second at most, such as 10MiB."),
]


def patterns(values: Sequence[str] | None) -> Sequence[str]:
    """Return the patterns of an option."""
    return values or ()


def selector(include: Sequence[str] | None, exclude: Sequence[str] | None) -> Callable[[str], bool]:
    """Return a predicate for relative paths, from the values of both options."""
    from trove_async.jobs._sync.filters import Filters  # noqa: PLC0415 - few commands need it

    return Filters(patterns(include), patterns(exclude)).selects
