"""``rm``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Final

import typer

from trove_async.models import ObjectInfo

from ._command import Session, UsageProblem, command, describe
from ._listing import entries, not_found
from ._options import DryRun, Exclude, Include, Locations, NoProgress, Recursive, selector
from ._output import Output
from ._places import Object, split_wildcards
from ._progress import Progress
from ._work import run_all

_BATCH: Final = 250
"""Keys of one deletion. Services delete the keys of a request one after the other, so several requests at once
are faster than one of the maximum size, 1,000 on S3 (API Reference, DeleteObjects)."""


@command
async def rm(
    session: Session,
    locations: Locations,
    *,
    recursive: Recursive = False,
    include: Include = None,
    exclude: Exclude = None,
    dry_run: DryRun = False,
    requests: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, max=256, help="Requests at a time, of 250 keys each."),
    ] = 8,
    no_progress: NoProgress = False,
) -> None:
    """Delete objects. A key may have wildcards; a folder needs --recursive."""
    places = [place for place in await session.locate(*locations) if isinstance(place, Object)]
    if len(places) < len(locations):
        raise UsageProblem("local files are deleted by rm(1)")
    for place in places:
        if not place.bucket_name:
            raise UsageProblem(f"{place} names no bucket")
        if place.is_folder and not recursive:
            raise UsageProblem(
                f"{place} is a folder: add --recursive to delete everything below it"
            )
    selects = selector(include, exclude)
    for place in places:
        verb = "would delete" if dry_run else "deleted"
        with Progress(session.output, verb, show=not no_progress) as progress:
            removal = _Removal(session.output, progress, place, selects)
            await removal.run(recursive=recursive, dry_run=dry_run, requests=requests)


class _Removal:
    """The deletion of what one argument names."""

    def __init__(
        self, output: Output, progress: Progress, place: Object, selects: Callable[[str], bool]
    ) -> None:
        self._output = output
        self._progress = progress
        self._place = place
        self._selects = selects
        self._found = False

    async def run(self, *, recursive: bool, dry_run: bool, requests: int) -> None:
        """Delete the objects while they are listed."""
        place = self._place
        is_pattern = bool(split_wildcards(place.key)[1])
        async with aclosing(self._batches(recursive=recursive or is_pattern)) as batches:
            await run_all(
                batches,
                self._show if dry_run else self._delete,
                jobs=requests,
                output=self._output,
                name=self._name,
            )
        if not self._found and place.key:
            raise not_found(place)

    async def _batches(self, *, recursive: bool) -> AsyncGenerator[Sequence[ObjectInfo], None]:
        place = self._place
        start = len(place.key) if place.is_folder else place.key.rfind("/") + 1
        batch: list[ObjectInfo] = []
        async with aclosing(entries(place, recursive=recursive)) as listing:
            async for entry in listing:
                if not isinstance(entry, ObjectInfo) or not self._selects(entry.key[start:]):
                    continue
                self._found = True
                batch.append(entry)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    async def _show(self, batch: Sequence[ObjectInfo]) -> None:
        for info in batch:
            name = self._place.named(info.key)
            self._output.result(f"would delete {name}", action="delete", target=name, dry_run=True)
            self._progress.add(objects=1, size=info.size)

    async def _delete(self, batch: Sequence[ObjectInfo]) -> None:
        sizes = {info.key: info.size for info in batch}
        async with aclosing(aiter(self._place.bucket.delete_many(list(sizes)))) as results:
            async for result in results:
                name = self._place.named(result.key)
                if result.error is not None:
                    self._output.error(f"{name}: {describe(result.error)}", result.error)
                    continue
                self._progress.add(objects=1, size=sizes[result.key])
                if self._output.as_json:
                    self._output.result("", action="delete", target=name)
                else:
                    self._output.detail(f"delete {name}")

    def _name(self, batch: Sequence[ObjectInfo]) -> str:
        return f"{self._place.named(batch[0].key)} and {len(batch) - 1} more"
