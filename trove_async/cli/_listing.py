"""``ls``, ``tree``, ``du`` and ``stat``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from typing import Annotated, Any

import typer

from trove_async._globs import Glob
from trove_async.errors import ObjectNotFoundError
from trove_async.models import ObjectInfo, Prefix

from ._command import Session, UsageProblem, command
from ._options import Exact, Location, Recursive
from ._output import Output, count_text, shown_size, time_text
from ._places import Object, split_wildcards


@command
async def ls(
    session: Session,
    location: Annotated[
        str,
        typer.Argument(help="URL, path, or BUCKET[/KEY] with --config. Without it, all buckets."),
    ] = "",
    *,
    recursive: Recursive = False,
    exact: Exact = False,
    versions: Annotated[bool, typer.Option("--versions", help="List all versions.")] = False,
    shadowed: Annotated[
        bool, typer.Option("--shadowed", help="Also list objects that the routes hide.")
    ] = False,
) -> None:
    """List buckets, folders and objects. A key may have wildcards: 's3://BUCKET/logs/*.gz'."""
    place = await session.locate_object(location or "trove://")
    if not place.bucket_name:
        for bucket in await place.store.list_buckets():
            session.output.result(
                f"{time_text(bucket.created)}  {place.label}{bucket.name}",
                bucket=bucket.name,
                created=bucket.created,
                backends=bucket.backends,
            )
        return
    if versions:
        await _list_versions(session, place, exact=exact)
        return
    found = False
    async with aclosing(entries(place, recursive=recursive, shadowed=shadowed)) as listing:
        async for entry in listing:
            found = True
            if isinstance(entry, Prefix):
                session.output.result(
                    f"{'':19}  {'':>10}  {place.named(entry.prefix)}", prefix=entry.prefix
                )
            else:
                size = shown_size(entry.size, exact=exact)
                session.output.result(
                    f"{time_text(entry.last_modified)}  {size:>10}  {place.named(entry.key)}",
                    **listed(entry),
                )
    if not found and place.key:
        raise not_found(place)


@command
async def tree(
    session: Session,
    location: Location,
    *,
    depth: Annotated[int, typer.Option(min=1, help="Levels of folders to show.")] = 100,
    exact: Exact = False,
) -> None:
    """Show folders and objects as a tree, one listing for each folder."""
    if session.output.as_json:
        raise UsageProblem("a tree has no JSON form: use ls --recursive --json")
    place = await session.locate_object(location)
    drawing = _Drawing(session.output, place, depth=depth, exact=exact)
    await drawing.draw_folder(place.key if place.is_folder else f"{place.key}/", "", 1)
    if drawing.is_empty and place.key:
        raise not_found(place)
    folders, objects = count_text(drawing.folders, "folder"), count_text(drawing.objects, "object")
    session.output.note(f"{folders}, {objects}")


class _Drawing:
    """A tree that is drawn while it is listed."""

    def __init__(self, output: Output, place: Object, *, depth: int, exact: bool) -> None:
        self._output = output
        self._place = place
        self._depth = depth
        self._exact = exact
        self.folders = self.objects = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was drawn."""
        return not (self.folders or self.objects)

    async def draw_folder(self, prefix: str, indent: str, level: int) -> None:
        """Draw the entries of a folder. The last one is drawn differently, so each waits for the next."""
        waiting: ObjectInfo | Prefix | None = None
        async for entry in self._place.bucket.list(prefix=prefix, delimiter="/"):
            if waiting is not None:
                await self._draw(waiting, prefix, indent, level, is_last=False)
            waiting = entry
        if waiting is not None:
            await self._draw(waiting, prefix, indent, level, is_last=True)

    async def _draw(
        self, entry: ObjectInfo | Prefix, prefix: str, indent: str, level: int, *, is_last: bool
    ) -> None:
        if self.is_empty:
            self._output.result(str(self._place))
        branch, below = ("└── ", "    ") if is_last else ("├── ", "│   ")
        name = entry.key[len(prefix) :]
        if isinstance(entry, Prefix):
            self.folders += 1
            self._output.result(f"{indent}{branch}{name}")
            if level < self._depth:
                await self.draw_folder(entry.prefix, indent + below, level + 1)
        else:
            self.objects += 1
            size = shown_size(entry.size, exact=self._exact)
            self._output.result(f"{indent}{branch}{name or '.'}  [{size}]")


@command
async def du(
    session: Session,
    location: Location,
    *,
    depth: Annotated[int, typer.Option(min=0, help="Levels of folders to show separately.")] = 0,
    exact: Exact = False,
) -> None:
    """Sum up the sizes of objects, in total and by folder."""
    place = await session.locate_object(location)
    base = place.key if place.is_folder else place.key[: place.key.rfind("/") + 1]
    sums: dict[str, list[int]] = {}
    total = [0, 0]
    async with aclosing(entries(place, recursive=True)) as listing:
        async for entry in listing:
            folders = entry.key[len(base) :].split("/")[:-1]
            for level in range(min(len(folders), depth)):
                path = f"{base}{'/'.join(folders[: level + 1])}/"
                _add(sums.setdefault(path, [0, 0]), entry)
            _add(total, entry)
    if place.key and not total[0]:
        raise not_found(place)
    for path, (count, size) in sorted(sums.items()):
        _show_sum(session, place.named(path), count, size, exact=exact)
    _show_sum(session, str(place), *total, exact=exact)


@command
async def stat(session: Session, location: Location) -> None:
    """Show everything that is known about an object."""
    place = await session.locate_object(location)
    if place.is_folder:
        raise UsageProblem(f"{place} is no object: name one, or use du")
    info = await place.bucket.head(place.key)
    values = described(info)
    if session.output.as_json:
        session.output.result("", **values)
        return
    session.output.result(place.named(info.key))
    for name, value in values.items():
        if name in {"bucket", "key"} or value in (None, "", {}, ()):
            continue
        for label, text in _lines(name, value):
            session.output.result(f"  {label + ':':<22} {text}")


async def entries(
    place: Object, *, recursive: bool, shadowed: bool = False
) -> AsyncGenerator[ObjectInfo | Prefix, None]:
    """Iterate over what a place names: an object, a folder's entries, or the objects of a pattern.

    Args:
        place: The place.
        recursive: Whether to descend into folders, instead of listing them.
        shadowed: Whether to include objects that the routes hide.
    """
    bucket = place.bucket
    delimiter = None if recursive else "/"
    folder, pattern = split_wildcards(place.key)
    if pattern:
        async for entry in _matching(place, folder, pattern, shadowed=shadowed):
            yield entry
        return
    prefix = place.key
    if not place.is_folder:
        # Not a prefix: "logs" must not list "logs-old".
        with suppress(ObjectNotFoundError):
            yield await bucket.head(place.key)
        prefix += "/"
    async for entry in bucket.list(prefix=prefix, delimiter=delimiter, include_shadowed=shadowed):
        yield entry


async def named_objects(place: Object) -> AsyncGenerator[ObjectInfo, None]:
    """Iterate over the objects that a place names itself: one, or those of a pattern. Never what is in a folder.

    Raises:
        ObjectNotFoundError: There is none.
    """
    folder, pattern = split_wildcards(place.key)
    if not pattern:
        try:
            yield await place.bucket.head(place.key)
        except ObjectNotFoundError:
            raise not_found(place) from None
        return
    found = False
    async with aclosing(_matching(place, folder, pattern, shadowed=False)) as listing:
        async for entry in listing:
            if isinstance(entry, ObjectInfo):
                found = True
                yield entry
    if not found:
        raise not_found(place)


def listed(info: ObjectInfo) -> dict[str, Any]:
    """Return what a listing contains, for JSON."""
    return {
        "bucket": info.bucket,
        "key": info.key,
        "size": info.size,
        "last_modified": info.last_modified,
        "etag": info.etag,
        "storage_class": info.storage_class,
        "version_id": info.version_id,
        "backend": info.backend,
    }


def described(info: ObjectInfo) -> dict[str, Any]:
    """Return everything that is known of an object, for JSON."""
    return {
        **listed(info),
        "stored_size": info.stored_size,
        "content_type": info.content_type,
        "metadata": info.metadata,
        "tags": info.tags,
        "cache_control": info.cache_control,
        "content_disposition": info.content_disposition,
        "content_encoding": info.content_encoding,
        "content_language": info.content_language,
        "expires": info.expires,
        "checksums": info.checksums,
        "transforms": info.transforms,
    }


def not_found(place: Object) -> ObjectNotFoundError:
    """Return the error for a place where nothing is."""
    return ObjectNotFoundError(f"{place}: there is no such object or folder")


async def _matching(
    place: Object, folder: str, pattern: str, *, shadowed: bool
) -> AsyncGenerator[ObjectInfo | Prefix, None]:
    """Iterate over the objects below a folder that match a pattern, and over folders that do."""
    glob = Glob.parse(pattern)
    delimiter = None if "/" in pattern or "**" in pattern else "/"
    listing = place.bucket.list(prefix=folder, delimiter=delimiter, include_shadowed=shadowed)
    async for entry in listing:
        name = entry.key[len(folder) :]
        if isinstance(entry, Prefix):
            if glob.test(name.rstrip("/")):
                yield entry
        elif glob.test(name):
            yield entry


async def _list_versions(session: Session, place: Object, *, exact: bool) -> None:
    async for version in place.bucket.list_versions(prefix=place.key):
        size = "deleted" if version.deleted else shown_size(version.size, exact=exact)
        session.output.result(
            f"{time_text(version.last_modified)}  {size:>10}  {place.named(version.key)}  {version.version_id}",
            key=version.key,
            version_id=version.version_id,
            size=version.size,
            last_modified=version.last_modified,
            deleted=version.deleted,
            latest=version.latest,
            backend=version.backend,
        )


def _add(sums: list[int], entry: ObjectInfo | Prefix) -> None:
    if isinstance(entry, ObjectInfo):
        sums[0] += 1
        sums[1] += entry.size


def _show_sum(session: Session, name: str, count: int, size: int, *, exact: bool) -> None:
    session.output.result(
        f"{shown_size(size, exact=exact):>10}  {count_text(count, 'object'):>16}  {name}",
        location=name,
        objects=count,
        bytes=size,
    )


def _lines(name: str, value: object) -> Iterable[tuple[str, str]]:
    label = name.replace("_", " ")
    if isinstance(value, dict) or hasattr(value, "items"):
        return [(f"{label} {key}", str(inner)) for key, inner in dict(value).items()]  # type: ignore[call-overload] # a mapping
    if isinstance(value, tuple | list):
        return [(label, ", ".join(map(str, value)))]
    return [(label, str(value))]
