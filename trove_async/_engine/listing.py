"""Listings over backends: pages become objects, merged in key order, each key where it is routed.

Backends that list in order are merged; those that do not follow one after the other. Between pages
nothing is held but the entries that arrived and were not asked for yet. Whatever fails or is
cancelled here loses none of them: the next call goes on where the one before stood.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar, cast

from trove_async._concurrency import for_each, task_group
from trove_async.errors import BucketNotFoundError, ObjectNotFoundError
from trove_async.models import Listed, ObjectInfo, Prefix, VersionInfo
from trove_async.options import ListOptions

from .backends import Backend
from .cursors import Facts, Position, decode, encode
from .page_stream import PageStream, RequestPage, key_of, request_objects

E = TypeVar("E", bound=Listed)

_LOOKUPS = 16
"""Requests for single entries (details, prefixes) and answers of async routes waited for at once."""

_DETAILED = 4 * _LOOKUPS
"""Objects completed before the first of them is handed out."""


class IsVisible(Protocol):
    """Tells whether a key of the listing's bucket is reached on the backend of that name."""

    def __call__(self, key: str, backend: str, /) -> bool | Awaitable[bool]:
        """Response at once where that is possible."""
        ...


class Run(Protocol):
    """Does a piece of work as one operation of the store's: usable, told, its errors located."""

    def __call__(self, work: Callable[[], Awaitable[bool]], /) -> Awaitable[bool]:
        """Return what `work` returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is listed, and on which backends.

    Attributes:
        bucket: The bucket.
        options: Prefix, delimiter, where to start, and the size of a page.
        backends: Those that may hold a key in question.
        is_visible: Which keys to show of which backend; None: all of them.
        rules: What a cursor's fingerprint has to hold of the routes.
        details: Whether to complete each object by a head.
        exists: Asked whether the bucket exists at all, where all `backends` lack it.
        cursor: Where to go on.
        ask: For pages of what.
    """

    bucket: str
    options: ListOptions
    backends: Sequence[Backend]
    is_visible: IsVisible | None
    rules: str
    details: bool
    exists: Callable[[], Awaitable[bool]]
    cursor: str | None
    request_page: RequestPage = request_objects

    @property
    def repeats(self) -> bool:
        """Whether one key may come from several backends."""
        return self.is_visible is None and len(self.backends) > 1

    def position(self) -> Position:
        """Return where the listing starts.

        Raises:
            CursorError: The cursor is none, or belongs to another listing.
        """
        # No key holds a NUL, so what follows the first one in `start_after` decides nothing.
        start_after = (self.options.start_after or "").partition("\0")[0]
        if self.cursor is None:
            return Position(start_after=start_after, key=start_after, limit=self.options.limit)
        return decode(self.cursor, self.facts)

    @property
    def facts(self) -> Facts:
        """Everything that two listings must share to share a cursor."""
        options = self.options
        names = [backend.name for backend in self.backends]
        ordered = [backend.capabilities.ordered for backend in self.backends]
        shadowed = self.is_visible is None
        return (
            self.bucket,
            options.prefix,
            options.delimiter,
            names,
            ordered,
            self.rules,
            shadowed,
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries that came together, and what a cursor inside them needs.

    Attributes:
        entries: At least one.
        before: The last key that was shown before them.
        at: The page that they are from, where the backend lists without order.
    """

    entries: Sequence[Listed]
    before: str
    at: Position


class _Entries(Generic[E]):
    """The entries of one listing, in the order in which they come.

    One iterator goes through its listing once. It holds no connection between pages, and may be
    dropped at any point. After an error or a cancel nothing is lost: ask it again, and it goes on
    behind the last entry that it returned.
    """

    def __init__(self, query: Callable[[], Awaitable[Query]], run: Run, *, page_size: int) -> None:
        self._query = query
        self._run = run
        self._page_size = page_size
        self._listing: _Listing | None = None
        self._arrived: deque[_Batch] = deque()
        self._entries: Sequence[E] = ()  # of the first of them, of which `_taken` were returned
        self._taken = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next entry.

        Raises:
            BucketNotFoundError: No backend has the bucket.
            TroveError: A backend failed; the listing has not ended.
        """
        while self._taken == len(self._entries) and not self._turn():
            if self._ended:
                raise StopAsyncIteration
            await self._fetch()
        entry = self._entries[self._taken]
        self._taken += 1
        return entry

    async def pages(self) -> AsyncIterator[Sequence[E]]:
        """Go through the listing by pages of ``page_size`` entries; only the last may be smaller."""
        while page := await self._next(self._page_size):
            yield page

    async def all(self) -> Sequence[E]:
        """Return the rest of the listing at once."""
        return await self._next(None)

    @property
    def ordered(self) -> bool | None:
        """Whether entries come in bytewise order of UTF-8 keys; None before the first page."""
        return None if self._listing is None else self._listing.ordered

    async def _next(self, count: int | None) -> Sequence[E]:
        # Nothing counts as returned before all of it is there.
        while not self._ended and (count is None or self._waiting < count):
            await self._fetch()
        taken: list[E] = []
        while count is None or len(taken) < count:
            left = None if count is None else self._taken + count - len(taken)
            piece = self._entries[self._taken : left]
            self._taken += len(piece)
            taken += piece
            if not piece and not self._turn():
                break
        return taken

    @property
    def _waiting(self) -> int:
        """How many entries have arrived, and were not returned."""
        return sum(len(batch.entries) for batch in self._arrived) - self._taken

    def _turn(self) -> bool:
        """Go on to the next batch, the first one's entries being returned, if it has arrived."""
        if self._entries:
            if len(self._arrived) == 1:
                return False
            self._arrived.popleft()
        elif not self._arrived:
            return False
        # Prefixes come only where a delimiter was given, as E says.
        self._entries, self._taken = cast("Sequence[E]", self._arrived[0].entries), 0
        return True

    async def _fetch(self) -> None:
        self._ended = not await self._run(self._fetched)

    async def _fetched(self) -> bool:
        """Have the next entries arrive; False at the end."""
        if self._listing is None:
            self._listing = _Listing(await self._query())
        batch = await self._listing.next()
        if batch is None:
            return False
        self._arrived.append(batch)
        return True


class ObjectIterator(_Entries[E]):
    """The objects of a bucket: ``async for`` one by one, `pages`, or `all` at once.

    One iterator goes through its listing once. It holds no connection between pages, and may be
    dropped at any point; `cursor` is where to go on, in this process or another. After an error or
    a cancel nothing is lost: ask it again, and it goes on behind the last entry that it returned.
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
        self._given_cursor = cursor

    @property
    def cursor(self) -> str | None:
        """Where the listing stands: behind the last entry returned.

        Passed to `Trove.list` with the same arguments, but for ``start_after``, which it holds, it
        goes on from there: exactly, where every backend lists in order; elsewhere objects changed
        meanwhile may be missed or come twice.

        None once the listing has ended: after the last page that is smaller than ``page_size``,
        `all`, or the end of ``async for``. Before the first entry it is the cursor that
        `Trove.list` was given, else None.
        """
        if self._ended and not self._waiting:
            return None
        if self._listing is None or not self._taken:
            return self._given_cursor
        return self._listing.cursor(self._arrived[0], self._taken)


class VersionIterator(_Entries[VersionInfo]):
    """The versions of a bucket's objects: ``async for`` one by one, `pages`, or `all` at once."""


class _Listing:
    """The batches of one listing, stage by stage: first the ordered backends, merged."""

    def __init__(self, query: Query) -> None:
        self._query = query
        ordered = [one for one in query.backends if one.capabilities.ordered]
        others = [one for one in query.backends if not one.capabilities.ordered]
        self.ordered = not others
        self._stages = [group for group in [ordered, *([one] for one in others)] if group]
        self._ranks = {one.name: rank for rank, one in enumerate(query.backends)}
        self._at = query.position()
        # The entries up to here were returned before; None: none of this stage were, or all such
        # have been left out by now.
        self._behind: Position | None = self._at
        self._before = self._at.key if self._at.rank is None else self._at.before or ""
        self._streams: list[PageStream] | None = None
        self._raw: Sequence[Listed] = ()  # arrived, and not judged yet
        self._told: set[str] = set()  # prefixes that a later stage, or another backend, may repeat
        self._found_bucket = False
        self._inside: str | None = None  # the bucket that a missing one would be kept in

    async def next(self) -> _Batch | None:
        """Return the next entries, or None at the end."""
        while self._at.stage < len(self._stages):
            if not self._raw:
                merged = await self._merged()
                if merged is None:
                    self._next_stage()
                    continue
                self._raw = self._fresh(merged)
            piece = self._raw[:_DETAILED] if self._query.details else self._raw
            shown = await self._shown(piece)
            if self._query.details:
                shown = await self._completed(shown)
            # From here on nothing is awaited: what was cancelled or failed above is done again.
            self._raw = self._raw[len(piece) :]
            self._tell(shown)
            if shown:
                batch = _Batch(shown, self._before, self._at)
                self._before = shown[-1].key
                return batch
        if not self._found_bucket and not await self._query.exists():
            error = BucketNotFoundError(
                "no backend has such a bucket: create_bucket makes it",
                operation="list",
                bucket=self._query.bucket,
            )
            error.inside = self._inside
            raise error
        return None

    # -- what the backends have ------------------------------------------------------------------

    async def _merged(self) -> Sequence[Listed] | None:
        """Return what the stage's backends have up to the first key that is not known to all."""
        if self._streams is None:
            stage = self._stages[self._at.stage]
            self._streams = [
                PageStream(
                    one,
                    self._query.bucket,
                    self._start(one),
                    self._query.options.limit,
                    self._query.request_page,
                )
                for one in stage
            ]
        streams = self._streams
        async with task_group() as group:
            for stream in streams:
                if not stream.entries and not stream.ended:
                    group.start_soon(stream.advance)
        self._found_bucket = self._found_bucket or any(stream.exists for stream in streams)
        for stream in streams:
            if self._inside is None and stream.missing is not None:
                self._inside = stream.missing.inside
        if not any(stream.entries for stream in streams):
            return None
        if len(streams) == 1:
            (stream,) = streams
            if not stream.ordered:
                self._at = replace(self._at, token=stream.token, limit=stream.limit)
            return stream.take()
        frontier = min(
            (stream.entries[-1].key for stream in streams if not stream.ended), default=None
        )
        together = [entry for stream in streams for entry in stream.take(frontier)]
        together.sort(key=key_of)  # runs that are sorted already: the sort merges them
        return together

    def _start(self, backend: Backend) -> ListOptions:
        options, at = self._query.options, self._at
        if backend.capabilities.ordered:
            start_after = at.start_of(self._ranks[backend.name])
            return replace(options, start_after=start_after or None)
        return replace(options, start_after=at.start_after or None, token=at.token, limit=at.limit)

    def _next_stage(self) -> None:
        self._at = self._at.next_stage(self._query.options.limit)
        self._behind = None
        self._streams = None

    def _fresh(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        """Leave out what is not behind where the listing starts: common prefixes may begin it."""
        behind = self._behind
        if self._stages[self._at.stage][0].capabilities.ordered:
            if behind is None:
                return entries
            fresh = [one for one in entries if behind.precedes(one, self._ranks[one.backend])]
            if fresh:
                self._behind = None
            return fresh
        if behind is not None and behind.token_of_entry:
            # The page that the cursor stood in, fetched anew: on behind its entry, if that is there.
            first = next((at for at, one in enumerate(entries, 1) if one.key == behind.key), 0)
            entries = entries[first:]
        self._behind = None
        return [one for one in entries if one.key > self._at.start_after]

    # -- what of it is shown ---------------------------------------------------------------------

    async def _shown(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        """Leave out what another backend answers for, and prefixes that were told before."""
        if len(self._query.backends) == 1:
            return entries
        shows = await self._seen(entries)
        told = set(self._told)
        for at, entry in enumerate(entries):
            if isinstance(entry, Prefix):
                shows[at] = entry.prefix not in told
                told.add(entry.prefix)
        await self._leave_out_forgotten(entries, shows)
        return [entry for entry, shown in zip(entries, shows, strict=True) if shown]

    async def _seen(self, entries: Sequence[Listed]) -> list[bool]:
        shows = [True] * len(entries)
        is_visible = self._query.is_visible
        if is_visible is None:
            return shows
        remaining = iter(enumerate(entries))

        async def ask(item: tuple[int, Listed]) -> None:
            at, entry = item
            if not isinstance(entry, Prefix):
                seen = is_visible(entry.key, entry.backend)
                shows[at] = seen if isinstance(seen, bool) else await seen

        for at, entry in remaining:
            if not isinstance(entry, Prefix):
                seen = is_visible(entry.key, entry.backend)
                if isinstance(seen, bool):
                    shows[at] = seen
                    continue
                # Somebody has to be waited for, so from here on for several at once.
                shows[at] = await seen
                await for_each(remaining, ask, limit=_LOOKUPS)
        return shows

    async def _leave_out_forgotten(self, entries: Sequence[Listed], shows: list[bool]) -> None:
        """Leave out the prefixes that were told before the cursor, in a stage before this one."""
        if self._query.cursor is None or not self._at.stage:
            return
        earlier = [one for stage in self._stages[: self._at.stage] for one in stage]

        async def ask(item: tuple[int, str]) -> None:
            at, prefix = item
            options = ListOptions(prefix=prefix, limit=1)
            for backend in earlier:
                try:
                    page = await backend.driver.list_page(self._query.bucket, options)
                except BucketNotFoundError:
                    continue
                if page.entries:
                    shows[at] = False
                    return

        doubtful = [
            (at, entry.prefix)
            for at, entry in enumerate(entries)
            if isinstance(entry, Prefix) and shows[at]
        ]
        await for_each(doubtful, ask, limit=_LOOKUPS)

    def _tell(self, shown: Sequence[Listed]) -> None:
        prefixes = [entry.prefix for entry in shown if isinstance(entry, Prefix)]
        if self.ordered:  # repetitions are neighbours
            self._told = set(prefixes[-1:]) or self._told
        elif len(self._stages) > 1:
            self._told.update(prefixes)

    async def _completed(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        by_name = {backend.name: backend for backend in self._query.backends}
        completed: list[Listed | None] = list(entries)

        async def complete(item: tuple[int, ObjectInfo]) -> None:
            at, info = item
            try:
                found = await by_name[info.backend].driver.head(info.bucket, info.key)
            except ObjectNotFoundError:
                completed[at] = None  # it went after it was listed
            else:
                completed[at] = found.located(backend=info.backend)

        incomplete = [
            (at, entry)
            for at, entry in enumerate(entries)
            if isinstance(entry, ObjectInfo) and not entry.complete
        ]
        await for_each(incomplete, complete, limit=_LOOKUPS)
        return [entry for entry in completed if entry is not None]

    # -- cursors ---------------------------------------------------------------------------------

    def cursor(self, batch: _Batch, taken: int) -> str:
        """Return the cursor behind the first `taken` entries of the batch, one or more."""
        last = batch.entries[taken - 1]
        at = replace(batch.at, key=last.key, rank=None, before=None)
        if self._query.repeats and isinstance(last, ObjectInfo):
            others = (one.key for one in reversed(batch.entries[:taken]) if one.key != last.key)
            at = replace(at, rank=self._ranks[last.backend], before=next(others, batch.before))
        return encode(at, self._query.facts)
