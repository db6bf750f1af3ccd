"""Listings over backends: pages become objects, merged in key order, each key where it is routed.

Backends that list in order are merged; those that do not follow one after the other. Between pages
nothing is held but the entries that arrived and were not asked for yet.
"""

from __future__ import annotations

import base64
import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import anyio

from ._concurrency import task_group
from .errors import BucketNotFoundError, ConfigError, ObjectNotFoundError
from .models import ListOptions, ObjectInfo, Prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from ._backends import Backend
    from ._concurrency import OwnedTask
    from .models import Page

Entry: TypeAlias = ObjectInfo | Prefix
E = TypeVar("E", bound=ObjectInfo | Prefix)

_HEADS = 16
"""Objects looked up at once where a listing is asked for details."""

_key = attrgetter("key")


class Sees(Protocol):
    """Tells whether a key of the listing's bucket is reached on the backend of that name."""

    def __call__(self, key: str, backend: str, /) -> bool | Awaitable[bool]:
        """Answer at once where that is possible."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is listed, and on which backends.

    Attributes:
        bucket: The bucket.
        options: Prefix, delimiter, where to start, and the size of a page.
        backends: Those that may hold a key in question.
        sees: Which keys to show of which backend; None: all of them.
        rules: What a cursor's fingerprint has to hold of the routes.
        details: Whether to complete each object by a head.
        exists: Asked whether the bucket exists at all, where all `backends` lack it.
        cursor: Where to go on.
    """

    bucket: str
    options: ListOptions
    backends: Sequence[Backend]
    sees: Sees | None
    rules: str
    details: bool
    exists: Callable[[], Awaitable[bool]]
    cursor: str | None

    @property
    def fingerprint(self) -> str:
        """A digest of everything that two listings must share to share a cursor."""
        options = self.options
        names = [backend.name for backend in self.backends]
        shadowed = self.sees is None
        facts = [self.bucket, options.prefix, options.delimiter, names, self.rules, shadowed]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Where a listing stands: behind `key`, in the page that `token` fetches of stage `stage`."""

    stage: int = 0
    key: str | None = None
    token: str | None = None


class ObjectIterator(Generic[E]):
    """The objects of a bucket: ``async for`` one by one, `pages`, or `all` at once.

    One iterator goes through its listing once. It holds no connection between pages, and may be
    dropped at any point; `cursor` is where to go on, in this process or another.
    """

    def __init__(self, query: Callable[[], Awaitable[Query]]) -> None:
        self._query = query
        self._listing: _Listing | None = None
        self._page: Sequence[Entry] = ()
        self._next = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next object, or common prefix.

        Raises:
            BucketNotFoundError: No backend has the bucket.
            TroveError: A backend failed; the listing has not ended.
        """
        while self._next >= len(self._page):
            await self._turn()
        entry = self._page[self._next]
        self._next += 1
        return cast("E", entry)  # prefixes come only where a delimiter was given, as E says

    async def pages(self) -> AsyncIterator[Sequence[E]]:
        """Go through the listing by pages of up to ``page_size`` entries."""
        while True:
            if self._next >= len(self._page):
                try:
                    await self._turn()
                except StopAsyncIteration:
                    return
            assert self._listing is not None  # noqa: S101 - there is a page of it
            page = self._page[self._next : self._next + self._listing.page_size]
            self._next += len(page)
            yield cast("Sequence[E]", page)

    async def all(self) -> Sequence[E]:
        """Return the rest of the listing at once."""
        return [entry async for page in self.pages() for entry in page]

    @property
    def cursor(self) -> str | None:
        """Where the listing stands, behind the last entry returned; None before the first.

        Passed to `Trove.list` with the same arguments it goes on from there: exactly, where every
        backend lists in order; elsewhere objects changed meanwhile may be missed or come twice.
        """
        if self._listing is None or not self._page:
            return None
        return self._listing.cursor_at(self._page, self._next)

    @property
    def ordered(self) -> bool | None:
        """Whether entries come in bytewise order of UTF-8 keys; None before the first page."""
        return None if self._listing is None else self._listing.ordered

    async def _turn(self) -> None:
        """Go to the next page with an entry, or raise StopAsyncIteration and stay at the end."""
        if self._listing is None:
            self._listing = _Listing(await self._query())
        page = await self._listing.next_page()
        if page is None:
            raise StopAsyncIteration
        self._page, self._next = page, 0


class _Listing:
    """The pages of one listing, stage by stage: first the ordered backends, merged."""

    def __init__(self, query: Query) -> None:
        self._query = query
        ordered = [one for one in query.backends if one.capabilities.ordered]
        others = [one for one in query.backends if not one.capabilities.ordered]
        self.ordered = not others
        self.page_size = query.options.limit
        self._stages = [group for group in [ordered, *([one] for one in others)] if group]
        self._fingerprint = query.fingerprint
        start = _Position(key=query.options.start_after)
        self._at = start if query.cursor is None else self._decoded(query.cursor)
        self._skip = self._at.key  # entries up to here were returned before
        self._streams: list[_Stream] | None = None
        self._prefixes: set[str] = set()  # told by unordered stages, where they may recur
        self._found_bucket = query.cursor is not None

    async def next_page(self) -> Sequence[Entry] | None:
        """Return the next entries, at least one, or None at the end."""
        while self._at.stage < len(self._stages):
            entries = await self._merged()
            if entries is None:
                self._at = _Position(stage=self._at.stage + 1)
                self._skip = None
                self._streams = None
                continue
            shown = await self._shown(entries)
            if self._query.details:
                shown = await self._completed(shown)
            if shown:
                return shown
        if not self._found_bucket and not await self._query.exists():
            raise BucketNotFoundError(
                "no backend has such a bucket", operation="list", bucket=self._query.bucket
            )
        return None

    async def _merged(self) -> Sequence[Entry] | None:
        """Return what the stage's backends have up to the first key that is not known to all."""
        streams = self._streams
        if streams is None:
            stage = self._stages[self._at.stage]
            streams = self._streams = [
                _Stream(backend, self._query, self._start(backend)) for backend in stage
            ]
        async with task_group() as group:
            for stream in streams:
                if not stream.entries and not stream.ended:
                    group.start_soon(stream.advance)
        self._found_bucket = self._found_bucket or any(stream.exists for stream in streams)
        if len(streams) == 1:
            (stream,) = streams
            self._at = replace(self._at, token=stream.token_of_page)
            return stream.taken() if stream.entries else None
        if not any(stream.entries for stream in streams):
            return None
        frontier = min(
            (stream.entries[-1].key for stream in streams if not stream.ended), default=None
        )
        together = [entry for stream in streams for entry in stream.taken(frontier)]
        together.sort(key=_key)  # runs that are sorted already: the sort merges them
        return together

    def _start(self, backend: Backend) -> ListOptions:
        options = self._query.options
        if not backend.capabilities.ordered:
            return replace(options, token=self._at.token, start_after=options.start_after)
        return replace(options, start_after=self._skip)

    async def _shown(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Leave out what another backend answers for, what was told before, and repetitions."""
        entries = self._behind(entries)
        sees = self._query.sees
        if sees is None and len(self._query.backends) == 1:
            return entries
        shown: list[Entry] = []
        for entry in entries:
            if isinstance(entry, Prefix):
                if entry.prefix not in self._prefixes:
                    self._prefixes.add(entry.prefix)
                    shown.append(entry)
                continue
            seen = True if sees is None else sees(entry.key, entry.backend)
            if seen if isinstance(seen, bool) else await seen:
                shown.append(entry)
        if self.ordered:
            self._prefixes = {shown[-1].key} if shown else self._prefixes
        return shown

    def _behind(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        skip = self._skip
        if skip is None:
            return entries
        if self._stages[self._at.stage][0].capabilities.ordered:
            first = bisect_right(entries, skip, key=_key)
            if first < len(entries):
                self._skip = None
            return entries[first:]
        # The page that the cursor stood in, fetched anew: go on behind its entry, if it is there.
        self._skip = None
        at = next((at for at, entry in enumerate(entries, 1) if entry.key == skip), 0)
        return entries[at:]

    async def _completed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        by_name = {backend.name: backend for backend in self._query.backends}
        completed: list[Entry | None] = list(entries)
        limiter = anyio.CapacityLimiter(_HEADS)

        async def complete(at: int, info: ObjectInfo) -> None:
            async with limiter:
                try:
                    found = await by_name[info.backend].driver.head(info.bucket, info.key)
                except ObjectNotFoundError:
                    completed[at] = None  # it went after it was listed
                else:
                    completed[at] = found.located(backend=info.backend)

        async with task_group() as group:
            for at, entry in enumerate(entries):
                if isinstance(entry, ObjectInfo) and not entry.complete:
                    group.start_soon(complete, at, entry)
        return [entry for entry in completed if entry is not None]

    # -- cursors -----------------------------------------------------------------------------------

    def cursor_at(self, page: Sequence[Entry], taken: int) -> str | None:
        """Return the cursor behind the first `taken` entries of the page returned last."""
        if not taken:
            return None
        facts = [self._fingerprint, self._at.stage, page[taken - 1].key, self._at.token]
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")

    def _decoded(self, cursor: str) -> _Position:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            fingerprint, stage, key, token = json.loads(base64.urlsafe_b64decode(padded))
        except ValueError as error:
            raise ConfigError("this is no cursor of a listing") from error
        if fingerprint != self._fingerprint:
            raise ConfigError(
                "this cursor belongs to another listing: bucket, prefix, delimiter, backends and"
                " routes must be those that it came from"
            )
        return _Position(stage=stage, key=key, token=token)


class _Stream:
    """One backend's pages; the next one is fetched ahead once the first was consumed."""

    def __init__(self, backend: Backend, query: Query, options: ListOptions) -> None:
        self._backend = backend
        self._bucket = query.bucket
        self._options: ListOptions | None = options
        self._ahead: OwnedTask[Page] | None = None
        self._pages = 0
        self.token_of_page: str | None = None
        self.entries: Sequence[Entry] = ()
        self.exists = False

    @property
    def ended(self) -> bool:
        """Whether nothing comes after `entries`."""
        return self._options is None

    async def advance(self) -> None:
        """Fetch pages until there are entries, or the end."""
        while not self.entries and self._options is not None:
            await self._fetch(self._options)

    async def _fetch(self, options: ListOptions) -> None:
        self.token_of_page = options.token
        ahead, self._ahead = self._ahead, None
        try:
            if ahead is not None:
                page = await ahead.result()
            else:
                page = await self._backend.driver.list_page(self._bucket, options)
        except BucketNotFoundError:
            self._options = None
            return
        self.exists = True
        self._pages += 1
        name = self._backend.name
        self.entries = [
            entry.located(backend=name)
            if isinstance(entry, ObjectInfo)
            else Prefix(bucket=entry.bucket, prefix=entry.prefix, backend=name)
            for entry in page.entries
        ]
        self._options = None if page.token is None else replace(options, token=page.token)
        if self._pages > 1 and self._options is not None:
            self._ahead = self._backend.tasks.start(
                self._backend.driver.list_page(self._bucket, self._options)
            )

    def taken(self, frontier: str | None = None) -> Sequence[Entry]:
        """Take the entries up to and with the key `frontier`; None: all."""
        if frontier is None:
            taken, self.entries = self.entries, ()
            return taken
        at = bisect_right(self.entries, frontier, key=_key)
        taken, self.entries = self.entries[:at], self.entries[at:]
        return taken
