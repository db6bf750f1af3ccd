"""The iterators over the entries of listings, which arrive in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, Self, TypeVar, cast

from trove_async.models import VersionInfo

from .listing import Batch, Listing, Query

E = TypeVar("E")


class Run(Protocol):
    """Runs work as one operation of the store. See `Runtime.run`."""

    def __call__(self, work: Callable[[], Awaitable[bool]], /) -> Awaitable[bool]:
        """Return what `work` returns."""
        ...


class Entries(Generic[E]):
    """An iterator over the entries of one listing.

    It can be iterated over once, and dropped at any point. After an error or a cancel, the next call
    resumes after the last entry returned.

    Attributes:
        page_size: The number of entries of a page.
    """

    def __init__(self, query: Callable[[], Awaitable[Query]], run: Run, *, page_size: int) -> None:
        self._query = query
        self._run = run
        self.page_size = page_size
        self._listing: Listing | None = None
        self._batches: deque[Batch[E]] = deque()
        self._entries: Sequence[E] = ()  # of the first batch
        self._returned_count = 0  # of these entries
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next entry.

        Raises:
            BucketNotFoundError: No backend has the bucket.
            TroveError: A backend failed. The listing has not ended and can be resumed.
        """
        # `_next_nowait` inline: a second call for each entry takes as long as everything else here.
        while (position := self._returned_count) == len(self._entries):
            if self._next_batch():
                continue
            if self._ended:
                raise StopAsyncIteration
            await self._fetch()
        self._returned_count = position + 1
        return self._entries[position]

    def _next_nowait(self) -> E | None:
        """Return the next entry if it has arrived, else None."""
        if self._returned_count == len(self._entries) and not self._next_batch():
            return None
        entry = self._entries[self._returned_count]
        self._returned_count += 1
        return entry

    async def _load(self, count: int | None) -> None:
        """Wait until `count` more entries have arrived, or None: all. Fewer if the listing ends. Return none."""
        while not self._ended and (count is None or self._buffered_count < count):
            await self._fetch()

    def _take_nowait(self, count: int | None) -> Sequence[E]:
        """Return the next `count` entries that have arrived, or None: all of them."""
        taken: list[E] = []
        batches, position = self._batches.copy(), self._returned_count
        while batches:
            entries = batches[0].entries
            end = len(entries) if count is None else position + count - len(taken)
            taken += entries[position:end]
            position = min(end, len(entries))
            if len(taken) == count or len(batches) == 1:
                break  # the cursor needs the last batch
            batches.popleft()
            position = 0
        self._set_position(batches, position)
        return taken

    async def pages(self) -> AsyncIterator[Sequence[E]]:
        """Iterate over pages of ``page_size`` entries. Only the last page may be smaller."""
        while page := await self._take(self.page_size):
            yield page

    async def all(self) -> Sequence[E]:
        """Return all remaining entries."""
        return await self._take(None)

    @property
    def ordered(self) -> bool | None:
        """Whether entries are in bytewise order of UTF-8 keys. None before the first page."""
        return None if self._listing is None else self._listing.ordered

    async def _take(self, count: int | None) -> Sequence[E]:
        # Load everything first: a failure on the way must not lose entries.
        await self._load(count)
        return self._take_nowait(count)

    @property
    def _buffered_count(self) -> int:
        """The number of entries that have arrived and were not returned."""
        return sum(len(batch.entries) for batch in self._batches) - self._returned_count

    def _next_batch(self) -> bool:
        """Drop the first batch, which was returned, and go to the next. Return False if there is none."""
        batches = self._batches
        if self._entries:
            if len(batches) == 1:
                return False
            batches = batches.copy()
            batches.popleft()
        elif not batches:
            return False
        self._set_position(batches, 0)
        return True

    def _set_position(self, batches: deque[Batch[E]], returned_count: int) -> None:
        # All at once: a signal handler may raise in the thread that takes entries, but not within this line.
        entries = batches[0].entries if batches else ()
        self._batches, self._entries, self._returned_count = batches, entries, returned_count

    async def _fetch(self) -> None:
        self._ended = not await self._run(self._load_batch)

    async def _load_batch(self) -> bool:
        """Load the next batch, if its entries are not all dropped. Return False at the end."""
        if self._listing is None:
            self._listing = Listing(await self._query())
        batch = await self._listing.next()
        if batch is None:
            return False
        # E includes Prefix only if there is a delimiter, as the overloads of `Trove.list` declare.
        self._batches.append(cast("Batch[E]", batch))
        return True


class ObjectIterator(Entries[E]):
    """Iterates over the objects of a bucket: use ``async for``, `pages` or `all`.

    It can be iterated over once, and dropped at any point. Between pages it holds no connection, except
    while it prefetches a page (from the third one on). `cursor` resumes the listing in this process or
    a different one. After an error or a cancel, the next call resumes after the last entry returned.
    """

    def __init__(
        self,
        query: Callable[[], Awaitable[Query]],
        run: Run,
        *,
        page_size: int,
        cursor: str | None,
    ) -> None:
        super().__init__(query, run, page_size=page_size)
        self._initial_cursor = cursor

    @property
    def cursor(self) -> str | None:
        """The position after the last entry returned.

        To resume the listing, pass the cursor to `Trove.list` with the same arguments, but without
        ``start_after``: the cursor includes that. If every backend is ordered, the listing resumes
        exactly. Otherwise objects that changed in between may be missed or repeated.

        It is None once the listing has ended: after a last page smaller than ``page_size``, after
        `all`, or after the end of ``async for``. Before the first entry it is the cursor passed to
        `Trove.list`, or None.
        """
        if self._ended and not self._buffered_count:
            return None
        if self._listing is None or not self._returned_count:
            return self._initial_cursor
        return self._listing.cursor(self._batches[0], self._returned_count)


class VersionIterator(Entries[VersionInfo]):
    """Iterates over the versions of a bucket's objects: use ``async for``, `pages` or `all`."""
