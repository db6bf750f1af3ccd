"""Copies and moves of directories and folders."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

from trove_async._concurrency import in_thread, task_group
from trove_async._globs import Glob
from trove_async.bucket import Bucket
from trove_async.errors import ConfigError, TroveError
from trove_async.jobs import Report, SyncChange
from trove_async.jobs import sync as run_sync
from trove_async.models import ObjectInfo

from ._command import Session, UsageProblem, describe
from ._files import Transfer
from ._listing import entries, not_found
from ._options import selector
from ._output import Output
from ._paths import Paths
from ._places import LocalPath, Object, Place, Stream, split_wildcards
from ._progress import PartCounter, Progress
from ._work import run_all

_BATCH: Final = 1000
"""Files of a directory that are listed at a time."""


async def copy_tree(
    session: Session,
    source: Place,
    target: Place,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    compare: Literal["size_and_time", "size", "checksum", "none"],
    delete: bool = False,
    allow_empty: bool = False,
    dry_run: bool,
    jobs: int,
    show: bool,
) -> None:
    """Copy everything below a directory or folder that differs from the target.

    Args:
        session: The session.
        source: The directory or folder, or a pattern.
        target: The directory or folder.
        include: As `jobs.sync`, and so are all arguments below.
        exclude: As above.
        compare: As above.
        delete: As above.
        allow_empty: As above.
        dry_run: As above.
        jobs: The maximum number of concurrent transfers.
        show: Whether to show the progress.
    """
    output = session.output
    left, right = _Tree(source, include), _Tree(target)
    if isinstance(source, LocalPath) and isinstance(target, LocalPath):
        raise UsageProblem("both are local directories: use cp(1) or rsync(1)")
    with Progress(output, "would transfer" if dry_run else "transferred", show=show) as progress:
        counter = PartCounter(progress)
        changes = _Changes(output, progress, counter, left, right, dry_run=dry_run)
        if isinstance(target, Object):
            target.store.events.subscribe(counter)
        async with task_group() as group:
            if progress.is_drawn and compare == "none":
                group.start_soon(_count, source, left, selector(left.include, exclude), progress)
            report = await run_sync(
                left.side,
                right.side,
                source_prefix=left.prefix,
                target_prefix=right.prefix,
                include=left.include,
                exclude=exclude,
                compare=compare,
                delete=delete,
                allow_empty=allow_empty,
                dry_run=dry_run,
                concurrency=jobs,
                progress=lambda _: progress.redraw(),
                notify=changes.show,
            )
            group.cancel_scope.cancel()
        if not report.examined and isinstance(source, Object) and source.key:
            raise not_found(source)
    show_skips(output, report, left.name)
    if report.unchanged:
        output.note(f"{report.unchanged:,} unchanged")


class _Changes:
    """Shows what a transfer does, object by object."""

    def __init__(
        self,
        output: Output,
        progress: Progress,
        counter: PartCounter,
        source: _Tree,
        target: _Tree,
        *,
        dry_run: bool,
    ) -> None:
        self._output = output
        self._progress = progress
        self._counter = counter
        self._source = source
        self._target = target
        self._dry_run = dry_run

    def show(self, change: SyncChange) -> None:
        """Count a change, and print it if that is wanted."""
        target = self._target.name(change.key)
        source = None if change.action == "delete" else self._source.name(change.key)
        if change.error is not None:
            text = f"{change.action} of {source or target} failed: {describe(change.error)}"
            self._output.error(text, change.error)
            return
        if change.action == "delete":
            self._progress.deleted += 1
        else:
            left = self._counter.finished(self._target.key(change.key), change.size)
            self._progress.add(objects=1, size=left)
        names = target if source is None else f"{source} -> {target}"
        if not (self._dry_run or self._output.as_json):
            self._output.detail(f"{change.action} {names}")
            return
        self._output.result(
            f"would {change.action} {names}",
            action=change.action,
            dry_run=self._dry_run,
            source=source,
            target=target,
            size=change.size,
        )


def show_skips(output: Output, report: Report, name: Callable[[str], str]) -> None:
    """Print what a job has skipped, by reason, with the first names."""
    for reason, finding in report.skips.items():
        names = [name(key) for key in finding.keys[:3]]
        if finding.count > len(names):
            names.append("…")
        output.note(f"skipped, {reason}: {finding.count:,} ({', '.join(names)})")


class _Tree:
    """One side of the transfer of a tree.

    Attributes:
        side: The directory or the bucket.
        prefix: The folder in the bucket.
        include: The include patterns, with that of the argument itself.

    Args:
        place: The directory or folder.
        include: The include patterns of a source. None: it is a target, in whose name no character is special.
    """

    def __init__(self, place: Place, include: Sequence[str] | None = None) -> None:
        self._place = place
        self.prefix = ""
        self.include = include or ()
        self.side: str | Bucket
        if isinstance(place, Stream):
            raise UsageProblem("standard input and output hold a single object, not a folder")
        if isinstance(place, LocalPath):
            self.side = place.path
            return
        folder, pattern = (place.key, "") if include is None else split_wildcards(place.key)
        if pattern and include:
            raise UsageProblem(f"use a pattern in {place}, or --include, not both")
        self.side = place.bucket
        self.prefix = folder if not folder or folder.endswith("/") else f"{folder}/"
        if pattern:
            self.include = [pattern]

    def relative(self, info: ObjectInfo) -> str:
        """Return the key of an object, relative to the folder."""
        return info.key[len(self.prefix) :]

    def key(self, relative: str) -> str:
        """Return the key of an object."""
        return self.prefix + relative

    def name(self, relative: str) -> str:
        """Return the name of a file or an object, as an argument would name it."""
        if isinstance(self._place, Object):
            return self._place.named(self.prefix + relative)
        return str(Path(str(self._place)) / relative)


async def move_tree(
    session: Session,
    source: Place,
    target: Place,
    *,
    selects: Callable[[str], bool],
    no_clobber: bool,
    dry_run: bool,
    jobs: int,
    show: bool,
) -> None:
    """Move every object or file below a directory or folder.

    Args:
        session: The session.
        source: The directory or folder, or a pattern.
        target: The directory or folder.
        selects: Returns whether a relative path is moved.
        no_clobber: Whether to keep what exists at the target.
        dry_run: Whether to change nothing.
        jobs: The maximum number of concurrent moves.
        show: Whether to show the progress.
    """
    output = session.output
    left, right = _Tree(source, ()), _Tree(target)
    if isinstance(source, LocalPath) and isinstance(target, LocalPath):
        raise UsageProblem("both are local directories: use mv(1)")
    _check_distinct(source, target, left, right)
    walked = source if isinstance(source, Object) else _Files(str(source))
    found = False
    with Progress(output, "would move" if dry_run else "moved", show=show) as progress:
        transfer = Transfer(progress=progress, no_clobber=no_clobber)
        paths = Paths(right.side) if isinstance(target, LocalPath) else None

        async def move(relative: str) -> None:
            here, there = _below(source, left, relative), _below(target, right, relative)
            if dry_run:
                progress.add(objects=1)
                output.result(
                    f"would move {here} -> {there}", action="move", source=here, target=there
                )
                return
            if paths is not None:
                await paths.check(relative)
            await transfer.move(here, there)
            show_change(output, "move", str(here), str(there), 0)

        async def selected() -> AsyncGenerator[str, None]:
            nonlocal found
            async with aclosing(_names(walked, left)) as names:
                async for relative in names:
                    if selects(relative):
                        found = True
                        yield relative

        async with aclosing(selected()) as names:
            await run_all(names, move, jobs=jobs, output=output, name=left.name)
        if isinstance(walked, _Files) and walked.left_out:
            output.note(f"skipped, no regular file: {walked.left_out:,} in {source}")
        if not found and isinstance(source, Object) and source.key:
            raise not_found(source)


def _check_distinct(source: Place, target: Place, left: _Tree, right: _Tree) -> None:
    """Raise ConfigError if moved objects would be moved again."""
    if not (isinstance(source, Object) and isinstance(target, Object)):
        return
    if source.owner is not target.owner or source.bucket_name != target.bucket_name:
        return
    if left.prefix.startswith(right.prefix) and left.prefix != right.prefix:
        return  # out of a folder: the objects are not listed again
    if right.prefix.startswith(left.prefix):
        below = right.prefix[len(left.prefix) :]
        if (
            below
            and left.include
            and not any(Glob.parse(one).can_match_below(below) for one in left.include)
        ):
            return
        raise ConfigError("source and target overlap: one folder contains the other")


def _below(place: Place, tree: _Tree, relative: str) -> LocalPath | Object:
    if isinstance(place, Object):
        return place.at(tree.key(relative))
    return LocalPath(tree.name(relative))


async def _count(
    place: Place, tree: _Tree, selects: Callable[[str], bool], progress: Progress
) -> None:
    """Find out how much there is to copy, for the time that is left. A failure is that of the copy itself."""
    objects = size = 0
    with suppress(TroveError, OSError):
        if isinstance(place, Object):
            async with aclosing(_objects(place)) as infos:
                async for info in infos:
                    if selects(tree.relative(info)):
                        objects, size = objects + 1, size + info.size
        else:
            files = _Files(str(place))
            while batch := await in_thread(files.take):
                selected = [file for file in batch if selects(file.name)]
                objects += len(selected)
                size += sum(file.size for file in selected)
        progress.total_objects, progress.total_bytes = objects, size


async def _names(place: Object | _Files, tree: _Tree) -> AsyncGenerator[str, None]:
    """Iterate over the files of a directory, or the objects of a folder or pattern."""
    if isinstance(place, Object):
        async with aclosing(_objects(place)) as infos:
            async for info in infos:
                yield tree.relative(info)
        return
    while batch := await in_thread(place.take):
        for file in batch:
            yield file.name


async def _objects(place: Object) -> AsyncGenerator[ObjectInfo, None]:
    """Iterate over the objects of a folder or pattern, without folder markers, which no file can be."""
    async with aclosing(entries(place, recursive=True)) as listing:
        async for entry in listing:
            if isinstance(entry, ObjectInfo) and not entry.key.endswith("/"):
                yield entry


class _File(NamedTuple):
    name: str
    size: int


class _Files:
    """The regular files below a directory. Links are left out: only the link could be deleted.

    Attributes:
        left_out: The number of links and special files that were found.
    """

    def __init__(self, directory: str) -> None:
        self._found = self._walk(directory)
        self.left_out = 0

    def take(self) -> Sequence[_File]:
        """Return the next files, none at the end. Blocks."""
        return list(islice(self._found, _BATCH))

    def _walk(self, directory: str) -> Iterator[_File]:
        for folder, _, names in os.walk(directory):
            for name in names:
                path = Path(folder) / name
                try:
                    status = path.lstat()
                except FileNotFoundError:  # deleted since
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield _File(path.relative_to(directory).as_posix(), status.st_size)
                else:
                    self.left_out += 1


def show_change(output: Output, action: str, source: str, target: str, size: int) -> None:
    """Print one change: as JSON, or with ``--verbose``."""
    if output.as_json:
        output.result("", action=action, source=source, target=target, size=size)
    else:
        output.detail(f"{action} {source} -> {target}")
