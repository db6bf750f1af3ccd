"""``rm``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Final, NoReturn

import typer

from trove_async.errors import ObjectNotFoundError
from trove_async.models import ObjectInfo

from ._command import Session, UsageProblem, command, describe
from ._listing import entries, named_objects, not_found
from ._options import DryRun, Exclude, Include, Locations, NoProgress, Recursive, selector
from ._output import Output
from ._places import Object
from ._progress import Progress
from ._work import for_arguments, run_all

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
    ] = 16,
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

    async def remove(place: Object) -> None:
        verb = "would delete" if dry_run else "deleted"
        with Progress(session.output, verb, show=not no_progress) as progress:
            removal = _Removal(session.output, progress, place, selects)
            await removal.run(recursive=recursive, dry_run=dry_run, requests=requests)

    await for_arguments(places, remove, session.output)


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
        async with aclosing(self._batches(recursive=recursive)) as batches:
            await run_all(
                batches,
                self._show if dry_run else self._delete,
                jobs=requests,
                output=self._output,
                name=self._name,
            )
        if not self._found and place.key:
            await self._raise_not_found()

    async def _batches(self, *, recursive: bool) -> AsyncGenerator[Sequence[ObjectInfo], None]:
        place = self._place
        start = len(place.key) if place.is_folder else place.key.rfind("/") + 1
        batch: list[ObjectInfo] = []
        async with aclosing(self._objects(recursive=recursive)) as objects:
            async for info in objects:
                if not self._selects(info.key[start:]):
                    continue
                self._found = True
                batch.append(info)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    async def _objects(self, *, recursive: bool) -> AsyncGenerator[ObjectInfo, None]:
        """Iterate over what is to be deleted. Without `recursive`, that is never what is in a folder."""
        if not recursive:
            with suppress(ObjectNotFoundError):  # reported below
                async with aclosing(named_objects(self._place)) as objects:
                    async for info in objects:
                        yield info
            return
        async with aclosing(entries(self._place, recursive=True)) as listing:
            async for entry in listing:
                if isinstance(entry, ObjectInfo):
                    yield entry

    async def _raise_not_found(self) -> NoReturn:
        place = self._place
        async for _ in place.bucket.list(prefix=f"{place.key.rstrip('/')}/", page_size=1):
            raise UsageProblem(
                f"{place} is a folder: add --recursive to delete everything below it"
            )
        raise not_found(place)

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
