"""A job over keys in memory."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trove_async.jobs._job import WalkPage
from trove_async.jobs._report import UNCHANGED, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

    from trove_async.jobs._ranges import KeyRange


@dataclass(frozen=True)
class Item:
    key: str


class FakeJob:
    """A job that processes the keys for which `needs_work` holds.

    Attributes:
        processed: How many times each key was processed to its end.
        in_flight: The number of keys being processed; `max_in_flight` is its maximum.
        work: Called for each key, before it counts as processed.
        pages: The number of pages listed.
    """

    name = "fake"
    bucket = "bucket"
    dry_run = False

    def __init__(
        self,
        keys: Iterable[str],
        *,
        needs_work: Callable[[str], bool] = lambda key: True,  # noqa: ARG005
        ordered: bool = True,
        page_size: int = 10,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        self.keys = sorted(keys)
        self.needs_work = needs_work
        self.ordered = ordered
        self.page_size = page_size
        self.arguments: Mapping[str, object] = arguments or {"which": "fake"}
        self.processed: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.in_flight = self.max_in_flight = self.pages = self.walks = 0
        self.work: Callable[[str], Awaitable[object]] = lambda key: asyncio.sleep(0)  # noqa: ARG005
        self.before_page: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    async def check(self) -> None:
        pass

    async def walk(self, key_range: KeyRange) -> AsyncGenerator[WalkPage[Item], None]:
        self.walks += 1
        if self.ordered:
            start = bisect_right(self.keys, key_range.start_after)
        else:
            start = int(key_range.cursor or 0)
        while start < len(self.keys):
            await self.before_page()
            self.pages += 1
            end = start + self.page_size
            items = [Item(key) for key in self.keys[start:end]]
            cursor = None if self.ordered or end >= len(self.keys) else str(end)
            yield WalkPage(items, self.ordered, cursor)
            start = end

    async def first_after(self, key: str) -> str | None:
        await asyncio.sleep(0)
        index = bisect_right(self.keys, key)
        return self.keys[index] if index < len(self.keys) else None

    def peek(self, item: Item) -> Outcome | None:
        self.seen[item.key] += 1
        return None if self.needs_work(item.key) else UNCHANGED

    def weight(self, item: Item) -> int:  # noqa: ARG002
        return 100

    async def process(self, item: Item) -> Outcome:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await self.work(item.key)
        finally:
            self.in_flight -= 1
        self.processed[item.key] += 1
        return Outcome(result="changed", bytes=100)
