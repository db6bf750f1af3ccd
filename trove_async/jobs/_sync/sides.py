"""The two sides of a sync: streams of entries in bytewise order of their relative keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import groupby, islice
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar, cast

from trove_async._concurrency import in_thread
from trove_async.bucket import Bucket
from trove_async.models import ObjectInfo

from .entries import Entry, FileEntry, ObjectEntry, object_entry
from .filters import Filters
from .sorting import SortedSpool
from .walk import Walk, WalkBatch

E = TypeVar("E", bound=Entry)
E_co = TypeVar("E_co", bound=Entry, covariant=True)
S = TypeVar("S", bound=Entry)
T = TypeVar("T", bound=Entry)

_PAGE_SIZE: Final = 1000
"""Keys of a page: the maximum of one request to S3 (API Reference, ListObjectsV2)."""

_MAX_HELD: Final = 20_000
"""Entries of an unordered listing that are held before they are written to a temporary file."""

_BATCHES_AHEAD: Final = 2
"""Batches of one side that are read before the other side needs them."""


class Side(Protocol[E_co]):
    """One side of a sync."""

    def batches(self) -> AsyncGenerator[Sequence[E_co], None]:
        """Iterate over the entries, in batches."""
        ...


class DirectorySide:
    """The files below a directory.

    Args:
        walk: Walks the directory.
        report: Called with every batch of the walk, for its problems.
    """

    def __init__(self, walk: Walk, report: Callable[[WalkBatch], None]) -> None:
        self._walk = walk
        self._report = report

    async def batches(self) -> AsyncGenerator[Sequence[FileEntry], None]:
        """Iterate over the files."""
        try:
            while (batch := await in_thread(self._walk.next)) is not None:
                self._report(batch)
                if batch.entries:
                    yield batch.entries
        finally:
            await in_thread(self._walk.close)


class NothingToCompare(Generic[E]):
    """A target directory that does not exist yet, or a bucket that a sync need not list."""

    async def batches(self) -> AsyncGenerator[Sequence[E], None]:
        """Iterate over no entries."""
        return
        yield


class BucketSide:
    """The objects of a bucket whose keys start with a prefix.

    A listing that is not in key order is sorted first. Its entries are held in memory up to a limit, then in
    temporary files.

    Args:
        bucket: The bucket.
        prefix: The prefix.
        filters: Selects the objects by their keys without the prefix.
        details: Whether to head the objects whose metadata the listing lacks.
        skip: Called with the key of a folder marker, which is skipped. None: markers are objects like
            any other.
    """

    def __init__(
        self,
        bucket: Bucket,
        prefix: str,
        filters: Filters,
        *,
        details: bool,
        skip: Callable[[str], None] | None,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._filters = filters
        self._details = details
        self._skip = skip

    async def batches(self) -> AsyncGenerator[Sequence[ObjectEntry], None]:
        """Iterate over the objects."""
        listing = self._bucket.list(
            prefix=self._prefix, page_size=_PAGE_SIZE, details=self._details
        )
        pages = cast("AsyncGenerator[Sequence[ObjectInfo], None]", listing.pages())
        unsorted = _Unsorted(self._prefix)
        try:
            async with aclosing(pages):
                async for page in pages:
                    entries = self._entries_of(page)
                    if listing.ordered:
                        if entries:
                            yield entries
                    elif unsorted.add(entries):
                        await in_thread(unsorted.flush)
            batches = await in_thread(unsorted.batches)
            while (batch := await in_thread(next, batches, None)) is not None:
                yield batch
        finally:
            await in_thread(unsorted.close)

    def _entries_of(self, page: Sequence[ObjectInfo]) -> list[ObjectEntry]:
        length, skip, filters = len(self._prefix), self._skip, self._filters
        entries: list[ObjectEntry] = []
        for info in page:
            key = info.key
            if skip is not None and key[-1] == "/":
                if len(key) > length:  # not the folder of the prefix itself
                    skip(key[length:])
            elif len(key) > length and filters.selects(key[length:]):
                entries.append(object_entry(info, length))
        return entries


class _Unsorted:
    """The entries of an unordered listing. It sorts them, and drops repeated keys."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held: list[ObjectEntry] = []
        self._spool = SortedSpool()

    def add(self, entries: Sequence[ObjectEntry]) -> bool:
        """Add entries. Return whether `flush` should be called, in a thread."""
        self._held += entries
        return len(self._held) > _MAX_HELD

    def flush(self) -> None:
        """Write the entries that are held to a temporary file."""
        self._spool.add(map(_encode, self._held))
        self._held.clear()
        self._spool.flush()

    def batches(self) -> Iterator[Sequence[ObjectEntry]]:
        """Iterate over the entries in order."""
        entries: Iterator[ObjectEntry]
        if self._spool.has_files:
            self._spool.add(map(_encode, self._held))
            self._held.clear()
            entries = (_decode(record, self._prefix) for record in self._spool.records())
        else:
            self._held.sort(key=_key_of)
            entries = iter(self._held)
        distinct = (next(group) for _, group in groupby(entries, _key_of))
        return iter(lambda: list(islice(distinct, _PAGE_SIZE)), [])

    def close(self) -> None:
        """Remove the temporary files."""
        self._spool.close()


_key_of: Final = attrgetter("key")


def _encode(entry: ObjectEntry) -> bytes:
    """Return a record that sorts by its key."""
    rest = [entry.size, entry.modified_ns, entry.etag, entry.mtime_ns, dict(entry.checksums)]
    return f"{entry.key}\0{json.dumps([*rest, entry.backend])}".encode()


def _decode(record: bytes, prefix: str) -> ObjectEntry:
    key, _, rest = record.decode().partition("\0")
    size, modified_ns, etag, mtime_ns, checksums, backend = json.loads(rest)
    return ObjectEntry(key, size, modified_ns, etag, mtime_ns, checksums, backend, prefix + key)


# -- both sides ------------------------------------------------------------------------------------------


class Feed(Generic[E]):
    """A side that is read ahead by a task of its own, so that both sides are read concurrently."""

    def __init__(self, side: Side[E]) -> None:
        self._side = side
        self._queue: asyncio.Queue[Sequence[E] | None] = asyncio.Queue(_BATCHES_AHEAD)
        self.entries: Sequence[E] = ()
        self.ended = False

    async def run(self) -> None:
        """Read the side to its end."""
        async with aclosing(self._side.batches()) as batches:
            async for batch in batches:
                await self._queue.put(batch)
        await self._queue.put(None)

    async def fill(self) -> None:
        """Wait for entries, unless there are some, or the side has ended."""
        if self.entries or self.ended:
            return
        batch = await self._queue.get()
        if batch is None:
            self.ended = True
        else:
            self.entries = batch


async def next_pairs(
    source: Feed[S], target: Feed[T]
) -> Sequence[tuple[S | None, T | None]] | None:
    """Return the next entries of both sides in key order, paired by their keys. None at the end."""
    # 1. Wait until both sides have entries, or have ended.
    await source.fill()
    await target.fill()
    mine, theirs = source.entries, target.entries
    if not mine:
        target.entries = ()
        return [(None, entry) for entry in theirs] if theirs else None
    if not theirs:
        source.entries = ()
        return [(entry, None) for entry in mine]
    # 2. Merge up to the end of one batch: the other side's further entries may still get a partner.
    pairs: list[tuple[S | None, T | None]] = []
    i = j = 0
    while i < len(mine) and j < len(theirs):
        left, right = mine[i], theirs[j]
        if left.key == right.key:
            pairs.append((left, right))
            i += 1
            j += 1
        elif left.key < right.key:
            pairs.append((left, None))
            i += 1
        else:
            pairs.append((None, right))
            j += 1
    source.entries, target.entries = mine[i:], theirs[j:]
    return pairs
