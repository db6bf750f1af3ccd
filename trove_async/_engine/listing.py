"""Merges the listings of several backends. By default each key is from the backend it is routed to.

Ordered backends are merged in key order. Unordered ones follow, one after another. Between pages a
listing holds the entries that have arrived and were not returned yet, and it may be prefetching one page
per backend. An error or a cancel loses no entry: the next call resumes at the same position.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Generic, TypeVar

from trove_async._concurrency import for_each, task_group
from trove_async.errors import BucketNotFoundError, ObjectNotFoundError
from trove_async.models import Listed, ObjectInfo, Prefix
from trove_async.options import ListOptions
from trove_async.router import Router

from .backends import Backend
from .cursors import CursorScope, Position, decode, encode
from .decoded_objects import describe
from .first_copies import FirstCopies
from .page_stream import PageStream, RequestPage, key_of, request_objects
from .transforms import Transforms

E = TypeVar("E")

MAX_LOOKUPS = 16
"""Maximum number of concurrent lookups of single entries: heads, prefixes, and async route functions."""

_DETAILS_BATCH = 4 * MAX_LOOKUPS
"""Maximum number of entries whose details are loaded before the first of them is returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The arguments of one listing, and the backends to list.

    Attributes:
        bucket: The bucket.
        options: The prefix, delimiter, start and page size.
        backends: The backends that may have a matching key.
        router: Decides which keys to list from which backend. None: all keys of all backends.
        first_copies: Decides which of several objects of one key to list. None: `router` does.
        routes_fingerprint: The fingerprint of the routes, part of the scope of a cursor.
        details: Whether to head each object whose metadata is incomplete.
        exists: Returns whether any backend of the handle has the bucket. Called if all `backends`
            lack it.
        cursor: The position at which to resume, or None.
        transforms: The middlewares of the store, which describe transformed objects.
        request_page: Requests a page of objects or of versions.
    """

    bucket: str
    options: ListOptions
    backends: Sequence[Backend]
    router: Router | None
    routes_fingerprint: str
    details: bool
    exists: Callable[[], Awaitable[bool]]
    cursor: str | None
    transforms: Transforms
    request_page: RequestPage = request_objects
    first_copies: FirstCopies | None = None

    @property
    def may_repeat_keys(self) -> bool:
        """Whether one key may come from several backends."""
        may_show_all = self.router is None and self.first_copies is None
        return may_show_all and len(self.backends) > 1

    def position(self) -> Position:
        """Return the position at which the listing starts.

        Raises:
            CursorError: The cursor is malformed, or belongs to a different listing.
        """
        # No key contains NUL, so `start_after` matters only up to its first NUL.
        start_after = (self.options.start_after or "").partition("\0")[0]
        if self.cursor is None:
            return Position(start_after=start_after, key=start_after, limit=self.options.limit)
        return decode(self.cursor, self.cursor_scope)

    @property
    def cursor_scope(self) -> CursorScope:
        """The scope of the listing's cursors. They fit only listings of the same scope."""
        options = self.options
        names = [backend.name for backend in self.backends]
        ordered = [backend.capabilities.ordered for backend in self.backends]
        shadowed = "first" if self.first_copies is not None else self.router is None
        return (
            self.bucket,
            options.prefix,
            options.delimiter,
            names,
            ordered,
            self.routes_fingerprint,
            shadowed,
        )


@dataclass(frozen=True, slots=True)
class Batch(Generic[E]):
    """Entries that arrived together, with the state for a cursor between them.

    Attributes:
        entries: At least one entry.
        previous_key: The last key returned before these entries.
        position: The listing's position, with the token of the page if the backend is unordered.
    """

    entries: Sequence[E]
    previous_key: str
    position: Position


class Listing:
    """Produces the batches of one listing in stages: all ordered backends merged, then each unordered one."""

    def __init__(self, query: Query) -> None:
        self._query = query
        ordered = [backend for backend in query.backends if backend.capabilities.ordered]
        others = [backend for backend in query.backends if not backend.capabilities.ordered]
        self.ordered = not others
        self._stages = [group for group in [ordered, *([backend] for backend in others)] if group]
        self._ranks = {backend.name: rank for rank, backend in enumerate(query.backends)}
        self._position = query.position()
        # Entries of this stage up to this position were returned before the cursor and are skipped.
        # None: there are none left to skip.
        self._resume_after: Position | None = self._position if self._position.key else None
        self._previous_key = (
            self._position.key if self._position.rank is None else self._position.before or ""
        )
        self._streams: list[PageStream] | None = None
        self._pending: Sequence[Listed] = ()  # arrived, not filtered yet
        self._shown_prefixes: set[str] = set()  # a later stage or another backend may repeat them
        self._found_bucket = False
        self._missing: BucketNotFoundError | None = None  # of the first backend without the bucket
        self._inside: str | None = None  # the physical bucket of a missing logical one

    async def next(self) -> Batch[Listed] | None:
        """Return the next entries, or None at the end."""
        while self._position.stage < len(self._stages):
            # 1. Load the next entries of the stage, or begin the next stage.
            if not self._pending:
                merged = await self._next_merged()
                if merged is None:
                    self._begin_next_stage()
                    continue
                self._pending = self._after_start(merged)
            # 2. Filter them, and complete their details.
            piece = self._next_piece() if self._query.details else self._pending
            shown = await self._visible_entries(piece)
            if self._query.details:
                shown = await self._with_details(shown)
            # 3. Advance. No await from here on: after a cancel or an error above, the piece is
            # processed again.
            self._pending = self._pending[len(piece) :]
            self._record_prefixes(shown)
            if shown:
                batch = Batch(shown, self._previous_key, self._position)
                self._previous_key = shown[-1].key
                return batch
        # 4. At the end, raise if no backend has the bucket.
        if not self._found_bucket and not await self._query.exists():
            message = "no backend has this bucket: create it with create_bucket"
            if self._missing is not None and not self._missing.creatable:
                message = self._missing.message
            error = BucketNotFoundError(message, operation="list", bucket=self._query.bucket)
            error.inside = self._inside
            raise error
        return None

    def _next_piece(self) -> Sequence[Listed]:
        """Return the first pending entries, and all further ones of the last key."""
        pending = self._pending
        end = min(_DETAILS_BATCH, len(pending))
        while 0 < end < len(pending) and pending[end].key == pending[end - 1].key:
            end += 1
        return pending[:end]

    # -- entries of the backends ------------------------------------------------------------------

    async def _next_merged(self) -> Sequence[Listed] | None:
        """Return the stage's next entries, or None at its end."""
        # 1. Begin the stage.
        if self._streams is None:
            stage = self._stages[self._position.stage]
            self._streams = [
                PageStream(
                    backend,
                    self._query.bucket,
                    self._start_options(backend),
                    self._query.options.limit,
                    self._query.request_page,
                    public=self._query.transforms.public,
                )
                for backend in stage
            ]
        # 2. Fetch a page from every backend whose entries have all been taken.
        streams = self._streams
        async with task_group() as group:
            for stream in streams:
                if not stream.entries and not stream.ended:
                    group.start_soon(stream.advance)
        self._found_bucket = self._found_bucket or any(stream.exists for stream in streams)
        for stream in streams:
            if stream.missing is not None:
                self._missing = self._missing or stream.missing
                self._inside = self._inside or stream.missing.inside
        if not any(stream.entries for stream in streams):
            return None
        # 3. Return the entries of a single backend as they are.
        if len(streams) == 1:
            (stream,) = streams
            if not stream.ordered:
                self._position = replace(self._position, token=stream.token, limit=stream.limit)
            return stream.take()
        # 4. Merge several backends up to the frontier, the lowest last key of those that have not
        # ended. Later keys have to wait: such a backend may still list a smaller key.
        frontier = min(
            (stream.entries[-1].key for stream in streams if not stream.ended), default=None
        )
        merged = [entry for stream in streams for entry in stream.take(frontier)]
        merged.sort(key=key_of)  # timsort merges sorted runs in linear time
        return merged

    def _start_options(self, backend: Backend) -> ListOptions:
        options, position = self._query.options, self._position
        if backend.capabilities.ordered:
            start_after = position.start_of(self._ranks[backend.name])
            return replace(options, start_after=start_after or None)
        return replace(
            options,
            start_after=position.start_after or None,
            token=position.token,
            limit=position.limit,
        )

    def _begin_next_stage(self) -> None:
        self._position = self._position.next_stage(self._query.options.limit)
        self._resume_after = None
        self._streams = None

    def _after_start(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        """Drop entries that are not after the start, such as a common prefix of `start_after`."""
        resume_after = self._resume_after
        if self._stages[self._position.stage][0].capabilities.ordered:
            if resume_after is None:
                return entries
            remaining = [
                entry
                for entry in entries
                if resume_after.precedes(entry, self._ranks[entry.backend])
            ]
            if remaining:
                self._resume_after = None
            return remaining
        if resume_after is not None and resume_after.is_after_entry:
            # The cursor's page was fetched again: skip up to the cursor's entry, if it still exists.
            start = next(
                (index for index, entry in enumerate(entries, 1) if entry.key == resume_after.key),
                0,
            )
            entries = entries[start:]
        self._resume_after = None
        return [entry for entry in entries if entry.key > self._position.start_after]

    # -- filtering -----------------------------------------------------------------------------------

    async def _visible_entries(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        """Drop keys that are routed to another backend, and prefixes that were already shown."""
        if len(self._query.backends) == 1:
            return entries
        visibility = await self._visibility(entries)
        prefixes = [
            (index, entry.prefix)
            for index, entry in enumerate(entries)
            if isinstance(entry, Prefix)
        ]
        if prefixes:
            shown_prefixes = set(self._shown_prefixes)
            for index, prefix in prefixes:
                visibility[index] = prefix not in shown_prefixes
                shown_prefixes.add(prefix)
            await self._hide_earlier_prefixes(prefixes, visibility)
        return list(compress(entries, visibility))

    async def _visibility(self, entries: Sequence[Listed]) -> list[bool]:
        """Return whether each object is listed. The results for prefixes have no meaning."""
        if self._query.first_copies is not None:
            merged = {backend.name for backend in self._stages[self._position.stage]}
            are_all = len(merged) == len(self._query.backends)
            return await self._query.first_copies.visibility(
                entries, merged, are_all=are_all, limit=MAX_LOOKUPS
            )
        router = self._query.router
        if router is None:
            return [True] * len(entries)
        # Each key once, although several backends may have listed it.
        keys = list(dict.fromkeys([entry.key for entry in entries if type(entry) is not Prefix]))
        names = await router.resolve_all(self._query.bucket, keys, limit=MAX_LOOKUPS)
        homes = dict(zip(keys, names, strict=True))
        return [homes.get(entry.key) == entry.backend for entry in entries]

    async def _hide_earlier_prefixes(
        self, prefixes: Sequence[tuple[int, str]], visibility: list[bool]
    ) -> None:
        """Hide prefixes that an earlier stage has shown before the cursor."""
        if self._query.cursor is None or not self._position.stage:
            return
        earlier = [backend for stage in self._stages[: self._position.stage] for backend in stage]

        async def look_up(item: tuple[int, str]) -> None:
            index, prefix = item
            options = ListOptions(prefix=prefix, limit=1)
            for backend in earlier:
                try:
                    page = await backend.driver.list_page(self._query.bucket, options)
                except BucketNotFoundError:
                    continue
                if page.entries:
                    visibility[index] = False
                    return

        candidates = [(index, prefix) for index, prefix in prefixes if visibility[index]]
        await for_each(candidates, look_up, limit=MAX_LOOKUPS)

    def _record_prefixes(self, shown: Sequence[Listed]) -> None:
        if len(self._query.backends) == 1:
            return  # no other backend repeats them
        prefixes = [entry.prefix for entry in shown if isinstance(entry, Prefix)]
        if self.ordered:  # equal prefixes are adjacent
            self._shown_prefixes = set(prefixes[-1:]) or self._shown_prefixes
        elif len(self._stages) > 1:
            self._shown_prefixes.update(prefixes)

    async def _with_details(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        by_name = {backend.name: backend for backend in self._query.backends}
        completed: list[Listed | None] = list(entries)

        async def complete(item: tuple[int, ObjectInfo]) -> None:
            index, info = item
            backend = by_name[info.backend]
            try:
                head = await backend.driver.head(info.bucket, info.key)
                if head.records is not None:
                    head = await describe(self._query.transforms, backend, head)
            except ObjectNotFoundError:
                completed[index] = await self._moved(info)  # or deleted, after it was listed
            else:
                completed[index] = head.located(backend=info.backend)

        incomplete = [
            (index, entry)
            for index, entry in enumerate(entries)
            if isinstance(entry, ObjectInfo) and not entry.complete
        ]
        await for_each(incomplete, complete, limit=MAX_LOOKUPS)
        return [entry for entry in completed if entry is not None]

    async def _moved(self, info: ObjectInfo) -> ObjectInfo | None:
        """Return an object that is no longer where it was listed, or None."""
        first_copies = self._query.first_copies
        found = None if first_copies is None else await first_copies.find(info.key)
        if found is None:
            return None
        backend, head = found
        if head.records is not None:
            head = await describe(self._query.transforms, backend, head)
        return head.located(backend=backend.name)

    # -- cursors ---------------------------------------------------------------------------------

    def cursor(self, batch: Batch[Any], count: int) -> str:
        """Return the cursor after the first `count` entries of the batch. `count` is at least 1."""
        last_entry = batch.entries[count - 1]
        position = replace(batch.position, key=last_entry.key, rank=None, before=None)
        if self._query.may_repeat_keys and isinstance(last_entry, ObjectInfo):
            earlier_keys = (
                entry.key
                for entry in reversed(batch.entries[:count])
                if entry.key != last_entry.key
            )
            position = replace(
                position,
                rank=self._ranks[last_entry.backend],
                before=next(earlier_keys, batch.previous_key),
            )
        return encode(position, self._query.cursor_scope)
