"""Lists the blocks in the cache of `ReadThrough`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from trove_async._concurrency import OwnedTask, Turns
from trove_async.driver import AsyncDriver
from trove_async.models import ObjectInfo, Prefix
from trove_async.options import ListOptions, Page

from .blocks import LISTED, SLICE, ListedBlocks
from .calls import CacheCalls

_PAGE: Final = 1000
"""Entries of one page."""

_LIST_SECONDS: Final = 30.0
"""The deadline of one page, for which no read waits."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The blocks that were listed.

    Attributes:
        owners: The blocks of each owner.
        unusable: The names, and the sizes in the cache, of other blocks of any owner. A crash has interrupted
            their writes, or the same owner has the block twice.
    """

    owners: dict[str, ListedBlocks] = field(default_factory=dict)
    unusable: list[tuple[str, int]] = field(default_factory=list)

    def add(self, entries: Sequence[ObjectInfo | Prefix]) -> None:
        """Add the entries that are blocks."""
        owners = self.owners
        for entry in entries:
            name = entry.key
            match = LISTED(name)
            if match is None or not isinstance(entry, ObjectInfo):
                continue
            owner, object_id, ident, size = match.groups()
            blocks = owners.get(owner)
            if blocks is None:
                blocks = owners[owner] = ListedBlocks()
            is_whole = entry.size == int(size, 16)
            if not (is_whole and blocks.add(ident, name, object_id, entry.size)):
                self.unusable.append((name, entry.size))


async def list_blocks(cache: AsyncDriver, bucket: str, prefix: str, calls: CacheCalls) -> Listing:
    """Return all blocks with a prefix, without blocking the event loop for more than 2 ms."""
    listing, turns = Listing(), Turns()

    def request(token: str | None) -> OwnedTask[Page]:
        options = ListOptions(prefix=prefix, limit=_PAGE, token=token)
        return calls.start(cache.list_page(bucket, options), _LIST_SECONDS)

    requested: OwnedTask[Page] | None = request(None)
    while requested is not None:
        page = await requested.result()
        # The next page is read in a thread meanwhile.
        requested = None if page.token is None else request(page.token)
        for start in range(0, len(page.entries), SLICE):
            listing.add(page.entries[start : start + SLICE])
            if turns.is_due:
                await turns.give()
    return listing
