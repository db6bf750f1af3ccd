"""Decides which of several objects of one key a listing shows: the one that a get returns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from trove_async._concurrency import for_each
from trove_async.models import Listed, ObjectInfo, Prefix

from .backends import Backend
from .search import MISSING, Search


class FirstCopies:
    """The visible objects of a bucket.

    Args:
        search: The search of the store.
        bucket: The bucket.
        homes: The backend that lists the bucket, by the name of each backend. See `buckets.homes`.
    """

    def __init__(self, search: Search, bucket: str, homes: Mapping[str, Backend]) -> None:
        self._search = search
        self._bucket = bucket
        self._homes = homes

    async def visibility(
        self, entries: Sequence[Listed], merged: Collection[str], *, are_all: bool, limit: int
    ) -> list[bool]:
        """Return for each entry whether it is shown.

        Args:
            entries: Entries of a listing. Those of one key on the backends of `merged` are adjacent, and
                all of them are included.
            merged: The names of the backends whose entries are merged. Any other backend that precedes
                the backend of an entry is headed.
            are_all: Whether there are no other backends.
            limit: The maximum number of concurrent requests.
        """
        visibility = [True] * len(entries)

        async def decide(group: range) -> None:
            key = entries[group[0]].key
            by_backend = {entries[index].backend: index for index in group}
            shown: int | None = None
            for backend in await self._search.order(self._bucket, key):
                home = self._homes[backend.name].name
                shown = by_backend.get(home)
                if shown is not None:
                    break
                if home not in merged and await self._search.has(backend, self._bucket, key):
                    break
            for index in group:
                visibility[index] = index == shown

        # The router must decide only if another backend may have an object of the key as well.
        undecided = (group for group in _groups(entries) if not are_all or len(group) > 1)
        await for_each(undecided, decide, limit=limit)
        return visibility

    async def find(self, key: str) -> tuple[Backend, ObjectInfo] | None:
        """Return the visible object of a key and its backend, or None if there is none."""
        try:
            return await self._search.find(self._bucket, key)
        except MISSING:
            return None


def _groups(entries: Sequence[Listed]) -> Iterator[range]:
    """Yield the indexes of the objects of each key."""
    start = 0
    for end in range(1, len(entries) + 1):
        if end == len(entries) or entries[end].key != entries[start].key:
            if not isinstance(entries[start], Prefix):
                yield range(start, end)
            start = end
