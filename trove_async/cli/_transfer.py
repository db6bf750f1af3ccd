"""``cp``, ``mv`` and ``sync``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from trove_async._concurrency import in_thread

from ._command import Session, UsageProblem, command
from ._files import Transfer
from ._options import (
    DryRun,
    Exclude,
    Include,
    Jobs,
    LimitRate,
    NoProgress,
    Recursive,
    patterns,
    selector,
)
from ._places import LocalPath, Object, Place, Stream, split_wildcards
from ._progress import Progress
from ._trees import copy_tree, move_tree, show_change
from ._work import for_arguments

NoClobber = Annotated[
    bool, typer.Option("--no-clobber", help="Keep objects and files that exist, and fail for them.")
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", "-m", metavar="NAME=VALUE", help="Metadata of the object. Repeatable."
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep the parts of an interrupted upload to s3://, and the file of an interrupted download, and"
        " continue from them.",
    ),
]
Header = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Of the object; for a single one.")
]


Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE...", help="URLs, paths, or BUCKET/KEY with --config.")
]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="URL, path, or BUCKET/KEY with --config.")
]


@command
async def cp(
    session: Session,
    sources: Sources,
    target: Target,
    *,
    recursive: Recursive = False,
    include: Include = None,
    exclude: Exclude = None,
    no_clobber: NoClobber = False,
    content_type: Header = None,
    cache_control: Header = None,
    storage_class: Header = None,
    metadata: Metadata = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    no_progress: NoProgress = False,
) -> None:
    """Copy files and objects. Of a directory or folder, the contents are copied.

    A directory is copied with everything below it, and so is a folder (a URL that ends with a slash, or
    --recursive). Several sources, and patterns such as 's3://BUCKET/logs/*.gz', need a folder as their target: a
    directory, or a URL that ends with a slash. '-' is standard input or output.
    """
    session.connect(limit_rate=limit_rate, resume=resume)
    headers = _headers(content_type, cache_control, storage_class, metadata)
    *places, into = await session.locate(*sources, target)
    pairs = await _pairs(places, into, recursive=recursive)
    if any(pair.is_tree for pair in pairs):
        if headers or no_clobber:
            raise UsageProblem(
                "headers, metadata and --no-clobber are for single objects: copy them one by one, or use sync"
            )
    elif include or exclude:
        raise UsageProblem("--include and --exclude are for directories and folders")

    async def copy(pair: _Pair) -> None:
        if not pair.is_tree:
            await _transfer_one(
                session,
                pair,
                no_clobber=no_clobber,
                headers=headers,
                resume=resume,
                dry_run=dry_run,
                show=not no_progress,
                move=False,
            )
            return
        await copy_tree(
            session,
            pair.source,
            into,
            include=patterns(include),
            exclude=patterns(exclude),
            compare="none",
            dry_run=dry_run,
            jobs=jobs,
            show=not no_progress,
        )

    await for_arguments(pairs, copy, session.output)


@command
async def mv(
    session: Session,
    sources: Sources,
    target: Target,
    *,
    recursive: Recursive = False,
    include: Include = None,
    exclude: Exclude = None,
    no_clobber: NoClobber = False,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    no_progress: NoProgress = False,
) -> None:
    """Move files and objects: copy each one, then delete exactly what was copied.

    A source that is changed meanwhile is kept. Targets are as for cp.
    """
    session.connect(limit_rate=limit_rate)
    *places, into = await session.locate(*sources, target)
    if any(isinstance(place, Stream) for place in (*places, into)):
        raise UsageProblem("standard input and output cannot be moved: use cp")
    pairs = await _pairs(places, into, recursive=recursive)
    if len(pairs) > 1 and any(pair.is_tree for pair in pairs):
        # Two of them may have files of the same name, of which one would be lost.
        raise UsageProblem("move one directory, folder or pattern at a time")

    async def move(pair: _Pair) -> None:
        if not pair.is_tree:
            await _transfer_one(
                session,
                pair,
                no_clobber=no_clobber,
                headers={},
                resume=False,
                dry_run=dry_run,
                show=not no_progress,
                move=True,
            )
            return
        await move_tree(
            session,
            pair.source,
            into,
            selects=selector(include, exclude),
            no_clobber=no_clobber,
            dry_run=dry_run,
            jobs=jobs,
            show=not no_progress,
        )

    await for_arguments(pairs, move, session.output)


@command
async def sync(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Directory or folder.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Directory or folder.")],
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete at the target what the source lacks.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Allow --delete if the source is empty.")
    ] = False,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Compare contents, instead of sizes and times.")
    ] = False,
    size_only: Annotated[bool, typer.Option("--size-only", help="Compare only sizes.")] = False,
    include: Include = None,
    exclude: Exclude = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    no_progress: NoProgress = False,
) -> None:
    """Make a directory or folder equal to another one. A run without changes costs only the listings.

    What is excluded is neither transferred nor deleted.
    """
    if checksum and size_only:
        raise UsageProblem("--checksum and --size-only exclude each other")
    session.connect(limit_rate=limit_rate, resume=resume)
    left, right = await session.locate(source, target)
    await copy_tree(
        session,
        left,
        right,
        include=patterns(include),
        exclude=patterns(exclude),
        compare="checksum" if checksum else "size" if size_only else "size_and_time",
        delete=delete,
        allow_empty=allow_empty,
        dry_run=dry_run,
        jobs=jobs,
        show=not no_progress,
    )


# -- what arguments mean ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pair:
    """A source and its target. Of a tree, the contents go to the target."""

    source: Place
    target: Place
    is_tree: bool


async def _pairs(places: Sequence[Place], into: Place, *, recursive: bool) -> Sequence[_Pair]:
    """Return the sources with their targets.

    Raises:
        UsageProblem: They do not fit together, or two sources would become one object or file.
    """
    pairs: list[_Pair] = []
    for place in places:
        is_tree = await _is_tree(place, recursive=recursive)
        target = into if is_tree else await _named_target(place, into, is_one=len(places) == 1)
        pairs.append(_Pair(place, target, is_tree))
    names = [str(pair.target) for pair in pairs if not pair.is_tree]
    for name in names:
        if names.count(name) > 1 and name != "-":
            raise UsageProblem(f"several sources would become {name}: name them one by one")
    return pairs


async def _is_tree(place: Place, *, recursive: bool) -> bool:
    """Return whether everything below a place is meant."""
    if isinstance(place, LocalPath):
        return await in_thread(os.path.isdir, place.path)
    if isinstance(place, Stream):
        return False
    if not place.bucket_name:
        raise UsageProblem(f"{place} names no bucket")
    return recursive or place.key.endswith("/") or bool(split_wildcards(place.key)[1])


async def _named_target(source: Place, into: Place, *, is_one: bool) -> Place:
    """Return the object or file that a single source is copied to."""
    name = _base_name(source)
    if isinstance(into, Object):
        if not into.bucket_name:
            raise UsageProblem(f"{into} must name a bucket")
        if not into.is_folder:
            if not is_one:
                raise UsageProblem(f"several sources need a folder as their target: write {into}/")
            return into
        if not name:
            raise UsageProblem(
                f"standard input needs a key as its target: {into}{'' if into.key else '/'}KEY"
            )
        return into.at(into.key + name)
    if isinstance(into, LocalPath):
        is_folder = into.is_folder or await in_thread(os.path.isdir, into.path)
        if not is_folder and not is_one:
            raise UsageProblem(f"several sources need a directory as their target: write {into}/")
        if is_folder:
            if name in {"", ".", ".."}:
                raise UsageProblem(
                    f"{source} has no name for a file in {into}: pass the path of a file"
                )
            return LocalPath(str(Path(into.path) / name))
    return into


def _base_name(place: Place) -> str:
    if isinstance(place, LocalPath):
        return Path(place.path).name
    return place.key.rpartition("/")[2] if isinstance(place, Object) else ""


def _headers(
    content_type: str | None,
    cache_control: str | None,
    storage_class: str | None,
    metadata: Sequence[str] | None,
) -> dict[str, Any]:
    headers: dict[str, Any] = {
        name: value
        for name, value in (
            ("content_type", content_type),
            ("cache_control", cache_control),
            ("storage_class", storage_class),
        )
        if value is not None
    }
    for pair in metadata or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageProblem(f"--metadata must have the form NAME=VALUE, got {pair!r}")
        headers.setdefault("metadata", {})[name] = value
    return headers


# -- single objects --------------------------------------------------------------------------------------


async def _transfer_one(
    session: Session,
    pair: _Pair,
    *,
    no_clobber: bool,
    headers: dict[str, Any],
    resume: bool,
    dry_run: bool,
    show: bool,
    move: bool,
) -> None:
    output, source, target = session.output, pair.source, pair.target
    verb = "move" if move else "copy"
    if dry_run:
        output.result(
            f"would {verb} {source} -> {target}", action=verb, source=source, target=target
        )
        return
    size = await _size_of(source) if show else None
    is_stream = isinstance(target, Stream)
    with Progress(
        output,
        "moved" if move else "copied",
        show=show and not is_stream,
        total_bytes=size,
        total_objects=1,
    ) as progress:
        transfer = Transfer(
            progress=progress, no_clobber=no_clobber, headers=headers, resume=resume
        )
        if move:
            await transfer.move(source, target)  # type: ignore[arg-type] # `mv` refuses streams
        else:
            await transfer.copy(source, target)
    if not is_stream:
        show_change(output, verb, str(source), str(target), progress.bytes)


async def _size_of(source: Place) -> int | None:
    """Return the size of a file, for the time that is left. That of an object is known once it is opened."""
    if not isinstance(source, LocalPath):
        return None
    try:
        return (await in_thread(os.stat, source.path)).st_size
    except OSError:
        return None
