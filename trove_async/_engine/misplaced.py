"""Finds the objects of a bucket that are not on the backend that their keys are routed to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from trove_async._concurrency import for_each
from trove_async.models import Listed, Misplaced, ObjectInfo

from .backends import Backend
from .iterators import Entries, Run
from .listing import MAX_LOOKUPS, Batch, Listing, Query
from .locations import Location

Resolve = Callable[[str], "str | Awaitable[str]"]
"""Returns the name of the backend of a key, or an awaitable of it if a route function is async."""


class MisplacedIterator(Entries[Misplaced]):
    """Iterates over the misplaced objects of a bucket: use ``async for``, `pages` or `all`.

    It can be iterated over once, and dropped at any point. Between pages it holds no connection, except
    while it prefetches a page of a backend (from the third one on). After an error or a cancel, the next
    call resumes after the last object returned.

    Args:
        query: Returns the query of all objects.
        run: Runs the request of a page as one operation of the store.
        resolve: Resolves a key of the bucket.
        homes: Returns the backend that lists the bucket, by the name of each backend of the store:
            the first one of those that have the bucket at the same physical place.
        page_size: The maximum number of entries per page.
    """

    def __init__(
        self,
        query: Callable[[], Awaitable[Query]],
        run: Run,
        resolve: Resolve,
        homes: Callable[[], Mapping[str, Backend]],
        *,
        page_size: int,
    ) -> None:
        super().__init__(query, run, page_size=page_size)
        self._resolve = resolve
        self._get_homes = homes
        self._homes: Mapping[str, Backend] = {}
        self._listed: Batch[Listed] | None = None  # arrived, not examined yet

    async def _load_batch(self) -> bool:
        # Most pages have no misplaced object. Each page is one operation nevertheless, so that the time
        # limit of an operation does not limit the size of the bucket.
        if self._listing is None:
            self._homes = self._get_homes()
            self._listing = Listing(await self._query())
        if self._listed is None:
            self._listed = await self._listing.next()
            if self._listed is None:
                return False
        batch = self._listed
        misplaced = await self._misplaced(batch.entries)
        # No await from here on: after a cancel or an error above, the entries are examined again.
        self._listed = None
        if misplaced:
            self._batches.append(Batch(misplaced, batch.previous_key, batch.position))
        return True

    async def _misplaced(self, entries: Sequence[Listed]) -> Sequence[Misplaced]:
        """Return the misplaced objects among the entries, in their order."""
        # 1. Resolve each key once. The entries of one key on ordered backends are in one batch.
        names = await self._resolved(entries)
        homes = self._homes
        away = [
            entry
            for entry in entries
            if isinstance(entry, ObjectInfo) and not self._is_at_home(entry, names[entry.key])
        ]
        if not away:
            return ()
        # 2. Whether the right backend has the key as well is known if both backends are merged.
        at_home = {entry.key for entry in entries if self._is_at_home(entry, names[entry.key])}
        found: list[Misplaced] = []
        for entry in away:
            name = names[entry.key]
            if entry.key in at_home and self._location(entry, entry.backend).overlaps(
                self._location(entry, name)
            ):
                continue  # a layer shows the object of its member
            merged = {homes[entry.backend], homes[name]}
            known = all(backend.capabilities.ordered for backend in merged)
            shadowed = entry.key in at_home if known else None
            found.append(Misplaced(info=entry, belongs_to=name, shadowed=shadowed))
        return found

    def _is_at_home(self, entry: Listed, name: str) -> bool:
        """Return whether the entry is where the backend of that name has its key, or one of its members."""
        if self._homes[entry.backend] is self._homes[name]:
            return True
        return self._location(entry, entry.backend).is_within(self._location(entry, name))

    def _location(self, entry: Listed, name: str) -> Location:
        return Location(backend=self._homes[name], bucket=entry.bucket, key=entry.key)

    async def _resolved(self, entries: Sequence[Listed]) -> dict[str, str]:
        """Return the backend of each key."""
        names: dict[str, str] = {}
        keys = iter(dict.fromkeys(entry.key for entry in entries))

        async def resolve(key: str) -> None:
            name = self._resolve(key)
            names[key] = name if isinstance(name, str) else await name

        for key in keys:
            name = self._resolve(key)
            if not isinstance(name, str):
                # A route function is async: from here on, await several concurrently.
                names[key] = await name
                await for_each(keys, resolve, limit=MAX_LOOKUPS)
                break
            names[key] = name
        return names
