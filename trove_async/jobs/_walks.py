"""Walks over the objects of a bucket, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from trove_async._concurrency import for_each
from trove_async._engine.iterators import ObjectIterator
from trove_async.models import ObjectInfo
from trove_async.router import Router
from trove_async.store import Trove

from ._job import WalkPage
from ._ranges import KeyRange

PAGE_SIZE = 1000
"""The number of keys of a page: the maximum of one request to S3 (API Reference, ListObjectsV2)."""

_MAX_LOOKUPS = 16
"""Maximum number of concurrent calls of an async route function."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key, and its objects on the backends as far as they are known from a listing.

    Attributes:
        key: The key.
        infos: The objects, at least one.
        whole: Whether `infos` contains the object of every backend that has the key. It does in an ordered
            listing. An unordered one shows each object in an item of its own; see `_placement.completed`.
        route: The backend that the key is routed to, or the error of a route function. ``""``: unknown.
    """

    key: str
    infos: Sequence[ObjectInfo]
    whole: bool = True
    route: str | Exception = ""

    def on(self, backend: str) -> ObjectInfo | None:
        """Return the object on a backend, if it was listed."""
        return next((info for info in self.infos if info.backend == backend), None)

    @property
    def routed(self) -> str:
        """The backend that the key is routed to, if the walk was `walk_routed`.

        Raises:
            Exception: A route function raised it.
        """
        if isinstance(self.route, Exception):
            raise self.route
        return self.route


async def walk_objects(
    handle: Trove, bucket: str, prefix: str, key_range: KeyRange
) -> AsyncGenerator[WalkPage[ObjectInfo], None]:
    """Iterate over the objects that a handle lists."""
    resumed = key_range.cursor is not None
    listing = handle.list(
        bucket,
        prefix=prefix,
        start_after=None if resumed else key_range.start_after or None,
        cursor=key_range.cursor,
        page_size=PAGE_SIZE,
    )
    async with _pages_of(listing) as pages:
        async for page in pages:
            ordered = bool(listing.ordered) and not resumed
            yield WalkPage(page, ordered, None if ordered else listing.cursor)


async def walk_copies(
    handle: Trove, bucket: str, prefix: str, key_range: KeyRange
) -> AsyncGenerator[WalkPage[ListedKey], None]:
    """Iterate over the objects of all backends, grouped by key."""
    resumed = key_range.cursor is not None
    listing = handle.list(
        bucket,
        prefix=prefix,
        start_after=None if resumed else key_range.start_after or None,
        cursor=key_range.cursor,
        page_size=PAGE_SIZE,
        include_shadowed=True,
    )
    held: list[ObjectInfo] = []  # the last key's objects: the next page may have more of them
    async with _pages_of(listing) as pages:
        async for page in pages:
            if not listing.ordered or resumed:
                items = [ListedKey(info.key, [info], whole=False) for info in page]
                yield WalkPage(items, ordered=False, cursor=listing.cursor)
                continue
            groups = _grouped([*held, *page])
            held = list(groups.pop().infos)
            yield WalkPage(groups)
    if held:
        yield WalkPage(_grouped(held))


async def walk_routed(
    router: Router, bucket: str, walk: AsyncGenerator[WalkPage[ListedKey], None]
) -> AsyncGenerator[WalkPage[ListedKey], None]:
    """Add the routes to the items of a walk."""
    async with aclosing(walk) as pages:
        async for page in pages:
            routes = await _resolve_all(router, bucket, page.items)
            items = [
                ListedKey(item.key, item.infos, item.whole, route)
                for item, route in zip(page.items, routes, strict=True)
            ]
            yield WalkPage(items, page.ordered, page.cursor)


async def _resolve_all(
    router: Router, bucket: str, items: Sequence[ListedKey]
) -> Sequence[str | Exception]:
    """Resolve keys, several at a time if a route function is async."""
    routes: list[str | Exception] = [""] * len(items)
    remaining = iter(enumerate(items))

    async def resolve(numbered: tuple[int, ListedKey]) -> None:
        index, item = numbered
        try:
            name = router.resolve(bucket, item.key)
            routes[index] = name if isinstance(name, str) else await name
        except Exception as error:  # noqa: BLE001 - of a user's function, for this key
            routes[index] = error

    for index, item in remaining:
        try:
            name = router.resolve(bucket, item.key)
            if isinstance(name, str):
                routes[index] = name
                continue
            routes[index] = await name
        except Exception as error:  # noqa: BLE001 - as above
            routes[index] = error
        else:
            await for_each(remaining, resolve, limit=_MAX_LOOKUPS)
    return routes


def _pages_of(
    listing: ObjectIterator[ObjectInfo],
) -> AbstractAsyncContextManager[AsyncGenerator[Sequence[ObjectInfo], None]]:
    return aclosing(cast("AsyncGenerator[Sequence[ObjectInfo], None]", listing.pages()))


def _grouped(infos: Sequence[ObjectInfo]) -> list[ListedKey]:
    return [ListedKey(key, list(group)) for key, group in groupby(infos, lambda info: info.key)]


async def first_key_after(
    handle: Trove, bucket: str, prefix: str, key: str, *, include_shadowed: bool = False
) -> str | None:
    """Return the first key of a listing after `key`, by one small request; None at the end."""
    listing = handle.list(
        bucket,
        prefix=prefix,
        start_after=key or None,
        page_size=1,
        include_shadowed=include_shadowed,
    )
    async for info in listing:
        return info.key
    return None


def is_ordered(handle: Trove) -> bool:
    """Return whether every listing of a handle is in key order."""
    return all(info.capabilities.ordered for info in handle.backends.values())
